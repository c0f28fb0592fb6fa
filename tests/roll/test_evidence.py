"""Surprising behaviour of AWS: a roll still terminates only instances that are seen to be empty.

Each test here is a fault that was found in practice. That what one wrong answer leaves out is unknown, and not gone,
is checked at each call of a roll in tests/roll/test_misreadings.py; conflicting journal writes are in test_lock.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.local.world.clusters import CapacityProvider
from rackctl.local.world.groups import Hook
from rackctl.roll.view import RollOptions
from rackctl.settings import Value
from tests.fakes.origin import GIVEN
from tests.fakes.world import OLD_KEY, Scene, add_group
from tests.fakes.world_aws import RACK
from tests.roll.acts import (
    DEFAULT,
    NEW_KEY,
    assert_given_back,
    collect,
    fail_from,
    refused,
    start,
    texts,
)

if TYPE_CHECKING:
    from rackctl.roll.report import Event

DISKS = [
    {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3"}},
    {"DeviceName": "/dev/xvdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0", "Encrypted": True}},
]


def untagged(group: Any) -> None:
    group.tags = [tag for tag in group.tags if tag["Key"] != "Rack"]


def registration(scene: Scene, id_: str, cluster: str = RACK) -> Any:
    return next(r for r in scene.world.ecs.clusters[cluster].registrations.values() if r.instance_id == id_)


def move_to_cluster(scene: Scene, id_: str, cluster: str) -> None:
    """Have an instance be registered with another cluster, as one whose user data names that."""
    there = scene.world.ecs.create_cluster(cluster, {})
    moved = registration(scene, id_)
    scene.seeded.registrations.pop(moved.arn)
    moved.tasks.clear()
    scene.seeded.tasks = {arn: task for arn, task in scene.seeded.tasks.items() if task.registration is not moved}
    moved.arn = moved.arn.replace(f"/{RACK}/", f"/{cluster}/")
    there.registrations[moved.arn] = moved


def drop_registration(scene: Scene, id_: str) -> None:
    """Have an instance be registered with no cluster of this account and region."""
    move_to_cluster(scene, id_, "elsewhere")
    scene.world.ecs.clusters.pop("elsewhere")


def stopped_undrained(scene: Scene, says: str, options: RollOptions = DEFAULT) -> tuple[RollIncomplete, list[Event]]:
    """Roll, and see it stop with nothing drained or terminated."""
    events: list[Event] = []
    drained: set[str] = set()
    scene.clock.watching.append(lambda: drained.update(scene.draining))
    with pytest.raises(RollIncomplete, match=says) as caught:
        collect(scene.roll.start(options), events)
    assert drained == set()
    assert "terminate_instance" not in scene.aws.mutations
    return caught.value, events


# Versions of launch templates


def test_the_snapshots_of_block_devices_are_in_the_version_with_the_new_key() -> None:
    """CreateLaunchTemplateVersion.SourceVersion, in botocore's EC2 model: "Snapshots applied to the block device
    mapping are ignored when creating a new version unless they are explicitly included." (aws-cli issue 4297)
    """
    scene = Scene(2)
    scene.template.versions[1].data["BlockDeviceMappings"] = DISKS

    start(scene)

    assert scene.template_in_use.number != 1
    assert scene.template_in_use.data["BlockDeviceMappings"] == DISKS
    assert_given_back(scene, 2)


def test_a_copy_that_lost_its_snapshots_is_deleted_and_the_roll_rolled_back_naming_them() -> None:
    scene = Scene(2)
    scene.template.versions[1].data["BlockDeviceMappings"] = DISKS
    scene.world.set_condition("snapshots-lost")

    with pytest.raises(RackctlError, match=r"BlockDeviceMappings\[1\].Ebs.SnapshotId is missing") as caught:
        start(scene)

    assert "rolled back; nothing is changed" in str(caught.value)
    assert set(scene.template.versions) == {1}
    assert scene.key_names == [OLD_KEY] * 2
    assert_given_back(scene, 2)


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("ImageId", "ami-0bad", "ImageId differs"),
        ("UserData", "c2VjcmV0", "UserData"),
        ("IamInstanceProfile", {"Name": "admin"}, "IamInstanceProfile.Name differs"),
    ],
)
def test_a_copy_that_differs_in_anything_but_its_key_is_deleted_and_the_difference_named(
    member: str, value: Any, says: str
) -> None:
    scene = Scene(2)
    add_version = scene.world.ec2.add_version

    def otherwise(template: Any, data: Any, **how: Any) -> Any:
        made = add_version(template, data, **how)
        made.data[member] = value
        return made

    scene.world.ec2.add_version = otherwise  # type: ignore[method-assign]

    with pytest.raises(RackctlError, match=says) as caught:
        start(scene)

    assert "c2VjcmV0" not in str(caught.value)
    assert set(scene.template.versions) == {1}
    assert_given_back(scene, 2)


def test_a_planted_version_with_the_rolls_description_and_another_image_is_not_used() -> None:
    """A description is free text (CreateLaunchTemplateVersion.VersionDescription): whoever may create a version may
    write there what a roll would.
    """
    scene = Scene(2)
    planted = scene.world.ec2.add_version(
        scene.template,
        {"KeyName": NEW_KEY, "ImageId": "ami-0bad"},
        source="1",
        description=f"keyroll: version 1 with key {NEW_KEY}",
    )
    image = scene.template.versions[1].data["ImageId"]

    start(scene)

    assert scene.template_in_use.number != planted.number
    assert scene.template_in_use.data["ImageId"] == image
    assert planted.number not in {int(m.launch_template[2]) for m in scene.group.members.values() if m.launch_template}


# Instances that are registered more than once


@pytest.mark.parametrize("incident", ["registered-twice", "registered-twice-last", "registration-failed-twice"])
def test_an_instance_with_a_dead_registration_beside_the_living_one_is_drained_like_the_others(incident: str) -> None:
    """amazon-ecs-agent issue 782: an agent's RegisterContainerInstance that is retried leaves two registrations, of
    which one never connects. ListContainerInstances gives them in no order.
    """
    scene = Scene(3)
    twice = scene.old[0]
    scene.world.befall(incident, twice)
    living = next(r for r in scene.seeded.registrations.values() if r.instance_id == twice and r.agent_connected)

    plan = scene.roll.plan(DEFAULT)
    events = start(scene)

    assert plan.refusals == ()
    [said] = [w for w in plan.warnings if f"{twice} has 2 registrations" in w]
    assert living.arn.rpartition("/")[2] in said
    assert [e.ec2_instance_id for e in events if e.phase == "drained"].count(twice) == 1
    assert scene.aws.terminated_busy == []
    assert_given_back(scene, 3)


def both_alive(scene: Scene) -> tuple[str, list[Any]]:
    """Have an instance have two registrations that live, each with tasks."""
    id_ = scene.old[0]
    first = registration(scene, id_)
    second = scene.world.ecs.register(scene.seeded, id_)
    second.agent_connected = True
    definition = scene.world.ecs.register_definition(
        {"family": "second", "containerDefinitions": [{"name": "c", "image": "i", "memory": 64}]}
    )
    scene.world.ecs.start_task(scene.seeded, definition, second, running_since=scene.world.now - 60)
    return id_, [first, second]


def test_both_living_registrations_of_an_instance_are_drained_and_their_tasks_followed() -> None:
    """containers-roadmap issue 1901: one EC2 instance may be two container instances, both of which take tasks."""
    scene = Scene(3)
    id_, both = both_alive(scene)
    seen: list[set[str]] = []
    task = next(iter(both[1].tasks.values()))
    scene.clock.watching.append(lambda: seen.append({r.status for r in both}))
    scene.when(
        lambda: {r.status for r in both} == {"DRAINING"},
        lambda: scene.later(60, lambda: scene.world.ecs.stop_task(scene.seeded, task, "done")),
    )

    start(scene)

    assert {"DRAINING"} in seen
    assert id_ not in scene.key_names
    assert task.last_status == "STOPPED"
    assert scene.aws.terminated_busy == []
    assert_given_back(scene, 3)


def test_a_dead_registration_that_still_has_tasks_stops_the_roll_and_force_gives_them_up() -> None:
    """ECS sends no command to an agent that is not connected, so that nothing moves these tasks (ContainerInstance.
    agentConnected: "Only instances connected to an agent can accept task placement requests").
    """
    scene = Scene(3)
    anew = scene.old[0]
    alone_on(scene, anew)
    scene.world.befall("re-registered", anew)
    scene.clock.sleep(60)

    said = refused(scene)
    assert f"a dead registration of {anew} has tasks" in said
    assert "--force" in said
    events = start(scene, RollOptions(force=True, drain_timeout=120))

    assert f"{anew}: terminating it with whatever runs on it (--force)" in texts(events)
    assert scene.aws.terminated_busy == [anew]


def test_an_agent_that_registers_anew_while_its_instance_is_drained_does_not_hide_the_tasks_it_had() -> None:
    scene = Scene(3)
    anew = scene.old[0]
    task = alone_on(scene, anew)
    scene.when(lambda: anew in scene.draining, lambda: scene.world.befall("re-registered", anew))

    with pytest.raises(RollIncomplete, match=f"a dead registration of {anew} has tasks|{anew} still has 1 task"):
        start(scene, RollOptions(drain_timeout=300))

    assert task.last_status == "RUNNING"
    assert scene.aws.terminated_busy == []


def alone_on(scene: Scene, id_: str) -> Any:
    definition = scene.world.ecs.register_definition(
        {"family": "once", "containerDefinitions": [{"name": "once", "image": "once", "memory": 64}]}
    )
    return scene.world.ecs.start_task(
        scene.seeded, definition, registration(scene, id_), running_since=scene.world.now - 60
    )


# A rack's groups, and members that are not registered with its cluster


def test_an_untagged_group_is_the_racks_when_all_its_instances_are_registered_with_the_cluster() -> None:
    scene = Scene(2)
    untagged(scene.group)

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}


def test_one_registered_instance_does_not_claim_an_untagged_group() -> None:
    scene = Scene(2)
    bank = add_group(scene, "bank", 3)
    untagged(bank)
    here, *there = bank.members
    for id_ in there:
        move_to_cluster(scene, id_, "bank")

    said = refused(scene)

    assert f"only some of its instances are registered with cluster {RACK}" in said
    assert all(id_ in said for id_ in there)
    assert here not in said


def test_a_group_of_a_capacity_provider_of_the_cluster_is_the_racks() -> None:
    scene = Scene(2)
    untagged(scene.group)
    for id_ in list(scene.group.members):
        drop_registration(scene, id_)
    arn = scene.world.ecs.arn("capacity-provider/prod")
    scene.world.ecs.capacity_providers["prod"] = CapacityProvider(arn, "prod", scene.group.arn)
    scene.seeded.capacity_providers.append("prod")
    del scene.rack.ecs_cluster  # it was read when the scene was set

    assert "has no Auto Scaling group" not in refused(scene)
    assert [group.auto_scaling_group_name for group in scene.roll.plan(DEFAULT).groups] == [scene.group.name]


def test_a_group_that_is_tagged_with_another_rack_is_never_this_racks() -> None:
    scene = Scene(2)
    bank = add_group(scene, "bank", 2, Rack="bank")
    members = set(bank.members)

    start(scene)

    assert set(bank.members) == members
    assert {scene.world.ec2.instances[id_].key_name for id_ in members} == {OLD_KEY}


def test_a_group_of_which_no_instance_in_service_is_registered_with_the_cluster_is_refused() -> None:
    """With `--cluster other`, or as another rack that shares the bucket, nothing of a group would be seen."""
    scene = Scene(2)
    scene.world.ecs.create_cluster("other", {})
    scene.rack._given["cluster"] = Value("other", GIVEN)  # type: ignore[index]

    for options in (DEFAULT, RollOptions(surge=0), RollOptions(force=True, include_unregistered=True)):
        said = refused(scene, options)
        assert f"none of the instances in service of group {scene.group.name} is registered with cluster other" in said
        assert "--cluster" in said


def test_a_member_that_is_registered_with_another_cluster_is_refused_whatever_the_options() -> None:
    scene = Scene(3)
    theirs = scene.old[0]
    move_to_cluster(scene, theirs, "bank")

    for options in (DEFAULT, RollOptions(include_unregistered=True, force=True)):
        assert f"{theirs} is registered with cluster bank, not with {RACK}" in refused(scene, options)


def test_a_young_unregistered_member_is_waited_for_and_that_is_said() -> None:
    scene = Scene(3)
    young = scene.old[0]
    drop_registration(scene, young)
    scene.world.ec2.instances[young].launched = scene.clock.at - 60

    warnings = scene.roll.plan(DEFAULT).warnings
    assert any(f"{young} of group" in w and "yet: the roll waits for it" in w for w in warnings)
    _, events = stopped_undrained(scene, f"{young} .*not registered with this cluster")

    waiting = [e.message for e in events if e.kind == "waiting"]
    assert any(young in message for message in waiting)
    assert not any("instances to launch" in message for message in waiting)


def test_an_old_unregistered_member_is_refused_and_include_unregistered_says_aloud_what_it_ends() -> None:
    scene = Scene(3)
    unknown = scene.old[0]
    drop_registration(scene, unknown)
    scene.clock.sleep(60)
    scene.broken_promises.clear()  # its tasks are run elsewhere by now

    said = refused(scene)
    assert f"{unknown} of group {scene.group.name} is in service and not registered with this cluster" in said
    assert "what runs on it is not known" in said
    assert "--include-unregistered" in said
    options = RollOptions(include_unregistered=True)
    assert any("terminates it undrained, with whatever runs on it" in w for w in scene.roll.plan(options).warnings)
    events = start(scene, options)

    assert f"{unknown}: terminating it with whatever runs on it (--include-unregistered)" in texts(events)
    assert_given_back(scene, 3)


# Groups that are not as usual


@pytest.mark.parametrize("code", ["ResourceContention", "ScalingActivityInProgress"])
@pytest.mark.parametrize(
    "call",
    [
        "set_desired_capacity",
        "terminate_instance",
        "suspend_processes",
        "resume_processes",
        "set_launch_template_versions",
    ],
)
def test_each_changing_call_on_a_busy_group_is_retried(call: str, code: str) -> None:
    """ResourceContentionFault, in botocore's Auto Scaling model: "You already have a pending update to an Amazon EC2
    Auto Scaling resource". SetDesiredCapacity, TerminateInstanceInAutoScalingGroup, UpdateAutoScalingGroup, Suspend-
    and ResumeProcesses declare it; the first three ScalingActivityInProgressFault as well.
    """
    scene = Scene(2)
    failed = fail_from(scene, call, AwsError("busy", code=code), times=3)

    start(scene)

    assert len(failed) == 3
    assert_given_back(scene, 2)


@pytest.mark.parametrize("unit", ["vcpu", "memory-mib"])
def test_a_group_that_counts_vcpus_or_mib_is_refused(unit: str) -> None:
    """CreateAutoScalingGroup.DesiredCapacityType, in botocore's model: "The unit of measurement for the value specified
    for desired capacity […] Valid values: units | vcpu | memory-mib": a surge of 1 would be one vCPU.
    """
    scene = Scene(2)
    scene.group.desired_capacity_type = unit

    assert f"group {scene.group.name} counts its capacity in {unit}, not in instances" in refused(scene)


def test_windows_instances_are_refused_without_an_rsa_key() -> None:
    """CreateKeyPair.KeyType, in botocore's EC2 model: "Note that ED25519 keys are not supported for Windows
    instances."
    """
    scene = Scene(2)
    for instance in scene.world.ec2.instances.values():
        instance.platform = "windows"

    said = refused(scene)
    assert "runs Windows" in said
    assert "--key-type rsa" in said
    assert scene.roll.plan(RollOptions(key_type="rsa")).refusals == ()


def test_new_instances_with_the_old_key_stop_the_roll_with_nothing_drained() -> None:
    """A warm pool, a lifecycle script or a stand-in that launches the default version brings instances that have not
    what the group's template says.
    """
    scene = Scene(3)
    scene.world.set_condition("launch-with-key", OLD_KEY)

    error, _ = stopped_undrained(scene, "joined group .* as an old instance")

    assert "warm pool" in error.hint
    assert scene.broken_promises == []
    scene.world.clear_condition("launch-with-key")
    list(scene.roll.resume())
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 3)


def test_a_terminating_hook_is_named_while_it_holds_and_only_what_is_gone_is_counted() -> None:
    """PutLifecycleHook.HeartbeatTimeout: 30 to 7,200 seconds a heartbeat, up to 48 hours altogether; ECS's managed
    draining is such a hook.
    """
    scene = Scene(2)
    scene.group.hooks["bye"] = Hook("bye", "autoscaling:EC2_INSTANCE_TERMINATING", 400, "CONTINUE")
    assert any("lifecycle hook bye" in w and "400 s" in w for w in scene.roll.plan(DEFAULT).warnings)

    events = []
    for event in scene.roll.start(DEFAULT):
        events.append(event)
        gone = 2 - len(scene.old)
        assert event.done <= gone

    waiting = [e.message for e in events if e.kind == "waiting"]
    assert any("to terminate (Terminating:Wait, held by lifecycle hook bye)" in message for message in waiting)
    assert events[-1].done == 2
    assert_given_back(scene, 2)


def test_services_whose_tasks_are_on_no_instance_are_not_named_in_the_plan() -> None:
    """A task of Fargate, or of an external instance, has no containerInstanceArn of an EC2 instance."""
    scene = Scene(2)
    scene.world.set_condition("external-instance")
    scene.clock.sleep(60)
    rigid: dict[str, Any] = {"desired": 2, "minimum_percent": 100, "maximum_percent": 100}
    scene.world.seed_service(scene.seeded, "serverless", "i", "c", launch_type="FARGATE", **rigid)
    scene.world.seed_service(scene.seeded, "spot", "i", "c", capacity_provider="FARGATE_SPOT", **rigid)
    scene.world.seed_service(scene.seeded, "on-premises", "i", "c", launch_type="EXTERNAL", **rigid)
    scene.world.seed_service(scene.seeded, "here", "i", "c", **rigid)

    plan = scene.roll.plan(DEFAULT)

    assert [dip.service_name for dip in plan.dips] == ["here"]
    [external] = [r.instance_id for r in scene.seeded.registrations.values() if r.instance_id.startswith("mi-")]
    assert (external, "it is a machine of ECS Anywhere, which no group replaces") in [
        (left.ec2_instance_id, left.reason) for left in plan.left_alone
    ]


def test_a_group_that_lacks_instances_says_so_and_why_and_hints_only_what_helps() -> None:
    scene = Scene(4)
    scene.world.set_condition("no-capacity")
    for id_ in scene.old[:2]:
        scene.world.autoscaling.terminate(id_, decrement=False)
    scene.clock.sleep(200)
    scene.broken_promises.clear()

    plan = scene.roll.plan(DEFAULT)
    assert [group.missing for group in plan.groups] == [2]
    assert any(f"group {scene.group.name} lacks 2 of 4 instances: We currently do not" in w for w in plan.warnings)
    with pytest.raises(RackctlError, match=r"no more have been launched .* rolled back; nothing is changed") as caught:
        start(scene, RollOptions(surge=0))

    # Nothing was surged: it cannot help to do without.
    assert "--no-surge" not in caught.value.hint
