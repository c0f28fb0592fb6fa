"""Functions that Auto Scaling's operations share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.groups import Activity, Group, Hook, Member
from rackctl.local.world.lifecycle import LAUNCHING, TERMINATING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rackctl.local.api.operations import Asked, Result
    from rackctl.local.world import World
    from rackctl.local.world.ec2 import Ec2

INVALID_TOKEN = Refused("InvalidNextToken", "The NextToken value is not valid.")
GROUP = "auto-scaling-group"


def page_size(asked: Asked, default: int, most: int) -> int:
    given: int = asked.get("MaxRecords", default)
    if not 1 <= given <= most:
        bound = "greater than or equal to 1" if given < 1 else f"less than or equal to {most}"
        raise validation_error(
            f"1 validation error detected: Value '{given}' at 'maxRecords' failed to satisfy constraint: Member must "
            f"have value {bound}"
        )
    return given


def member_document(member: Member, *, short: bool = False) -> Result:
    """Describe a member. DescribeAutoScalingInstances (``short``) writes its health in capitals."""
    health = "Healthy" if member.healthy else "Unhealthy"
    template = member.launch_template
    return {
        "InstanceId": member.instance_id,
        "InstanceType": member.instance_type,
        "AvailabilityZone": member.availability_zone,
        "LifecycleState": member.lifecycle_state,
        "HealthStatus": health.upper() if short else health,
        "LaunchConfigurationName": member.launch_configuration or None,
        "LaunchTemplate": template
        and {"LaunchTemplateId": template[0], "LaunchTemplateName": template[1], "Version": str(template[2])},
        "ProtectedFromScaleIn": member.protected,
        "WeightedCapacity": None if member.weight == 1 else str(member.weight),
    }


def activity_document(world: World, activity: Activity, group: Group) -> Result:
    instance = world.ec2.instances.get(activity.description.rpartition(" ")[2])
    place = (
        {"Subnet ID": instance.subnet.subnet_id, "Availability Zone": instance.subnet.availability_zone}
        if instance
        else {}
    )
    return {
        "ActivityId": activity.activity_id,
        "AutoScalingGroupName": group.name,
        "AutoScalingGroupARN": group.arn,
        "Description": activity.description,
        "Cause": activity.cause,
        "StartTime": activity.start,
        "EndTime": activity.end,
        "StatusCode": activity.status,
        "StatusMessage": activity.status_message or None,
        "Progress": activity.progress,
        "Details": json.dumps(place),
    }


def make_hook(given: Mapping[str, Any], old: Hook | None) -> Hook:
    """Return a hook with the given parameters; the others are those of the existing hook, or AWS's defaults."""
    transition = given.get("LifecycleTransition", old.transition if old else "")
    if transition not in (LAUNCHING, TERMINATING):
        raise validation_error(f"LifecycleTransition must be one of {', '.join((LAUNCHING, TERMINATING))}")
    timeout = given.get("HeartbeatTimeout", old.heartbeat_timeout if old else 3600)
    if not 30 <= timeout <= 7200:
        raise validation_error("Lifecycle action HeartbeatTimeout must be between 30 and 7200 seconds")
    result = given.get("DefaultResult", old.default_result if old else "ABANDON")
    if result not in {"CONTINUE", "ABANDON"}:
        raise validation_error("Lifecycle action DefaultResult must be CONTINUE or ABANDON")
    return Hook(
        given["LifecycleHookName"],
        transition,
        timeout,
        result,
        given.get("NotificationTargetARN", old.notification_target if old else ""),
        given.get("RoleARN", old.role if old else ""),
        given.get("NotificationMetadata", old.metadata if old else ""),
    )


def tag_document(tag: Mapping[str, Any], group: Group) -> Result:
    return {
        "ResourceId": group.name,
        "ResourceType": GROUP,
        "Key": tag["Key"],
        "Value": tag.get("Value", ""),
        "PropagateAtLaunch": tag.get("PropagateAtLaunch", False),
    }


def put_tags(group: Group, tags: Iterable[Mapping[str, Any]]) -> None:
    for tag in tags:
        kept = [have for have in group.tags if have["Key"] != tag["Key"]]
        group.tags = [
            *kept,
            {
                "Key": tag["Key"],
                "Value": tag.get("Value", ""),
                "PropagateAtLaunch": tag.get("PropagateAtLaunch", False),
            },
        ]


def specification(ec2: Ec2, given: Mapping[str, str]) -> dict[str, str]:
    """Return a launch template's id, name and version. Raises Refused if a launch from it would fail."""
    if bool(given.get("LaunchTemplateId")) == bool(given.get("LaunchTemplateName")):
        raise validation_error(
            "Valid requests must contain either launchTemplateId or LaunchTemplateName, and not both."
        )
    version = given.get("Version", "$Default")
    try:
        template = ec2.find_template(given.get("LaunchTemplateId"), given.get("LaunchTemplateName"))
        key_name = template.resolve(version).data.get("KeyName")
        if key_name and key_name not in ec2.key_pairs:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key_name}' does not exist")
    except Refused as refused:
        raise validation_error(f"You must use a valid fully-formed launch template. {refused.message}") from refused
    return {
        "LaunchTemplateId": template.launch_template_id,
        "LaunchTemplateName": template.launch_template_name,
        "Version": version,
    }


def policy_of(ec2: Ec2, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MixedInstancesPolicy with its templates named in full. Raises Refused."""
    policy = dict(given)
    if "LaunchTemplate" not in policy:
        return policy
    template = policy["LaunchTemplate"] = dict(policy["LaunchTemplate"])
    name = "LaunchTemplateSpecification"
    if name in template:
        template[name] = specification(ec2, template[name])
    if "Overrides" in template:
        template["Overrides"] = [
            {**override, name: specification(ec2, override[name])} if name in override else override
            for override in template["Overrides"]
        ]
    return policy


def policy_document(policy: Mapping[str, Any]) -> Result:
    """Describe a MixedInstancesPolicy, with AWS's defaults."""
    distribution = {
        "OnDemandAllocationStrategy": "prioritized",
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 100,
        "SpotAllocationStrategy": "lowest-price",
    }
    return {**policy, "InstancesDistribution": {**distribution, **policy.get("InstancesDistribution", {})}}
