"""Lifecycle hooks, managed draining, warm pools, and instances that are attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.local.world.base import Refused
from rackctl.local.world.draining import HOOK
from rackctl.local.world.groups import Hook
from tests.local.world.days import cluster_of, first, group_of, newcomer, registration, runs_on, wait, with_task

if TYPE_CHECKING:
    from rackctl.local.world import World

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"


# Hooks


@pytest.mark.parametrize("result", ["CONTINUE", "ABANDON"])
def test_a_terminating_hook_lets_its_instance_go_at_its_timeout(world: World, result: str) -> None:
    """LifecycleHook, HeartbeatTimeout: when it times out, Auto Scaling "performs the action … in DefaultResult"."""
    group, id_ = group_of(world), first(world)
    group.hooks["bye"] = Hook("bye", TERMINATING, 100, result)

    world.autoscaling.terminate(id_, decrement=False)
    wait(world, 98)
    assert group.members[id_].lifecycle_state == "Terminating:Wait"

    wait(world, 10)
    assert group.members[id_].lifecycle_state == "Terminating:Proceed"
    wait(world, 60)
    assert id_ not in group.members


def test_a_launching_hook_with_abandon_ends_its_instance_at_its_timeout(world: World) -> None:
    group, before = group_of(world), set(group_of(world).members)
    group.hooks["up"] = Hook("up", LAUNCHING, 30, "ABANDON")

    world.autoscaling.set_desired(group, 4)
    wait(world, 25)
    member = newcomer(world, before)
    assert member is not None
    assert member.lifecycle_state == "Pending:Wait"

    wait(world, 60)
    assert member.instance_id not in group.members or group.members[member.instance_id].is_terminating


def test_every_hook_of_a_transition_has_to_be_completed(world: World) -> None:
    """Auto Scaling's guide: "CONTINUE allows any other lifecycle hooks to complete"."""
    group, id_ = group_of(world), first(world)
    for name in ("one", "two"):
        group.hooks[name] = Hook(name, TERMINATING, 3600, "CONTINUE")
    world.autoscaling.terminate(id_, decrement=False)

    world.autoscaling.complete_hook(group, "one", id_, "CONTINUE")
    assert group.members[id_].lifecycle_state == "Terminating:Wait"

    world.autoscaling.complete_hook(group, "two", id_, "CONTINUE")
    assert group.members[id_].lifecycle_state == "Terminating:Proceed"


def test_abandon_stops_the_other_hooks_too(world: World) -> None:
    """Auto Scaling's guide: "ABANDON stops any remaining actions, such as other lifecycle hooks"."""
    group, id_ = group_of(world), first(world)
    for name in ("one", "two"):
        group.hooks[name] = Hook(name, TERMINATING, 3600, "CONTINUE")
    world.autoscaling.terminate(id_, decrement=False)

    world.autoscaling.complete_hook(group, "one", id_, "ABANDON")

    assert group.members[id_].lifecycle_state == "Terminating:Proceed"


def test_heartbeats_hold_an_instance_up_to_the_global_timeout(world: World) -> None:
    """LifecycleHook, GlobalTimeout: "172800 seconds (48 hours) or 100 times HeartbeatTimeout, whichever is smaller"."""
    group, id_ = group_of(world), first(world)
    group.hooks["bye"] = Hook("bye", TERMINATING, 30, "CONTINUE")
    world.autoscaling.terminate(id_, decrement=False)
    begun = world.now

    while group.members[id_].lifecycle_state == "Terminating:Wait":
        world.autoscaling.record_heartbeat(group, "bye", id_)
        wait(world, 20)

    assert 3000 <= world.now - begun <= 3020


def test_deleting_a_hook_completes_its_holds(world: World) -> None:
    """DeleteLifecycleHook: "outstanding lifecycle actions … completed first (ABANDON for launching …, CONTINUE …)"."""
    group, id_ = group_of(world), first(world)
    group.hooks["bye"] = Hook("bye", TERMINATING, 3600, "CONTINUE")
    world.autoscaling.terminate(id_, decrement=False)

    world.autoscaling.delete_hook(group, "bye")

    assert group.members[id_].lifecycle_state == "Terminating:Proceed"
    assert not group.hooks


# Managed draining


def test_managed_draining_holds_an_instance_until_its_tasks_are_gone(world: World) -> None:
    """ECS's guide, managed instance draining: DRAINING "until either all tasks are stopped or 48 hours has passed"."""
    world.set_condition("managed-draining")
    group, id_ = group_of(world), with_task(world, "web")
    assert [hook.name for hook in group.hooks.values()] == [HOOK]

    world.autoscaling.terminate(id_, decrement=False)
    wait(world, 2)
    assert group.members[id_].lifecycle_state == "Terminating:Wait"
    assert registration(world, id_).status == "DRAINING"
    assert runs_on(world, id_)

    wait(world, 120)
    assert id_ not in group.members
    assert world.running_tasks("local", "web") == 2


# Longer than two seconds under load: two days of the world's events.
def test_managed_draining_lets_an_instance_go_after_48_hours(world: World) -> None:
    """containers-roadmap issue 2467: "unable to be terminated for 48 hours until the global … timeout"."""
    world.set_condition("managed-draining")
    group, id_ = group_of(world), with_task(world, "web")
    definition = cluster_of(world).services["web"].definition
    world.ecs.start_task(cluster_of(world), definition, registration(world, id_), running_since=world.now)

    world.autoscaling.terminate(id_, decrement=False)
    world.advance(world.now + 172800 - 60)
    assert group.members[id_].lifecycle_state == "Terminating:Wait"

    world.advance(world.now + 120)
    assert id_ not in group.members or group.members[id_].lifecycle_state == "Terminating:Proceed"


def test_managed_draining_ends_with_its_condition(world: World) -> None:
    world.set_condition("managed-draining")
    assert cluster_of(world).capacity_providers == ["local-instances-provider"]
    world.autoscaling.terminate(first(world), decrement=False)
    wait(world, 2)

    world.clear_condition("managed-draining")

    assert not cluster_of(world).capacity_providers
    assert not group_of(world).hooks
    wait(world, 120)
    assert {m.lifecycle_state for m in group_of(world).members.values()} == {"InService"}


# Warm pools


def warm(world: World, **settings: object) -> None:
    world.warm_pools.put(group_of(world), {"MinSize": 1, "MaxGroupPreparedCapacity": 4, **settings})
    wait(world, 90)


def test_a_warm_pool_prepares_instances_that_do_not_count(world: World) -> None:
    """Auto Scaling's guide, warm pools: the size is what MaxGroupPreparedCapacity has above the desired capacity."""
    warm(world)

    group = group_of(world)
    (member,) = group.warmed.values()
    assert (member.lifecycle_state, world.ec2.instances[member.instance_id].state) == ("Warmed:Stopped", "stopped")
    assert (group.capacity, len(group.members)) == (3, 3)
    assert world.ecs.registration_of(member.instance_id) is None


def test_an_instance_of_the_warm_pool_enters_service_with_the_key_it_was_prepared_with(world: World) -> None:
    template = world.ec2.find_template(None, "local-instances")
    world.ec2.import_key_pair("old", _key(), {})
    world.ec2.import_key_pair("new", _key(), {})
    world.ec2.add_version(template, {"KeyName": "old"}, source="1")
    world.autoscaling.update(group_of(world), {"LaunchTemplate": {**_specification(world), "Version": "2"}})
    warm(world)
    (prepared,) = group_of(world).warmed
    world.ec2.add_version(template, {"KeyName": "new"}, source="2")
    world.autoscaling.update(group_of(world), {"LaunchTemplate": {**_specification(world), "Version": "3"}})

    world.autoscaling.set_desired(group_of(world), 4)
    wait(world, 90)

    member = group_of(world).members[prepared]
    assert member.lifecycle_state == "InService"
    assert world.ec2.instances[prepared].key_name == "old"
    assert registration(world, prepared).agent_connected
    assert member.launch_template is not None
    assert member.launch_template[2] == 2


def test_a_running_warm_pool_registers_unless_its_agent_waits(world: World) -> None:
    """ECS's guide: ECS_WARM_POOLS_CHECK has the agent wait until the instance is out of the warm pool."""
    warm(world, PoolState="Running")

    (member,) = group_of(world).warmed.values()
    assert member.lifecycle_state == "Warmed:Running"
    assert registration(world, member.instance_id).agent_connected


def test_an_instance_may_return_to_the_warm_pool(world: World) -> None:
    """InstanceReusePolicy, ReuseOnScaleIn: "instances … can be returned to the warm pool on scale in"."""
    warm(world, InstanceReusePolicy={"ReuseOnScaleIn": True}, MinSize=0, MaxGroupPreparedCapacity=3)
    before = set(group_of(world).members)

    world.autoscaling.set_desired(group_of(world), 2)
    wait(world, 60)

    (returned,) = before - set(group_of(world).members)
    assert group_of(world).warmed[returned].lifecycle_state == "Warmed:Stopped"
    assert world.ec2.instances[returned].state == "stopped"


def test_a_warm_pool_with_instances_is_deleted_by_force(world: World) -> None:
    """DeleteWarmPool, ForceDelete: "to be deleted along with all of its associated instances"."""
    warm(world)
    with pytest.raises(Refused, match="instances still in it"):
        world.warm_pools.delete(group_of(world), force=False)

    world.warm_pools.delete(group_of(world), force=True)
    wait(world, 60)

    assert not group_of(world).warmed
    assert group_of(world).warm_pool is None


# Attaching


def test_an_attached_instance_raises_the_desired_capacity(world: World) -> None:
    """AttachInstances: "the desired capacity of the group increases by the number of instances being attached"."""
    instance = world.ec2.launch({})
    wait(world, 30)

    world.autoscaling.attach(group_of(world), [instance.instance_id])

    assert group_of(world).desired == 4
    assert group_of(world).members[instance.instance_id].lifecycle_state == "InService"
    assert instance.tags["aws:autoscaling:groupName"] == "local-instances"
    wait(world, 60)
    assert len(group_of(world).members) == 4


def test_an_instance_that_cannot_be_attached_is_refused(world: World) -> None:
    """AttachInstances: "if … plus the desired capacity … exceeds the maximum size …, the operation fails"."""
    with pytest.raises(Refused, match="already part of"):
        world.autoscaling.attach(group_of(world), [first(world)])
    pending = world.ec2.launch({})
    with pytest.raises(Refused, match="not in running state"):
        world.autoscaling.attach(group_of(world), [pending.instance_id])
    wait(world, 30)
    world.autoscaling.update(group_of(world), {"MaxSize": 3})
    with pytest.raises(Refused, match="max-size=3"):
        world.autoscaling.attach(group_of(world), [pending.instance_id])


# Another key


def test_instances_may_be_launched_with_another_key_than_the_template_s(world: World) -> None:
    world.ec2.import_key_pair("other", _key(), {})
    group, before = group_of(world), set(group_of(world).members)
    world.set_condition("launch-with-key", "other")

    world.autoscaling.set_desired(group, 4)
    wait(world, 30)

    member = newcomer(world, before)
    assert member is not None
    assert world.ec2.instances[member.instance_id].key_name == "other"
    with pytest.raises(Refused, match='no key pair "none"; there are other'):
        world.set_condition("launch-with-key", "none")


def test_new_template_versions_may_lose_even_snapshots_that_are_given(world: World) -> None:
    world.set_condition("snapshots-lost")
    mappings = [{"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": "snap-1", "VolumeSize": 8}}]

    version = world.ec2.add_version(world.ec2.find_template(None, "local-instances"), {"BlockDeviceMappings": mappings})

    assert version.data["BlockDeviceMappings"] == [{"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 8}}]


def _key() -> bytes:
    return b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKDfqTd6JfxpmXMbmOZNXAgYkDpFm8tV7oZLSYdOR6rA"


def _specification(world: World) -> dict[str, str]:
    specification = group_of(world).launch_template
    assert specification is not None
    return specification
