"""Everything about one instance: its tasks, its Auto Scaling group, and its recent events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from rackctl.errors import AccessDenied
from rackctl.launches import is_outdated, launched_from, sources_if_any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from rackctl.model import AutoScalingGroup, GroupInstance, Task
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a service or a group. ``source`` is ``service NAME`` or ``group NAME``."""

    at: datetime
    source: str
    message: str


@dataclass(frozen=True, slots=True)
class Details:
    """One instance as AWS describes it. ``unknown`` has an error for each part that the caller may not read."""

    instance: RackInstance
    member: GroupInstance | None = None
    group: AutoScalingGroup | None = None
    tasks: tuple[Task, ...] = ()
    events: tuple[Event, ...] = ()
    unknown: tuple[AccessDenied, ...] = ()


# Older events of a busy service are unlikely to concern the instance.
_EVENTS_EACH, _EVENTS = 5, 10


def details(rack: Rack, instance: RackInstance) -> Details:
    """Fetch the details of an instance. A part that the caller may not read is left out and reported."""
    aws, id_ = rack.aws, instance.ec2_instance_id
    unknown: list[AccessDenied] = []

    def readable(fetch: Callable[[], Sequence[T]]) -> Sequence[T]:
        try:
            return fetch()
        except AccessDenied as error:
            unknown.append(error)
            return ()

    member = next(iter(readable(lambda: list(aws.autoscaling.members([id_]).values()))), None)
    name = member.auto_scaling_group_name if member else ""
    group = next(iter(readable(lambda: aws.autoscaling.groups([name]))), None) if name else None
    tasks = readable(lambda: tasks_on(rack, instance))
    sources = readable(partial(sources_if_any, aws, group)) if group else ()
    if sources and instance.instance:
        instance = replace(instance, outdated=is_outdated(launched_from(instance.instance, member), sources))
    events = [
        *readable(lambda: _of_services(rack, tasks)),
        *(readable(lambda: _of_group(rack, name, id_)) if name else ()),
    ]
    newest = sorted(events, key=lambda event: event.at, reverse=True)[:_EVENTS]
    return Details(instance, member, group, tuple(tasks), tuple(newest), tuple(unknown))


def tasks_on(rack: Rack, instance: RackInstance) -> tuple[Task, ...]:
    """Return the tasks of an instance that have not stopped, sorted by service."""
    ecs = rack.aws.ecs
    # A task whose desired status is STOPPED, as in a drain, is listed as STOPPED, and runs until its last status is
    # too.
    statuses: tuple[Literal["RUNNING", "STOPPED"], ...] = ("RUNNING", "STOPPED")
    arns = [
        arn
        for registered in instance.registrations
        for status in statuses
        for arn in ecs.tasks_on(rack.cluster, registered.container_instance_arn, status)
    ]
    found = [task for task in ecs.describe_tasks(rack.cluster, arns) if task.last_status != "STOPPED"]
    return tuple(sorted(found, key=lambda task: (task.service_name, task.task_arn)))


def describe_task(task: Task) -> str:
    """Return a task's service, images and status on one line."""
    images = ", ".join(container.image or container.name for container in task.containers)
    return f"{task.service_name or 'no service'}: {images or task.task_arn} ({task.last_status})"


def _of_services(rack: Rack, tasks: Sequence[Task]) -> tuple[Event, ...]:
    names = sorted({task.service_name for task in tasks if task.service_name})
    return tuple(
        Event(event.created_at, f"service {service.service_name}", event.message)
        for service in rack.aws.ecs.describe_services(rack.cluster, names)
        for event in service.events[:_EVENTS_EACH]
    )


def _of_group(rack: Rack, group: str, ec2_instance_id: str) -> tuple[Event, ...]:
    return tuple(
        Event(
            activity.start_time,
            f"group {group}",
            f"{activity.description} ({': '.join(filter(None, (activity.status_code, activity.status_message)))})",
        )
        for activity in rack.aws.autoscaling.activities(group)
        if ec2_instance_id in activity.description
    )
