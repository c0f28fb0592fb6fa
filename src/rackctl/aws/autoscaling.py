"""EC2 Auto Scaling: groups, their instances, activities and instance refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from rackctl.aws.ec2 import tags_of
from rackctl.instance_refresh import InstanceRefresh
from rackctl.model import (
    AutoScalingGroup,
    GroupInstance,
    LaunchTemplateRef,
    LifecycleHook,
    ScalingActivity,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackctl.aws.client import Client, Document

# AWS's request documents of these names.
RefreshPreferences: TypeAlias = "Mapping[str, Any]"
DesiredConfiguration: TypeAlias = "Mapping[str, Any]"

_INSTANCES_PER_DESCRIBE = 50


class AutoScaling:
    def __init__(self, call: Client) -> None:
        self._call = call

    def all_groups(self) -> list[AutoScalingGroup]:
        """Describe every group of the account and region."""
        pages = self._call.pages("describe_auto_scaling_groups", _groups, MaxRecords=100)
        return [group for page in pages for group in page]

    def groups(self, names: Sequence[str]) -> list[AutoScalingGroup]:
        """Describe groups by name. Groups that do not exist are left out."""
        if not names:
            return []  # AWS would describe all groups for no names
        pages = self._call.pages(
            "describe_auto_scaling_groups",
            _groups,
            resource=", ".join(names),
            AutoScalingGroupNames=list(names),
            MaxRecords=100,
        )
        return [group for page in pages for group in page]

    def members(self, ec2_instance_ids: Sequence[str]) -> dict[str, GroupInstance]:
        """Map instances to their groups' entries for them. Instances of no group are left out."""
        return {
            member.ec2_instance_id: member
            for start in range(0, len(ec2_instance_ids), _INSTANCES_PER_DESCRIBE)
            for member in self._call(
                "describe_auto_scaling_instances",
                lambda answer: [
                    _group_instance(document, document["AutoScalingGroupName"])
                    for document in answer["AutoScalingInstances"]
                ],
                InstanceIds=list(ec2_instance_ids[start : start + _INSTANCES_PER_DESCRIBE]),
            )
        }

    def terminate_instance(self, ec2_instance_id: str, *, decrement_desired_capacity: bool) -> None:
        """Terminate a member of a group; the lifecycle hooks run."""
        self._call(
            "terminate_instance_in_auto_scaling_group",
            resource=ec2_instance_id,
            InstanceId=ec2_instance_id,
            ShouldDecrementDesiredCapacity=decrement_desired_capacity,
        )

    def set_desired_capacity(self, auto_scaling_group_name: str, desired_capacity: int) -> None:
        """Set a group's desired capacity, without waiting for its cooldown."""
        self._call(
            "set_desired_capacity",
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
            DesiredCapacity=desired_capacity,
            HonorCooldown=False,
        )

    def suspend_processes(self, auto_scaling_group_name: str, processes: Sequence[str]) -> None:
        """Suspend some of a group's processes. A process that is suspended already stays so."""
        self._call(
            "suspend_processes",
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
            ScalingProcesses=list(processes),
        )

    def resume_processes(self, auto_scaling_group_name: str, processes: Sequence[str]) -> None:
        """Resume some of a group's processes."""
        if not processes:
            return  # AWS would resume all processes for none
        self._call(
            "resume_processes",
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
            ScalingProcesses=list(processes),
        )

    def set_launch_template_versions(self, group: AutoScalingGroup, versions: Mapping[LaunchTemplateRef, str]) -> None:
        """Set the versions of a group's launch templates, wherever the group names one of these.

        AWS keeps the rest of a MixedInstancesPolicy except its overrides, which are sent again.
        """
        if group.mixed_instances_policy:
            change: dict[str, Any] = {"MixedInstancesPolicy": _with_versions(group.mixed_instances_policy, versions)}
        else:
            assert group.launch_template is not None
            specification = _specification(group.launch_template, versions)
            change = {"LaunchTemplate": specification}
        name = group.auto_scaling_group_name
        self._call("update_auto_scaling_group", resource=name, AutoScalingGroupName=name, **change)

    def activities(self, auto_scaling_group_name: str) -> list[ScalingActivity]:
        """Return a group's newest scaling activities, up to 100, newest first."""
        return self._call(
            "describe_scaling_activities",
            lambda answer: [_activity(document) for document in answer["Activities"]],
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
        )

    def lifecycle_hooks(self, auto_scaling_group_name: str) -> list[LifecycleHook]:
        """Describe a group's lifecycle hooks."""
        return self._call(
            "describe_lifecycle_hooks",
            lambda answer: [
                LifecycleHook(
                    str(document["LifecycleHookName"]),
                    str(document.get("LifecycleTransition", "")),
                    int(document.get("HeartbeatTimeout", 3600)),
                )
                for document in answer["LifecycleHooks"]
            ],
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
        )

    def launch_configuration_keys(self) -> dict[str, str]:
        """Map the launch configurations of the account and region to their key names, empty for none."""
        pages = self._call.pages(
            "describe_launch_configurations",
            lambda page: {
                str(document["LaunchConfigurationName"]): str(document.get("KeyName", ""))
                for document in page["LaunchConfigurations"]
            },
            MaxRecords=100,
        )
        return {name: key_name for page in pages for name, key_name in page.items()}

    def instance_refreshes(self, auto_scaling_group_name: str) -> list[InstanceRefresh]:
        """Describe a group's newest instance refreshes, the newest first. Only the newest can be active."""
        return self._call(
            "describe_instance_refreshes",
            lambda answer: [_instance_refresh(document) for document in answer["InstanceRefreshes"]],
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
        )

    def refreshing(self, auto_scaling_group_name: str) -> str:
        """Return the id of a group's active instance refresh; empty if there is none."""
        active = (r for r in self.instance_refreshes(auto_scaling_group_name) if r.is_active)
        return next((refresh.instance_refresh_id for refresh in active), "")

    def start_instance_refresh(
        self, auto_scaling_group_name: str, preferences: RefreshPreferences, desired: DesiredConfiguration
    ) -> str:
        """Start an instance refresh, by default with the group's own launch template; return its id."""
        wanted = {"DesiredConfiguration": desired} if desired else {}
        return self._call(
            "start_instance_refresh",
            lambda answer: str(answer["InstanceRefreshId"]),
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
            Preferences=preferences,
            **wanted,
        )

    def cancel_instance_refresh(self, auto_scaling_group_name: str) -> str:
        """Cancel a group's active instance refresh, or its rollback; return its id."""
        return self._call(
            "cancel_instance_refresh",
            lambda answer: str(answer["InstanceRefreshId"]),
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
        )

    def rollback_instance_refresh(self, auto_scaling_group_name: str) -> str:
        """Roll back a group's active instance refresh: Auto Scaling replaces the instances that it has launched."""
        return self._call(
            "rollback_instance_refresh",
            lambda answer: str(answer["InstanceRefreshId"]),
            resource=auto_scaling_group_name,
            AutoScalingGroupName=auto_scaling_group_name,
        )


def desired_configuration(group: AutoScalingGroup, versions: Mapping[LaunchTemplateRef, str]) -> dict[str, Any]:
    """Build a group's DesiredConfiguration with other versions of its launch templates."""
    if group.mixed_instances_policy:
        changed = _with_versions(group.mixed_instances_policy, versions)
        return {"MixedInstancesPolicy": {**group.mixed_instances_policy, **changed}}
    assert group.launch_template is not None
    return {"LaunchTemplate": _specification(group.launch_template, versions)}


def _instance_refresh(document: Document) -> InstanceRefresh:
    return InstanceRefresh(
        instance_refresh_id=document["InstanceRefreshId"],
        status=document["Status"],
        status_reason=document.get("StatusReason", ""),
        percentage_complete=document.get("PercentageComplete", 0),
        instances_to_update=document.get("InstancesToUpdate", 0),
        preferences=document.get("Preferences", {}),
        desired_configuration=document.get("DesiredConfiguration", {}),
    )


def _groups(page: Document) -> list[AutoScalingGroup]:
    return [_group(document) for document in page["AutoScalingGroups"]]


def _activity(document: Document) -> ScalingActivity:
    return ScalingActivity(
        activity_id=document["ActivityId"],
        description=document.get("Description", ""),
        status_code=document["StatusCode"],
        start_time=document["StartTime"],
        status_message=document.get("StatusMessage", ""),
    )


def _group(document: Document) -> AutoScalingGroup:
    policy = document.get("MixedInstancesPolicy")
    specification = document.get("LaunchTemplate")
    template: Document = policy["LaunchTemplate"] if policy else {}
    overrides: list[LaunchTemplateRef] = []
    if policy:
        specification = template["LaunchTemplateSpecification"]
        overrides = [
            launch_template_ref(override["LaunchTemplateSpecification"])
            for override in template.get("Overrides", ())
            if "LaunchTemplateSpecification" in override
        ]
    name = document["AutoScalingGroupName"]
    return AutoScalingGroup(
        auto_scaling_group_name=name,
        min_size=document["MinSize"],
        max_size=document["MaxSize"],
        desired_capacity=document["DesiredCapacity"],
        instances=tuple(_group_instance(member, name) for member in document.get("Instances", ())),
        suspended_processes=frozenset(p["ProcessName"] for p in document.get("SuspendedProcesses", ())),
        launch_template=launch_template_ref(specification) if specification else None,
        launch_configuration_name=document.get("LaunchConfigurationName", ""),
        mixed_instances_policy=policy,
        overrides=tuple(overrides),
        warm_pool_size=document.get("WarmPoolSize", 0),
        availability_zones=tuple(document.get("AvailabilityZones", ())),
        tags=tags_of(document),
        auto_scaling_group_arn=document["AutoScalingGroupARN"],
        desired_capacity_type=document.get("DesiredCapacityType", ""),
        default_instance_warmup=document.get("DefaultInstanceWarmup"),
        launches=_launches(template, specification),
    )


def _launches(template: Document, specification: Document | None) -> tuple[tuple[LaunchTemplateRef, str], ...]:
    """Read the launch templates of a group: each override's own or the policy's, else the group's."""
    overrides = template.get("Overrides") or ([{}] if specification else [])
    named = ((override.get("LaunchTemplateSpecification") or specification, override) for override in overrides)
    return tuple((launch_template_ref(own), str(override.get("ImageId", ""))) for own, override in named if own)


def _group_instance(document: Document, auto_scaling_group_name: str) -> GroupInstance:
    specification = document.get("LaunchTemplate")
    return GroupInstance(
        auto_scaling_group_name=auto_scaling_group_name,
        ec2_instance_id=document["InstanceId"],
        lifecycle_state=document["LifecycleState"],
        availability_zone=document.get("AvailabilityZone", ""),
        launch_template=launch_template_ref(specification) if specification else None,
        launch_configuration_name=document.get("LaunchConfigurationName", ""),
    )


def launch_template_ref(document: Mapping[str, Any]) -> LaunchTemplateRef:
    """Read a LaunchTemplateSpecification; to AWS a missing version means ``$Default``."""
    return LaunchTemplateRef(
        launch_template_id=document.get("LaunchTemplateId", ""),
        launch_template_name=document.get("LaunchTemplateName", ""),
        version=document.get("Version", "$Default"),
    )


def _specification(named: LaunchTemplateRef, versions: Mapping[LaunchTemplateRef, str]) -> dict[str, str]:
    """Build a LaunchTemplateSpecification, which must have a template's id or its name, not both."""
    which = (
        {"LaunchTemplateId": named.launch_template_id}
        if named.launch_template_id
        else {"LaunchTemplateName": named.launch_template_name}
    )
    return {**which, "Version": versions.get(named, named.version)}


def _with_versions(policy: Mapping[str, Any], versions: Mapping[LaunchTemplateRef, str]) -> dict[str, Any]:
    def changed(document: Mapping[str, Any]) -> dict[str, str]:
        return _specification(launch_template_ref(document), versions)

    template = policy["LaunchTemplate"]
    overrides = [
        {**override, "LaunchTemplateSpecification": changed(override["LaunchTemplateSpecification"])}
        if "LaunchTemplateSpecification" in override
        else override
        for override in template.get("Overrides", ())
    ]
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": changed(template["LaunchTemplateSpecification"]),
            **({"Overrides": overrides} if overrides else {}),
        }
    }
