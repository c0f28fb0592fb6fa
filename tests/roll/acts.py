"""Helpers of the roll's tests: start a roll, stop it, kill it, and read the state that it leaves."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.roll.hold import RollStopped
from rackctl.roll.plan import PlanRefused
from rackctl.roll.view import RollOptions
from tests.fakes.world import Killed, Scene, drained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.local.world.refreshing import Refresh
    from rackctl.roll.report import Event

# RACKCTL_CHAOS=all runs every case, as `make chaos` does; otherwise one case in seven is run (an odd number, since
# every second case is before a call and the others are after it).
EACH = 1 if os.environ.get("RACKCTL_CHAOS") == "all" else 7
JOURNAL = ("b", "rackctl/prod/roll.json")
NEW_KEY = "prod-keypair-20260102T030435Z"
DEFAULT = RollOptions()
REFRESH = RollOptions(engine="refresh")


def with_managed_draining(instances: int = 3, *, max_size: int | None = None) -> Scene:
    """Return a rack whose group is behind a capacity provider that drains."""
    return drained(Scene(instances, max_size=max_size))


def refresh_of(scene: Scene) -> Refresh:
    """Return the newest instance refresh of a scene's first group."""
    return scene.world.refreshes.of(scene.group.name)[0]


def texts(events: list[Event]) -> str:
    return "\n".join(event.message for event in events)


def collect(events: Iterator[Event], into: list[Event]) -> None:
    """Keep the events of a roll that may not get through."""
    for event in events:
        into.append(event)  # noqa: PERF402 - what came before an error counts


def start(scene: Scene, options: RollOptions = DEFAULT) -> list[Event]:
    return list(scene.roll.start(options, scene.selection))


def until(scene: Scene, kind: str, saying: str = "") -> Iterator[Event]:
    """Begin a roll and give the rest of it from the first event of this kind that says so."""
    events = scene.roll.start(DEFAULT, scene.selection)
    for event in events:
        if event.kind == kind and saying in event.message:
            return events
    raise AssertionError(f"there was no event {kind} {saying}")


def stopped(scene: Scene, events: Iterator[Event]) -> None:
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)
    scene.stop.signal = 0


def stopped_with_two_new_ones() -> Scene:
    """Return the scene of a roll of three that was stopped when two new instances were ready."""
    scene = Scene(3)
    ready = scene.seeded.registrations.values
    scene.when(
        lambda: sum(r.agent_connected and r.instance_id in scene.new for r in ready()) == 2,
        lambda: setattr(scene.stop, "signal", 2),
    )
    with pytest.raises(RollStopped):
        start(scene)
    scene.stop.signal = 0
    return scene


def refused(scene: Scene, options: RollOptions = DEFAULT) -> str:
    before = len(scene.aws.mutations)
    with pytest.raises(PlanRefused) as caught:
        start(scene, options)
    assert len(scene.aws.mutations) == before
    return f"{caught.value}\n{caught.value.hint}"


def fail_from(
    scene: Scene, call: str, error: BaseException, *, times: float = math.inf, when: str = "before"
) -> list[str]:
    """Have a call fail from now on, before or after it takes effect; the list grows with each that has."""
    failed: list[str] = []

    def interfere(_: int, name: str, moment: str) -> None:
        if (name, moment) == (call, when) and len(failed) < times:
            failed.append(name)
            raise error

    scene.aws.interfering.append(interfere)
    return failed


def alone(scene: Scene) -> Any:
    definition = scene.world.ecs.register_definition(
        {"family": "once", "containerDefinitions": [{"name": "once", "image": "once", "memory": 64}]}
    )
    registration = next(r for r in scene.seeded.registrations.values() if r.instance_id in scene.old)
    return scene.world.ecs.start_task(scene.seeded, definition, registration)


def killer(at: int, moment: str) -> Callable[[int, str, str], None]:
    def interfere(number: int, name: str, when: str) -> None:
        if (number, when) == (at, moment):
            raise Killed(name)

    return interfere


def run_until_killed(scene: Scene, act: Callable[[], object], at: int, moment: str) -> bool:
    """Call a function; return whether it was killed at its call of this number."""
    kill = killer(len(scene.aws.mutations) + at, moment)
    scene.aws.interfering.append(kill)
    try:
        act()
    except Killed:
        return True
    finally:
        scene.aws.interfering.remove(kill)
    return False


def assert_given_back(scene: Scene, capacity: int) -> None:
    scene.clock.sleep(120)
    assert scene.broken_promises == []
    assert scene.desired == capacity
    assert len(scene.key_names) == capacity
    assert all(group.suspended == {} for group in scene.world.autoscaling.groups.values())
    assert scene.draining == []
    assert JOURNAL not in scene.aws.objects
    named = {*scene.key_names, *scene.keys_in_templates}
    assert scene.key_pairs == named
    assert set(scene.keys.names()) == named
    # Each key that an instance has, or the next one would get, is stored, and no other one.
    stored = [key for name in named for key in scene.keys.public_keys(name).values()]
    pairs = {pair.public_key for pair in scene.world.ec2.key_pairs.values()}
    assert set(stored) == pairs | {key for key in scene.public_keys.values() if key}
    # One that was in force again after an abort is stored for both times.
    assert len(stored) <= len(set(stored)) + 1
    for instance in scene.world.ec2.instances.values():
        if instance.exists and instance.authorized_key:
            launched = scene.aws._instance(instance).first_launch_time
            tried = [key.public_key for key in scene.keys.candidates(instance.key_name, launched)]
            assert instance.authorized_key in tried


def draining_one(scene: Scene) -> tuple[str, Iterator[Event]]:
    """Begin a roll, and return the instance that it drains first and the rest of its events."""
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    return id_, events


def killed(scene: Scene, events: Iterator[Event]) -> None:
    """Kill a roll at its next change, and let the time pass after which it counts as dead."""
    run_until_killed(scene, lambda: list(events), 0, "before")
    scene.clock.sleep(400)


def statuses(scene: Scene, id_: str) -> list[str]:
    return [r.status for r in scene.seeded.registrations.values() if r.instance_id == id_]
