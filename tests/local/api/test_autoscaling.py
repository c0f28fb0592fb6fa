from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import ED25519, NOW, Rack, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

GROUP = "rack-instances"


def group_of(rack: Rack, name: str = GROUP) -> dict[str, Any]:
    found: list[dict[str, Any]] = rack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ]
    return found[0]


def members_of(rack: Rack) -> list[str]:
    return [member["InstanceId"] for member in group_of(rack)["Instances"]]


def template(rack: Rack, name: str, **data: object) -> dict[str, str]:
    made = rack.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-1", **data})
    return {"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"], "Version": "1"}


def create(rack: Rack, name: str, **parameters: object) -> None:
    subnets = ",".join(rack.world.ec2.subnets)
    given: Mapping[str, object] = {"MinSize": 0, "MaxSize": 4, "VPCZoneIdentifier": subnets, **parameters}
    if not {"LaunchTemplate", "MixedInstancesPolicy", "LaunchConfigurationName"} & given.keys():
        given = {**given, "LaunchTemplate": template(rack, f"{name}-template")}
    rack.autoscaling.create_auto_scaling_group(AutoScalingGroupName=name, **given)


# Groups


def test_a_group_is_described_in_full(seeded: Rack) -> None:
    group = group_of(seeded)
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (0, 3, 5)
    assert group["CreatedTime"].timestamp() == NOW - 7200
    assert group["AvailabilityZones"] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert group["HealthCheckType"] == "EC2"
    assert group["LaunchTemplate"]["LaunchTemplateName"] == GROUP
    assert {"Key": "Rack", "Value": "rack", "PropagateAtLaunch": True, "ResourceId": GROUP,
            "ResourceType": "auto-scaling-group"} in group["Tags"]  # fmt: skip
    member = group["Instances"][0]
    assert (member["LifecycleState"], member["HealthStatus"]) == ("InService", "Healthy")
    assert member["LaunchTemplate"]["Version"] == "1"
    assert "SuspendedProcesses" in group


def test_groups_are_found_by_name_and_tag(seeded: Rack) -> None:
    create(seeded, "other", Tags=[{"Key": "Rack", "Value": "oth*r"}])

    def names(**parameters: object) -> list[str]:
        answer = seeded.autoscaling.describe_auto_scaling_groups(**parameters)
        return [group["AutoScalingGroupName"] for group in answer["AutoScalingGroups"]]

    assert names() == ["other", GROUP]
    assert names(AutoScalingGroupNames=[GROUP, "unknown"]) == [GROUP]
    assert names(Filters=[{"Name": "tag:Rack", "Values": ["rack"]}]) == [GROUP]
    assert names(Filters=[{"Name": "tag:Rack", "Values": ["oth*r"]}]) == ["other"]
    assert names(Filters=[{"Name": "tag:Rack", "Values": ["r*"]}]) == []  # no wildcards here
    assert names(Filters=[{"Name": "tag-key", "Values": ["Name"]}]) == [GROUP]


def test_groups_are_described_50_a_page_and_at_most_100(rack: Rack) -> None:
    launch = template(rack, "one")
    for number in range(103):
        create(rack, f"group-{number:03}", LaunchTemplate=launch)
    pages = rack.autoscaling.get_paginator("describe_auto_scaling_groups")
    assert [len(page["AutoScalingGroups"]) for page in pages.paginate()] == [50, 50, 3]
    by_100 = pages.paginate(PaginationConfig={"PageSize": 100})
    assert [len(page["AutoScalingGroups"]) for page in by_100] == [100, 3]
    assert refusal(rack.autoscaling.describe_auto_scaling_groups, MaxRecords=101)[0] == "ValidationError"
    assert refusal(rack.autoscaling.describe_auto_scaling_groups, NextToken="x")[0] == "InvalidNextToken"


def test_a_group_launches_missing_instances(rack: Rack) -> None:
    create(rack, "one", DesiredCapacity=2, NewInstancesProtectedFromScaleIn=True)
    rack.pass_time(60)
    members = group_of(rack, "one")["Instances"]
    assert [(m["LifecycleState"], m["ProtectedFromScaleIn"]) for m in members] == [("InService", True)] * 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"MinSize": 3, "MaxSize": 2},
        {"DesiredCapacity": 5},
        {"VPCZoneIdentifier": "subnet-00000000000000000"},
        {"LaunchTemplate": {"LaunchTemplateName": "unknown"}},
        {"LaunchTemplate": {"LaunchTemplateName": "known", "Version": "7"}},
        {"LaunchConfigurationName": "unknown"},
        {
            "LaunchTemplate": {"LaunchTemplateName": "known"},
            "MixedInstancesPolicy": {
                "LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateName": "known"}}
            },
        },
        {"TargetGroupARNs": ["arn:x"]},
        {"MixedInstancesPolicy": {"InstancesDistribution": {"OnDemandBaseCapacity": 1}}},
    ],
    ids=str,
)
def test_an_invalid_group_is_refused(rack: Rack, parameters: dict[str, Any]) -> None:
    template(rack, "known")
    with pytest.raises(rack.autoscaling.exceptions.ClientError, match="ValidationError"):
        create(rack, "one", **parameters)
    assert rack.world.autoscaling.groups == {}


def test_a_template_whose_key_pair_is_gone_is_refused(rack: Rack) -> None:
    rack.ec2.import_key_pair(KeyName="key", PublicKeyMaterial=ED25519)
    with_key = template(rack, "with-key", KeyName="key")
    create(rack, "one", LaunchTemplate=with_key)
    rack.ec2.delete_key_pair(KeyName="key")
    code, message = refusal(
        rack.autoscaling.update_auto_scaling_group, AutoScalingGroupName="one", LaunchTemplate=with_key
    )
    assert code == "ValidationError"
    assert "fully-formed launch template. The key pair 'key' does not exist" in message


def test_a_group_name_is_unique(seeded: Rack) -> None:
    launch = template(seeded, "one")
    parameters = {"AutoScalingGroupName": GROUP, "MinSize": 0, "MaxSize": 1, "LaunchTemplate": launch}
    assert refusal(seeded.autoscaling.create_auto_scaling_group, **parameters)[0] == "AlreadyExists"


def test_an_update_of_a_group_changes_only_the_given_settings(seeded: Rack) -> None:
    before = group_of(seeded)
    seeded.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=9, DefaultCooldown=60)
    assert group_of(seeded) == {**before, "MaxSize": 9, "DefaultCooldown": 60}


def test_a_version_by_alias_stays_an_alias_and_its_instances_have_the_number(rack: Rack) -> None:
    launch = template(rack, "one")
    create(rack, "one", LaunchTemplate={**launch, "Version": "$Latest"}, DesiredCapacity=1)
    rack.ec2.create_launch_template_version(
        LaunchTemplateName="one", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.micro"}
    )
    rack.pass_time(60)
    rack.autoscaling.set_desired_capacity(AutoScalingGroupName="one", DesiredCapacity=2)
    rack.pass_time(60)
    group = group_of(rack, "one")
    assert group["LaunchTemplate"]["Version"] == "$Latest"
    assert group["Instances"][-1]["LaunchTemplate"]["Version"] == "2"


def test_no_version_means_the_default_one(rack: Rack) -> None:
    template(rack, "one")
    create(rack, "one", LaunchTemplate={"LaunchTemplateName": "one"})
    assert group_of(rack, "one")["LaunchTemplate"]["Version"] == "$Default"


@pytest.fixture
def mixed(rack: Rack) -> Rack:
    """A group "mixed" of a MixedInstancesPolicy whose second override has a template of its own."""
    first, second = template(rack, "first"), template(rack, "second")
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": first,
            "Overrides": [
                {"InstanceType": "t3.small"},
                {"InstanceType": "m5.large", "LaunchTemplateSpecification": second},
            ],
        },
        "InstancesDistribution": {"OnDemandBaseCapacity": 2},
    }
    create(rack, "mixed", MixedInstancesPolicy=policy)
    return rack


def test_an_update_without_a_mixed_instances_policy_keeps_it(mixed: Rack) -> None:
    before = group_of(mixed, "mixed")["MixedInstancesPolicy"]
    mixed.autoscaling.update_auto_scaling_group(AutoScalingGroupName="mixed", MaxSize=7)
    assert group_of(mixed, "mixed")["MixedInstancesPolicy"] == before
    overrides = before["LaunchTemplate"]["Overrides"]
    assert overrides[1]["LaunchTemplateSpecification"]["LaunchTemplateName"] == "second"
    assert before["InstancesDistribution"]["OnDemandBaseCapacity"] == 2


def test_part_of_a_mixed_instances_policy_can_be_updated(mixed: Rack) -> None:
    mixed.ec2.create_launch_template_version(LaunchTemplateName="first", LaunchTemplateData={"ImageId": "ami-2"})
    mixed.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName="mixed",
        MixedInstancesPolicy={
            "LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateName": "first", "Version": "2"}}
        },
    )
    policy = group_of(mixed, "mixed")["MixedInstancesPolicy"]
    assert policy["LaunchTemplate"]["LaunchTemplateSpecification"]["Version"] == "2"
    assert [o["InstanceType"] for o in policy["LaunchTemplate"]["Overrides"]] == ["t3.small", "m5.large"]
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 2


def test_a_launch_template_takes_the_place_of_a_mixed_instances_policy(mixed: Rack) -> None:
    mixed.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName="mixed", LaunchTemplate={"LaunchTemplateName": "second"}
    )
    group = group_of(mixed, "mixed")
    assert "MixedInstancesPolicy" not in group
    assert group["LaunchTemplate"]["LaunchTemplateName"] == "second"


def test_a_group_with_instances_is_deleted_only_by_force(seeded: Rack) -> None:
    assert refusal(seeded.autoscaling.delete_auto_scaling_group, AutoScalingGroupName=GROUP)[0] == "ResourceInUse"
    seeded.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    assert group_of(seeded)["Status"] == "Delete in progress"
    seeded.pass_time(120)
    assert seeded.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"] == []


def test_desired_capacity_stays_within_the_bounds(seeded: Rack) -> None:
    for desired in (-1, 6):
        code, _ = refusal(seeded.autoscaling.set_desired_capacity, AutoScalingGroupName=GROUP, DesiredCapacity=desired)
        assert code == "ValidationError"
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=4)
    seeded.pass_time(5)
    again = {"AutoScalingGroupName": GROUP, "DesiredCapacity": 5}
    assert refusal(seeded.autoscaling.set_desired_capacity, **again, HonorCooldown=True)[0] == (
        "ScalingActivityInProgress"
    )
    seeded.autoscaling.set_desired_capacity(**again)
    seeded.pass_time(60)
    assert len(members_of(seeded)) == 5


def test_an_unknown_group_is_a_validation_error(rack: Rack) -> None:
    answer = refusal(rack.autoscaling.set_desired_capacity, AutoScalingGroupName="one", DesiredCapacity=1)
    assert answer == ("ValidationError", "AutoScalingGroup name not found - AutoScalingGroup 'one' not found")


# Instances of groups


def test_members_are_described_by_id_50_at_most(seeded: Rack) -> None:
    first = members_of(seeded)[0]
    call = seeded.autoscaling.describe_auto_scaling_instances
    found = call(InstanceIds=[first, "i-00000000000000000"])["AutoScalingInstances"]
    assert [(m["InstanceId"], m["AutoScalingGroupName"], m["HealthStatus"]) for m in found] == [
        (first, GROUP, "HEALTHY")
    ]
    assert refusal(call, InstanceIds=[f"i-{number:08}" for number in range(51)])[0] == "ValidationError"
    assert refusal(call, MaxRecords=51)[0] == "ValidationError"
    pages = seeded.autoscaling.get_paginator("describe_auto_scaling_instances").paginate(
        PaginationConfig={"PageSize": 2}
    )
    assert [len(page["AutoScalingInstances"]) for page in pages] == [2, 1]


def test_a_terminated_member_is_replaced(seeded: Rack) -> None:
    first = members_of(seeded)[0]
    terminate = seeded.autoscaling.terminate_instance_in_auto_scaling_group
    activity = terminate(InstanceId=first, ShouldDecrementDesiredCapacity=False)["Activity"]
    assert activity["StatusCode"] == "InProgress"
    assert first in activity["Description"]
    assert json.loads(activity["Details"])["Availability Zone"] == "us-east-1a"
    states = {m["InstanceId"]: m["LifecycleState"] for m in group_of(seeded)["Instances"]}
    assert states[first] == "Terminating"
    seeded.pass_time(120)
    members = members_of(seeded)
    assert len(members) == 3
    assert first not in members
    assert group_of(seeded)["DesiredCapacity"] == 3


def test_a_member_is_terminated_without_replacement(seeded: Rack) -> None:
    terminate = seeded.autoscaling.terminate_instance_in_auto_scaling_group
    terminate(InstanceId=members_of(seeded)[0], ShouldDecrementDesiredCapacity=True)
    seeded.pass_time(120)
    assert (group_of(seeded)["DesiredCapacity"], len(members_of(seeded))) == (2, 2)


def test_terminating_an_instance_of_no_group_is_an_error(seeded: Rack) -> None:
    terminate = seeded.autoscaling.terminate_instance_in_auto_scaling_group
    answer = refusal(terminate, InstanceId="i-00000000000000000", ShouldDecrementDesiredCapacity=False)
    assert answer == (
        "ValidationError",
        "Instance Id not found - No managed instance found for instance ID i-00000000000000000",
    )


def test_capacity_is_not_decremented_below_the_minimum(seeded: Rack) -> None:
    seeded.autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=3)
    first = members_of(seeded)[0]
    common = {"ShouldDecrementDesiredCapacity": True, "AutoScalingGroupName": GROUP}
    terminate = seeded.autoscaling.terminate_instance_in_auto_scaling_group
    assert refusal(terminate, InstanceId=first, ShouldDecrementDesiredCapacity=True)[0] == "ValidationError"
    for call in (seeded.autoscaling.detach_instances, seeded.autoscaling.enter_standby):
        assert refusal(call, InstanceIds=[first], **common)[0] == "ValidationError"
    assert members_of(seeded)[0] == first


def test_a_detached_member_keeps_running(seeded: Rack) -> None:
    first = members_of(seeded)[0]
    answer = seeded.autoscaling.detach_instances(
        AutoScalingGroupName=GROUP, InstanceIds=[first], ShouldDecrementDesiredCapacity=True
    )
    assert first in answer["Activities"][0]["Description"]
    assert first not in members_of(seeded)
    assert seeded.world.ec2.instances[first].exists
    again = {"InstanceIds": [first], "AutoScalingGroupName": GROUP, "ShouldDecrementDesiredCapacity": True}
    assert refusal(seeded.autoscaling.detach_instances, **again)[0] == "ValidationError"


def test_a_member_goes_to_standby_and_comes_back(seeded: Rack) -> None:
    first = members_of(seeded)[0]
    seeded.autoscaling.enter_standby(
        AutoScalingGroupName=GROUP, InstanceIds=[first], ShouldDecrementDesiredCapacity=True
    )
    group = group_of(seeded)
    assert group["DesiredCapacity"] == 2
    assert next(m for m in group["Instances"] if m["InstanceId"] == first)["LifecycleState"] == "Standby"
    seeded.pass_time(120)
    assert len(members_of(seeded)) == 3
    seeded.autoscaling.exit_standby(AutoScalingGroupName=GROUP, InstanceIds=[first])
    assert group_of(seeded)["DesiredCapacity"] == 3


def test_a_protected_member_survives_scaling_in(seeded: Rack) -> None:
    first, second, _ = members_of(seeded)
    seeded.autoscaling.set_instance_protection(
        AutoScalingGroupName=GROUP, InstanceIds=[first, second], ProtectedFromScaleIn=True
    )
    assert [m["ProtectedFromScaleIn"] for m in group_of(seeded)["Instances"]] == [True, True, False]
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    seeded.pass_time(120)
    assert members_of(seeded) == [first, second]


def test_a_member_that_is_set_unhealthy_is_replaced(seeded: Rack) -> None:
    first = members_of(seeded)[0]
    seeded.autoscaling.set_instance_health(InstanceId=first, HealthStatus="Unhealthy")
    assert group_of(seeded)["Instances"][0]["HealthStatus"] == "Unhealthy"
    seeded.pass_time(120)
    assert first not in members_of(seeded)
    assert refusal(seeded.autoscaling.set_instance_health, InstanceId=first, HealthStatus="Healthy")[0] == (
        "ValidationError"
    )


# Processes, activities, hooks


def test_processes_are_suspended_by_name_or_all(seeded: Rack) -> None:
    def suspended() -> set[str]:
        return {process["ProcessName"] for process in group_of(seeded)["SuspendedProcesses"]}

    seeded.autoscaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["AZRebalance"])
    assert suspended() == {"AZRebalance"}
    assert group_of(seeded)["SuspendedProcesses"][0]["SuspensionReason"].startswith("User suspended at 20")
    seeded.autoscaling.suspend_processes(AutoScalingGroupName=GROUP)
    types = seeded.autoscaling.describe_scaling_process_types()["Processes"]
    assert suspended() == {process["ProcessName"] for process in types}
    seeded.autoscaling.resume_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Launch"])
    assert "Launch" not in suspended()
    seeded.autoscaling.resume_processes(AutoScalingGroupName=GROUP)
    assert suspended() == set()
    code, _ = refusal(seeded.autoscaling.suspend_processes, AutoScalingGroupName=GROUP, ScalingProcesses=["Everything"])
    assert code == "ValidationError"


def test_activities_are_described_newest_first_with_their_errors(seeded: Rack) -> None:
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=4)
    seeded.pass_time(60)
    seeded.world.set_condition("no-capacity")
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=5)
    seeded.pass_time(5)
    failed, launched = seeded.autoscaling.describe_scaling_activities(AutoScalingGroupName=GROUP)["Activities"]
    assert (failed["StatusCode"], launched["StatusCode"]) == ("Failed", "Successful")
    assert "do not have sufficient t3.small capacity" in failed["StatusMessage"]
    assert launched["EndTime"] > launched["StartTime"]
    call = seeded.autoscaling.describe_scaling_activities
    assert call(ActivityIds=[launched["ActivityId"]])["Activities"] == [launched]
    pages = seeded.autoscaling.get_paginator("describe_scaling_activities").paginate(PaginationConfig={"PageSize": 1})
    assert [page["Activities"][0]["ActivityId"] for page in pages] == [failed["ActivityId"], launched["ActivityId"]]
    assert refusal(call, MaxRecords=101)[0] == "ValidationError"
    assert refusal(call, AutoScalingGroupName="unknown")[0] == "ValidationError"


def test_a_hook_holds_an_instance_until_it_is_completed(seeded: Rack) -> None:
    seeded.autoscaling.put_lifecycle_hook(
        AutoScalingGroupName=GROUP,
        LifecycleHookName="drain",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        HeartbeatTimeout=600,
    )
    hook = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"][0]
    assert (hook["HeartbeatTimeout"], hook["GlobalTimeout"], hook["DefaultResult"]) == (600, 60000, "ABANDON")
    first = members_of(seeded)[0]
    seeded.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=False)
    seeded.pass_time(120)
    assert {m["InstanceId"]: m["LifecycleState"] for m in group_of(seeded)["Instances"]}[first] == "Terminating:Wait"
    action = {"AutoScalingGroupName": GROUP, "LifecycleHookName": "drain", "LifecycleActionResult": "CONTINUE"}
    seeded.autoscaling.complete_lifecycle_action(**action, InstanceId=first)
    seeded.pass_time(120)
    assert first not in members_of(seeded)
    assert refusal(seeded.autoscaling.complete_lifecycle_action, **action, InstanceId=first)[0] == "ValidationError"
    seeded.autoscaling.delete_lifecycle_hook(AutoScalingGroupName=GROUP, LifecycleHookName="drain")
    assert seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"] == []


def test_a_hook_needs_a_transition_that_exists(seeded: Rack) -> None:
    parameters = {"AutoScalingGroupName": GROUP, "LifecycleHookName": "one"}
    assert refusal(seeded.autoscaling.put_lifecycle_hook, **parameters)[0] == "ValidationError"
    assert refusal(seeded.autoscaling.put_lifecycle_hook, **parameters, LifecycleTransition="x")[0] == (
        "ValidationError"
    )


# Tags and launch configurations


def test_tags_are_put_in_place_of_those_of_the_same_key(seeded: Rack) -> None:
    tag = {"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": "Rack", "PropagateAtLaunch": False}
    seeded.autoscaling.create_or_update_tags(Tags=[{**tag, "Value": "new"}])
    of_group = [{"Name": "auto-scaling-group", "Values": [GROUP]}, {"Name": "key", "Values": ["Rack"]}]
    assert seeded.autoscaling.describe_tags(Filters=of_group)["Tags"] == [{**tag, "Value": "new"}]
    seeded.autoscaling.delete_tags(Tags=[{"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": "Rack"}])
    assert seeded.autoscaling.describe_tags(Filters=of_group)["Tags"] == []
    unknown = [{**tag, "ResourceId": "unknown", "Value": ""}]
    assert refusal(seeded.autoscaling.create_or_update_tags, Tags=unknown)[0] == "ValidationError"


def test_a_launch_configuration_in_use_is_not_deleted(rack: Rack) -> None:
    configuration = {"LaunchConfigurationName": "old", "ImageId": "ami-1", "InstanceType": "t3.micro"}
    rack.autoscaling.create_launch_configuration(**configuration, UserData="#!/bin/sh\n")
    assert refusal(rack.autoscaling.create_launch_configuration, **configuration)[0] == "AlreadyExists"
    create(rack, "one", LaunchConfigurationName="old", DesiredCapacity=1)
    rack.pass_time(60)
    group = group_of(rack, "one")
    assert group["LaunchConfigurationName"] == group["Instances"][0]["LaunchConfigurationName"] == "old"
    assert "LaunchTemplate" not in group["Instances"][0]
    assert group["Instances"][0]["InstanceType"] == "t3.micro"
    described = rack.autoscaling.describe_launch_configurations()["LaunchConfigurations"]
    assert described[0]["ImageId"] == "ami-1"
    delete = rack.autoscaling.delete_launch_configuration
    assert refusal(delete, LaunchConfigurationName="old")[0] == "ResourceInUse"
    rack.autoscaling.update_auto_scaling_group(AutoScalingGroupName="one", LaunchTemplate=template(rack, "new"))
    delete(LaunchConfigurationName="old")
    assert rack.autoscaling.describe_launch_configurations()["LaunchConfigurations"] == []
    # "The launch configuration used to launch the instance" (AutoScalingInstanceDetails).
    (member,) = rack.autoscaling.describe_auto_scaling_instances()["AutoScalingInstances"]
    assert member["LaunchConfigurationName"] == "old"


def test_members_that_a_group_lacks_are_empty(seeded: Rack) -> None:
    assert seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)["Instances"] == []
    assert seeded.autoscaling.describe_account_limits()["NumberOfAutoScalingGroups"] == 1
