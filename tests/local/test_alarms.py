"""CloudWatch's alarms of the local rack: moto's, made strict.

The quotations are from botocore's model of CloudWatch, in DescribeAlarmsInput and in the operations named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from rackctl.model import Alarm
from tests.fakes.world import Scene
from tests.local.rolls import put_alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess


def put_composite(rack: LocalRackProcess, name: str, state: str) -> None:
    cloudwatch = rack.client("cloudwatch")
    cloudwatch.put_composite_alarm(AlarmName=name, AlarmRule='ALARM("errors")')
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="of it all")


def states(answer: Any) -> dict[str, str]:
    return {a["AlarmName"]: a["StateValue"] for a in (*answer["MetricAlarms"], *answer["CompositeAlarms"])}


def test_a_new_alarm_has_insufficient_data_and_an_updated_one_keeps_its_state(local_rack: LocalRackProcess) -> None:
    """PutMetricAlarm: "the alarm state is immediately set to INSUFFICIENT_DATA"; "its state is left unchanged"."""
    cloudwatch = local_rack.client("cloudwatch")

    def put(threshold: int) -> Any:
        cloudwatch.put_metric_alarm(
            AlarmName="fresh", Namespace="n", MetricName="m", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=threshold, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
        (found,) = cloudwatch.describe_alarms(AlarmNames=["fresh"])["MetricAlarms"]
        return found

    assert put(1)["StateValue"] == "INSUFFICIENT_DATA"
    put_alarm(local_rack, "fresh", "ALARM", "set")
    updated = put(2)

    assert (updated["StateValue"], updated["StateReason"], updated["Threshold"]) == ("ALARM", "set", 2.0)


def test_without_types_only_metric_alarms_are_described(local_rack: LocalRackProcess) -> None:
    """AlarmTypes: "If you omit this parameter, only metric alarms are returned, even if composite alarms exist"."""
    put_alarm(local_rack, "errors")
    put_composite(local_rack, "everything", "ALARM")
    cloudwatch = local_rack.client("cloudwatch")
    names = ["errors", "everything", "none"]

    by_default = cloudwatch.describe_alarms(AlarmNames=names)
    composite = cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["CompositeAlarm"])
    both = cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["CompositeAlarm", "MetricAlarm"])

    assert states(by_default) == {"errors": "OK"}
    assert states(composite) == {"everything": "ALARM"}
    assert states(both) == {"errors": "OK", "everything": "ALARM"}


def test_requests_that_cloudwatch_refuses_are_refused(local_rack: LocalRackProcess) -> None:
    """AlarmNames has at most 100 items; SetAlarmState of no alarm is ResourceNotFound."""
    cloudwatch = local_rack.client("cloudwatch", parameter_validation=False)

    with pytest.raises(ClientError, match="ValidationError"):
        cloudwatch.describe_alarms(AlarmNames=[f"a{n}" for n in range(101)])
    with pytest.raises(ClientError, match="ValidationError"):
        cloudwatch.describe_alarms(AlarmTypes=["Fire"])
    with pytest.raises(ClientError, match="ResourceNotFound"):
        cloudwatch.set_alarm_state(AlarmName="none", StateValue="OK", StateReason="")


def _of_the_rack(rack: LocalRackProcess) -> Any:
    return rack.aws.cloudwatch


def _of_the_fake(_: LocalRackProcess) -> Any:
    aws = Scene(1).aws
    aws.world.alarms = {"errors": ("OK", "as it should be"), "everything": ("ALARM", "of it all")}
    return aws.cloudwatch


@pytest.mark.parametrize("kind", [_of_the_rack, _of_the_fake], ids=["local rack", "fake"])
def test_metric_and_composite_alarms_are_read_and_others_left_out(
    local_rack: LocalRackProcess, kind: Callable[[LocalRackProcess], Any]
) -> None:
    put_alarm(local_rack, "errors")
    put_composite(local_rack, "everything", "ALARM")

    found = kind(local_rack).alarms(["everything", "errors", "none"])

    assert sorted(found, key=lambda alarm: alarm.alarm_name) == [
        Alarm("errors", "OK", "as it should be"),
        Alarm("everything", "ALARM", "of it all"),
    ]


def test_more_alarms_than_one_call_takes_are_read(local_rack: LocalRackProcess) -> None:
    put_alarm(local_rack, "errors")

    found = local_rack.aws.cloudwatch.alarms([*(f"none{n}" for n in range(150)), "errors"])

    assert [alarm.alarm_name for alarm in found] == ["errors"]


def test_an_instance_refresh_evaluates_the_alarms_of_cloudwatch(own_local_rack: LocalRackProcess) -> None:
    """AlarmSpecification in botocore's model of Auto Scaling: "fail the operation if an alarm threshold is met"."""
    client, cloudwatch = own_local_rack.client("autoscaling"), own_local_rack.client("cloudwatch")
    (group,) = own_local_rack.aws.autoscaling.all_groups()
    named = {"AutoScalingGroupName": group.auto_scaling_group_name}
    put_alarm(own_local_rack, "errors")
    client.start_instance_refresh(**named, Preferences={"AlarmSpecification": {"Alarms": ["errors"]}})

    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="too many")

    def failed() -> bool:
        (refresh,) = client.describe_instance_refreshes(**named)["InstanceRefreshes"]
        return bool(refresh["Status"] == "Failed" and "errors" in refresh["StatusReason"])

    own_local_rack.wait_for(failed, "the refresh's failure")
    with pytest.raises(ClientError, match="not in a compatible state"):
        client.start_instance_refresh(**named, Preferences={"AlarmSpecification": {"Alarms": ["errors"]}})
