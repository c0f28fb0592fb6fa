"""The waits before the next drains: services that are steady again, and a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RollIncomplete
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene
from tests.roll.acts import assert_given_back, start, stopped, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.roll.report import Event

MINUTE = 60.0


def served(instances: int = 3, *, desired: int = 3, minimum_percent: int = 0) -> tuple[Scene, Any]:
    """Make a rack with a service of which ECS may stop tasks before others run, and one fits on an instance."""
    scene = Scene(instances)
    service = scene.world.seed_service(
        scene.seeded,
        "api",
        "i",
        "c",
        desired=desired,
        memory=1100,
        minimum_percent=minimum_percent,
        maximum_percent=100,
    )
    scene.clock.sleep(60)
    return scene, service


def running(scene: Scene) -> int:
    service = scene.seeded.services.get("api")
    return sum(task.last_status == "RUNNING" for task in scene.seeded.tasks_of(service)) if service else 0


def begin_of_drains(scene: Scene, events: Iterator[Event]) -> list[tuple[float, int]]:
    """Follow a roll, and return when each old instance began to drain and how many tasks of api ran then."""
    seen: dict[str, tuple[float, int]] = {}
    drained = scene.world.ecs.set_status

    def set_status(registration: Any, status: str) -> None:
        if status == "DRAINING" and registration.instance_id in scene.first:
            seen.setdefault(registration.instance_id, (scene.clock.at, running(scene)))
        drained(registration, status)

    scene.world.ecs.set_status = set_status  # type: ignore[method-assign]
    list(events)
    return list(seen.values())


def kept(events: Iterator[Event], into: list[Event]) -> Iterator[Event]:
    for event in events:
        into.append(event)
        yield event


# Services


def test_the_next_instance_is_drained_when_the_services_are_steady_again() -> None:
    scene, _ = served()

    drains = begin_of_drains(scene, scene.roll.start(RollOptions(surge=2)))

    assert [count for _, count in drains] == [3, 3, 3]
    assert_given_back(scene, 3)


def test_a_service_that_does_not_become_steady_again_stops_the_roll_and_is_named() -> None:
    scene, service = served()
    events: list[Event] = []
    scene.when(lambda: bool(scene.draining), lambda: setattr(service, "desired", 99))

    with pytest.raises(RollIncomplete) as caught:
        events.extend(scene.roll.start(RollOptions(surge=2, drain_timeout=300)))

    assert "service api is not steady again 300 s after tasks of it were moved" in str(caught.value)
    assert "of 99 tasks running" in str(caught.value)
    assert "keyroll resume" in caught.value.hint
    assert len(scene.old) == 2
    assert scene.draining == []


def test_the_wait_for_a_service_is_reported() -> None:
    scene, service = served()
    scene.when(lambda: bool(scene.draining), lambda: setattr(service, "desired", 99))
    scene.when(lambda: len(scene.old) == 2, lambda: scene.later(150, lambda: setattr(service, "desired", 3)))

    said = texts([event for event in start(scene) if event.kind == "waiting"])

    assert "waiting for services to be steady again: api (" in said
    assert "service api to be steady again (" in said
    assert_given_back(scene, 3)


def test_resume_waits_for_the_services_of_the_batch_before_and_force_goes_on() -> None:
    scene, service = served()
    scene.when(lambda: bool(scene.draining), lambda: setattr(service, "desired", 99))
    options = RollOptions(surge=2, drain_timeout=300)
    with pytest.raises(RollIncomplete):
        start(scene, options)

    with pytest.raises(RollIncomplete, match="service api is not steady again"):
        list(scene.roll.resume())
    assert len(scene.old) == 2
    list(scene.roll.resume(force=True))

    assert scene.old == []
    assert_given_back(scene, 3)


def test_a_service_that_was_not_steady_before_the_roll_is_not_waited_for() -> None:
    scene, service = served()
    service.desired = 99
    scene.clock.sleep(60)
    plan = scene.roll.plan(RollOptions())
    began = scene.clock.at

    events = start(scene)

    assert any(warning.startswith("service api is not steady (") for warning in plan.warnings)
    assert texts(events).count("service api was not steady before the roll (") == 1
    assert scene.clock.at - began < 15 * MINUTE
    assert_given_back(scene, 3)


def test_but_it_is_once_it_has_been_steady() -> None:
    scene, service = served()
    service.desired = 99
    scene.clock.sleep(60)
    scene.when(lambda: len(scene.old) < 3, lambda: setattr(service, "desired", 3))
    scene.when(lambda: len(scene.old) < 2, lambda: setattr(service, "desired", 99))

    with pytest.raises(RollIncomplete, match="service api is not steady again"):
        start(scene, RollOptions(drain_timeout=300))


def test_a_service_that_is_being_deleted_is_not_waited_for() -> None:
    scene, service = served()

    def delete() -> None:
        service.status, service.desired = "DRAINING", 0

    scene.when(lambda: bool(scene.draining), lambda: setattr(service, "desired", 99))
    scene.when(lambda: len(scene.old) == 2, lambda: scene.later(60, delete))

    start(scene, RollOptions(drain_timeout=600))

    assert_given_back(scene, 3)


def test_a_service_that_ecs_does_not_report_is_waited_for_until_that_has_lasted() -> None:
    scene, _ = served(2, desired=2)

    def left_out(call: str, answer: Any) -> Any:
        leaving = any(member.lifecycle_state == "Terminating" for member in scene.group.members.values())
        return [] if call == "describe_services" and leaving else answer

    scene.aws.misreading.append(left_out)
    events: list[Event] = []

    drains = begin_of_drains(scene, kept(scene.roll.start(RollOptions(surge=2)), events))

    gone = next(event.at.timestamp() for event in events if event.phase == "terminating")
    assert "waiting for services to be steady again: api (ECS does not report it)" in texts(events)
    assert 20 <= drains[1][0] - gone <= 30
    assert_given_back(scene, 2)


def test_a_service_of_every_instance_is_not_waited_for() -> None:
    scene = Scene(3)
    scene.world.seed_service(scene.seeded, "agent", "i", "c", strategy="DAEMON", minimum_percent=0)
    scene.clock.sleep(60)

    events = start(scene)

    assert "steady" not in texts(events)
    assert_given_back(scene, 3)


# A pause


def test_there_is_a_pause_between_two_batches_and_none_after_the_last() -> None:
    scene, _ = served(4)
    scene.group.max_size = 10

    events: list[Event] = []
    drains = begin_of_drains(scene, kept(scene.roll.start(RollOptions(batch=2, surge=4, pause=5 * MINUTE)), events))

    begins = sorted({at for at, _ in drains})
    assert len(begins) == 2
    assert begins[1] - begins[0] >= 5 * MINUTE
    assert [e.message for e in events if e.kind == "pause"] == ["pausing for 5 minutes before the next batch"]
    ended = max(event.at.timestamp() for event in events if event.phase == "terminating")
    assert scene.clock.at - ended < 3 * MINUTE
    assert_given_back(scene, 4)


def test_a_resume_waits_for_the_rest_of_a_pause_only() -> None:
    scene, _ = served(2)
    events = scene.roll.start(RollOptions(pause=20 * MINUTE))
    next(event for event in events if event.kind == "pause")
    paused = scene.clock.at
    scene.clock.sleep(15 * MINUTE)
    stopped(scene, events)

    drains = begin_of_drains(scene, scene.roll.resume())

    assert 20 * MINUTE <= drains[0][0] - paused < 21 * MINUTE
    assert_given_back(scene, 2)


def test_a_roll_whose_pause_lasts_shows_that_it_runs_and_can_be_stopped() -> None:
    scene, _ = served(2)
    events = scene.roll.start(RollOptions(pause=60 * MINUTE))
    next(event for event in events if event.kind == "pause")
    scene.later(30 * MINUTE, lambda: setattr(scene.stop, "signal", 2))
    began = scene.clock.at

    with pytest.raises(RollStopped):
        list(events)

    assert 30 * MINUTE <= scene.clock.at - began < 31 * MINUTE
    status = scene.roll.status()
    assert status
    assert status.found.silent_for < 60


def test_the_second_group_waits_for_the_pause_too() -> None:
    from tests.fakes.world import add_group

    scene = Scene(1)
    add_group(scene, instances=1)
    scene.first = list(scene.old)

    drains = begin_of_drains(scene, scene.roll.start(RollOptions(pause=10 * MINUTE)))

    assert len(drains) == 2
    assert drains[1][0] - drains[0][0] >= 10 * MINUTE
