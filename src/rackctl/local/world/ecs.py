"""ECS's part of the world: registrations, tasks, and services that keep their promises."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused
from rackctl.local.world.ec2 import INSTANCE_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rackctl.local.world.world import World

# What the agent and the operating system keep back from ECS, in MiB.
_RESERVED_MEMORY = 96
# Every account has these, without making them.
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
    tags: dict[str, str] = field(default_factory=dict)

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
    def service(self) -> str:
        return self.group.removeprefix("service:") if self.group.startswith("service:") else ""

    @property
    def id(self) -> str:
        return self.arn.rpartition("/")[2]


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
    tags: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, float, str]] = field(default_factory=list)


@dataclass
class CapacityProvider:
    """A capacity provider; one of Fargate has no Auto Scaling group."""

    arn: str
    name: str
    auto_scaling_group_arn: str = ""
    managed_scaling: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, str] = field(
        default_factory=lambda: {"managedTerminationProtection": "DISABLED", "managedDraining": "ENABLED"}
    )
    status: str = "ACTIVE"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Cluster:
    arn: str
    name: str
    tags: dict[str, str]
    status: str = "ACTIVE"
    registrations: dict[str, Registration] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    capacity_providers: list[str] = field(default_factory=list)
    default_strategy: list[dict[str, Any]] = field(default_factory=list)

    def tasks_of(self, service: Service) -> list[Task]:
        return [t for t in self.tasks.values() if t.service == service.name and t.last_status != "STOPPED"]


class Ecs:
    def __init__(self, world: World) -> None:
        self._world = world
        self.clusters: dict[str, Cluster] = {}
        self.definitions: dict[str, list[TaskDefinition]] = {}
        self.capacity_providers = {
            name: CapacityProvider(self.arn(f"capacity-provider/{name}"), name) for name in FARGATE_PROVIDERS
        }

    def arn(self, resource: str) -> str:
        return f"arn:aws:ecs:{self._world.region}:{self._world.account_id}:{resource}"

    def create_cluster(self, name: str, tags: Mapping[str, str]) -> Cluster:
        if name not in self.clusters:
            self.clusters[name] = Cluster(self.arn(f"cluster/{name}"), name, dict(tags))
        return self.clusters[name]

    def cluster(self, name_or_arn: str) -> Cluster:
        name = (name_or_arn or "default").rpartition("/")[2]
        if name not in self.clusters:
            raise Refused("ClusterNotFoundException", "Cluster not found.")
        return self.clusters[name]

    def register_definition(self, document: Mapping[str, Any]) -> TaskDefinition:
        revisions = self.definitions.setdefault(document["family"], [])
        number = len(revisions) + 1
        definition = TaskDefinition(
            self.arn(f"task-definition/{document['family']}:{number}"),
            document["family"],
            number,
            list(document["containerDefinitions"]),
            self._world.now,
            dict(document),
        )
        revisions.append(definition)
        return definition

    def definition(self, name: str) -> TaskDefinition:
        family, _, revision = name.rpartition("/")[2].partition(":")
        revisions = self.definitions.get(family, [])
        if not revisions or (revision and not 0 < int(revision) <= len(revisions)):
            raise Refused("ClientException", "Unable to describe task definition.")
        return revisions[int(revision) - 1] if revision else revisions[-1]

    # Registrations

    def register_instance(self, instance_id: str, *, registered_at: float | None = None) -> None:
        """Do what the agent does when it starts: register with the cluster that the user data names.

        With a time in the past, it did so then and has been connected since.
        """
        world = self._world
        instance = world.ec2.instances.get(instance_id)
        found = re.search(rb"ECS_CLUSTER=([\w-]+)", b64decode(instance.user_data)) if instance else None
        if instance is None or not instance.exists or found is None or "never-register" in world.conditions:
            return
        cluster = self.clusters.get(found[1].decode())
        if cluster is None:
            return
        cpus, memory = INSTANCE_TYPES.get(instance.instance_type, (2, 2048))
        registration = Registration(
            self.arn(f"container-instance/{cluster.name}/{world.ids.hex(32)}"),
            instance_id,
            world.now if registered_at is None else registered_at,
            cpus * 1024,
            memory - _RESERVED_MEMORY,
        )
        cluster.registrations[registration.arn] = registration
        world.changed()
        if registered_at is not None:
            registration.agent_connected = True
            return
        reason = world.conditions.get("registration-failed")
        if reason is not None:
            registration.status = "REGISTRATION_FAILED"
            registration.status_reason = reason or "The container instance could not be registered."
        elif "register-agent-off" not in world.conditions:
            delay = timing.AGENT_CONNECTED - timing.ECS_REGISTERED
            world.after(delay, "ecs", "_connect", cluster.name, registration.arn)

    def _connect(self, cluster: str, arn: str) -> None:
        registration = self.clusters[cluster].registrations.get(arn)
        if registration and registration.status == "ACTIVE":
            self.set_agent(registration, connected=True)

    def set_agent(self, registration: Registration, *, connected: bool) -> None:
        registration.agent_connected = connected
        registration.version += 1
        self._world.changed()

    def registration_of(self, instance_id: str) -> tuple[Cluster, Registration] | None:
        return next(
            (
                (cluster, registration)
                for cluster in self.clusters.values()
                for registration in cluster.registrations.values()
                if registration.instance_id == instance_id
            ),
            None,
        )

    def instance_ending(self, instance_id: str) -> None:
        found = self.registration_of(instance_id)
        if found is None:
            return
        cluster, registration = found
        self.set_agent(registration, connected=False)
        for task in list(registration.live()):
            self._stopped(cluster, task, f"Host EC2 (instance {instance_id}) terminated.", "TerminationNotice")
        self._world.after(timing.REGISTRATION_INACTIVE, "ecs", "_deregister", cluster.name, registration.arn)

    def _deregister(self, cluster: str, arn: str) -> None:
        self.clusters[cluster].registrations.pop(arn, None)
        self._world.changed()

    def deregister(self, cluster: Cluster, registration: Registration, *, force: bool) -> None:
        if not force and any(task.desired_status == "RUNNING" for task in registration.live()):
            raise Refused("InvalidParameterException", "Found running tasks on the instance.")
        for task in list(registration.live()):
            self._stopped(cluster, task, "Container instance deregistration forced by user.", "UserInitiated")
        registration.status = "INACTIVE"
        self._deregister(cluster.name, registration.arn)

    def set_status(self, registration: Registration, status: str) -> None:
        registration.status = status
        registration.version += 1
        self._world.changed()

    # Tasks

    def start_task(
        self,
        cluster: Cluster,
        definition: TaskDefinition,
        registration: Registration,
        *,
        group: str = "",
        started_by: str = "",
        running_since: float | None = None,
    ) -> Task:
        task = Task(
            self.arn(f"task/{cluster.name}/{self._world.ids.hex(32)}"),
            definition,
            registration,
            group or f"family:{definition.family}",
            self._world.now,
            started_by,
        )
        cluster.tasks[task.arn] = registration.tasks[task.arn] = task
        registration.version += 1
        if running_since is not None:
            task.created, task.started, task.last_status = running_since - timing.TASK_RUNNING, running_since, "RUNNING"
        else:
            self._world.after(timing.TASK_PENDING, "ecs", "_advance", cluster.name, task.arn, "PENDING")
            self._world.after(timing.TASK_RUNNING, "ecs", "_advance", cluster.name, task.arn, "RUNNING")
        self._world.changed()
        return task

    def stop_task(self, cluster: Cluster, task: Task, reason: str, code: str = "UserInitiated") -> None:
        if task.desired_status == "STOPPED":
            return
        task.desired_status, task.last_status = "STOPPED", "DEACTIVATING"
        task.stopping, task.stopped_reason, task.stop_code = self._world.now, reason, code
        self._touch(task)
        self._world.after(timing.TASK_STOPPING, "ecs", "_stopping", cluster.name, task.arn)

    def _advance(self, cluster: str, arn: str, status: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task and task.desired_status == "RUNNING":
            task.last_status = status
            if status == "RUNNING":
                task.started = self._world.now
            self._touch(task)

    def _stopping(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task is None or task.last_status == "STOPPED":
            return
        task.last_status = "STOPPING"
        self._touch(task)
        self._world.after(timing.TASK_STOPPED, "ecs", "_stop", cluster, arn)

    def _stop(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task is None or task.last_status == "STOPPED":
            return
        if "stuck-drain" in self._world.conditions:
            self._world.after(timing.TASK_STOPPED, "ecs", "_stop", cluster, arn)
        else:
            self._stopped(self.clusters[cluster], task, task.stopped_reason, task.stop_code)

    def _stopped(self, cluster: Cluster, task: Task, reason: str, code: str) -> None:
        task.desired_status = task.last_status = "STOPPED"
        task.stopped, task.stopped_reason, task.stop_code = self._world.now, reason, code
        task.stopping = task.stopping or self._world.now
        self._touch(task)
        self._world.after(timing.TASK_FORGOTTEN, "ecs", "_forget", cluster.name, task.arn)

    def _forget(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.pop(arn, None)
        if task:
            task.registration.tasks.pop(arn, None)

    def _touch(self, task: Task) -> None:
        task.version += 1
        task.registration.version += 1
        self._world.changed()

    # Services

    def create_service(self, cluster: Cluster, service: Service) -> None:
        cluster.services[service.name] = service
        self._world.after(0, "ecs", "reconcile", cluster.name, service.name)

    def place(self, cluster: Cluster, definition: TaskDefinition) -> Registration | None:
        """Choose where a task goes: the usable registration with the fewest tasks that has room."""
        usable = [
            r
            for r in cluster.registrations.values()
            if r.status == "ACTIVE" and r.agent_connected and r.has_room_for(definition)
        ]
        return min(usable, key=lambda r: (sum(1 for _ in r.live()), r.arn), default=None)

    def reconcile(self, cluster_name: str, name: str) -> None:
        """Do what the service scheduler does every few seconds."""
        cluster = self.clusters[cluster_name]
        service = cluster.services.get(name)
        if service is None:
            return
        if service.strategy == "DAEMON":
            self._reconcile_daemon(cluster, service)
        else:
            self._reconcile_replica(cluster, service)
        if service.status == "DRAINING" and not cluster.tasks_of(service):
            service.status = "INACTIVE"
            del cluster.services[name]
            return
        self._world.after(timing.SERVICE_RECONCILED, "ecs", "reconcile", cluster_name, name)

    def _reconcile_daemon(self, cluster: Cluster, service: Service) -> None:
        wanted = service.status == "ACTIVE"
        tasks = {t.registration.arn: t for t in cluster.tasks_of(service) if t.desired_status == "RUNNING"}
        for registration in list(cluster.registrations.values()):
            task = tasks.get(registration.arn)
            if task is None:
                if (
                    wanted
                    and registration.status == "ACTIVE"
                    and registration.agent_connected
                    and registration.has_room_for(service.definition)
                ):
                    self._start(cluster, service, registration)
            elif not wanted or (registration.status == "DRAINING" and self._only_daemons(cluster, registration)):
                self._stop_for(cluster, service, task)

    def _only_daemons(self, cluster: Cluster, registration: Registration) -> bool:
        daemons = {f"service:{s.name}" for s in cluster.services.values() if s.strategy == "DAEMON"}
        return all(task.group in daemons for task in registration.live())

    def _reconcile_replica(self, cluster: Cluster, service: Service) -> None:
        desired = service.desired if service.status == "ACTIVE" else 0
        minimum = math.ceil(desired * service.minimum_percent / 100)
        maximum = math.floor(desired * service.maximum_percent / 100)
        active = [t for t in cluster.tasks_of(service) if t.desired_status == "RUNNING"]
        # A task whose agent is off cannot be told anything: ECS leaves it where it is.
        moving = [t for t in active if t.registration.status == "DRAINING" and t.registration.agent_connected]
        staying = [t for t in active if t not in moving]
        for task in [t for t in moving if t.last_status != "RUNNING"]:
            self._stop_for(cluster, service, task)
            moving.remove(task)
        acted = self._start_missing(cluster, service, desired - len(staying), maximum - len(staying) - len(moving))
        healthy = sum(t.last_status == "RUNNING" for t in [*staying, *moving])
        surplus = sorted(staying, key=lambda t: t.created)[desired:]
        for task in [*moving, *surplus]:
            if task.last_status != "RUNNING" or healthy > minimum:
                healthy -= task.last_status == "RUNNING"
                self._stop_for(cluster, service, task)
                acted = True
        if moving and not acted and len(staying) + len(moving) >= maximum:
            self._say(
                service,
                f"(service {service.name}) was unable to stop or start tasks during a deployment because of the "
                "service deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try "
                "again.",
            )

    def _start_missing(self, cluster: Cluster, service: Service, missing: int, allowed: int) -> bool:
        started = 0
        for _ in range(min(missing, allowed)):
            registration = self.place(cluster, service.definition)
            if registration is None:
                self._say(
                    service,
                    f"(service {service.name}) was unable to place a task because no container instance met all of its "
                    "requirements.",
                )
                break
            self._start(cluster, service, registration)
            started += 1
        return started > 0

    def _start(self, cluster: Cluster, service: Service, registration: Registration) -> None:
        task = self.start_task(
            cluster,
            service.definition,
            registration,
            group=f"service:{service.name}",
            started_by=service.deployment_id,
        )
        self._say(service, f"(service {service.name}) has started 1 tasks: (task {task.id}).", again=True)

    def _stop_for(self, cluster: Cluster, service: Service, task: Task) -> None:
        self.stop_task(
            cluster,
            task,
            f"Scaling activity initiated by (deployment {service.deployment_id})",
            "ServiceSchedulerInitiated",
        )
        self._say(service, f"(service {service.name}) has stopped 1 running tasks: (task {task.id}).", again=True)

    def _say(self, service: Service, message: str, *, again: bool = False) -> None:
        quiet_until = self._world.now - timing.EVENT_REPEATED / self._world.speed
        if not again and any(text == message and at > quiet_until for _, at, text in service.events):
            return
        service.events.insert(0, (self._world.ids.uuid(), self._world.now, message))
        del service.events[timing.EVENTS_KEPT :]
