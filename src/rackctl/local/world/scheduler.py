"""ECS's service scheduler: starts and stops tasks within each service's deployment configuration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rackctl.local.world import timing

if TYPE_CHECKING:
    from rackctl.local.world.base import Commons
    from rackctl.local.world.clusters import Cluster, Registration, Service, Task, TaskDefinition
    from rackctl.local.world.ecs import Ecs


class Scheduler:
    def __init__(self, world: Commons, ecs: Ecs) -> None:
        self._world = world
        self._ecs = ecs

    def create_service(self, cluster: Cluster, service: Service) -> None:
        cluster.services[service.name] = service
        self._world.after(0, "scheduler", "reconcile", cluster.name, service.name)

    @staticmethod
    def place(
        cluster: Cluster, definition: TaskDefinition, launch_type: str = "EC2", capacity_provider: str = ""
    ) -> Registration | None:
        """Return the usable registration that has room and the fewest tasks."""
        if launch_type == "FARGATE":
            return cluster.fargate
        usable = [
            r
            for r in cluster.registrations.values()
            if r.status == "ACTIVE"
            and r.agent_connected
            and r.has_room_for(definition)
            and r.launch_type == launch_type
            and capacity_provider in {"", r.capacity_provider}
        ]
        return min(usable, key=lambda r: (sum(1 for _ in r.live()), r.arn), default=None)

    def reconcile(self, cluster_name: str, name: str) -> None:
        """Run one periodic step of a service."""
        cluster = self._ecs.clusters[cluster_name]
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
        self._world.after(timing.SERVICE_RECONCILED, "scheduler", "reconcile", cluster_name, name)

    def _reconcile_daemon(self, cluster: Cluster, service: Service) -> None:
        wanted = service.status == "ACTIVE"
        tasks = {t.registration.arn: t for t in cluster.tasks_of(service) if t.desired_status == "RUNNING"}
        for registration in [r for r in cluster.registrations.values() if r.launch_type == service.runs_on]:
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
        # ECS cannot stop a task whose agent is off.
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
            registration = self.place(cluster, service.definition, service.runs_on, service.capacity_provider)
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
        task = self._ecs.start_task(
            cluster,
            service.definition,
            registration,
            group=f"service:{service.name}",
            started_by=service.deployment_id,
        )
        self._say(service, f"(service {service.name}) has started 1 tasks: (task {task.id}).", again=True)

    def _stop_for(self, cluster: Cluster, service: Service, task: Task) -> None:
        self._ecs.stop_task(
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
