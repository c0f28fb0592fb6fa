"""Instance refreshes with protected, standby and draining instances, and with failing launches.

"The model" is RefreshPreferences in botocore's model of Auto Scaling; "the guide" is
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import refusal
from tests.local.api.test_instance_refreshes import (
    GROUP,
    HOOK,
    ONE_MORE,
    described,
    group_of,
    members,
    new_version,
    start,
    until,
    until_over,
    versions,
)

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


@pytest.mark.parametrize(
    ("preference", "status", "replaced"),
    [({}, "Failed", 2), ({"ScaleInProtectedInstances": "Ignore"}, "Successful", 2),
     ({"ScaleInProtectedInstances": "Refresh"}, "Successful", 3)],
)  # fmt: skip
def test_protected_instances_are_waited_for_ignored_or_replaced(
    seeded: Rack, preference: dict[str, str], status: str, replaced: int
) -> None:
    """ScaleInProtectedInstances in the model: "Wait (default) … waits one hour … Otherwise … will fail"."""
    before = members(seeded)
    protected = min(before)
    seeded.autoscaling.set_instance_protection(
        AutoScalingGroupName=GROUP, InstanceIds=[protected], ProtectedFromScaleIn=True
    )
    start(seeded, **ONE_MORE, **preference)

    assert until_over(seeded, limit=7200, step=5) == status
    seeded.pass_time(60)
    assert len(before - members(seeded)) == replaced
    assert (protected in members(seeded)) is (replaced == 2)
    assert len(members(seeded, "InService")) == 3
    if status == "Failed":
        assert "1 protected from scale in" in described(seeded)["StatusReason"]


@pytest.mark.parametrize(
    ("preference", "status", "left"),
    [({}, "Failed", True), ({"StandbyInstances": "Ignore"}, "Successful", True),
     ({"StandbyInstances": "Terminate"}, "Successful", False)],
)  # fmt: skip
def test_instances_on_standby_are_waited_for_ignored_or_terminated(
    seeded: Rack, preference: dict[str, str], status: str, left: bool
) -> None:
    """StandbyInstances in the model: "Wait (default) … waits one hour … Otherwise … will fail"."""
    set_aside = min(members(seeded))
    seeded.autoscaling.enter_standby(
        AutoScalingGroupName=GROUP, InstanceIds=[set_aside], ShouldDecrementDesiredCapacity=True
    )
    start(seeded, **ONE_MORE, **preference)

    assert until_over(seeded, limit=7200, step=5) == status
    seeded.pass_time(60)
    assert (set_aside in members(seeded, "Standby")) is left
    assert len(members(seeded, "InService")) == 2


def test_a_refresh_that_cannot_launch_fails_after_an_hour_and_leaves_the_rest(seeded: Rack) -> None:
    """The guide: "If the instance refresh can't launch any healthy instances, it will eventually fail"; "an hour"."""
    before = members(seeded)
    seeded.world.set_condition("no-capacity", "")
    start(seeded, **ONE_MORE)

    until(seeded, lambda: "EndTime" in described(seeded), limit=7200, step=10)

    assert described(seeded)["Status"] == "Failed"
    assert described(seeded)["EndTime"].timestamp() - described(seeded)["StartTime"].timestamp() > 3600
    assert members(seeded, "InService") == before


@pytest.mark.parametrize("automatic", [True, False])
def test_a_refresh_with_auto_rollback_rolls_back_when_it_fails(seeded: Rack, automatic: bool) -> None:
    """AutoRollback in the model: "whether to roll back … if the instance refresh fails"."""
    before = members(seeded)
    protected = min(before)
    seeded.autoscaling.set_instance_protection(
        AutoScalingGroupName=GROUP, InstanceIds=[protected], ProtectedFromScaleIn=True
    )
    start(seeded, new_version(seeded), **ONE_MORE, AutoRollback=automatic)

    status = until_over(seeded, limit=7200, step=5)
    seeded.pass_time(60)

    assert status == ("RollbackSuccessful" if automatic else "Failed")
    assert versions(seeded) == (["1"] * 3 if automatic else ["1", "2", "2"])
    if automatic:
        assert described(seeded)["RollbackDetails"]["RollbackReason"].startswith("Automatic rollback")


@pytest.mark.parametrize("automatic", [True, False])
def test_an_alarm_fails_a_refresh_at_once(seeded: Rack, automatic: bool) -> None:
    """https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html: "goes to ALARM, the

    instance refresh fails without rolling back", but with auto rollback it "automatically reverses what was deployed".
    """
    before = members(seeded)
    seeded.world.alarms = {"errors": ("OK", "")}
    start(
        seeded,
        new_version(seeded),
        **ONE_MORE,
        AutoRollback=automatic,
        AlarmSpecification={"Alarms": ["errors"]},
    )
    until(seeded, lambda: len(before & members(seeded, "InService")) == 2)
    seeded.world.alarms = {"errors": ("ALARM", "too many")}
    seeded.pass_time(15)

    assert described(seeded)["Status"] == ("RollbackInProgress" if automatic else "Failed")
    assert "CloudWatch alarm errors is in state ALARM: too many" in described(seeded)["StatusReason"]
    assert until_over(seeded) == ("RollbackSuccessful" if automatic else "Failed")


@pytest.mark.parametrize("state", ["ALARM", "INSUFFICIENT_DATA", "missing"])
def test_a_refresh_does_not_start_with_an_alarm_that_is_not_ok(seeded: Rack, state: str) -> None:
    """The same page: "If the alarm state is INSUFFICIENT_DATA or ALARM, you receive an error"."""
    if state != "missing":
        seeded.world.alarms = {"errors": (state, "")}

    code, _ = refusal(
        seeded.autoscaling.start_instance_refresh,
        AutoScalingGroupName=GROUP,
        Preferences={"AlarmSpecification": {"Alarms": ["errors"]}},
    )

    assert code == "ValidationError"


def test_nothing_is_replaced_while_an_alarm_has_no_data(seeded: Rack) -> None:
    """The same page: "Amazon EC2 Auto Scaling cannot replace instances until new data points are found"."""
    before = members(seeded)
    seeded.world.alarms = {"errors": ("OK", "")}
    start(seeded, **ONE_MORE, AlarmSpecification={"Alarms": ["errors"]})
    seeded.world.alarms = {"errors": ("INSUFFICIENT_DATA", "")}
    seeded.pass_time(900)
    assert members(seeded) == before

    seeded.world.alarms = {"errors": ("OK", "")}
    assert until_over(seeded) == "Successful"


def test_a_refresh_bakes_before_it_succeeds(seeded: Rack) -> None:
    """BakeTime in the model: "to wait at the end … before the instance refresh is considered complete"."""
    start(seeded, new_version(seeded), MinHealthyPercentage=0, BakeTime=300)
    until(seeded, lambda: described(seeded)["Status"] == "Baking")

    assert described(seeded)["PercentageComplete"] == 100
    assert group_of(seeded)["LaunchTemplate"]["Version"] == "1"
    assert until(seeded, lambda: described(seeded)["Status"] == "Successful") == pytest.approx(300, abs=15)
    assert group_of(seeded)["LaunchTemplate"]["Version"] == "2"


@pytest.mark.parametrize("given", [{"SkipMatching": True}, {"wanted": True}])
def test_a_group_with_instance_requirements_has_neither_skip_matching_nor_a_desired_configuration(
    seeded: Rack, given: dict[str, bool]
) -> None:
    """The guide, Limitations: "Attribute-based instance selection … parameters aren't supported"."""
    wanted = new_version(seeded)
    needs = {"VCpuCount": {"Min": 2, "Max": 2}, "MemoryMiB": {"Min": 2048, "Max": 2048}}
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": wanted["LaunchTemplate"],
            "Overrides": [{"InstanceRequirements": needs}],
        }
    }
    seeded.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MixedInstancesPolicy=policy)
    preferences = {name: value for name, value in given.items() if name != "wanted"}

    with pytest.raises(seeded.autoscaling.exceptions.ClientError, match="InstanceRequirements"):
        start(seeded, wanted if "wanted" in given else None, **preferences)

    start(seeded, **ONE_MORE)
    assert until_over(seeded) == "Successful"
    seeded.pass_time(60)
    assert versions(seeded) == ["2"] * 3


def test_managed_draining_holds_instances_that_a_refresh_terminates_until_their_tasks_have_moved(seeded: Rack) -> None:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-instance-draining.html: it "works with Auto

    Scaling group instance replacements", through a terminating lifecycle hook, and the service's minimum holds.
    """
    seeded.world.set_condition("managed-draining", "")
    hooks = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"]
    assert [hook["LifecycleHookName"] for hook in hooks] == [HOOK]
    before = members(seeded)
    busy: list[str] = []
    start(seeded, **ONE_MORE, InstanceWarmup=60)

    def over() -> bool:
        for service, promised in (("web", 2), ("worker", 1)):
            assert seeded.world.running_tasks("rack", service) >= promised
        for id_ in members(seeded, "Terminating:Wait"):
            (_, registration), *_ = seeded.world.ecs.registrations_of(id_)
            assert registration.status == "DRAINING"
            busy.extend(id_ for _ in registration.live())
        gone = [i for i in seeded.world.ec2.instances.values() if i.instance_id in before and not i.exists]
        for instance in gone:
            assert not any(r.live for _, r in seeded.world.ecs.registrations_of(instance.instance_id) if [*r.live()])
        return "EndTime" in described(seeded)

    until(seeded, over)
    assert described(seeded)["Status"] == "Successful"
    assert set(busy) == before


def test_instances_of_a_warm_pool_are_replaced_after_those_in_service(seeded: Rack) -> None:
    """The guide: "Replace InService instances before instances that are in a warm pool"; ProgressDetails."""
    seeded.autoscaling.put_warm_pool(AutoScalingGroupName=GROUP, MinSize=2, MaxGroupPreparedCapacity=3)
    seeded.pass_time(120)
    pool = {w["InstanceId"] for w in seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)["Instances"]}
    before = members(seeded)
    assert len(pool) == 2
    start(seeded, MinHealthyPercentage=0)

    until(seeded, lambda: described(seeded)["ProgressDetails"]["LivePoolProgress"]["PercentageComplete"] == 100)
    assert not before & members(seeded, "InService")
    assert described(seeded)["ProgressDetails"]["WarmPoolProgress"]["InstancesToUpdate"] > 0
    assert until_over(seeded) == "Successful"
    left = {w["InstanceId"] for w in seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)["Instances"]}
    assert not pool & left


def test_a_suspended_process_holds_a_refresh_up(seeded: Rack) -> None:
    """https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html: InstanceRefresh."""
    before = members(seeded)
    seeded.autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["InstanceRefresh"])
    start(seeded, **ONE_MORE)
    seeded.pass_time(600)
    assert members(seeded) == before

    seeded.autoscaling.resume_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["InstanceRefresh"])
    assert until_over(seeded) == "Successful"


@pytest.mark.parametrize(
    "preferences",
    [
        {"MaxHealthyPercentage": 110},
        {"MinHealthyPercentage": 50, "MaxHealthyPercentage": 160},
        {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 201},
        {"MinHealthyPercentage": 101},
        {"CheckpointDelay": 60},
        {"CheckpointPercentages": [50, 20]},
        {"CheckpointPercentages": [0, 100]},
        {"CheckpointPercentages": [50], "CheckpointDelay": 172801},
        {"BakeTime": 172801},
        {"AlarmSpecification": {"Alarms": [f"alarm-{n}" for n in range(11)]}},
        {"StandbyInstances": "Refresh"},
        {"ScaleInProtectedInstances": "Terminate"},
    ],
)
def test_invalid_preferences_are_refused(seeded: Rack, preferences: dict[str, Any]) -> None:
    """RefreshPreferences in the model, member by member."""
    code, _ = refusal(seeded.autoscaling.start_instance_refresh, AutoScalingGroupName=GROUP, Preferences=preferences)
    assert code == "ValidationError"


def test_an_unsupported_strategy_of_a_refresh_is_refused_and_not_ignored(seeded: Rack) -> None:
    for what, named in (({"Strategy": "ReplaceRootVolume"}, "Strategy"),):
        code, message = refusal(seeded.autoscaling.start_instance_refresh, AutoScalingGroupName=GROUP, **what)
        assert (code, message) == ("ValidationError", f"The local rack does not support {named} of instance refreshes.")
