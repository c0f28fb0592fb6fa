"""Problems of replacing instances in practice, and the roll's reaction, over AWS's APIs.

Here is what tests/local/test_keyroll.py and its chaos do not have already: each row of the list of what other tools
got wrong is covered by one of the three. tests/roll has the same and more in a world in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.local.rolls import SOON, Observer, Rolls, fails, start, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.roll.plan import Plan
    from rackctl.roll.report import Event
    from tests.local_rack import LocalRackProcess

# Each of these is over two seconds, for it is a roll with real logins.
pytestmark = pytest.mark.timeout(300)


def blocked(rolls: Rolls, says: str, options: RollOptions = SOON) -> None:
    before = rolls.changes()
    with pytest.raises(RackctlError, match=says):
        list(rolls.roll.start(options))
    assert rolls.changes() == before


def tasks_on(rolls: Rolls, id_: str) -> dict[str, str]:
    """Return the last status of each task that ECS knows on an instance, by the task's group."""
    ecs = rolls.process.client("ecs")
    (arn,) = ecs.list_container_instances(cluster="local", filter=f"ec2InstanceId == {id_}")["containerInstanceArns"]
    arns = [
        task
        for status in ("RUNNING", "STOPPED")
        for task in ecs.list_tasks(cluster="local", containerInstance=arn, desiredStatus=status)["taskArns"]
    ]
    found = ecs.describe_tasks(cluster="local", tasks=arns)["tasks"] if arns else []
    return {f"{task['group']} {task['taskArn'][-6:]}": task["lastStatus"] for task in found}


def run_alone(rolls: Rolls) -> str:
    """Run a task of no service, and give its ARN."""
    ecs = rolls.process.client("ecs")
    container = {"name": "once", "image": "once", "memory": 64}
    ecs.register_task_definition(family="once", containerDefinitions=[container])
    (task,) = ecs.run_task(cluster="local", taskDefinition="once")["tasks"]
    rolls.process.wait_for(lambda: status_of(rolls, task["taskArn"]) == "RUNNING", "the task")
    return str(task["taskArn"])


def status_of(rolls: Rolls, task: str) -> str:
    (found,) = rolls.process.client("ecs").describe_tasks(cluster="local", tasks=[task])["tasks"]
    return str(found["lastStatus"])


def plan(rolls: Rolls) -> Plan:
    return rolls.roll.plan(SOON)


# Drains


def test_an_instance_is_terminated_when_each_of_its_tasks_has_stopped_except_daemons(rolls: Rolls) -> None:
    for event in rolls.roll.start(SOON):
        if event.phase == "draining":
            # The count that ECS gives of running tasks has the daemon's in it; the roll does not wait for that one.
            assert event.tasks_left is not None
            assert event.tasks_left <= 2
        if event.phase == "drained":
            left = tasks_on(rolls, event.ec2_instance_id)
            assert {s for what, s in left.items() if not what.startswith("service:log-agent")} <= {"STOPPED"}

    rolls.assert_given_back(3)


def test_a_task_of_no_service_is_waited_for(rolls: Rolls) -> None:
    task = run_alone(rolls)
    assert [left[0] for left in plan(rolls).standalone_tasks] == [task.rpartition("/")[2]]
    stopped = False
    for event in rolls.roll.start(SOON):
        if event.tasks_left and not stopped and "DRAINING" in rolls.statuses():
            assert status_of(rolls, task) == "RUNNING"
            rolls.process.client("ecs").stop_task(cluster="local", task=task)
            stopped = True

    assert stopped
    rolls.assert_given_back(3)


def test_a_task_of_no_service_is_stopped_on_request(rolls: Rolls) -> None:
    task = run_alone(rolls)

    start(rolls, RollOptions(drain_timeout=120, boot_timeout=200, stop_standalone=True))

    (stopped,) = rolls.process.client("ecs").describe_tasks(cluster="local", tasks=[task])["tasks"]
    assert "being drained" in stopped["stoppedReason"]
    rolls.assert_given_back(3)


def test_the_plan_distinguishes_services_that_dip_from_those_whose_tasks_cannot_be_moved(rolls: Rolls) -> None:
    rolls.process.seed_service("rigid", desired=2, memory=64, minimum_percent=100, maximum_percent=100)
    rolls.process.seed_service("single", desired=1, memory=64, minimum_percent=0, maximum_percent=100)

    dips = {dip.service_name: (dip.desired_count, dip.lowest_count, dip.stuck) for dip in plan(rolls).dips}

    assert dips == {"rigid": (2, 2, True), "single": (1, 0, False)}


def test_a_drain_without_room_elsewhere_shows_the_services_newest_event(
    start_local_rack: Callable[..., LocalRackProcess],
) -> None:
    rolls = Rolls(start_local_rack(instances=1))
    rolls.process.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name, MaxSize=1
    )

    error = fails(rolls, RollIncomplete, "unable to place a task because no container instance met all")

    assert "--force" in error.hint
    assert rolls.statuses() == {"ACTIVE"}


def test_an_old_instance_whose_agent_is_off_blocks_the_roll_and_force_lifts_that(rolls: Rolls) -> None:
    off = rolls.process.ids()[0]
    rolls.process.befall("agent-off", off)
    blocked(rolls, f"the agent of {off} is off")
    forced = RollOptions(drain_timeout=120, boot_timeout=200, force=True)
    assert any(
        f"the agent of {off} is off: --force terminates the instance with its" in w
        for w in rolls.roll.plan(forced).warnings
    )

    list(rolls.roll.start(forced))

    assert off not in rolls.process.ids()
    rolls.assert_given_back(3)


# Groups


def test_instances_are_terminated_by_their_group_alone_also_if_protected_from_scale_in(rolls: Rolls) -> None:
    autoscaling, name = rolls.process.client("autoscaling"), rolls.group.auto_scaling_group_name
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, NewInstancesProtectedFromScaleIn=True)
    autoscaling.set_instance_protection(
        AutoScalingGroupName=name, InstanceIds=rolls.process.ids(), ProtectedFromScaleIn=True
    )
    before = len(rolls.process.actions())

    start(rolls)

    made = rolls.process.actions()[before:]
    assert made.count("autoscaling:TerminateInstanceInAutoScalingGroup") == 3
    assert not {"ec2:TerminateInstances", "autoscaling:SetInstanceProtection"} & set(made)
    members = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0][
        "Instances"
    ]
    assert all(m["ProtectedFromScaleIn"] for m in members if not m["LifecycleState"].startswith("Terminating"))
    rolls.assert_given_back(3)


def test_processes_that_the_operator_has_suspended_stay_suspended(rolls: Rolls) -> None:
    rolls.aws.autoscaling.suspend_processes(rolls.group.auto_scaling_group_name, ["AZRebalance", "AlarmNotification"])

    start(rolls)

    assert rolls.group.suspended_processes == {"AZRebalance", "AlarmNotification"}
    assert set(rolls.keys_of_instances()) == {rolls.key_in_use()}


def test_a_capacity_that_managed_scaling_changes_meanwhile_is_kept(rolls: Rolls) -> None:
    autoscaling, name = rolls.process.client("autoscaling"), rolls.group.auto_scaling_group_name
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=9)
    raised = False
    for event in rolls.roll.start(SOON):
        if event.phase == "terminating" and not raised:
            raised = True
            autoscaling.set_desired_capacity(
                AutoScalingGroupName=name, DesiredCapacity=rolls.group.desired_capacity + 2
            )

    rolls.assert_given_back(5)


def test_a_scaling_activity_in_progress_is_waited_out(rolls: Rolls) -> None:
    for action in ("TerminateInstanceInAutoScalingGroup", "SetDesiredCapacity"):
        rolls.process.faults.add(
            "error", f"autoscaling:{action}", code="ScalingActivityInProgress", status=400, count=3
        )

    start(rolls)

    rolls.assert_given_back(3)


def test_a_scaling_activity_that_does_not_end_stops_the_roll(rolls: Rolls) -> None:
    rolls.process.faults.add("error", "autoscaling:TerminateInstance*", code="ScalingActivityInProgress", status=400)

    fails(rolls, RollIncomplete, "ScalingActivityInProgress")

    rolls.process.wait_for(lambda: rolls.statuses() == {"ACTIVE"}, "every instance's being active")
    rolls.process.faults.clear()
    list(rolls.roll.resume())
    rolls.assert_given_back(3)


def test_an_instance_on_standby_is_named_and_left_alone_and_its_key_is_kept(rolls: Rolls) -> None:
    aside, key = rolls.process.ids()[0], rolls.key_in_use()
    rolls.process.client("autoscaling").enter_standby(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name,
        InstanceIds=[aside],
        ShouldDecrementDesiredCapacity=True,
    )
    assert (aside, "it is on standby in its group (Standby)") in [
        (left.ec2_instance_id, left.reason) for left in plan(rolls).left_alone
    ]

    said = texts(list(rolls.roll.start(SOON)))

    assert aside in rolls.process.ids()
    assert f"kept key {key}: {aside} has it" in said
    assert f"except {aside}, which the roll left alone" in said
    assert sorted(set(rolls.keys_of_instances())) == rolls.keys.names()


def test_a_launch_configuration_without_a_key_blocks_the_roll(rolls: Rolls) -> None:
    client = rolls.process.client("autoscaling")
    client.create_launch_configuration(LaunchConfigurationName="old-style", ImageId="ami-1", InstanceType="t3.small")
    client.update_auto_scaling_group(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name, LaunchConfigurationName="old-style"
    )

    blocked(rolls, "launches without a key from launch configuration old-style, which cannot be changed")


def test_an_instance_refresh_in_progress_blocks_the_roll(rolls: Rolls) -> None:
    client, name = rolls.process.client("autoscaling"), rolls.group.auto_scaling_group_name
    # A refresh waits for what is protected from scale-in, so that it does not end before the plan is made.
    client.set_instance_protection(
        AutoScalingGroupName=name, InstanceIds=rolls.process.ids(), ProtectedFromScaleIn=True
    )
    id_ = client.start_instance_refresh(AutoScalingGroupName=name)["InstanceRefreshId"]

    blocked(rolls, f"instance refresh {id_} of group {name} is in progress")


def test_several_groups_are_rolled_and_an_instance_of_no_group_is_left_alone(rolls: Rolls) -> None:
    (ref,) = rolls.group.launch_templates
    specification = {"LaunchTemplateId": ref.launch_template_id, "Version": "1"}
    subnets = rolls.process.client("ec2").describe_subnets()["Subnets"]
    tag = {"Key": "Rack", "Value": "local"}
    rolls.process.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="second", MinSize=2, MaxSize=3, LaunchTemplate=specification,
        VPCZoneIdentifier=",".join(subnet["SubnetId"] for subnet in subnets),
        Tags=[{**tag, "PropagateAtLaunch": True}],
    )  # fmt: skip
    (lone,) = rolls.process.client("ec2").run_instances(
        MinCount=1, MaxCount=1, LaunchTemplate=specification, SubnetId=subnets[0]["SubnetId"],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [tag]}],
    )["Instances"]  # fmt: skip
    rolls.process.wait_for(lambda: len(rolls.statuses_by_id()) == 6, "six registrations")
    rolls.process.wait_for(lambda: all(rolls.statuses_by_id().values()), "their agents")
    old = rolls.key_in_use()

    said = texts(start(rolls))

    assert "in no Auto Scaling group, so nothing would replace it" in texts_left(plan(rolls), lone["InstanceId"])
    keys = rolls.keys_of_instances()
    assert len(keys) == 6
    assert keys.count(old) == 1
    assert f"except {lone['InstanceId']}, which the roll left alone" in said
    assert {group.desired_capacity for group in rolls.groups} == {3, 2}


def texts_left(made: Plan, id_: str) -> str:
    return "\n".join(left.reason for left in made.left_alone if left.ec2_instance_id == id_)


# AWS that answers late


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_late_descriptions_mislead_neither_a_roll_nor_the_process_that_takes_it_over(rolls: Rolls, way: str) -> None:
    late = rolls.process.control("add_fault", kind="late", pattern="autoscaling:DescribeAutoScalingGroups", seconds=5)
    events = rolls.roll.start(SOON)
    with Observer(rolls.process) as observer:
        until(events, "terminating" if way == "resume" else "launching")
        rolls.stop.signal = 15
        with pytest.raises(RollIncomplete):
            list(events)
        rolls.stop.signal = 0
        list(getattr(rolls.roll, way)())

    assert observer.broken_promises == []
    rolls.process.control("clear_faults", number=late)
    rolls.assert_given_back(3)


def until(events: Iterator[Event], phase: str) -> None:
    next(event for event in events if event.phase == phase)


def test_a_group_that_is_deleted_during_a_roll_does_not_stop_it(rolls: Rolls) -> None:
    events: Any = rolls.roll.start(SOON)
    until(events, "draining")
    rolls.process.client("autoscaling").delete_auto_scaling_group(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name, ForceDelete=True
    )
    rolls.process.wait_for(lambda: not rolls.groups, "the group's end")

    said = texts(list(events))

    assert "has been deleted; continuing without it" in said
    assert rolls.journal_is_gone()
