"""What AWS tells us, as frozen values in AWS's own terms. Nothing here asks AWS anything.

Times are aware datetimes in UTC. CPU is in ECS units (1,024 a core), memory in MiB. Enumerations keep AWS's
spelling (``ACTIVE``, ``InService``, ``shutting-down``). A value AWS left out is None, or an empty string
where AWS uses one itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

# The types of SSH keys that EC2 imports.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html
KeyType = Literal["ed25519", "rsa"]

# EC2 ids are "i-" and 8 hexadecimal digits (before 2016) or 17.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html
_EC2_INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")


def is_ec2_instance_id(text: str) -> bool:
    """Tell whether a text is a whole EC2 instance id."""
    return _EC2_INSTANCE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance, as DescribeInstances reports it."""

    ec2_instance_id: str
    state: str
    launch_time: datetime
    instance_type: str = ""
    availability_zone: str = ""
    private_ip: str = ""
    public_ip: str = ""
    key_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    ipv6_address: str = ""
    platform: str = ""

    @property
    def is_terminating(self) -> bool:
        """Whether EC2 is terminating it, or has terminated it."""
        return self.state in {"shutting-down", "terminated"}

    @property
    def auto_scaling_group_name(self) -> str:
        """The group it belongs to, from the tag that Auto Scaling puts on what it launches."""
        return self.tags.get("aws:autoscaling:groupName", "")


@dataclass(frozen=True, slots=True)
class Resources:
    cpu: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class ContainerInstance:
    """A registration of an EC2 instance with an ECS cluster."""

    container_instance_arn: str
    ec2_instance_id: str
    status: str
    agent_connected: bool
    running_tasks_count: int = 0
    pending_tasks_count: int = 0
    registered: Resources = Resources()
    remaining: Resources = Resources()
    registered_at: datetime | None = None
    agent_version: str = ""
    status_reason: str = ""


def preferred(registration: ContainerInstance) -> tuple[bool, bool, float]:
    """Order the registrations of one instance; the largest is the one that counts.

    A retried RegisterContainerInstance, or an agent that has lost its state, leaves a second registration behind:
    connected before not, ACTIVE or DRAINING before any other status, then the newest.
    https://github.com/aws/amazon-ecs-agent/issues/782
    """
    registered_at = registration.registered_at.timestamp() if registration.registered_at else 0.0
    return registration.agent_connected, registration.status in {"ACTIVE", "DRAINING"}, registered_at


@dataclass(frozen=True, slots=True)
class RackInstance:
    """One instance as EC2, ECS and Auto Scaling see it; each of the three may not know it.

    ``registrations`` are those with the rack's cluster, the one that counts first; ``member`` is what its Auto Scaling
    group says, where that was asked for. Build it with `rack_instance`, which orders the registrations.
    """

    ec2_instance_id: str
    instance: Instance | None = None
    registrations: tuple[ContainerInstance, ...] = ()
    member: GroupInstance | None = None

    @property
    def container_instance(self) -> ContainerInstance | None:
        """The registration that counts."""
        return self.registrations[0] if self.registrations else None

    @property
    def living_registrations(self) -> tuple[ContainerInstance, ...]:
        """The registrations that a drain has to follow: the one that counts and others whose agent is connected."""
        living = [r for r in self.registrations if r.status in {"ACTIVE", "DRAINING"}]
        return tuple(r for n, r in enumerate(living) if n == 0 or r.agent_connected)

    @property
    def abandoned_tasks(self) -> int:
        """How many tasks ECS shows on registrations whose agent is off, and which nothing can move."""
        return sum(
            r.running_tasks_count + r.pending_tasks_count
            for r in self.registrations
            if r.status in {"ACTIVE", "DRAINING"} and not r.agent_connected
        )

    @property
    def is_external(self) -> bool:
        """Whether it is a machine registered by ECS Anywhere, which EC2 does not know."""
        return self.ec2_instance_id.startswith("mi-")

    @property
    def status(self) -> str:
        """One lower-case word for what it is doing.

        An instance that EC2 is stopping or terminating shows EC2's word, even while ECS has yet to notice.
        Otherwise the ECS status; ``unregistered`` for one that runs and ECS does not know; ``gone`` for a
        registration whose agent is off and whose instance EC2 does not know, or has terminated.
        """
        registered = self.container_instance
        if self.instance is None:
            known = registered and (registered.agent_connected or self.is_external)
            return registered.status.lower() if registered and known else "gone"
        state = self.instance.state
        if registered is None:
            return "unregistered" if state == "running" else state
        if state == "terminated":
            return "gone"
        return registered.status.lower() if state in {"pending", "running"} else state

    @property
    def is_terminating(self) -> bool:
        """Whether EC2 or its group is terminating it, or has done so."""
        return bool((self.instance and self.instance.is_terminating) or (self.member and self.member.is_terminating))

    @property
    def agent_connected(self) -> bool:
        return bool(self.container_instance and self.container_instance.agent_connected)

    @property
    def running_tasks_count(self) -> int:
        """Running tasks, of all its registrations."""
        return sum(registered.running_tasks_count for registered in self.registrations)

    @property
    def pending_tasks_count(self) -> int:
        return sum(registered.pending_tasks_count for registered in self.registrations)

    @property
    def can_take_tasks(self) -> bool:
        """Whether its group, ECS and its agent all say that it can take tasks."""
        registered = self.container_instance
        return bool(
            registered
            and registered.status == "ACTIVE"
            and registered.agent_connected
            and self.member
            and self.member.in_service
            and not self.is_terminating
        )

    @property
    def started(self) -> datetime | None:
        if self.instance:
            return self.instance.launch_time
        return self.container_instance.registered_at if self.container_instance else None

    @property
    def cpu_percent(self) -> float | None:
        """Share of registered CPU that tasks reserve, 0 to 100; None when nothing is registered."""
        ci = self.container_instance
        return _reserved(ci.registered.cpu, ci.remaining.cpu) if ci else None

    @property
    def memory_percent(self) -> float | None:
        """Share of registered memory that tasks reserve, 0 to 100; None when nothing is registered."""
        ci = self.container_instance
        return _reserved(ci.registered.memory, ci.remaining.memory) if ci else None

    def describe(self) -> str:
        """Return how far a new instance is, in a few words."""
        state, registered = self.member.lifecycle_state if self.member else "", self.container_instance
        if self.can_take_tasks:
            return "in service, registered, agent connected"
        if registered is None:
            return f"{state}, not registered with ECS" + (" yet" if state == "InService" else "")
        reason = f" ({registered.status_reason})" if registered.status_reason else ""
        return f"{state}, {registered.status}{reason}, agent {'on' if registered.agent_connected else 'off'}"


def rack_instance(
    ec2_instance_id: str,
    instance: Instance | None,
    registrations: Iterable[ContainerInstance],
    member: GroupInstance | None = None,
) -> RackInstance:
    """Join what the three services say of one instance."""
    return RackInstance(ec2_instance_id, instance, tuple(sorted(registrations, key=preferred, reverse=True)), member)


def _reserved(registered: int, remaining: int) -> float | None:
    return (registered - remaining) / registered * 100 if registered else None


@dataclass(frozen=True, slots=True)
class LaunchTemplateRef:
    """A launch template and a version of it: a number, ``$Latest`` or ``$Default``, as somebody named it."""

    launch_template_id: str
    launch_template_name: str
    version: str


@dataclass(frozen=True, slots=True)
class GroupInstance:
    """A member of an Auto Scaling group."""

    auto_scaling_group_name: str
    ec2_instance_id: str
    lifecycle_state: str
    availability_zone: str
    launch_template: LaunchTemplateRef | None = None

    @property
    def is_terminating(self) -> bool:
        return self.lifecycle_state.startswith(("Terminating", "Terminated"))

    @property
    def in_service(self) -> bool:
        return self.lifecycle_state == "InService"

    @property
    def on_standby(self) -> bool:
        """Whether its group does not count it: on standby, or in the warm pool."""
        return self.lifecycle_state.startswith("Warmed") or self.lifecycle_state in {"Standby", "EnteringStandby"}


@dataclass(frozen=True, slots=True)
class AutoScalingGroup:
    """An Auto Scaling group.

    ``launch_template`` is the group's own or, with a MixedInstancesPolicy, the policy's; ``overrides`` are the
    templates that entries of the policy name for themselves. The ARN, unlike the name, is never another group's.
    """

    auto_scaling_group_name: str
    min_size: int
    max_size: int
    desired_capacity: int
    instances: tuple[GroupInstance, ...] = ()
    suspended_processes: frozenset[str] = frozenset()
    launch_template: LaunchTemplateRef | None = None
    launch_configuration_name: str = ""
    mixed_instances_policy: Mapping[str, object] | None = None
    overrides: tuple[LaunchTemplateRef, ...] = ()
    warm_pool_size: int = 0
    availability_zones: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    auto_scaling_group_arn: str = ""
    desired_capacity_type: str = ""

    @property
    def launch_templates(self) -> tuple[LaunchTemplateRef, ...]:
        """Every launch template and version that the group names, each once."""
        named = (self.launch_template, *self.overrides) if self.launch_template else self.overrides
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class LaunchTemplate:
    """A launch template. ``$Default`` and ``$Latest`` are the two numbers."""

    launch_template_id: str
    launch_template_name: str
    default_version_number: int
    latest_version_number: int
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchTemplateVersion:
    """A version of a launch template. ``data`` is its LaunchTemplateData, whole."""

    launch_template_id: str
    version_number: int
    description: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key_name(self) -> str:
        return str(self.data.get("KeyName", ""))


@dataclass(frozen=True, slots=True)
class LifecycleHook:
    """A lifecycle hook. ``transition`` is what it holds; ``heartbeat_timeout`` is in seconds."""

    name: str
    transition: str
    heartbeat_timeout: int

    @property
    def is_terminating(self) -> bool:
        return self.transition == "autoscaling:EC2_INSTANCE_TERMINATING"


@dataclass(frozen=True, slots=True)
class EcsCluster:
    """An ECS cluster. A tag without a value is an empty text."""

    cluster_arn: str
    capacity_providers: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def account(self) -> str:
        return self.cluster_arn.split(":")[4]


@dataclass(frozen=True, slots=True)
class CapacityProvider:
    """A capacity provider of an Auto Scaling group; ``managed_draining`` is ECS's own terminating hook."""

    name: str
    auto_scaling_group_arn: str
    managed_draining: bool = False


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An EC2 key pair. ``public_key`` is ``TYPE BASE64``, without a comment."""

    key_name: str
    public_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScalingActivity:
    activity_id: str
    description: str
    status_code: str
    start_time: datetime
    status_message: str = ""


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A port of a container, and the port of its instance that leads to it."""

    host_port: int
    container_port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a task. In the network modes host and bridge it has port bindings, in awsvpc none."""

    name: str
    image: str = ""
    last_status: str = ""
    port_bindings: tuple[PortBinding, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """An ECS task. ``group`` is ``service:NAME`` for a service's task; ``started_by`` its deployment's id."""

    task_arn: str
    last_status: str
    desired_status: str = ""
    group: str = ""
    container_instance_arn: str = ""
    started_by: str = ""
    stopped_reason: str = ""
    containers: tuple[Container, ...] = ()

    @property
    def service_name(self) -> str:
        """The service it belongs to; empty for a task that somebody ran by hand."""
        return self.group.removeprefix("service:") if self.group.startswith("service:") else ""


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    created_at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Service:
    """An ECS service. The percents are of ``desired_count``, as its deployment configuration gives them."""

    service_name: str
    service_arn: str
    scheduling_strategy: str
    desired_count: int
    running_count: int
    minimum_healthy_percent: int
    maximum_percent: int
    events: tuple[ServiceEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of ``failures[]``, by which ECS reports what went wrong with one item of a request."""

    arn: str
    reason: str
    detail: str = ""
