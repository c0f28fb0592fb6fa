"""Doctor's checks of groups and of a keyroll's plan, each with and without a problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.doctor.rolling import TOPICS, plan_topics, providers
from rackctl.instances import Instances
from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene, add_group, mixed, name_version
from tests.roll.acts import stopped_with_two_new_ones

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.doctor import Finding


def told(scene: Scene) -> list[Finding]:
    instances = Instances(scene.rack, scene.clock).list()
    return list(plan_topics(scene.roll.plan(RollOptions()), scene.rack, instances))


def of(scene: Scene, check: str) -> list[tuple[str, str]]:
    return [(f.status, f.message) for f in told(scene) if f.check == check]


def test_a_healthy_rack_has_one_ok_finding_for_each_topic_of_the_plan() -> None:
    found = told(Scene())

    assert [f.check for f in found] == list(TOPICS)
    assert {f.status for f in found} == {"ok"}
    assert not any(f.remedy for f in found)


def test_each_refusal_and_warning_of_a_plan_is_reported_once_with_its_remedy() -> None:
    scene = Scene()
    scene.world.set_condition("managed-draining")
    scene.clock.sleep(60)
    scene.group.suspended["Launch"] = "User suspended"
    plan = scene.roll.plan(RollOptions())

    found = [f for f in told(scene) if f.status in {"problem", "warning"}]

    assert {(f.message, f.remedy, f.status == "warning") for f in found} >= {
        (p.reason, p.remedy, p.warns) for p in plan.problems
    }
    assert {f.check for f in found} == {"processes", "hooks"}


def launch_configuration(scene: Scene) -> None:
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"


@pytest.mark.parametrize(
    ("change", "form"),
    [
        (lambda _: None, "launch template prod-instances version 1"),
        (lambda scene: name_version(scene, "$Latest"), "launch template prod-instances version $Latest (now 1)"),
        (mixed, "launch template prod-instances version 1 and prod-arm version 1 in a mixed instances policy"),
        (launch_configuration, "launch configuration old-style"),
    ],
)
def test_doctor_reports_the_launch_source_of_each_group(change: Callable[[Scene], Any], form: str) -> None:
    scene = Scene()
    change(scene)

    assert (
        "ok",
        f"prod-instances, of no CloudFormation stack: 3 instances, launched from {form}",
    ) in of(scene, "groups")


def test_doctor_reports_the_stack_of_a_group() -> None:
    scene = Scene()
    spot_group = add_group(scene, "prod-spot")
    spot_group.tags.append({"Key": "aws:cloudformation:stack-name", "Value": "Prod", "PropagateAtLaunch": True})

    (spot,) = [message for status, message in of(scene, "groups") if status == "ok" and "prod-spot" in message]
    assert spot.startswith("prod-spot, of stack Prod: 2 instances")


def an_instance_of_another_rack(scene: Scene) -> None:
    scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "staging"})


@pytest.mark.parametrize(
    ("add", "user"),
    [
        (lambda scene: add_group(scene, "staging", Rack="staging"), "group staging"),
        (lambda scene: scene.world.ec2.create_template("jumps", {"KeyName": "ops"}, {}), "launch template jumps"),
        (an_instance_of_another_rack, 'of rack "staging"'),
    ],
)
def test_each_other_user_of_a_key_pair_that_is_renewed_under_its_name_has_its_own_line(
    add: Callable[[Scene], Any], user: str
) -> None:
    scene = Scene(key_name="ops")
    ((before, alone),) = of(scene, "sharing")
    add(scene)

    ((status, message),) = of(scene, "sharing")

    assert (before, alone) == (
        "ok",
        "no other group, launch template, launch configuration or instance names key pair ops",
    )
    assert status == "problem"
    assert message.startswith("key pair ops has other users: ")
    assert user in message
    assert of(scene, "key") == [("ok", "a keyroll can renew the key")]


@pytest.mark.parametrize("process", ["AddToLoadBalancer", "HealthCheck", "ReplaceUnhealthy"])
def test_a_suspended_process_that_a_group_needs_is_warned_of(process: str) -> None:
    scene = Scene()
    scene.group.suspended[process] = "User suspended"

    ((status, message),) = of(scene, "processes")
    assert status == "warning"
    assert message.startswith(f"the {process} process of group prod-instances is suspended: ")


def test_a_suspended_process_that_a_group_does_not_need_is_not_reported() -> None:
    scene = Scene()
    scene.group.suspended["ScheduledActions"] = "User suspended"

    assert [status for status, _ in of(scene, "processes")] == ["ok"]


def test_a_group_at_its_maximum_has_no_room_for_a_surge() -> None:
    full, roomy = Scene(3, max_size=3), Scene(3, max_size=4)

    assert [status for status, _ in of(full, "capacity")] == ["warning"]
    (remedy,) = [f.remedy for f in told(full) if f.check == "capacity"]
    assert remedy.startswith("`aws autoscaling update-auto-scaling-group --auto-scaling-group-name prod-instances "
                             "--max-size 4`")  # fmt: skip
    assert of(roomy, "capacity") == [("ok", "prod-instances has 3 instances of at most 4")]


def test_an_unfinished_roll_is_reported_with_the_command_that_resumes_it() -> None:
    scene = stopped_with_two_new_ones()

    (found,) = [f for f in told(scene) if f.check == "roll"]

    assert found.status == "problem"
    assert "resume" in found.remedy


def test_capacity_providers_are_reported_with_a_warning_for_one_that_does_not_drain() -> None:
    scene = Scene()
    without = [(f.status, f.message) for f in providers(scene.rack)]
    scene.world.set_condition("managed-draining")
    scene.rack.__dict__.pop("ecs_cluster", None)
    draining = list(providers(scene.rack))
    for provider in scene.world.ecs.capacity_providers.values():
        provider.switches["managedDraining"] = "DISABLED"
    (not_draining,) = providers(scene.rack)

    assert without == [("ok", "the cluster has no capacity provider of an Auto Scaling group")]
    assert [f.status for f in draining] == ["ok"]
    assert (not_draining.status, "managed draining is off" in not_draining.message) == ("warning", True)
    assert not_draining.remedy.startswith("`aws ecs update-capacity-provider")


def test_an_instance_outside_of_the_groups_is_reported_and_so_is_its_agent() -> None:
    scene = Scene()
    lone = scene.first[0]
    scene.group.members.pop(lone)
    scene.group.desired -= 1
    (registration,) = [r for r in scene.seeded.registrations.values() if r.instance_id == lone]
    registration.agent_connected = False

    assert ("warning", f"the agent of {lone} is off") in of(scene, "agents")
    (left,) = [message for status, message in of(scene, "groups") if status == "warning"]
    assert left.startswith(f"a roll leaves {lone} as it is: ")


def test_a_registration_without_an_instance_is_reported_with_the_command_that_removes_it() -> None:
    scene = Scene()
    (registration, *_) = scene.seeded.registrations.values()
    gone = registration.instance_id
    registration.agent_connected = False
    scene.world.ec2.instances[gone].state = "terminated"
    scene.group.members.pop(gone)

    (found,) = [f for f in told(scene) if f.check == "registrations" and gone in f.message]
    assert found.status == "warning"
    assert registration.arn in found.remedy
