"""Auto Scaling's operations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.api.wire import AutoScalingProtocol, Fragments, Raw
from rackctl.local.world.autoscaling import PROCESSES, Activity, Group, Hook, Member
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rackctl.local.world import World
    from rackctl.local.world.refreshes import Refresh

_INVALID_TOKEN = Refused("InvalidNextToken", "The NextToken value is not valid.")
_GROUP = "auto-scaling-group"
_TRANSITIONS = ("autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING")

# A group's settings that change nothing here but what is said of it, with AWS's defaults.
_SETTINGS: Mapping[str, Any] = {
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
_SOURCES = ("LaunchTemplate", "MixedInstancesPolicy", "LaunchConfigurationName")
_CAPACITY = (
    "MinSize",
    "MaxSize",
    "DesiredCapacity",
    "DesiredCapacityType",
    "NewInstancesProtectedFromScaleIn",
    "VPCZoneIdentifier",
)


class AutoScalingOperations(Room[AutoScalingProtocol]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling
        self._fragments = Fragments()

    # Groups

    def describe_auto_scaling_groups(self, asked: Asked) -> Result:
        names = set(asked.get("AutoScalingGroupNames", ()))
        passes: Filters[Group] = Filters(asked.get("Filters", []), {}, Group.tag_values, wildcards=False)
        found, token = page(
            self._scaling.described(),
            order=lambda group: group.name,
            asked=asked,
            limit=_limit(asked, 50, 100),
            invalid_token=_INVALID_TOKEN,
            matches=lambda group: (not names or group.name in names) and passes(group),
        )
        return {"AutoScalingGroups": [self._group(group) for group in found], "NextToken": token}

    def _group(self, group: Group) -> Result:
        zones = [self.world.ec2.subnets[id_].availability_zone for id_ in group.subnets]
        settings = {**_SETTINGS, **group.settings}
        return {
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "LaunchConfigurationName": group.launch_configuration or None,
            "LaunchTemplate": group.launch_template,
            "MixedInstancesPolicy": group.mixed_instances_policy and _policy(group.mixed_instances_policy),
            "MinSize": group.min_size,
            "MaxSize": group.max_size,
            "DesiredCapacity": group.desired,
            "DesiredCapacityType": None if group.desired_capacity_type == "units" else group.desired_capacity_type,
            "AvailabilityZones": list(dict.fromkeys(zones)),
            "LoadBalancerNames": [],
            "TargetGroupARNs": [],
            "Instances": [self._instance(member, group) for member in group.members.values()],
            "CreatedTime": group.created,
            "SuspendedProcesses": [
                {"ProcessName": process, "SuspensionReason": reason} for process, reason in group.suspended.items()
            ],
            "VPCZoneIdentifier": ",".join(group.subnets),
            "EnabledMetrics": [],
            "Status": "Delete in progress" if group.deleting else None,
            "Tags": [_tag(tag, group) for tag in group.tags],
            "NewInstancesProtectedFromScaleIn": group.protect_new,
            "WarmPoolConfiguration": group.warm_pool,
            "TrafficSources": [],
            **settings,
        }

    def _instance(self, member: Member, group: Group) -> Raw:
        seen = (
            member.lifecycle_state, member.healthy, member.protected, member.instance_type, member.launch_template,
            member.weight,
        )  # fmt: skip
        return self._fragments.get(
            member.instance_id,
            seen,
            lambda: self.protocol.fragment("Instance", _member(member, group)),
        )

    def describe_auto_scaling_instances(self, asked: Asked) -> Result:
        wanted = set(asked.get("InstanceIds", ()))
        if len(asked.get("InstanceIds", ())) > 50:
            raise validation_error("The number of instance IDs that may be passed is limited to 50.")
        found, token = page(
            [(member, group) for group in self._scaling.groups.values() for member in group.members.values()],
            order=lambda one: one[0].instance_id,
            asked=asked,
            limit=_limit(asked, 50, 50),
            invalid_token=_INVALID_TOKEN,
            matches=lambda one: not wanted or one[0].instance_id in wanted,
        )
        return {
            "AutoScalingInstances": [
                {**_member(member, group, short=True), "AutoScalingGroupName": group.name} for member, group in found
            ],
            "NextToken": token,
        }

    def create_auto_scaling_group(self, asked: Asked) -> Result:
        name = asked["AutoScalingGroupName"]
        if name in self._scaling.groups:
            raise Refused(
                "AlreadyExists",
                f"AutoScalingGroup by this name already exists - A group with the name {name} already exists",
            )
        given = self._changes(asked, None)
        if sum(source in given for source in _SOURCES) != 1:
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
        group.settings = _settings(asked)
        for hook in asked.get("LifecycleHookSpecificationList", ()):
            group.hooks[hook["LifecycleHookName"]] = _hook(hook, None)
        _put_tags(group, asked.get("Tags", ()))
        self._scaling.add(group)
        return {}

    def update_auto_scaling_group(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        given = self._changes(asked, group)
        if sum(source in given for source in _SOURCES) > 1:
            raise validation_error("Only one of LaunchTemplate, MixedInstancesPolicy and LaunchConfigurationName.")
        self._scaling.update(group, given)
        group.settings |= _settings(asked)
        return {}

    def _changes(self, asked: Asked, group: Group | None) -> dict[str, Any]:
        """Give what a request sets of a group, its templates found and named in full."""
        known = {"AutoScalingGroupName", "Tags", "LifecycleHookSpecificationList", *_SOURCES, *_CAPACITY, *_SETTINGS}
        unknown = sorted(asked.keys() - known - {"AvailabilityZones"})
        if unknown:
            raise validation_error(f"The local rack has no {unknown[0]} of groups.")
        changes = {name: asked[name] for name in (*_SOURCES, *_CAPACITY) if name in asked}
        if "LaunchTemplate" in changes:
            changes["LaunchTemplate"] = self._specification(changes["LaunchTemplate"])
        if "MixedInstancesPolicy" in changes:
            policy = changes["MixedInstancesPolicy"] = self._policy(changes["MixedInstancesPolicy"])
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

    def _specification(self, given: Mapping[str, str]) -> dict[str, str]:
        """Name a launch template by id, name and version. Raises Refused if it could not be launched from."""
        if bool(given.get("LaunchTemplateId")) == bool(given.get("LaunchTemplateName")):
            raise validation_error(
                "Valid requests must contain either launchTemplateId or LaunchTemplateName, and not both."
            )
        ec2 = self.world.ec2
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

    def _policy(self, given: Mapping[str, Any]) -> dict[str, Any]:
        policy = dict(given)
        if "LaunchTemplate" in policy:
            template = policy["LaunchTemplate"] = dict(policy["LaunchTemplate"])
            if "LaunchTemplateSpecification" in template:
                template["LaunchTemplateSpecification"] = self._specification(template["LaunchTemplateSpecification"])
            if "Overrides" in template:
                template["Overrides"] = [
                    {
                        **override,
                        **(
                            {
                                "LaunchTemplateSpecification": self._specification(
                                    override["LaunchTemplateSpecification"]
                                )
                            }
                            if "LaunchTemplateSpecification" in override
                            else {}
                        ),
                    }
                    for override in template["Overrides"]
                ]
        return policy

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

    # Instances of groups

    def terminate_instance_in_auto_scaling_group(self, asked: Asked) -> Result:
        if "InstanceId" not in asked:
            raise self.protocol.missing("instanceId")
        instance_id = asked["InstanceId"]
        group = self._scaling.group_of(instance_id)
        activity = self._scaling.terminate(instance_id, decrement=asked["ShouldDecrementDesiredCapacity"])
        assert group is not None  # or terminate had refused
        return {"Activity": self._activity(activity, group)}

    def detach_instances(self, asked: Asked) -> Result:
        decrement = asked["ShouldDecrementDesiredCapacity"]
        return self._on_each(asked, lambda group, id_: self._scaling.detach(group, id_, decrement=decrement))

    def enter_standby(self, asked: Asked) -> Result:
        decrement = asked["ShouldDecrementDesiredCapacity"]
        return self._on_each(
            asked, lambda group, id_: self._scaling.set_standby(group, id_, standby=True, decrement=decrement)
        )

    def exit_standby(self, asked: Asked) -> Result:
        return self._on_each(asked, lambda group, id_: self._scaling.set_standby(group, id_, standby=False))

    def _on_each(self, asked: Asked, do: Callable[[Group, str], Activity]) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        members = self._members(asked, group)
        return {"Activities": [self._activity(do(group, member.instance_id), group) for member in members]}

    def set_instance_protection(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        for member in self._members(asked, group):
            member.protected = asked["ProtectedFromScaleIn"]
        return {}

    @staticmethod
    def _members(asked: Asked, group: Group) -> list[Member]:
        for instance_id in asked.get("InstanceIds", ()):
            if instance_id not in group.members:
                raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        return [group.members[instance_id] for instance_id in asked.get("InstanceIds", ())]

    def set_instance_health(self, asked: Asked) -> Result:
        group = self._scaling.group_of(asked["InstanceId"])
        if group is None:
            raise validation_error(
                f"Instance Id not found - No managed instance found for instance ID {asked['InstanceId']}"
            )
        if asked["HealthStatus"] not in {"Healthy", "Unhealthy"}:
            raise validation_error("Valid instance health states are: [Healthy, Unhealthy].")
        group.members[asked["InstanceId"]].healthy = asked["HealthStatus"] == "Healthy"
        return {}

    # Processes and activities

    def suspend_processes(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        at = self.protocol.time(self.world.now)
        for process in _processes(asked):
            group.suspended.setdefault(process, f"User suspended at {at}")
        return {}

    def resume_processes(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        for process in _processes(asked):
            group.suspended.pop(process, None)
        return {}

    def describe_scaling_process_types(self, _: Asked) -> Result:
        return {"Processes": [{"ProcessName": process} for process in PROCESSES]}

    def describe_scaling_activities(self, asked: Asked) -> Result:
        name = asked.get("AutoScalingGroupName")
        groups = [self._scaling.get(name)] if name else list(self._scaling.groups.values())
        activities = [(activity, group) for group in groups for activity in group.activities]
        if ids := asked.get("ActivityIds"):
            activities = [one for one in activities if one[0].activity_id in ids]
        found, token = page(
            activities,
            order=lambda one: [-one[0].start, one[0].activity_id],
            asked=asked,
            limit=_limit(asked, 100, 100),
            invalid_token=_INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), {"Status": lambda one: [one[0].status]}, wildcards=False),
        )
        return {"Activities": [self._activity(activity, group) for activity, group in found], "NextToken": token}

    def _activity(self, activity: Activity, group: Group) -> Result:
        instance = self.world.ec2.instances.get(activity.description.rpartition(" ")[2])
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

    # Instance refreshes

    def start_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        preferences = {"MinHealthyPercentage": 90, **asked.get("Preferences", {})}
        known = {"AutoScalingGroupName", "Preferences", "MinHealthyPercentage"}
        known |= {"Strategy"} if asked.get("Strategy") == "Rolling" else set()
        if unknown := sorted({*asked, *preferences} - known):
            raise validation_error(f"The local rack has no {unknown[0]} of instance refreshes.")
        return {"InstanceRefreshId": self.world.refreshes.start(group, preferences).refresh_id}

    def cancel_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        return {"InstanceRefreshId": self.world.refreshes.cancel(group).refresh_id}

    def describe_instance_refreshes(self, asked: Asked) -> Result:
        name = self._scaling.get(asked["AutoScalingGroupName"]).name
        ids = asked.get("InstanceRefreshIds")
        found, token = page(
            self.world.refreshes.of(name),
            order=lambda refresh: [-refresh.started, refresh.refresh_id],
            asked=asked,
            limit=_limit(asked, 50, 100),
            invalid_token=_INVALID_TOKEN,
            matches=lambda refresh: not ids or refresh.refresh_id in ids,
        )
        return {"InstanceRefreshes": [_refresh(refresh) for refresh in found], "NextToken": token}

    # Lifecycle hooks

    def put_lifecycle_hook(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        name = asked["LifecycleHookName"]
        group.hooks[name] = _hook(asked, group.hooks.get(name))
        return {}

    def describe_lifecycle_hooks(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        names = asked.get("LifecycleHookNames") or list(group.hooks)
        return {
            "LifecycleHooks": [
                {
                    "LifecycleHookName": hook.name,
                    "AutoScalingGroupName": group.name,
                    "LifecycleTransition": hook.transition,
                    "HeartbeatTimeout": int(hook.heartbeat_timeout),
                    "GlobalTimeout": min(172800, int(hook.heartbeat_timeout) * 100),
                    "DefaultResult": hook.default_result,
                }
                for hook in group.hooks.values()
                if hook.name in names
            ]
        }

    def delete_lifecycle_hook(self, asked: Asked) -> Result:
        del self._hook_of(asked)[0].hooks[asked["LifecycleHookName"]]
        return {}

    def complete_lifecycle_action(self, asked: Asked) -> Result:
        group, _ = self._hook_of(asked)
        if "InstanceId" not in asked:
            raise validation_error("The local rack gives no lifecycle action tokens: name the action by InstanceId.")
        if asked["LifecycleActionResult"] not in {"CONTINUE", "ABANDON"}:
            raise validation_error("Lifecycle action result must be CONTINUE or ABANDON.")
        self._scaling.complete_hook(group, asked["InstanceId"], asked["LifecycleActionResult"])
        return {}

    def _hook_of(self, asked: Asked) -> tuple[Group, Hook]:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        hook = group.hooks.get(asked["LifecycleHookName"])
        if hook is None:
            raise validation_error(f"No Lifecycle Hook found with name {asked['LifecycleHookName']}")
        return group, hook

    # Tags

    def create_or_update_tags(self, asked: Asked) -> Result:
        for tag in asked["Tags"]:
            _put_tags(self._tagged(tag), [tag])
        return {}

    def delete_tags(self, asked: Asked) -> Result:
        for tag in asked["Tags"]:
            group = self._tagged(tag)
            group.tags = [have for have in group.tags if have["Key"] != tag["Key"]]
        return {}

    def _tagged(self, tag: Mapping[str, Any]) -> Group:
        if tag.get("ResourceType", _GROUP) != _GROUP or "ResourceId" not in tag:
            raise validation_error(f"Tags need a ResourceId, and {_GROUP} as their ResourceType.")
        return self._scaling.get(tag["ResourceId"])

    def describe_tags(self, asked: Asked) -> Result:
        values: dict[str, Callable[[Result], Iterable[str]]] = {
            _GROUP: lambda tag: [tag["ResourceId"]],
            "key": lambda tag: [tag["Key"]],
            "value": lambda tag: [tag["Value"]],
            "propagate-at-launch": lambda tag: [str(tag["PropagateAtLaunch"]).lower()],
        }
        found, token = page(
            [_tag(tag, group) for group in self._scaling.groups.values() for tag in group.tags],
            order=lambda tag: [tag["ResourceId"], tag["Key"]],
            asked=asked,
            limit=_limit(asked, 50, 100),
            invalid_token=_INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values, wildcards=False),
        )
        return {"Tags": found, "NextToken": token}

    # Launch configurations

    def create_launch_configuration(self, asked: Asked) -> Result:
        name = asked["LaunchConfigurationName"]
        if name in self._scaling.launch_configurations:
            raise Refused(
                "AlreadyExists",
                "Launch Configuration by this name already exists - A launch configuration already exists with the "
                f"name {name}",
            )
        if "ImageId" not in asked or "InstanceType" not in asked:
            raise validation_error("Valid requests must contain the ImageId and InstanceType parameters.")
        key_name = asked.get("KeyName")
        if key_name and key_name not in self.world.ec2.key_pairs:
            raise validation_error(f"The key pair '{key_name}' does not exist")
        self._scaling.launch_configurations[name] = {
            **asked,
            "LaunchConfigurationARN": f"arn:aws:autoscaling:{self.world.region}:{self.world.account_id}"
            f":launchConfiguration:{self.world.ids.uuid()}:launchConfigurationName/{name}",
            "CreatedTime": self.world.now,
        }
        return {}

    def describe_launch_configurations(self, asked: Asked) -> Result:
        names = set(asked.get("LaunchConfigurationNames", ()))
        found, token = page(
            self._scaling.launch_configurations.values(),
            order=lambda configuration: configuration["LaunchConfigurationName"],
            asked=asked,
            limit=_limit(asked, 50, 100),
            invalid_token=_INVALID_TOKEN,
            matches=lambda configuration: not names or configuration["LaunchConfigurationName"] in names,
        )
        empty: Result = {"KernelId": "", "RamdiskId": "", "KeyName": "", "UserData": "", "SecurityGroups": []}
        return {"LaunchConfigurations": [{**empty, **configuration} for configuration in found], "NextToken": token}

    def delete_launch_configuration(self, asked: Asked) -> Result:
        name = asked["LaunchConfigurationName"]
        if name not in self._scaling.launch_configurations:
            raise validation_error(f"Launch configuration name not found - Launch configuration {name} not found")
        for group in self._scaling.groups.values():
            if group.launch_configuration == name:
                raise Refused(
                    "ResourceInUse",
                    f"Cannot delete launch configuration {name} because it is attached to AutoScalingGroup "
                    f"{group.name}",
                )
        del self._scaling.launch_configurations[name]
        return {}

    # Reads of what a rack rarely has

    def describe_warm_pool(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        return {"WarmPoolConfiguration": group.warm_pool, "Instances": []}

    def describe_account_limits(self, _: Asked) -> Result:
        return {
            "MaxNumberOfAutoScalingGroups": 500,
            "MaxNumberOfLaunchConfigurations": 200,
            "NumberOfAutoScalingGroups": len(self._scaling.groups),
            "NumberOfLaunchConfigurations": len(self._scaling.launch_configurations),
        }


def _limit(asked: Asked, default: int, most: int) -> int:
    given: int = asked.get("MaxRecords", default)
    if not 1 <= given <= most:
        bound = "greater than or equal to 1" if given < 1 else f"less than or equal to {most}"
        raise validation_error(
            f"1 validation error detected: Value '{given}' at 'maxRecords' failed to satisfy constraint: Member must "
            f"have value {bound}"
        )
    return given


def _processes(asked: Asked) -> list[str]:
    """Give the processes a request names; all if it names none."""
    processes: list[str] = asked.get("ScalingProcesses") or list(PROCESSES)
    for process in processes:
        if process not in PROCESSES:
            raise validation_error(f"{process} is not a valid process. Valid processes: {', '.join(PROCESSES)}")
    return processes


def _settings(asked: Asked) -> dict[str, Any]:
    return {name: asked[name] for name in _SETTINGS if name in asked}


def _policy(policy: Mapping[str, Any]) -> Result:
    distribution = {
        "OnDemandAllocationStrategy": "prioritized",
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 100,
        "SpotAllocationStrategy": "lowest-price",
    }
    return {**policy, "InstancesDistribution": {**distribution, **policy.get("InstancesDistribution", {})}}


def _member(member: Member, group: Group, *, short: bool = False) -> Result:
    """Describe a member. Of its health, DescribeAutoScalingInstances speaks in capitals (``short``)."""
    health = "Healthy" if member.healthy else "Unhealthy"
    template = member.launch_template
    return {
        "InstanceId": member.instance_id,
        "InstanceType": member.instance_type,
        "AvailabilityZone": member.availability_zone,
        "LifecycleState": member.lifecycle_state,
        "HealthStatus": health.upper() if short else health,
        "LaunchConfigurationName": (group.launch_configuration or None) if template is None else None,
        "LaunchTemplate": template
        and {"LaunchTemplateId": template[0], "LaunchTemplateName": template[1], "Version": str(template[2])},
        "ProtectedFromScaleIn": member.protected,
        "WeightedCapacity": None if member.weight == 1 else str(member.weight),
    }


def _refresh(refresh: Refresh) -> Result:
    left = len(refresh.outdated)
    return {
        "InstanceRefreshId": refresh.refresh_id,
        "AutoScalingGroupName": refresh.group,
        "Status": refresh.status,
        "StartTime": refresh.started,
        "EndTime": refresh.ended,
        "PercentageComplete": 100 * (refresh.total - left) // refresh.total if refresh.total else 100,
        "InstancesToUpdate": left,
        "Preferences": refresh.preferences,
        "Strategy": "Rolling",
    }


def _hook(given: Mapping[str, Any], old: Hook | None) -> Hook:
    """Make a hook of what is given, over one that there is; AWS's defaults for a new one."""
    transition = given.get("LifecycleTransition", old.transition if old else "")
    if transition not in _TRANSITIONS:
        raise validation_error(f"LifecycleTransition must be one of {', '.join(_TRANSITIONS)}")
    timeout = given.get("HeartbeatTimeout", old.heartbeat_timeout if old else 3600)
    if not 30 <= timeout <= 7200:
        raise validation_error("Lifecycle action HeartbeatTimeout must be between 30 and 7200 seconds")
    result = given.get("DefaultResult", old.default_result if old else "ABANDON")
    if result not in {"CONTINUE", "ABANDON"}:
        raise validation_error("Lifecycle action DefaultResult must be CONTINUE or ABANDON")
    return Hook(given["LifecycleHookName"], transition, timeout, result)


def _tag(tag: Mapping[str, Any], group: Group) -> Result:
    return {
        "ResourceId": group.name,
        "ResourceType": _GROUP,
        "Key": tag["Key"],
        "Value": tag.get("Value", ""),
        "PropagateAtLaunch": tag.get("PropagateAtLaunch", False),
    }


def _put_tags(group: Group, tags: Iterable[Mapping[str, Any]]) -> None:
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
