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
    from collections.abc import Mapping
    from datetime import datetime

# The types of SSH keys that EC2 imports.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html
KeyType = Literal["ed25519", "rsa"]

# EC2 ids are "i-" and 8 hexadecimal digits (before 2016) or 17.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html
_EC2_INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")


def is_ec2_instance_id(text: str) -> bool:
    """Return whether a text is a whole EC2 instance id."""
    return _EC2_INSTANCE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance, as DescribeInstances reports it.

    ``launch_time`` is when it was last started; ``attach_time`` when its primary network interface was attached, None
    where EC2 does not say.
    """

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
    private_dns_name: str = ""
    public_dns_name: str = ""
    image_id: str = ""
    subnet_id: str = ""
    attach_time: datetime | None = None

    @property
    def first_launch_time(self) -> datetime:
        """When it was launched: its LaunchTime, but for one that was stopped and started again since.

        DescribeInstances, LaunchTime: "To determine the time that instance was first launched, see the attachment time
        for the primary network interface." It is then that an instance gets its public key.
        """
        return min(self.launch_time, self.attach_time or self.launch_time)

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

    @property
    def is_alive(self) -> bool:
        """Whether it can have tasks: it is ACTIVE or DRAINING."""
        return self.status in {"ACTIVE", "DRAINING"}

    @property
    def tasks_count(self) -> int:
        """How many tasks run on it or are about to."""
        return self.running_tasks_count + self.pending_tasks_count


@dataclass(frozen=True, slots=True)
class LaunchTemplateRef:
    """A launch template and a version of it: a number, ``$Latest`` or ``$Default``, as a group or a tag names it."""

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
    launch_configuration_name: str = ""

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
    templates that entries of the policy name for themselves. ``launches`` are the templates that instances are launched
    from, each with the image that stands in place of the version's, empty where none does. The ARN, unlike the name, is
    never another group's.
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
    launches: tuple[tuple[LaunchTemplateRef, str], ...] = ()
    default_instance_warmup: int | None = None

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
    launch_template_name: str = ""

    @property
    def key_name(self) -> str:
        return str(self.data.get("KeyName", ""))

    @property
    def image_id(self) -> str:
        """The image that it names, ``resolve:ssm:`` and a parameter where that was not resolved; empty for none."""
        return str(self.data.get("ImageId", ""))


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
    """An ECS cluster. A tag without a value is an empty text. ``registered`` counts its container instances."""

    cluster_arn: str
    capacity_providers: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    registered: int = 0

    @property
    def name(self) -> str:
        return self.cluster_arn.rpartition("/")[2]

    @property
    def account(self) -> str:
        return self.cluster_arn.split(":")[4]

    @property
    def region(self) -> str:
        return self.cluster_arn.split(":")[3]


@dataclass(frozen=True, slots=True)
class CapacityProvider:
    """A capacity provider of an Auto Scaling group; ``managed_draining`` is ECS's own terminating hook.

    ``managed_scaling`` says that ECS sets the group's desired capacity, ``managed_termination_protection`` that
    instances with tasks are kept from scale-in.
    """

    name: str
    auto_scaling_group_arn: str
    managed_draining: bool = False
    managed_scaling: bool = False
    managed_termination_protection: bool = False


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An EC2 key pair. ``public_key`` is ``TYPE BASE64``, without a comment; ``created`` when it was imported.

    ``fingerprint`` is EC2's: its form tells whether EC2 made the pair or imported it.

    The name may be another pair's later on; the id never is.
    """

    key_name: str
    public_key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    key_pair_id: str = ""
    created: datetime | None = None
    fingerprint: str = ""


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
    """An ECS task. ``group`` is ``service:NAME`` for a service's task."""

    task_arn: str
    last_status: str
    desired_status: str = ""
    group: str = ""
    container_instance_arn: str = ""
    containers: tuple[Container, ...] = ()

    @property
    def service_name(self) -> str:
        """The service it belongs to; empty for a task started by hand."""
        return self.group.removeprefix("service:") if self.group.startswith("service:") else ""


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    created_at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Service:
    """An ECS service. The percents are of ``desired_count``, as its deployment configuration gives them.

    ``rollout_state`` is that of its PRIMARY deployment: empty where ECS tells none.
    """

    service_name: str
    scheduling_strategy: str
    desired_count: int
    running_count: int
    minimum_healthy_percent: int
    maximum_percent: int
    events: tuple[ServiceEvent, ...] = ()
    status: str = "ACTIVE"
    rollout_state: str = ""

    @property
    def unsteady(self) -> str:
        """What keeps it from being steady, empty where nothing does.

        A DAEMON service's count follows the instances, and one that is being deleted has none to reach.
        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Deployment.html says which have a rollout state.
        """
        if self.status != "ACTIVE" or self.scheduling_strategy == "DAEMON":
            return ""
        if self.running_count < self.desired_count:
            return f"{self.running_count} of {self.desired_count} tasks running"
        if self.rollout_state not in {"", "COMPLETED"}:
            return f"its deployment is {self.rollout_state}"
        return ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A CloudWatch alarm: OK, ALARM or INSUFFICIENT_DATA, and why."""

    alarm_name: str
    state_value: str
    state_reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """One entry of ``failures[]``, by which ECS reports what went wrong with one item of a request."""

    arn: str
    reason: str
    detail: str = ""
