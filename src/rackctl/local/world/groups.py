"""Auto Scaling groups as values, and the weights of their instances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world.base import validation_error
from rackctl.local.world.ec2 import INSTANCE_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    launch_configuration: str = ""
    holds: dict[str, Hold] = field(default_factory=dict)
    # The time at which it came into service; 0 for initial instances.
    in_service_since: float = 0.0

    @property
    def is_terminating(self) -> bool:
        return self.lifecycle_state.startswith("Terminating")

    @property
    def in_capacity(self) -> bool:
        """Whether the instance counts towards the group's capacity."""
        return not self.is_terminating and self.lifecycle_state != "Standby"


@dataclass
class Hook:
    name: str
    transition: str
    heartbeat_timeout: float
    default_result: str
    notification_target: str = ""
    role: str = ""
    metadata: str = ""

    @property
    def global_timeout(self) -> float:
        """Return how long an instance can remain in a wait state: 48 hours, or 100 heartbeats if that is less."""
        return min(172800, self.heartbeat_timeout * 100)


@dataclass
class Hold:
    """A lifecycle action in progress: a hook that holds an instance until it is completed or times out."""

    default_result: str
    until: float
    limit: float


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
class LaunchSource:
    """The launch source of a group: a launch template, a MixedInstancesPolicy or a launch configuration."""

    launch_template: dict[str, str] | None = None
    mixed_instances_policy: dict[str, Any] | None = None
    launch_configuration: str = ""

    @property
    def specification(self) -> dict[str, str] | None:
        """The LaunchTemplateSpecification in use: the first override's own, if it has one."""
        return self.specifications[0] if self.specifications else None

    @property
    def specifications(self) -> list[dict[str, str]]:
        """All LaunchTemplateSpecifications, the one in use first."""
        if not self.mixed_instances_policy:
            return [self.launch_template] if self.launch_template else []
        template = self.mixed_instances_policy["LaunchTemplate"]
        common = template["LaunchTemplateSpecification"]
        return [o.get("LaunchTemplateSpecification", common) for o in template.get("Overrides") or [{}]]

    @property
    def overrides(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (self.mixed_instances_policy or {}).get("LaunchTemplate", {}).get("Overrides", [])
        return found


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
    # The instances in the warm pool, which are not members of the group and do not count.
    warmed: dict[str, Member] = field(default_factory=dict)
    deleting: bool = False
    no_launch_before: float = 0.0
    # The launch source of an instance refresh until it succeeds, in place of the group's own, and the number of
    # instances by which it may exceed the desired capacity.
    refreshed_from: LaunchSource | None = None
    refresh_surplus: int = 0
    # Settings that are only stored and described: cooldown, kind of health check, and the like.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def capacity(self) -> int:
        return sum(member.weight for member in self.members.values() if member.in_capacity)

    @property
    def own_source(self) -> LaunchSource:
        return LaunchSource(self.launch_template, self.mixed_instances_policy, self.launch_configuration)

    @property
    def source(self) -> LaunchSource:
        """Return the source of its next launch."""
        return self.refreshed_from or self.own_source

    def tag_values(self) -> dict[str, str]:
        return {tag["Key"]: tag.get("Value", "") for tag in self.tags}


def weight_of(group: Group, instance_type: str) -> int:
    """Return an instance's weight in the unit of its group: instances, vCPUs or MiB."""
    cpus, memory = INSTANCE_TYPES.get(instance_type, (2, 2048))
    if group.desired_capacity_type != "units":
        return cpus if group.desired_capacity_type == "vcpu" else memory
    weighted = [o for o in group.source.overrides if "WeightedCapacity" in o]
    weights = [override["WeightedCapacity"] for override in weighted if type_of(override) == instance_type]
    return int(weights[0]) if weights else 1


def type_of(override: Mapping[str, Any]) -> str:
    """Return an override's instance type: the named one, or the first that meets its InstanceRequirements."""
    asked = override.get("InstanceRequirements")
    if asked is None:
        return str(override.get("InstanceType", ""))
    ranges = (asked["VCpuCount"], asked["MemoryMiB"])
    for name, has in INSTANCE_TYPES.items():
        if all(r["Min"] <= size <= r.get("Max", size) for size, r in zip(has, ranges, strict=True)):
            return name
    raise validation_error("The InstanceRequirements match no instance type of the local rack.")
