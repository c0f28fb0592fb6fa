"""Problems of replacing instances in practice, and the roll's reaction, over AWS's APIs.

tests/roll has what other tools got wrong, in a world in memory; here are the cases that depend on AWS's answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.local.rolls import SOON, Rolls, start, texts

if TYPE_CHECKING:
    from rackctl.roll.plan import Plan

# Each of these is over two seconds, for it is a roll with real logins.
pytestmark = pytest.mark.timeout(300)


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


# Groups


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
