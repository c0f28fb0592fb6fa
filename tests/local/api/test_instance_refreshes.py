"""Instance refreshes through boto3.

"The model" is RefreshPreferences and InstanceRefresh in botocore's model of Auto Scaling; "the guide" is
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html and the pages beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.api.clients import Rack

GROUP = "rack-instances"
HOOK = "ecs-managed-draining-termination-hook"
# Launch before terminate, one at a time.
ONE_MORE = {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 100}


def start(rack: Rack, wanted: dict[str, Any] | None = None, /, **preferences: Any) -> str:
    given = {"DesiredConfiguration": wanted} if wanted else {}
    answer = rack.autoscaling.start_instance_refresh(AutoScalingGroupName=GROUP, Preferences=preferences, **given)
    return str(answer["InstanceRefreshId"])


def described(rack: Rack) -> dict[str, Any]:
    """Return the newest refresh."""
    found = rack.autoscaling.describe_instance_refreshes(AutoScalingGroupName=GROUP)["InstanceRefreshes"]
    newest: dict[str, Any] = found[0]
    return newest


def group_of(rack: Rack) -> dict[str, Any]:
    (group,) = rack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"]
    found: dict[str, Any] = group
    return found


def members(rack: Rack, *states: str) -> set[str]:
    return {m["InstanceId"] for m in group_of(rack)["Instances"] if not states or m["LifecycleState"] in states}


def versions(rack: Rack) -> list[str]:
    return sorted(m["LaunchTemplate"]["Version"] for m in group_of(rack)["Instances"])


def new_version(rack: Rack, **data: Any) -> dict[str, Any]:
    """Create a version of the group's launch template, and return it as a desired configuration."""
    template = group_of(rack)["LaunchTemplate"]["LaunchTemplateId"]
    made = rack.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.small", **data}
    )
    number = str(made["LaunchTemplateVersion"]["VersionNumber"])
    return {"LaunchTemplate": {"LaunchTemplateId": template, "Version": number}}


def until(rack: Rack, condition: Callable[[], bool], *, limit: float = 3600, step: float = 1) -> float:
    """Let time pass until a condition holds, and return how much did."""
    began = rack.world.now
    while not condition():
        assert rack.world.now - began < limit, f"it is still {described(rack)}"
        rack.pass_time(step)
    return rack.world.now - began


def until_over(rack: Rack, **limits: float) -> str:
    until(rack, lambda: "EndTime" in described(rack), **limits)
    return str(described(rack)["Status"])


def until_new(rack: Rack, before: set[str], *, count: int = 1) -> None:
    until(rack, lambda: len(members(rack, "InService") - before) >= count)


def test_a_refresh_is_described_and_blocks_another(seeded: Rack) -> None:
    """InstanceRefreshInProgress in the model: "an active instance refresh already exists"."""
    asked = {"AutoScalingGroupName": GROUP}
    assert seeded.autoscaling.describe_instance_refreshes(**asked)["InstanceRefreshes"] == []

    id_ = start(seeded, InstanceWarmup=30)

    assert refusal(seeded.autoscaling.start_instance_refresh, **asked)[0] == "InstanceRefreshInProgress"
    found = described(seeded)
    assert (found["InstanceRefreshId"], found["Status"], found["InstancesToUpdate"]) == (id_, "Pending", 3)
    assert found["Preferences"] == {"MinHealthyPercentage": 90, "InstanceWarmup": 30}
    assert found["PercentageComplete"] == 0
    seeded.pass_time(15)
    assert described(seeded)["Status"] == "InProgress"


def test_a_refresh_replaces_every_instance_and_blocks_none_after(seeded: Rack) -> None:
    """The guide: "If skip matching is not enabled, any instance … can be replaced"."""
    before = members(seeded)
    first = start(seeded)

    assert until_over(seeded) == "Successful"
    assert (described(seeded)["PercentageComplete"], described(seeded)["InstancesToUpdate"]) == (100, 0)
    seeded.pass_time(60)
    assert not before & members(seeded)
    assert len(members(seeded, "InService")) == 3
    second = start(seeded)
    by_id = seeded.autoscaling.describe_instance_refreshes(AutoScalingGroupName=GROUP, InstanceRefreshIds=[first])
    assert second != first
    assert [r["InstanceRefreshId"] for r in by_id["InstanceRefreshes"]] == [first]


@pytest.mark.parametrize(
    ("preferences", "fewest", "most"),
    [
        ({}, 2, 3),
        ({"MinHealthyPercentage": 50}, 2, 3),
        ({"MinHealthyPercentage": 0}, 0, 3),
        (ONE_MORE, 3, 4),
        ({"MinHealthyPercentage": 100, "MaxHealthyPercentage": 110}, 3, 4),
        ({"MinHealthyPercentage": 100, "MaxHealthyPercentage": 200}, 3, 6),
        ({"MinHealthyPercentage": 60, "MaxHealthyPercentage": 134}, 2, 4),
    ],
)
def test_both_percentages_bound_the_instances_in_service(
    seeded: Rack, preferences: dict[str, int], fewest: int, most: int
) -> None:
    """MaxHealthyPercentage in the model: what is omitted "terminates an instance and launches its replacement

    simultaneously"; where it is set and there is no room, "Auto Scaling launches a new instance before terminating".
    """
    start(seeded, **preferences)
    counts, totals = set(), set()

    def over() -> bool:
        counts.add(len(members(seeded, "InService")))
        totals.add(len(members(seeded, "InService", "Pending")))
        return "EndTime" in described(seeded)

    until(seeded, over)
    assert described(seeded)["Status"] == "Successful"
    assert (min(counts), max(totals)) == (fewest, most)
    assert group_of(seeded)["DesiredCapacity"] == 3


def test_an_instance_that_has_not_warmed_up_does_not_count(seeded: Rack) -> None:
    """InstanceWarmup in the model: it "waits before moving on to replacing the next instance"."""
    before = members(seeded)
    start(seeded, **ONE_MORE, InstanceWarmup=200)
    until_new(seeded, before)

    seeded.pass_time(190)
    assert members(seeded, "InService") >= before
    assert described(seeded)["PercentageComplete"] == 0
    seeded.pass_time(25)
    assert len(before & members(seeded, "InService")) == 2
    assert described(seeded)["PercentageComplete"] == 33


def test_a_desired_configuration_is_the_group_s_own_once_the_refresh_has_succeeded(seeded: Rack) -> None:
    """DesiredConfiguration in the model: "Once the instance refresh succeeds, Amazon EC2 Auto Scaling updates …"

    The guide: "If a scale-out event occurs … launches new instances with the desired configuration".
    """
    wanted = new_version(seeded)
    start(seeded, wanted, **ONE_MORE, SkipMatching=True)
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=4)
    seeded.pass_time(15)

    assert group_of(seeded)["LaunchTemplate"]["Version"] == "1"
    assert "2" in versions(seeded)
    assert described(seeded)["DesiredConfiguration"]["LaunchTemplate"]["Version"] == "2"
    assert until_over(seeded) == "Successful"
    seeded.pass_time(60)
    assert group_of(seeded)["LaunchTemplate"]["Version"] == "2"
    assert versions(seeded) == ["2"] * 4


def test_the_launch_of_a_group_cannot_be_changed_below_a_desired_configuration(seeded: Rack) -> None:
    """The guide, Limitations: "the request will fail with the following validation error"."""
    start(seeded, new_version(seeded), **ONE_MORE)
    template = group_of(seeded)["LaunchTemplate"]

    code, message = refusal(
        seeded.autoscaling.update_auto_scaling_group,
        AutoScalingGroupName=GROUP,
        LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": "1"},
    )

    assert code == "ValidationError"
    assert message == (
        "An active instance refresh with a desired configuration exists. All configuration options derived from the "
        "desired configuration are not available for update while the instance refresh is active."
    )
    seeded.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=7)
    assert until_over(seeded) == "Successful"


def test_matching_instances_are_skipped(seeded: Rack) -> None:
    """SkipMatching in the model; the guide: if none of it changes, it "will succeed immediately"."""
    before = members(seeded)
    start(seeded, **ONE_MORE, SkipMatching=True)
    assert until(seeded, lambda: "EndTime" in described(seeded)) < 30
    assert members(seeded) == before

    template = group_of(seeded)["LaunchTemplate"]["LaunchTemplateId"]
    new_version(seeded)
    seeded.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=GROUP, LaunchTemplate={"LaunchTemplateId": template, "Version": "2"}
    )
    seeded.autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=min(before), ShouldDecrementDesiredCapacity=False
    )
    until_new(seeded, before)
    (new,) = members(seeded, "InService") - before
    start(seeded, **ONE_MORE, SkipMatching=True)
    assert described(seeded)["InstancesToUpdate"] == 2
    assert until_over(seeded) == "Successful"
    assert new in members(seeded, "InService")


def test_a_checkpoint_pauses_a_refresh(seeded: Rack) -> None:
    """CheckpointDelay in the model: "to wait after a checkpoint before continuing".

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-adding-checkpoints-instance-refresh.html: "the minimum
    percentage of instances … that must be new instances before the checkpoint is considered reached".
    """
    before = members(seeded)
    start(seeded, **ONE_MORE, CheckpointPercentages=[1, 100], CheckpointDelay=600)
    until_new(seeded, before)

    seeded.pass_time(590)
    assert len(members(seeded, "InService", "Pending") - before) == 1
    assert len(before & members(seeded, "InService")) == 2
    assert described(seeded)["PercentageComplete"] == 33
    seeded.pass_time(25)
    assert len(members(seeded, "InService", "Pending") - before) == 2
    assert until_over(seeded) == "Successful"


def test_a_checkpoint_pauses_at_its_percentage_for_an_hour_by_default(seeded: Rack) -> None:
    """CheckpointPercentages in the model: "defaults to 3600 (1 hour)"; and the last below 100 is where it ends."""
    before = members(seeded)
    start(seeded, MinHealthyPercentage=0, CheckpointPercentages=[34, 60])
    until_new(seeded, before, count=2)
    assert len(members(seeded) - before) == 2
    seeded.pass_time(3500)
    assert described(seeded)["Status"] == "InProgress"

    assert until_over(seeded) == "Successful"
    assert len(members(seeded) - before) == 2


def test_a_cancelled_refresh_keeps_the_instances_that_it_launched(seeded: Rack) -> None:
    """CancelInstanceRefresh in the model: it "does not roll back any changes that it made"."""
    before = members(seeded)
    id_ = start(seeded, new_version(seeded), **ONE_MORE)
    until(seeded, lambda: len(before & members(seeded)) == 2)

    answer = seeded.autoscaling.cancel_instance_refresh(AutoScalingGroupName=GROUP)

    assert answer["InstanceRefreshId"] == id_
    assert described(seeded)["Status"] == "Cancelling"
    assert until_over(seeded) == "Cancelled"
    seeded.pass_time(600)
    assert len(members(seeded, "InService")) == 3
    assert "2" in versions(seeded)
    assert group_of(seeded)["LaunchTemplate"]["Version"] == "1"
    code, _ = refusal(seeded.autoscaling.cancel_instance_refresh, AutoScalingGroupName=GROUP)
    assert code == "ActiveInstanceRefreshNotFound"


@pytest.mark.parametrize("wait", [True, False])
def test_cancelling_waits_by_default_for_launches_and_terminations(seeded: Rack, wait: bool) -> None:
    """WaitForTransitioningInstances in the model: "The default is true"."""
    before = members(seeded)
    start(seeded, MinHealthyPercentage=0)
    until(seeded, lambda: not before & members(seeded, "InService"))
    asked = {} if wait else {"WaitForTransitioningInstances": False}

    seeded.autoscaling.cancel_instance_refresh(AutoScalingGroupName=GROUP, **asked)
    until_over(seeded)

    assert (len(members(seeded, "InService")) == 3) is wait


def test_a_rollback_replaces_the_instances_that_the_refresh_launched(seeded: Rack) -> None:
    """RollbackInstanceRefresh in the model: "replaces any instances that were replaced during the instance refresh".

    PercentageComplete: "This value gradually goes back down to zero"; InstancesToUpdate: "not yet updated".
    """
    before = members(seeded)
    id_ = start(seeded, new_version(seeded), **ONE_MORE)
    until(seeded, lambda: len(before & members(seeded, "InService")) == 1)
    seeded.autoscaling.rollback_instance_refresh(AutoScalingGroupName=GROUP)

    rolling = described(seeded)
    assert (rolling["InstanceRefreshId"], rolling["Status"]) == (id_, "RollbackInProgress")
    assert rolling["RollbackDetails"]["InstancesToUpdateOnRollback"] == rolling["InstancesToUpdate"] == 1
    seen = []

    def over() -> bool:
        seen.append(described(seeded)["PercentageComplete"])
        assert len(members(seeded, "InService")) >= 3
        return "EndTime" in described(seeded)

    until(seeded, over)
    assert seen == sorted(seen, reverse=True)
    assert (seen[0], seen[-1]) == (66, 0)
    assert described(seeded)["Status"] == "RollbackSuccessful"
    seeded.pass_time(60)
    assert versions(seeded) == ["1"] * 3
    assert len(before & members(seeded)) == 1
    assert group_of(seeded)["LaunchTemplate"]["Version"] == "1"


@pytest.mark.parametrize("why", ["no configuration", "$Latest", "parameter"])
def test_not_every_refresh_can_be_rolled_back(seeded: Rack, why: str) -> None:
    """IrreversibleInstanceRefresh in the model: no desired configuration, a parameter, or $Latest or $Default."""
    wanted = None if why == "no configuration" else new_version(seeded)
    template = group_of(seeded)["LaunchTemplate"]["LaunchTemplateId"]
    if why == "parameter":
        image = "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
        seeded.ec2.create_launch_template_version(
            LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"ImageId": image}
        )
    version = {"$Latest": "$Latest", "parameter": "3"}.get(why, "1")
    seeded.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=GROUP, LaunchTemplate={"LaunchTemplateId": template, "Version": version}
    )
    with pytest.raises(seeded.autoscaling.exceptions.IrreversibleInstanceRefreshFault):
        start(seeded, wanted, AutoRollback=True)
    start(seeded, wanted)

    code, _ = refusal(seeded.autoscaling.rollback_instance_refresh, AutoScalingGroupName=GROUP)

    assert code == "IrreversibleInstanceRefresh"
    assert until_over(seeded) == "Successful"
    assert refusal(seeded.autoscaling.rollback_instance_refresh, AutoScalingGroupName=GROUP)[0] == (
        "ActiveInstanceRefreshNotFound"
    )
