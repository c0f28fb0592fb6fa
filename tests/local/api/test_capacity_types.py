"""Groups whose capacity is not a number of instances: weights, vCPUs, MiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import refusal
from tests.local.api.test_autoscaling import create, group_of, members_of, template

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def policy(rack: Rack, *overrides: dict[str, Any]) -> dict[str, Any]:
    specification = template(rack, "by-attributes")
    return {"LaunchTemplate": {"LaunchTemplateSpecification": specification, "Overrides": list(overrides)}}


LARGE = {"InstanceRequirements": {"VCpuCount": {"Min": 4}, "MemoryMiB": {"Min": 8192}}}
COUNTS = {"vcpu": 4, "memory-mib": 16384}


@pytest.mark.parametrize("kind", COUNTS)
def test_a_group_may_count_its_capacity_in_vcpus_or_mib(rack: Rack, kind: str) -> None:
    """CreateAutoScalingGroup, DesiredCapacityType: "The unit of measurement for … desired capacity"."""
    each = COUNTS[kind]
    create(
        rack, "g", MixedInstancesPolicy=policy(rack, LARGE), DesiredCapacityType=kind, MaxSize=4 * each,
        DesiredCapacity=2 * each,
    )  # fmt: skip
    rack.pass_time(60)

    group = group_of(rack, "g")

    assert group["DesiredCapacityType"] == kind
    assert [(i["InstanceType"], i["WeightedCapacity"]) for i in group["Instances"]] == [("m5.xlarge", str(each))] * 2


def test_one_more_vcpu_of_desired_capacity_launches_a_whole_instance(rack: Rack) -> None:
    create(
        rack, "g", MixedInstancesPolicy=policy(rack, LARGE), DesiredCapacityType="vcpu", MaxSize=16, DesiredCapacity=8
    )
    rack.pass_time(60)

    rack.autoscaling.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=9)
    rack.pass_time(60)
    assert len(group_of(rack, "g")["Instances"]) == 3

    rack.autoscaling.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=8)
    rack.pass_time(120)
    assert len(group_of(rack, "g")["Instances"]) == 2


def test_the_desired_capacity_type_is_for_selection_by_attributes_alone(seeded: Rack) -> None:
    """CreateAutoScalingGroup: "supports DesiredCapacityType for attribute-based instance type selection only"."""
    update = seeded.autoscaling.update_auto_scaling_group
    assert refusal(update, AutoScalingGroupName="rack-instances", DesiredCapacityType="vcpu")[0] == "ValidationError"
    assert refusal(update, AutoScalingGroupName="rack-instances", DesiredCapacityType="cpus")[0] == "ValidationError"

    given = policy(seeded, LARGE)
    update(AutoScalingGroupName="rack-instances", MixedInstancesPolicy=given, DesiredCapacityType="vcpu", MaxSize=40)

    assert group_of(seeded)["DesiredCapacityType"] == "vcpu"


def test_an_override_may_weigh_its_instances(rack: Rack) -> None:
    """Instance, WeightedCapacity: "The number of capacity units contributed by the instance"."""
    overrides = policy(rack, {"InstanceType": "m5.xlarge", "WeightedCapacity": "2"})
    create(rack, "g", MixedInstancesPolicy=overrides, DesiredCapacity=4)
    rack.pass_time(60)
    assert [i["WeightedCapacity"] for i in group_of(rack, "g")["Instances"]] == ["2", "2"]

    rack.autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=group_of(rack, "g")["Instances"][0]["InstanceId"], ShouldDecrementDesiredCapacity=True
    )

    assert group_of(rack, "g")["DesiredCapacity"] == 2


def test_a_group_of_plain_units_names_no_capacity_type_and_no_weights(seeded: Rack) -> None:
    assert "DesiredCapacityType" not in group_of(seeded)
    assert "WeightedCapacity" not in group_of(seeded)["Instances"][0]
    assert len(members_of(seeded)) == 3
