"""Auto Scaling's part of the world: groups that keep themselves at their desired capacity."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.ec2 import INSTANCE_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rackctl.local.world.ec2 import Subnet
    from rackctl.local.world.world import World

PROCESSES = (
    "Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck",
    "InstanceRefresh", "ReplaceUnhealthy", "ScheduledActions",
)  # fmt: skip


@dataclass
class Member:
    instance_id: str
    availability_zone: str
    instance_type: str
    launch_template: tuple[str, str, int] | None
    joined: float
    lifecycle_state: str = "Pending"
    healthy: bool = True
    protected: bool = False
    weight: int = 1

    @property
    def is_going(self) -> bool:
        return self.lifecycle_state.startswith("Terminating")

    @property
    def counts(self) -> bool:
        """Whether it counts towards the group's capacity."""
        return not self.is_going and self.lifecycle_state != "Standby"


@dataclass
class Hook:
    name: str
    transition: str
    heartbeat_timeout: float
    default_result: str


@dataclass
class Activity:
    activity_id: str
    description: str
    cause: str
    start: float
    status: str
    progress: int
    end: float | None = None
    status_message: str = ""


@dataclass
class Group:
    name: str
    arn: str
    created: float
    min_size: int
    max_size: int
    desired: int
    subnets: list[str]
    launch_template: dict[str, str] | None = None
    mixed_instances_policy: dict[str, Any] | None = None
    launch_configuration: str = ""
    tags: list[dict[str, Any]] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    suspended: dict[str, str] = field(default_factory=dict)
    hooks: dict[str, Hook] = field(default_factory=dict)
    activities: list[Activity] = field(default_factory=list)
    protect_new: bool = False
    desired_capacity_type: str = "units"
    warm_pool: dict[str, Any] | None = None
    deleting: bool = False
    no_launch_before: float = 0.0
    # What is only kept to be told again: cooldown, kind of health check, and the like.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        return sum(member.weight for member in self.members.values() if member.counts)

    def tag_values(self) -> dict[str, str]:
        return {tag["Key"]: tag.get("Value", "") for tag in self.tags}


class AutoScaling:
    def __init__(self, world: World) -> None:
        self._world = world
        self.groups: dict[str, Group] = {}
        self.launch_configurations: dict[str, dict[str, Any]] = {}
        self._past: list[tuple[float, dict[str, Group]]] = []

    def remember(self) -> None:
        """Keep how the groups are now, if that is what is to be described later."""
        if "late-groups" not in self._world.conditions:
            self._past = []
            return
        since = self._world.now - float(self._world.conditions["late-groups"]) / self._world.speed
        # Of what is older, the newest is how things were then.
        older = [at for at, _ in self._past if at <= since]
        self._past = [(at, groups) for at, groups in self._past if at >= max(older, default=0.0)]
        self._past.append((self._world.now, deepcopy(self.groups)))

    def described(self) -> Iterable[Group]:
        """Give the groups as DescribeAutoScalingGroups shows them: eventually consistent."""
        self.remember()
        return (self._past[0][1] if self._past else self.groups).values()

    def add(self, group: Group) -> None:
        self.groups[group.name] = group
        self._world.after(0, "autoscaling", "reconcile", group.name)

    def get(self, name: str) -> Group:
        if name not in self.groups:
            raise validation_error(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return self.groups[name]

    def group_of(self, instance_id: str) -> Group | None:
        return next((group for group in self.groups.values() if instance_id in group.members), None)

    def specification_in_use(self, group: Group) -> dict[str, str] | None:
        """Give the LaunchTemplateSpecification the group launches from, its first override's own if it has one."""
        if group.mixed_instances_policy:
            template = group.mixed_instances_policy["LaunchTemplate"]
            overrides = template.get("Overrides") or [{}]
            own = overrides[0].get("LaunchTemplateSpecification")
            chosen: dict[str, str] = own or template["LaunchTemplateSpecification"]
            return chosen
        return group.launch_template

    def set_desired(self, group: Group, desired: int) -> None:
        if desired < group.min_size:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is below min value {group.min_size} for the AutoScalingGroup."
            )
        if desired > group.max_size:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is above max value {group.max_size} for the AutoScalingGroup."
            )
        group.desired = desired
        self._soon(group)

    def terminate(self, instance_id: str, *, decrement: bool) -> Activity:
        """Terminate a member by name; scale-in protection does not count against that."""
        group = self.group_of(instance_id)
        if group is None:
            raise validation_error(f"Instance Id not found - No managed instance found for instance ID {instance_id}")
        member = group.members[instance_id]
        if member.is_going:
            raise validation_error(f"Instance Id not found - {instance_id} is already being terminated")
        if "Terminate" in group.suspended:
            raise Refused(
                "ScalingActivityInProgress", f"The Terminate process of {group.name} is suspended; cannot terminate."
            )
        if decrement:
            self._decrement(group, member.weight)
        return self._terminate(group, member, "At a user's request an instance was taken out of service.")

    def refresh(self, group: Group, instance_id: str) -> None:
        """Terminate a member for an instance refresh; the group launches another in its place."""
        self._terminate(
            group, group.members[instance_id], "An instance was taken out of service by an instance refresh."
        )

    @staticmethod
    def _decrement(group: Group, weight: int) -> None:
        if group.desired - weight < group.min_size:
            raise validation_error(
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
                "replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity "
                "flag to false or lower group's min size."
            )
        group.desired -= weight

    def detach(self, group: Group, instance_id: str, *, decrement: bool) -> Activity:
        if instance_id not in group.members:
            raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        if decrement:
            self._decrement(group, group.members[instance_id].weight)
        del group.members[instance_id]
        self._world.ec2.instances[instance_id].tags.pop("aws:autoscaling:groupName", None)
        self._world.ec2.instances[instance_id].version += 1
        self._world.ec2.instances[instance_id].group = ""
        self._soon(group)
        activity = self._record(group, f"Detaching EC2 instance: {instance_id}", "A user asked for it.")
        self._finish(activity)
        return activity

    def set_standby(self, group: Group, instance_id: str, *, standby: bool, decrement: bool = False) -> Activity:
        member = group.members.get(instance_id)
        if member is None:
            raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        wanted = "InService" if standby else "Standby"
        if member.lifecycle_state != wanted:
            raise validation_error(f"The instance {instance_id} is not in {wanted}.")
        if standby and decrement:
            self._decrement(group, member.weight)
        elif not standby:
            if group.desired + member.weight > group.max_size:
                raise validation_error(f"Moving {instance_id} out of Standby would exceed the group's max size.")
            group.desired += member.weight
        member.lifecycle_state = "Standby" if standby else "InService"
        self._soon(group)
        way = "to Standby" if standby else "out of Standby"
        activity = self._record(group, f"Moving EC2 instance {way}: {instance_id}", "A user asked for it.")
        self._finish(activity)
        return activity

    def complete_hook(self, group: Group, instance_id: str, result: str) -> None:
        member = group.members.get(instance_id)
        if member is None or not member.lifecycle_state.endswith(":Wait"):
            raise validation_error(f"No active Lifecycle Action found with instance ID {instance_id}")
        self._after_hook(group.name, instance_id, result)

    # What happens by itself

    def instance_running(self, instance_id: str) -> None:
        group = self.group_of(instance_id)
        if group is None:
            return
        member = group.members[instance_id]
        hook = self._hook(group, "autoscaling:EC2_INSTANCE_LAUNCHING")
        if hook and member.lifecycle_state == "Pending":
            member.lifecycle_state = "Pending:Wait"
            self._world.after(
                hook.heartbeat_timeout, "autoscaling", "_after_hook", group.name, instance_id, hook.default_result
            )
        elif member.lifecycle_state == "Pending":
            self._in_service(group, member)

    def _in_service(self, group: Group, member: Member) -> None:
        member.lifecycle_state = "InService"
        for activity in group.activities:
            if activity.status == "InProgress" and activity.description.endswith(member.instance_id):
                self._finish(activity)
        self._world.changed()

    def instance_terminated(self, instance_id: str) -> None:
        """Drop a member whose instance has ended; one that ended by itself is replaced as unhealthy."""
        group = self.group_of(instance_id)
        if group is None:
            return
        if group.members[instance_id].is_going:
            del group.members[instance_id]
            for activity in group.activities:
                if activity.status == "InProgress" and activity.description.endswith(instance_id):
                    self._finish(activity)
            self._world.changed()

    def reconcile(self, name: str) -> None:
        """Do what a group does every few seconds: replace, launch, scale in, rebalance."""
        group = self.groups.get(name)
        if group is None:
            return
        self._replace_unhealthy(group)
        if group.capacity < group.desired:
            self._launch_missing(group)
        elif group.capacity > group.desired:
            self._scale_in(group)
        else:
            self._rebalance(group)
        if group.deleting and not group.members:
            del self.groups[name]
            return
        self._world.after(timing.GROUP_RECONCILED, "autoscaling", "reconcile", name)

    def _soon(self, group: Group) -> None:
        self._world.changed()
        self._world.after(1, "autoscaling", "_act", group.name)

    def _act(self, name: str) -> None:
        group = self.groups.get(name)
        if group and group.capacity > group.desired:
            self._scale_in(group)
        elif group and group.capacity < group.desired:
            self._launch_missing(group)

    def _replace_unhealthy(self, group: Group) -> None:
        for member in list(group.members.values()):
            instance = self._world.ec2.instances.get(member.instance_id)
            alive = instance is not None and instance.state in {"pending", "running"}
            if "HealthCheck" not in group.suspended and not alive and member.lifecycle_state != "Standby":
                member.healthy = False
            if member.healthy or member.is_going or "ReplaceUnhealthy" in group.suspended:
                continue
            if "Terminate" not in group.suspended:
                self._terminate(group, member, "An instance was taken out of service in response to a health check.")

    def _launch_missing(self, group: Group) -> None:
        if "Launch" in group.suspended or group.no_launch_before > self._world.now or group.deleting:
            return
        while group.capacity < group.desired:
            if not self._launch(
                group, "An instance was started in response to a difference between desired and actual."
            ):
                group.no_launch_before = self._world.now + timing.LAUNCH_RETRIED / self._world.speed
                return

    def _launch(self, group: Group, cause: str) -> bool:
        world = self._world
        subnet = self._least_filled(group)
        try:
            data, template, instance_type = self._launch_data(group)
            tags = {t["Key"]: t.get("Value", "") for t in group.tags if t.get("PropagateAtLaunch")}
            for specification in data.get("TagSpecifications", ()):
                if specification.get("ResourceType") == "instance":
                    tags |= {t["Key"]: t.get("Value", "") for t in specification["Tags"]}
            instance = world.ec2.launch(
                data,
                subnet=subnet,
                tags={**tags, "aws:autoscaling:groupName": group.name},
                group=group.name,
                launch_template=template,
                instance_type=instance_type,
            )
        except Refused as refusal:
            failed = self._record(group, f"Launching a new EC2 instance.  Status Reason: {refusal.message}", cause)
            self._finish(failed, "Failed", f"{refusal.message} Launching EC2 instance failed.")
            return False
        group.members[instance.instance_id] = Member(
            instance.instance_id,
            subnet.availability_zone,
            instance.instance_type,
            template,
            world.now,
            protected=group.protect_new,
            weight=weight_of(group, instance.instance_type),
        )
        self._record(group, f"Launching a new EC2 instance: {instance.instance_id}", cause)
        return True

    def _launch_data(self, group: Group) -> tuple[dict[str, Any], tuple[str, str, int] | None, str]:
        if group.launch_configuration:
            return self.launch_configurations[group.launch_configuration], None, ""
        specification = self.specification_in_use(group)
        assert specification is not None
        template = self._world.ec2.find_template(
            specification.get("LaunchTemplateId"), specification.get("LaunchTemplateName")
        )
        version = template.resolve(specification.get("Version") or "$Default")
        overrides = ((group.mixed_instances_policy or {}).get("LaunchTemplate", {}).get("Overrides")) or [{}]
        return (
            version.data,
            (template.launch_template_id, template.launch_template_name, version.number),
            _type_of(overrides[0]),
        )

    def _least_filled(self, group: Group) -> Subnet:
        filled = Counter(member.availability_zone for member in group.members.values() if member.counts)
        subnets = [self._world.ec2.subnets[id_] for id_ in group.subnets]
        return min(subnets, key=lambda subnet: filled[subnet.availability_zone])

    def _scale_in(self, group: Group) -> None:
        if "Terminate" in group.suspended:
            return
        while group.capacity > group.desired:
            spare = group.capacity - group.desired
            free = [m for m in group.members.values() if m.counts and not m.protected and m.weight <= spare]
            if not free:
                return
            filled = Counter(member.availability_zone for member in free)
            most = max(filled.values())
            # The default termination policy: the fullest zone first, there the oldest.
            victim = min((m for m in free if filled[m.availability_zone] == most), key=lambda m: m.joined)
            self._terminate(group, victim, "An instance was taken out of service to reach the desired capacity.")

    def _rebalance(self, group: Group) -> None:
        """Launch in the emptiest zone when zones differ by two or more; scaling in takes from the fullest."""
        if group.suspended.keys() & {"AZRebalance", "Launch", "Terminate"} or group.desired >= group.max_size:
            return
        if any(m.lifecycle_state != "InService" for m in group.members.values()):
            return
        zones = Counter({self._world.ec2.subnets[id_].availability_zone: 0 for id_ in group.subnets})
        zones.update(m.availability_zone for m in group.members.values() if m.counts)
        if zones and max(zones.values()) - min(zones.values()) >= 2:
            self._launch(group, "Instances were launched to balance instances in zones.")

    def _terminate(self, group: Group, member: Member, cause: str) -> Activity:
        activity = self._record(group, f"Terminating EC2 instance: {member.instance_id}", cause)
        hook = self._hook(group, "autoscaling:EC2_INSTANCE_TERMINATING")
        instance = self._world.ec2.instances.get(member.instance_id)
        if hook and instance is not None and instance.exists:
            member.lifecycle_state = "Terminating:Wait"
            self._world.after(
                hook.heartbeat_timeout,
                "autoscaling",
                "_after_hook",
                group.name,
                member.instance_id,
                hook.default_result,
            )
        else:
            self._end(member)
        self._world.changed()
        return activity

    def _end(self, member: Member) -> None:
        member.lifecycle_state = "Terminating"
        instance = self._world.ec2.instances.get(member.instance_id)
        if instance is None or instance.state == "terminated":
            self.instance_terminated(member.instance_id)
        else:
            self._world.ec2.terminate(instance)

    def _after_hook(self, name: str, instance_id: str, result: str) -> None:
        group = self.groups.get(name)
        member = group.members.get(instance_id) if group else None
        if group is None or member is None:
            return
        if member.lifecycle_state == "Terminating:Wait":
            self._end(member)
        elif member.lifecycle_state == "Pending:Wait":
            if result == "CONTINUE":
                self._in_service(group, member)
            else:
                self._end(member)

    @staticmethod
    def _hook(group: Group, transition: str) -> Hook | None:
        return next((hook for hook in group.hooks.values() if hook.transition == transition), None)

    def _record(self, group: Group, description: str, cause: str) -> Activity:
        activity = Activity(self._world.ids.uuid(), description, cause, self._world.now, "InProgress", 50)
        group.activities.insert(0, activity)
        del group.activities[timing.ACTIVITIES_KEPT :]
        return activity

    def _finish(self, activity: Activity, status: str = "Successful", message: str = "") -> None:
        activity.status, activity.progress = status, 100
        activity.end, activity.status_message = self._world.now, message

    def delete(self, group: Group, *, force: bool) -> None:
        if group.members and not force:
            raise Refused(
                "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in it."
            )
        group.desired = group.min_size = 0
        group.deleting = True
        for member in list(group.members.values()):
            if not member.is_going:
                self._terminate(group, member, "The group is being deleted.")
        if not group.members:
            del self.groups[group.name]

    def update(self, group: Group, changes: Mapping[str, Any]) -> None:
        """Change what is given; a MixedInstancesPolicy and a launch template each take the other's place."""
        minimum = changes.get("MinSize", group.min_size)
        maximum = changes.get("MaxSize", group.max_size)
        # Bounds that move past the desired capacity take it along, unless one is given as well.
        desired = changes.get("DesiredCapacity", min(max(group.desired, minimum), maximum))
        if not 0 <= minimum <= maximum:
            raise validation_error("Max bound must be greater than or equal to Min bound")
        if not minimum <= desired <= maximum:
            raise validation_error("Desired capacity must be between the specified min size and max size")
        if "LaunchTemplate" in changes:
            group.launch_template, group.mixed_instances_policy = changes["LaunchTemplate"], None
            group.launch_configuration = ""
        if policy := changes.get("MixedInstancesPolicy"):
            group.mixed_instances_policy = _merged(group.mixed_instances_policy or {}, policy)
            group.launch_template, group.launch_configuration = None, ""
        if "LaunchConfigurationName" in changes:
            group.launch_configuration = changes["LaunchConfigurationName"]
            group.launch_template = group.mixed_instances_policy = None
        group.min_size, group.max_size, group.desired = minimum, maximum, desired
        if kind := changes.get("DesiredCapacityType"):
            group.desired_capacity_type = kind
            for member in group.members.values():
                member.weight = weight_of(group, member.instance_type)
        if "NewInstancesProtectedFromScaleIn" in changes:
            group.protect_new = changes["NewInstancesProtectedFromScaleIn"]
        if zones := changes.get("VPCZoneIdentifier"):
            group.subnets = [id_.strip() for id_ in zones.split(",")]
        self._soon(group)


def weight_of(group: Group, instance_type: str) -> int:
    """Count an instance as its group's desired capacity does: by units, vCPUs or MiB."""
    cpus, memory = INSTANCE_TYPES.get(instance_type, (2, 2048))
    if group.desired_capacity_type != "units":
        return cpus if group.desired_capacity_type == "vcpu" else memory
    overrides = (group.mixed_instances_policy or {}).get("LaunchTemplate", {}).get("Overrides", ())
    weights = [o["WeightedCapacity"] for o in overrides if "WeightedCapacity" in o and _type_of(o) == instance_type]
    return int(weights[0]) if weights else 1


def _type_of(override: Mapping[str, Any]) -> str:
    """Give an override's instance type: named, or the first that has what its InstanceRequirements ask for."""
    asked = override.get("InstanceRequirements")
    if asked is None:
        return str(override.get("InstanceType", ""))
    ranges = (asked["VCpuCount"], asked["MemoryMiB"])
    for name, has in INSTANCE_TYPES.items():
        if all(r["Min"] <= size <= r.get("Max", size) for size, r in zip(has, ranges, strict=True)):
            return name
    raise validation_error("The InstanceRequirements match no instance type that the local rack has.")


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay a policy on the one there is: AWS keeps what an update leaves out."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = _merged(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
    return merged
