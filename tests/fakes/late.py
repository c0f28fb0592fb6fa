"""A lagging AWS: its descriptions are some seconds old, and each call takes a while."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rackctl.model import AutoScalingGroup, ContainerInstance
    from tests.fakes.world import Scene

T = TypeVar("T")
_A_CALL = 0.1


def slow_calls(scene: Scene) -> None:
    """Have each call take a tenth of a second, in which the world goes on."""

    def wait(_: int, __: str, when: str) -> None:
        if when == "before":
            scene.clock.sleep(_A_CALL)

    scene.aws.interfering.append(wait)


def late_groups(scene: Scene, seconds: float) -> None:
    """Have DescribeAutoScalingGroups describe the whole state of groups some seconds ago."""
    real, known = scene.aws.groups, scene.world.autoscaling.groups
    before = _as_it_was(scene, seconds, lambda: {g.name: scene.aws._described(g) for g in known.values()})

    def groups(names: Sequence[str]) -> list[AutoScalingGroup]:
        real(names)
        then = before()
        return [then[name] for name in names if name in then]

    scene.aws.groups = groups  # type: ignore[method-assign]


def late_registrations(scene: Scene, seconds: float) -> None:
    """Have DescribeContainerInstances describe registrations as they were some seconds ago."""
    real = scene.aws.describe_container_instances
    registrations = scene.seeded.registrations
    before = _as_it_was(scene, seconds, lambda: {r.arn: (r.status, r.agent_connected) for r in registrations.values()})

    def describe(cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        then = before()
        return [
            replace(found, status=status, agent_connected=connected)
            for found in real(cluster, arns)
            if found.container_instance_arn in then
            for status, connected in [then[found.container_instance_arn]]
        ]

    scene.aws.describe_container_instances = describe  # type: ignore[method-assign]


def _as_it_was(scene: Scene, seconds: float, snapshot: Callable[[], T]) -> Callable[[], T]:
    seen = [(scene.clock.at, snapshot())]
    scene.clock.watching.append(lambda: seen.append((scene.clock.at, snapshot())))

    def before() -> T:
        wanted = scene.clock.at - seconds
        while len(seen) > 1 and seen[1][0] <= wanted:
            seen.pop(0)
        return seen[0][1]

    return before
