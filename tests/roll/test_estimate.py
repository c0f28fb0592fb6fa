"""How long the rest of a roll takes is estimated from its own boots and drains, and comes true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackctl.roll.decide import surge_of
from rackctl.roll.estimate import Learned, seconds_of
from rackctl.roll.simulate import BOOT, DRAIN, simulate
from rackctl.roll.view import Drain, Member, RollOptions, View
from tests.fakes.world import Scene
from tests.roll.test_decide import booting, draining, new, old, view


@pytest.mark.parametrize("instances", [1, 2, 7, 12, 50])
@pytest.mark.parametrize("pause", [0.0, 60.0, 600.0])
@pytest.mark.parametrize(("batch", "surge"), [(1, 0), (3, 0), (1, 1), (1, 2), (1, 4), (2, 2), (2, 5), (5, 15)])
def test_the_estimate_of_a_whole_roll_is_that_of_the_plan(instances: int, pause: float, batch: int, surge: int) -> None:
    # The plan simulates each decision; the estimate has to be made many times a minute. One zone: none is uneven.
    members = tuple(Member(f"i-{n:02}", "a") for n in range(instances))
    options = RollOptions(batch=batch, surge=surge, pause=pause)
    seen = View("group", instances, instances + surge, members=members, is_proven=True, options=options)
    extra, _ = surge_of(instances, instances + surge, instances, options)

    estimated = seconds_of(
        ready=[BOOT] * extra or [0.0] * batch, drains=[], waiting=instances, replacements=instances - extra,
        boot=BOOT, drain=DRAIN, options=options,
    )  # fmt: skip

    planned = simulate(seen).seconds
    # With a pause, a batch takes on what may begin at once, and the estimate fills each: that may save a batch.
    assert estimated == planned if not pause else planned * 0.7 <= estimated <= planned * 1.05


def learned(*views: tuple[float, View]) -> Learned:
    found = Learned()
    for at, seen in views:
        found.see(seen, at)
    return found


def test_a_boot_is_from_when_its_group_lacked_the_instance_until_it_can_take_tasks() -> None:
    before = view(old("i-1"), desired=2, remaining_surge=1)
    found = learned(
        (0, before),
        (10, before),
        (30, view(old("i-1"), booting("i-9"))),
        (200, view(old("i-1"), new("i-9"))),
    )

    assert found.boot == 200


def test_an_instance_that_boots_when_a_process_comes_is_not_counted() -> None:
    found = learned((0, view(old("i-1"), booting("i-9"))), (10, view(old("i-1"), new("i-9"))))

    assert found.boot is None


def test_a_drain_is_from_its_start_until_the_termination() -> None:
    found = learned(
        (0, view(old("i-1"), old("i-2"))),
        (5, view(draining("i-1", drain=Drain(1, 0.0)), old("i-2"))),
        (60, view(draining("i-1", drain=Drain(1, 55.0)), old("i-2"))),
        (75, view(old("i-1", is_terminating=True), old("i-2"))),
    )

    assert found.drain == 70


def test_an_instance_that_is_set_to_active_has_not_been_drained() -> None:
    found = learned((0, view(draining("i-1", drain=Drain(1, 0.0)))), (5, view(old("i-1"))), (9, view()))

    assert found.drain is None


def test_there_is_no_estimate_before_a_boot_and_a_drain() -> None:
    seen = view(old("i-1"), old("i-2"))

    assert learned((0, seen)).seconds_left({"group": seen}, 0) is None


def test_one_slow_drain_does_not_make_all_the_others_slow() -> None:
    found = Learned()
    now = 0.0
    for n, seconds in enumerate([90.0, 90.0, 800.0, 95.0, 90.0]):
        found.see(view(draining(f"i-{n}", drain=Drain(1, 0.0))), now)
        now += seconds
        found.see(view(old(f"i-{n}", is_terminating=True)), now)

    assert found.drain == 90


@pytest.mark.parametrize(
    ("options", "max_size"),
    [(RollOptions(), 14), (RollOptions(surge=3), 16), (RollOptions(batch=3, surge=6), 20), (RollOptions(surge=0), 12)],
)
def test_in_the_middle_of_a_roll_the_estimate_comes_true(options: RollOptions, max_size: int) -> None:
    scene = Scene(12, max_size=max_size)
    scene.world.set_condition("slow-boot", "3")
    scene.world.set_condition("slow-stop", "60")
    scene.world.seed_service(scene.seeded, "api", "i", "c", desired=12, memory=64)
    scene.clock.sleep(60)
    estimates: list[tuple[float, float]] = []
    ended = 0.0

    for event in scene.roll.start(replace(options, drain_timeout=900.0)):
        if event.seconds_left is not None and 4 <= event.done <= 9:
            estimates.append((event.at.timestamp(), event.seconds_left))
        if event.phase in {"terminating", "ready"}:
            ended = event.at.timestamp()

    assert len(estimates) > 10
    for at, left in estimates:
        assert left == pytest.approx(ended - at, rel=0.25)
