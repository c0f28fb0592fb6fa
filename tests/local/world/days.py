"""Helpers that advance a world's time and look at its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.local.world import World
    from rackctl.local.world.clusters import Cluster, Registration, Service
    from rackctl.local.world.groups import Group, Member

START = 1_700_000_000.0


def later(world: World, seconds: float, *, step: float = 1.0) -> Iterator[float]:
    """Advance a world step by step, yielding after each."""
    end = world.now + seconds
    while world.now < end:
        world.advance(world.now + step)
        yield world.now


def wait(world: World, seconds: float) -> None:
    for _ in later(world, seconds):
        pass


def group_of(world: World) -> Group:
    return world.autoscaling.groups["local-instances"]


def cluster_of(world: World) -> Cluster:
    return world.ecs.clusters["local"]


def service_of(world: World, name: str = "web") -> Service:
    return cluster_of(world).services[name]


def first(world: World) -> str:
    return next(iter(group_of(world).members))


def newcomer(world: World, before: set[str]) -> Member | None:
    return next((m for id_, m in group_of(world).members.items() if id_ not in before), None)


def registration(world: World, instance_id: str) -> Registration:
    found = world.ecs.registration_of(instance_id)
    assert found is not None
    return found[1]


def runs_on(world: World, instance_id: str) -> list[str]:
    return sorted(task.service for task in registration(world, instance_id).live())


def with_task(world: World, service: str) -> str:
    """Return an instance on which a service has a task."""
    tasks = cluster_of(world).tasks_of(service_of(world, service))
    return tasks[0].registration.instance_id
