"""The calls of a roll, made on the model in memory and on the local rack: both give the same answers.

The roll's own tests run on the model in memory, and depend on this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.autoscaling import desired_configuration
from rackctl.aws.errors import AwsError
from rackctl.keys import generate
from rackctl.model import LaunchTemplateRef
from rackctl.roll.refresh_terms import is_as_asked
from tests.fakes.world import START, Scene
from tests.local.rolls import Rolls

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.keys import KeyStore
    from tests.local_rack import LocalRackProcess


@pytest.fixture(params=["in memory", "local rack"])
def asked(request: pytest.FixtureRequest) -> tuple[Any, Any, KeyStore]:
    """Return AWS, the rack's bucket and its keys."""
    if request.param == "in memory":
        scene = Scene(3)
        return scene.aws, scene.rack.store, scene.keys
    rolls = Rolls(request.getfixturevalue("own_local_rack"))
    return rolls.aws, rolls.rack.store, rolls.keys


def template_of(aws: Any) -> LaunchTemplateRef:
    (group,) = aws.autoscaling.all_groups()
    (ref,) = group.launch_templates
    assert isinstance(ref, LaunchTemplateRef)
    return ref


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(AwsError) as caught:
        act()
    return caught.value.code


def test_groups_are_described_with_their_zones_sizes_and_members(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    (group,) = aws.autoscaling.all_groups()

    assert group.availability_zones == ("us-east-1a", "us-east-1b", "us-east-1c")
    assert (group.min_size, group.max_size, group.desired_capacity) == (0, 5, 3)
    assert {m.lifecycle_state for m in group.instances} == {"InService"}
    assert group.launch_template
    assert group.launch_template.version == "1"
    assert aws.autoscaling.groups([group.auto_scaling_group_name, "no such group"]) == [group]


def test_processes_are_suspended_and_resumed_by_name(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    (group,) = aws.autoscaling.all_groups()
    name = group.auto_scaling_group_name

    aws.autoscaling.suspend_processes(name, ["AZRebalance", "Launch"])
    aws.autoscaling.suspend_processes(name, ["Launch"])
    aws.autoscaling.resume_processes(name, ["Launch"])
    aws.autoscaling.resume_processes(name, [])

    assert aws.autoscaling.all_groups()[0].suspended_processes == frozenset({"AZRebalance"})


def test_a_capacity_beyond_the_maximum_is_refused(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    (group,) = aws.autoscaling.all_groups()

    assert code_of(lambda: aws.autoscaling.set_desired_capacity(group.auto_scaling_group_name, 6)) == "ValidationError"
    aws.autoscaling.set_desired_capacity(group.auto_scaling_group_name, 4)
    assert aws.autoscaling.all_groups()[0].desired_capacity == 4


def test_a_member_is_terminated_once_with_decrement(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    (group,) = aws.autoscaling.all_groups()
    id_ = group.instances[0].ec2_instance_id

    aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=True)

    after = aws.autoscaling.all_groups()[0]
    assert after.desired_capacity == 2
    going = [m for m in after.instances if m.ec2_instance_id == id_]
    assert all(m.is_terminating for m in going)
    again = code_of(lambda: aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=True))
    assert again == "ValidationError"


def test_a_version_differs_from_its_source_in_its_key_alone(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    ref = template_of(aws)
    id_ = ref.launch_template_id

    made = aws.ec2.create_launch_template_version(id_, 1, {"KeyName": "another"}, description="a description")

    (first, second) = sorted(aws.ec2.launch_template_versions_from(id_, 1), key=lambda v: v.version_number)
    assert (second.version_number, second.key_name, second.description) == (made, "another", "a description")
    assert first.key_name != "another"
    assert aws.ec2.launch_template_versions_from(id_, 2) == [second]
    (template,) = aws.ec2.launch_templates([id_])
    assert (template.default_version_number, template.latest_version_number) == (1, 2)
    for version, is_ in (("1", first), ("$Default", first), ("$Latest", second)):
        assert aws.ec2.launch_template_version(LaunchTemplateRef(id_, "", version)) == is_


def test_the_default_moves_and_a_deleted_latest_gives_way_to_the_one_before(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    id_ = template_of(aws).launch_template_id
    for key in ("two", "three"):
        aws.ec2.create_launch_template_version(id_, 1, {"KeyName": key}, description=key)

    aws.ec2.set_default_version(id_, 2)
    aws.ec2.delete_launch_template_versions(id_, [3])

    (template,) = aws.ec2.launch_templates([id_])
    assert (template.default_version_number, template.latest_version_number) == (2, 2)
    assert aws.ec2.launch_template_version(LaunchTemplateRef(id_, "", "$Latest")).key_name == "two"


def test_a_group_names_another_version_in_the_place_of_one(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    ref = template_of(aws)
    (group,) = aws.autoscaling.all_groups()
    # Auto Scaling takes no version whose key pair does not exist.
    aws.ec2.import_key_pair("another", generate("another", created=START).public_key, {})
    aws.ec2.create_launch_template_version(ref.launch_template_id, 1, {"KeyName": "another"}, description="")

    aws.autoscaling.set_launch_template_versions(group, {ref: "2"})

    after = template_of(aws)
    assert (after.launch_template_id, after.launch_template_name) == (ref.launch_template_id, ref.launch_template_name)
    assert after.version == "2"


def test_a_key_pair_is_imported_found_by_its_tags_and_deleted_twice(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    key = generate("prod-keypair-x", created=START)
    tags = {"rackctl:rack": "prod", "rackctl:reason": "a test"}

    aws.ec2.import_key_pair(key.key_name, key.public_key, tags)

    there = aws.ec2.key_pair(key.key_name)
    assert (there.key_name, there.public_key, dict(there.tags)) == (key.key_name, key.public_key, tags)
    assert [p.key_name for p in aws.ec2.key_pairs_tagged({"rackctl:rack": "prod"})] == [key.key_name]
    aws.ec2.delete_key_pair(key.key_name)
    aws.ec2.delete_key_pair(key.key_name)
    assert aws.ec2.key_pair(key.key_name) is None


def test_a_key_pair_of_the_same_name_has_another_id_and_a_later_time(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    first, second = (generate("ops", created=START).public_key for _ in range(2))
    aws.ec2.import_key_pair("ops", first, {})
    before = aws.ec2.key_pair("ops")
    assert code_of(lambda: aws.ec2.import_key_pair("ops", second, {})) == "InvalidKeyPair.Duplicate"
    aws.ec2.require_key_pair_permissions("ops", before.key_pair_id, second, {"team": "ops"})
    assert aws.ec2.key_pair("ops") == before

    aws.ec2.delete_key_pair("ops", before.key_pair_id)
    aws.ec2.import_key_pair("ops", second, {"team": "ops"})
    aws.ec2.delete_key_pair("ops", before.key_pair_id)

    after = aws.ec2.key_pair("ops")
    assert (after.public_key, dict(after.tags)) == (second, {"team": "ops"})
    assert after.key_pair_id.startswith("key-")
    assert after.key_pair_id != before.key_pair_id
    assert before.created <= after.created


def test_an_instance_is_of_the_time_of_its_first_launch(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, keys = asked

    found = list(aws.ec2.instances_with_key(list(keys.names())))

    assert [i.first_launch_time for i in found] == [i.launch_time for i in found] == [i.attach_time for i in found]


def test_the_templates_that_name_a_key_are_found_without_being_named(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    id_ = template_of(aws).launch_template_id
    for key in ("two", "three"):
        aws.ec2.create_launch_template_version(id_, 1, {"KeyName": key}, description=key)

    found = aws.ec2.newest_and_default_versions()

    assert sorted((v.launch_template_id, v.version_number) for v in found) == [(id_, 1), (id_, 3)]
    assert all(v.launch_template_name.endswith("-instances") for v in found)


def test_instances_are_found_by_their_key(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, keys = asked
    (name,) = keys.names()

    found = list(aws.ec2.instances_with_key([name, "another"]))

    assert len(found) == 3
    assert {i.key_name for i in found} == {name}
    assert list(aws.ec2.instances_with_key(["another"])) == []


def test_an_object_is_written_over_and_deleted_only_as_the_version_it_was(asked: tuple[Any, Any, KeyStore]) -> None:
    _, bucket, _ = asked
    first = bucket.create("roll.json", b"1")
    assert bucket.create("roll.json", b"2") is None

    second = bucket.replace("roll.json", b"2", etag=first)

    assert bucket.replace("roll.json", b"3", etag=first) is None
    assert not bucket.delete("roll.json", etag=first)
    read = bucket.get("roll.json")
    assert read.body == b"2"
    assert 0 <= read.age < 30
    assert bucket.delete("roll.json", etag=second)
    assert bucket.get("roll.json") is None
    assert bucket.replace("roll.json", b"4", etag=second) is None


def test_the_fakes_answer_the_other_calls_of_a_plan_as_the_local_rack_does(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, bucket, _ = asked
    (group,) = aws.autoscaling.all_groups()
    (arn,) = aws.ecs.cluster_arns()
    cluster = aws.ecs.cluster(arn.rpartition("/")[2])

    assert (cluster.cluster_arn, cluster.account) == (arn, "123456789012")
    assert aws.ecs.capacity_providers(cluster.capacity_providers) == []
    assert aws.autoscaling.lifecycle_hooks(group.auto_scaling_group_name) == []
    assert aws.autoscaling.refreshing(group.auto_scaling_group_name) == ""
    assert aws.autoscaling.launch_configuration_keys() == {}
    assert bucket.try_conditional_write("write-check") is True
    assert bucket.get("write-check") is None


def test_instance_refreshes_are_started_described_and_stopped_alike(asked: tuple[Any, Any, KeyStore]) -> None:
    aws, _, _ = asked
    (group,) = aws.autoscaling.all_groups()
    name, ref = group.auto_scaling_group_name, template_of(aws)
    made = aws.ec2.create_launch_template_version(
        ref.launch_template_id, 1, {"InstanceType": "t3.small"}, description="another"
    )
    preferences = {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 110, "CheckpointPercentages": [1, 100]}
    desired = desired_configuration(group, {ref: str(made)})
    assert aws.autoscaling.instance_refreshes(name) == []
    assert code_of(lambda: aws.autoscaling.cancel_instance_refresh(name)) == "ActiveInstanceRefreshNotFound"

    id_ = aws.autoscaling.start_instance_refresh(name, preferences, desired)

    (described,) = aws.autoscaling.instance_refreshes(name)
    assert (described.instance_refresh_id, described.is_active, described.instances_to_update) == (id_, True, 3)
    assert is_as_asked(described.preferences, preferences)
    assert is_as_asked(described.desired_configuration, desired)
    assert aws.autoscaling.refreshing(name) == id_
    assert code_of(lambda: aws.autoscaling.start_instance_refresh(name, preferences, {})) == "InstanceRefreshInProgress"
    assert code_of(lambda: aws.autoscaling.set_launch_template_versions(group, {ref: str(made)})) == "ValidationError"
    assert aws.autoscaling.rollback_instance_refresh(name) == id_
    assert aws.autoscaling.instance_refreshes(name)[0].status == "RollbackInProgress"
    assert aws.autoscaling.cancel_instance_refresh(name) == id_
    assert not aws.autoscaling.instance_refreshes(name)[0].can_be_stopped


def test_launch_configurations_have_no_template(own_local_rack: LocalRackProcess) -> None:
    aws = own_local_rack.aws
    client = own_local_rack.client("autoscaling")
    client.create_launch_configuration(LaunchConfigurationName="old-style", ImageId="ami-1", InstanceType="t3.small")
    (group,) = aws.autoscaling.all_groups()
    client.update_auto_scaling_group(
        AutoScalingGroupName=group.auto_scaling_group_name, LaunchConfigurationName="old-style"
    )

    (after,) = aws.autoscaling.all_groups()

    assert (after.launch_configuration_name, after.launch_templates) == ("old-style", ())
