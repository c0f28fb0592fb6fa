"""ECS's operations on tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ecs import documents
from rackctl.local.api.ecs.common import (
    HARMLESS,
    check_some,
    check_supported,
    definition_of,
    invalid,
    known_registration,
    launch_type_of,
    listed,
    missing,
    registration_of,
    service_of,
)
from rackctl.local.api.operations import Asked, Result, Room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World
    from rackctl.local.world.clusters import Cluster, Registration, Task, TaskDefinition


class Tasks(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs

    def list_tasks(self, asked: Asked) -> Result:
        """List tasks, newest first; by default those whose desired status is RUNNING."""
        check_supported(
            asked, "cluster", "containerInstance", "family", "nextToken", "maxResults", "startedBy", "serviceName",
            "desiredStatus", "launchType",
        )  # fmt: skip
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        others = {"containerInstance", "family", "serviceName"} & asked.keys()
        if "startedBy" in asked and others:
            raise invalid(f"startedBy cannot be combined with {', '.join(sorted(others))}.")
        tasks: Sequence[Task] = list(cluster.tasks.values())
        if "containerInstance" in asked:
            tasks = list(known_registration(self._ecs, cluster, asked["containerInstance"]).tasks.values())
        if "serviceName" in asked:
            service = service_of(cluster, asked["serviceName"])
            tasks = [task for task in tasks if task.service == service.name]
        status = asked.get("desiredStatus", "RUNNING")
        found = [
            (task.arn, [-task.created, task.arn])
            for task in tasks
            if task.desired_status == status
            and asked.get("family", task.definition.family) == task.definition.family
            and asked.get("startedBy", task.started_by) == task.started_by
            and asked.get("launchType", task.launch_type) == task.launch_type
        ]
        return listed("taskArns", found, asked)

    def describe_tasks(self, asked: Asked) -> Result:
        check_some(asked, "tasks", 100)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found, failures = [], []
        for name in asked["tasks"]:
            task = self._task(cluster, name)
            if task is None:
                failures.append(missing(self._ecs, "task", cluster, name))
            else:
                found.append(documents.task(task, cluster, self.world))
        return {"tasks": found, "failures": failures}

    def _task(self, cluster: Cluster, name: str) -> Task | None:
        return cluster.tasks.get(name if name.startswith("arn:") else self._ecs.arn(f"task/{cluster.name}/{name}"))

    def stop_task(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        task = self._task(cluster, asked["task"])
        if task is None:
            raise invalid("The referenced task was not found.")
        self._ecs.stop_task(cluster, task, asked.get("reason", "Task stopped by user"))
        return {"task": documents.task(task, cluster, self.world)}

    def run_task(self, asked: Asked) -> Result:
        check_supported(
            asked, "cluster", "count", "group", "launchType", "startedBy", "taskDefinition", "networkConfiguration",
            "capacityProviderStrategy", *HARMLESS,
        )  # fmt: skip
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        count = asked.get("count", 1)
        if not 1 <= count <= 10:
            raise invalid("count must be between 1 and 10.")
        definition = definition_of(self._ecs, asked["taskDefinition"])
        launch_type = launch_type_of(asked, definition)
        if launch_type != "FARGATE" and not cluster.registrations:
            raise invalid("No Container Instances were found in your cluster.")
        started: list[Task] = []
        for _ in range(count):
            registration = self.world.scheduler.place(cluster, definition, launch_type)
            if registration is None:
                break
            started.append(self._start(cluster, definition, registration, asked))
        return {
            "tasks": [documents.task(task, cluster, self.world) for task in started],
            "failures": []
            if len(started) == count
            else [{"arn": r.arn, "reason": _why_not(r, definition)} for r in cluster.registrations.values()],
        }

    def start_task(self, asked: Asked) -> Result:
        check_supported(asked, "cluster", "containerInstances", "group", "startedBy", "taskDefinition", *HARMLESS)
        check_some(asked, "containerInstances", 10)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        definition = definition_of(self._ecs, asked["taskDefinition"])
        started, failures = [], []
        for name in asked["containerInstances"]:
            registration = registration_of(self._ecs, cluster, name)
            if registration is None:
                failures.append(missing(self._ecs, "container-instance", cluster, name))
            elif reason := _why_not(registration, definition):
                failures.append({"arn": registration.arn, "reason": reason})
            else:
                task = self._start(cluster, definition, registration, asked)
                started.append(documents.task(task, cluster, self.world))
        return {"tasks": started, "failures": failures}

    def _start(self, cluster: Cluster, definition: TaskDefinition, registration: Registration, asked: Asked) -> Task:
        group = asked.get("group", "")
        if group.startswith("service:"):
            raise invalid("Invalid namespace for group.")
        return self._ecs.start_task(
            cluster, definition, registration, group=group, started_by=asked.get("startedBy", "")
        )


def _why_not(registration: Registration, definition: TaskDefinition) -> str:
    """Return the reason in failures[] for which a task cannot be placed; empty if it can."""
    if registration.status != "ACTIVE":
        return registration.status
    if not registration.agent_connected:
        return "AGENT"
    if registration.remaining_cpu < definition.cpu:
        return "RESOURCE:CPU"
    if registration.remaining_memory < definition.memory:
        return "RESOURCE:MEMORY"
    return "RESOURCE:PORTS" if registration.used_ports & definition.host_ports else ""
