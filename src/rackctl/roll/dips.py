"""What a roll means for the services whose tasks it moves: those that run fewer for a while. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.roll.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.model import Service, Task


@dataclass(frozen=True, slots=True)
class Dip:
    """A service that will run with less than its desired count for a while, or whose tasks cannot be moved."""

    service_name: str
    desired_count: int
    lowest_count: int
    stuck: bool
    reason: str


def dips(services: Sequence[Service], moved: Sequence[Task]) -> Iterator[Dip]:
    """Yield the services that run fewer tasks for a while, of those that have tasks on what is replaced."""
    concerned = {task.service_name for task in moved}
    for service in sorted(services, key=lambda s: s.service_name):
        desired = service.desired_count
        if service.scheduling_strategy == "DAEMON" or not desired or service.service_name not in concerned:
            continue
        # ECS rounds the minimum up and the maximum down.
        # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
        minimum = math.ceil(desired * service.minimum_healthy_percent / 100)
        maximum = math.floor(desired * service.maximum_percent / 100)
        percents = f"minimum {service.minimum_healthy_percent} %, maximum {service.maximum_percent} %"
        if minimum >= desired and maximum <= desired:
            yield Dip(
                service.service_name, desired, desired, stuck=True,
                reason=f"{percents}: no task may stop before another runs, and none may run in addition, so its tasks "
                "cannot be moved and the drain will time out: allow one of the two",
            )  # fmt: skip
        elif minimum < desired:
            yield Dip(
                service.service_name, desired, minimum, stuck=False,
                reason=f"{percents}: ECS may stop a task before another runs in its place",
            )  # fmt: skip


def not_steady(services: Sequence[Service], moved: Sequence[Task]) -> Iterator[Problem]:
    """Warn of the services that are not steady before a roll moves their tasks."""
    concerned = {task.service_name for task in moved}
    for service in services:
        if service.unsteady and service.service_name in concerned:
            yield Problem(
                f"service {service.service_name} is not steady ({service.unsteady}): the roll does not wait for it "
                "after a batch, unless it is seen steady once",
                warns=True,
            )
