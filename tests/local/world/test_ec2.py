from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rackctl.local.world import World
from rackctl.local.world.base import Refused
from tests.local.world.days import START, first, group_of, later, newcomer, wait

if TYPE_CHECKING:
    from collections.abc import Mapping


def _public_key() -> bytes:
    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def test_an_instance_accepts_the_key_it_was_launched_with_even_if_the_pair_is_deleted(world: World) -> None:
    pair = world.ec2.import_key_pair("mine", _public_key(), {})
    instance = world.ec2.launch({"KeyName": "mine"})
    wait(world, 60)
    del world.ec2.key_pairs["mine"]
    keys = {host.ec2_instance_id: host.authorized_key for host in world.hosts()}
    assert keys[instance.instance_id] == pair.public_key


def test_an_instance_may_be_made_to_refuse_its_key(world: World) -> None:
    world.ec2.import_key_pair("mine", _public_key(), {})
    world.set_condition("key-refused")
    instance = world.ec2.launch({"KeyName": "mine"})
    wait(world, 60)
    assert instance.key_name == "mine"
    assert {h.ec2_instance_id: h.authorized_key for h in world.hosts()}[instance.instance_id] == ""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({"KeyName": "nobody's"}, "InvalidKeyPair.NotFound"),
        ({"InstanceType": "t3.small"}, "InsufficientInstanceCapacity"),
    ],
)
def test_an_invalid_launch_is_refused(world: World, data: Mapping[str, str], code: str) -> None:
    world.set_condition("no-capacity", "t3.small")
    with pytest.raises(Refused) as refused:
        world.ec2.launch(data)
    assert refused.value.code == code


def test_a_key_pair_of_the_same_name_is_refused(world: World) -> None:
    world.ec2.import_key_pair("mine", _public_key(), {})
    with pytest.raises(Refused, match="already exists"):
        world.ec2.import_key_pair("mine", _public_key(), {})


def test_an_invalid_public_key_is_refused(world: World) -> None:
    with pytest.raises(Refused) as refused:
        world.ec2.import_key_pair("mine", b"ssh-ed25519 AAAA", {})
    assert refused.value.code == "InvalidKey.Format"


def test_a_new_version_copies_its_source_with_the_given_data_changed(world: World) -> None:
    template = world.ec2.create_template("t", {"InstanceType": "t3.small", "ImageId": "ami-1", "KeyName": "old"}, {})
    copied = world.ec2.add_version(template, {"KeyName": "new"}, source="1")
    bare = world.ec2.add_version(template, {"KeyName": "new"})
    assert copied.data == {"InstanceType": "t3.small", "ImageId": "ami-1", "KeyName": "new"}
    assert bare.data == {"KeyName": "new"}
    assert (template.default_version, template.latest_version) == (1, 3)


def test_a_terminated_instance_is_described_for_an_hour(world: World) -> None:
    id_ = first(world)
    world.autoscaling.terminate(id_, decrement=True)
    wait(world, 60)
    assert world.ec2.get(id_).state == "terminated"
    world.advance(world.now + 3600)
    with pytest.raises(Refused) as refused:
        world.ec2.get(id_)
    assert refused.value.code == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize("id_", ["", "i-xyz", "i-0a321c8", "web-1"])
def test_a_malformed_id_and_an_unknown_one_have_different_errors(world: World, id_: str) -> None:
    with pytest.raises(Refused) as refused:
        world.ec2.get(id_)
    assert refused.value.code == "InvalidInstanceID.Malformed"


def test_a_released_address_is_reused_last(world: World) -> None:
    gone = world.ec2.get(first(world))
    subnet, address = gone.subnet, gone.private_ip
    world.autoscaling.terminate(gone.instance_id, decrement=True)
    wait(world, 60)
    assert subnet.take_address() != address
    free = subnet.network.num_addresses - 5 - len(subnet.used)
    taken = [subnet.take_address() for _ in range(free)]
    assert taken[-1] == address
    with pytest.raises(Refused) as refused:
        subnet.take_address()
    assert refused.value.code == "InsufficientFreeAddressesInSubnet"


def test_the_console_output_comes_a_while_after_the_instance_runs(world: World) -> None:
    instance = world.ec2.launch({})
    wait(world, 30)
    assert (instance.state, instance.console_ready) == ("running", False)
    wait(world, 40)
    assert instance.console_ready


def test_time_runs_at_the_given_speed() -> None:
    world = World(region="eu-west-1", account_id="123456789012", now=START, speed=100, seed=7)
    world.seed("local", 3)
    world.advance(START + 0.01)
    before = set(group_of(world).members)
    world.autoscaling.terminate(first(world), decrement=False)
    registered = False
    for _ in later(world, 2, step=0.01):
        member = newcomer(world, before)
        registered = registered or bool(member and world.ecs.registration_of(member.instance_id))
    assert registered


def test_a_world_continues_after_it_was_pickled(world: World) -> None:
    before = set(group_of(world).members)
    world.autoscaling.terminate(first(world), decrement=False)
    restored: World = pickle.loads(pickle.dumps(world))
    wait(restored, 90)
    member = newcomer(restored, before)
    assert member is not None
    assert member.lifecycle_state == "InService"
    assert newcomer(world, before) is None


def test_docker_shows_the_containers_of_ecs_tasks(world: World) -> None:
    id_ = first(world)
    names = [container.name for container in world.containers(id_)]
    assert any(name.startswith("ecs-log-agent-1-log-agent-") for name in names)
    assert names[-1] == "ecs-agent"


def test_an_unknown_condition_or_incident_is_refused(world: World) -> None:
    with pytest.raises(Refused, match="no condition flood"):
        world.set_condition("flood")
    with pytest.raises(Refused, match="no incident flood"):
        world.befall("flood", first(world))
