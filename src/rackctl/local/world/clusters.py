"""ECS clusters as values: registrations, task definitions, tasks, services, capacity providers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# None: a tag of ECS may have no value.
Tags: TypeAlias = dict[str, str | None]

# Memory that the agent and the operating system reserve, in MiB.
RESERVED_MEMORY = 96
# Every account has these.
FARGATE_PROVIDERS = ("FARGATE", "FARGATE_SPOT")
_RESERVED_PORTS = frozenset({22, 2375, 2376, 51678, 51679})


@dataclass
class TaskDefinition:
    arn: str
    family: str
    revision: int
    containers: list[dict[str, Any]]
    registered_at: float
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu(self) -> int:
        return int(self.document.get("cpu") or sum(c.get("cpu", 0) for c in self.containers))

    @property
    def memory(self) -> int:
        return int(
            self.document.get("memory")
            or sum(c.get("memoryReservation") or c.get("memory") or 0 for c in self.containers)
        )

    @property
    def compatibilities(self) -> tuple[str, ...]:
        """Return the launch types that it supports: Fargate only if it was registered for it."""
        return (
            "EXTERNAL",
            "EC2",
            *(["FARGATE"] if "FARGATE" in self.document.get("requiresCompatibilities", ()) else []),
        )

    @property
    def host_ports(self) -> frozenset[int]:
        return frozenset(m["hostPort"] for c in self.containers for m in c.get("portMappings", ()) if m.get("hostPort"))


@dataclass
class Registration:
    """A container instance."""

    arn: str
    instance_id: str
    registered_at: float
    cpu: int
    memory: int
    status: str = "ACTIVE"
    status_reason: str = ""
    agent_connected: bool = False
    agent_version: str = "1.98.0"
    version: int = 1
    tasks: dict[str, Task] = field(default_factory=dict)
    tags: Tags = field(default_factory=dict)

    capacity_provider: str = ""

    @property
    def launch_type(self) -> str:
        """Return the launch type of the tasks that are placed here."""
        if not self.arn:
            return "FARGATE"
        return "EXTERNAL" if self.instance_id.startswith("mi-") else "EC2"

    def live(self) -> Iterator[Task]:
        return (task for task in self.tasks.values() if task.last_status != "STOPPED")

    @property
    def remaining_cpu(self) -> int:
        return self.cpu - sum(task.definition.cpu for task in self.live())

    @property
    def remaining_memory(self) -> int:
        return self.memory - sum(task.definition.memory for task in self.live())

    @property
    def used_ports(self) -> frozenset[int]:
        return _RESERVED_PORTS.union(*(task.definition.host_ports for task in self.live()))

    def has_room_for(self, definition: TaskDefinition) -> bool:
        return (
            self.remaining_cpu >= definition.cpu
            and self.remaining_memory >= definition.memory
            and not self.used_ports & definition.host_ports
        )


@dataclass
class Task:
    arn: str
    definition: TaskDefinition
    registration: Registration
    group: str
    created: float
    started_by: str = ""
    last_status: str = "PROVISIONING"
    desired_status: str = "RUNNING"
    started: float | None = None
    stopping: float | None = None
    stopped: float | None = None
    stop_code: str = ""
    stopped_reason: str = ""
    version: int = 1

    @property
    def launch_type(self) -> str:
        return self.registration.launch_type

    @property
    def service(self) -> str:
        return self.group.removeprefix("service:") if self.group.startswith("service:") else ""

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]

    def host_port(self, mapping: Mapping[str, Any]) -> int:
        """Return the instance's port of a port mapping: the one that it names, or an ephemeral one."""
        return int(mapping.get("hostPort") or 32768 + int(self.id[:4], 16) % 28000)


@dataclass
class Service:
    arn: str
    name: str
    definition: TaskDefinition
    strategy: str
    desired: int
    minimum_percent: int
    maximum_percent: int
    created: float
    deployment_id: str
    status: str = "ACTIVE"
    tags: Tags = field(default_factory=dict)
    events: list[tuple[str, float, str]] = field(default_factory=list)
    launch_type: str = "EC2"
    # In place of a launch type: CapacityProviderStrategyItems.
    capacity_provider_strategy: list[dict[str, Any]] = field(default_factory=list)

    @property
    def capacity_provider(self) -> str:
        return str(self.capacity_provider_strategy[0]["capacityProvider"]) if self.capacity_provider_strategy else ""

    @property
    def runs_on(self) -> str:
        """Return the launch type of its tasks, which a capacity provider may decide."""
        return "FARGATE" if self.capacity_provider in FARGATE_PROVIDERS else self.launch_type


@dataclass
class CapacityProvider:
    """A capacity provider; Fargate's have no Auto Scaling group."""

    arn: str
    name: str
    auto_scaling_group_arn: str = ""
    managed_scaling: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, str] = field(
        default_factory=lambda: {"managedTerminationProtection": "DISABLED", "managedDraining": "ENABLED"}
    )
    status: str = "ACTIVE"
    tags: Tags = field(default_factory=dict)


@dataclass
class Cluster:
    arn: str
    name: str
    tags: Tags
    status: str = "ACTIVE"
    registrations: dict[str, Registration] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    capacity_providers: list[str] = field(default_factory=list)
    default_strategy: list[dict[str, Any]] = field(default_factory=list)
    # Registrations that have ended: no longer listed, but described for an hour.
    former: dict[str, Registration] = field(default_factory=dict)
    # The tasks of Fargate run on no container instance.
    fargate: Registration = field(default_factory=lambda: Registration("", "", 0.0, 10**9, 10**9, agent_connected=True))

    def registration(self, arn: str) -> Registration | None:
        """Return a registration by its ARN, even if it has ended."""
        return self.registrations.get(arn) or self.former.get(arn)

    def tasks_of(self, service: Service) -> list[Task]:
        return [t for t in self.tasks.values() if t.service == service.name and t.last_status != "STOPPED"]
