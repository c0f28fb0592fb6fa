"""Auto Scaling's operations on groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.local.api.autoscaling.common import (
    INVALID_TOKEN,
    make_hook,
    member_document,
    page_size,
    policy_document,
    policy_of,
    put_tags,
    specification,
    tag_document,
)
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.api.wire import Fragments, Raw
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.groups import Group, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World

# A group's settings that are only stored and described here, with AWS's defaults.
SETTINGS: Mapping[str, Any] = {
    "DefaultCooldown": 300,
    "HealthCheckType": "EC2",
    "HealthCheckGracePeriod": 0,
    "TerminationPolicies": ["Default"],
    "CapacityRebalance": None,
    "MaxInstanceLifetime": None,
    "DefaultInstanceWarmup": None,
    "InstanceMaintenancePolicy": None,
    "ServiceLinkedRoleARN": None,
    "Context": None,
}
SOURCES = ("LaunchTemplate", "MixedInstancesPolicy", "LaunchConfigurationName")
CAPACITY = (
    "MinSize",
    "MaxSize",
    "DesiredCapacity",
    "DesiredCapacityType",
    "NewInstancesProtectedFromScaleIn",
    "VPCZoneIdentifier",
)


class Groups(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling
        self._fragments = Fragments()

    def describe_auto_scaling_groups(self, asked: Asked) -> Result:
        names = set(asked.get("AutoScalingGroupNames", ()))
        passes: Filters[Group] = Filters(asked.get("Filters", []), {}, Group.tag_values, wildcards=False)
        found, token = page(
            self._scaling.groups.values(),
            order=lambda group: group.name,
            asked=asked,
            limit=page_size(asked, 50, 100),
            invalid_token=INVALID_TOKEN,
            matches=lambda group: (not names or group.name in names) and passes(group),
        )
        return {"AutoScalingGroups": [self._group(group) for group in found], "NextToken": token}

    def _group(self, group: Group) -> Result:
        zones = [self.world.ec2.subnets[id_].availability_zone for id_ in group.subnets]
        settings = {**SETTINGS, **group.settings}
        return {
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "LaunchConfigurationName": group.launch_configuration or None,
            "LaunchTemplate": group.launch_template,
            "MixedInstancesPolicy": group.mixed_instances_policy and policy_document(group.mixed_instances_policy),
            "MinSize": group.min_size,
            "MaxSize": group.max_size,
            "DesiredCapacity": group.desired,
            "DesiredCapacityType": None if group.desired_capacity_type == "units" else group.desired_capacity_type,
            "AvailabilityZones": list(dict.fromkeys(zones)),
            "LoadBalancerNames": [],
            "TargetGroupARNs": [],
            "Instances": [self._instance(member) for member in group.members.values()],
            "CreatedTime": group.created,
            "SuspendedProcesses": [
                {"ProcessName": process, "SuspensionReason": reason} for process, reason in group.suspended.items()
            ],
            "VPCZoneIdentifier": ",".join(group.subnets),
            "EnabledMetrics": [],
            "Status": "Delete in progress" if group.deleting else None,
            "Tags": [tag_document(tag, group) for tag in group.tags],
            "NewInstancesProtectedFromScaleIn": group.protect_new,
            "WarmPoolConfiguration": group.warm_pool,
            "WarmPoolSize": len(group.warmed) if group.warm_pool else None,
            "TrafficSources": [],
            **settings,
        }

    def _instance(self, member: Member) -> Raw:
        seen = (
            member.lifecycle_state, member.healthy, member.protected, member.instance_type, member.launch_template,
            member.weight,
        )  # fmt: skip
        return self._fragments.get(
            member.instance_id,
            seen,
            lambda: self.protocol.fragment("Instance", member_document(member)),
        )

    def create_auto_scaling_group(self, asked: Asked) -> Result:
        name = asked["AutoScalingGroupName"]
        if name in self._scaling.groups:
            raise Refused(
                "AlreadyExists",
                f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
            )
        given = self._changes(asked, None)
        if sum(source in given for source in SOURCES) != 1:
            raise validation_error(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or "
                "MixedInstancesPolicy parameter."
            )
        if "VPCZoneIdentifier" not in given:
            raise validation_error(
                "At least one Availability Zone or VPC Subnet is required. The local rack takes VPCZoneIdentifier."
            )
        world = self.world
        minimum = asked["MinSize"]
        group = Group(
            name,
            f"arn:aws:autoscaling:{world.region}:{world.account_id}:autoScalingGroup:{world.ids.uuid()}"
            f":autoScalingGroupName/{name}",
            world.now,
            minimum,
            asked["MaxSize"],
            minimum,
            [],
        )
        self._scaling.update(group, given)
        group.settings = settings_of(asked)
        for hook in asked.get("LifecycleHookSpecificationList", ()):
            group.hooks[hook["LifecycleHookName"]] = make_hook(hook, None)
        put_tags(group, asked.get("Tags", ()))
        self._scaling.add(group)
        return {}

    def update_auto_scaling_group(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        given = self._changes(asked, group)
        if sum(source in given for source in SOURCES) > 1:
            raise validation_error("Only one of LaunchTemplate, MixedInstancesPolicy and LaunchConfigurationName.")
        self._scaling.update(group, given)
        group.settings |= settings_of(asked)
        return {}

    def _changes(self, asked: Asked, group: Group | None) -> dict[str, Any]:
        """Return a request's settings of a group, with its templates named in full."""
        known = {"AutoScalingGroupName", "Tags", "LifecycleHookSpecificationList", *SOURCES, *CAPACITY, *SETTINGS}
        unknown = sorted(asked.keys() - known - {"AvailabilityZones"})
        if unknown:
            raise validation_error(f"The local rack does not support {unknown[0]} of groups.")
        changes = {name: asked[name] for name in (*SOURCES, *CAPACITY) if name in asked}
        if "LaunchTemplate" in changes:
            changes["LaunchTemplate"] = specification(self.world.ec2, changes["LaunchTemplate"])
        if "MixedInstancesPolicy" in changes:
            policy = changes["MixedInstancesPolicy"] = policy_of(self.world.ec2, changes["MixedInstancesPolicy"])
            whole = "LaunchTemplateSpecification" in policy.get("LaunchTemplate", {})
            if not whole and not (group and group.mixed_instances_policy):
                raise validation_error("A new MixedInstancesPolicy needs a LaunchTemplateSpecification.")
        self._check_capacity_type(changes, group)
        configuration = changes.get("LaunchConfigurationName")
        if configuration is not None and configuration not in self._scaling.launch_configurations:
            raise validation_error(
                f"Launch configuration name not found - Launch configuration {configuration} not found"
            )
        if "VPCZoneIdentifier" in changes:
            for subnet_id in changes["VPCZoneIdentifier"].split(","):
                if subnet_id.strip() not in self.world.ec2.subnets:
                    raise validation_error(f"The subnet ID '{subnet_id.strip()}' does not exist")
        elif zones := asked.get("AvailabilityZones"):
            changes["VPCZoneIdentifier"] = ",".join(self._subnet_in(zone) for zone in zones)
        return changes

    @staticmethod
    def _check_capacity_type(changes: Mapping[str, Any], group: Group | None) -> None:
        kind = changes.get("DesiredCapacityType", group.desired_capacity_type if group else "units")
        if kind not in {"units", "vcpu", "memory-mib"}:
            raise validation_error("DesiredCapacityType must be one of units, vcpu and memory-mib.")
        policy = changes.get("MixedInstancesPolicy") or (group.mixed_instances_policy if group else None) or {}
        overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
        if kind != "units" and not any("InstanceRequirements" in override for override in overrides):
            raise validation_error(
                "DesiredCapacityType is supported for attribute-based instance type selection only: a "
                "MixedInstancesPolicy whose Overrides have InstanceRequirements."
            )

    def _subnet_in(self, zone: str) -> str:
        for subnet in self.world.ec2.subnets.values():
            if subnet.availability_zone == zone:
                return subnet.subnet_id
        raise validation_error(f"Invalid availability zones: [{zone}]")

    def delete_auto_scaling_group(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        self._scaling.delete(group, force=asked.get("ForceDelete", False))
        return {}

    def set_desired_capacity(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        if asked.get("HonorCooldown"):
            busy = [activity for activity in group.activities if activity.status == "InProgress"]
            if busy:
                raise Refused(
                    "ScalingActivityInProgress",
                    f"Scaling activity {busy[0].activity_id} is in progress and blocks this action",
                )
        self._scaling.set_desired(group, asked["DesiredCapacity"])
        return {}


def settings_of(asked: Asked) -> dict[str, Any]:
    return {name: asked[name] for name in SETTINGS if name in asked}
