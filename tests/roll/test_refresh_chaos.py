"""A roll by an instance refresh is killed at each call that changes something, before and after it takes effect.

Auto Scaling goes on all the same, and `status` says so. tests/local/test_refresh_chaos.py does the same to a process
and a server.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene, add_group, drained, name_version, outdate, replacing
from tests.roll.acts import EACH, JOURNAL, REFRESH, assert_given_back, run_until_killed, start

if TYPE_CHECKING:
    from collections.abc import Callable

# A whole roll writes its journal at each step of an instance: of these some are enough.
_WRITES_KEPT = 12


def latest() -> Scene:
    scene = drained(Scene(3))
    name_version(scene, "$Latest")
    return scene


def two_groups() -> Scene:
    scene = Scene(2)
    add_group(scene, instances=1)
    return drained(scene)


SCENES: dict[str, tuple[Callable[[], Scene], RollOptions]] = {
    "number": (lambda: drained(Scene(3)), REFRESH),
    "$Latest": (latest, REFRESH),
    "two groups": (two_groups, REFRESH),
    "batch": (lambda: drained(Scene(4)), RollOptions(engine="refresh", batch=2)),
    "outdated": (lambda: drained(outdate(Scene(3))), REFRESH),
    "kept": (lambda: drained(Scene(2, key_name="ops")), REFRESH),
    "all": (lambda: replacing(drained(Scene(2)), "all"), REFRESH),
}


@cache  # the rolls take a second each, for every worker
def points() -> list[tuple[str, int, str, str]]:
    every = []
    for name, (make, options) in SCENES.items():
        scene = make()
        start(scene, options)
        writes = 0
        for number, call in enumerate(scene.aws.mutations):
            writes += call == "replace"
            if call != "replace" or writes <= _WRITES_KEPT:
                every += [(name, number, call, moment) for moment in ("before", "after")]
    return every[::EACH]


def killed_at(name: str, number: int, moment: str) -> tuple[Scene, int, RollOptions]:
    make, options = SCENES[name]
    scene = make()
    capacity = scene.desired
    assert run_until_killed(scene, lambda: start(scene, options), number, moment)
    return scene, capacity, options


def assert_status_is_true(scene: Scene) -> None:
    """Compare what `status` says with what there is, and not with what the journal says."""
    status = scene.roll.status()
    assert (status is not None) == (JOURNAL in scene.aws.objects)
    for group in status.groups if status else ():
        there = scene.world.refreshes.of(group.auto_scaling_group_name)
        assert bool(group.refresh) == bool(there)
        if group.refresh:
            newest = there[0]
            assert (group.refresh.instance_refresh_id, group.refresh.status) == (newest.refresh_id, newest.status)
            assert group.refresh.percentage_complete == newest.percentage
    refreshes = [r for name in scene.world.autoscaling.groups for r in scene.world.refreshes.of(name)]
    if status:
        assert status.is_refreshing == any(r.ended is None for r in refreshes)


@pytest.mark.parametrize(("name", "number", "call", "moment"), points())
def test_auto_scaling_goes_on_without_a_roll_that_was_killed(name: str, number: int, call: str, moment: str) -> None:
    scene, capacity, _ = killed_at(name, number, moment)
    groups = list(scene.world.autoscaling.groups)
    started = {r.refresh_id for group in groups for r in scene.world.refreshes.of(group)}
    assert_status_is_true(scene)
    scene.clock.sleep(60)
    assert_status_is_true(scene)

    scene.clock.sleep(3000)

    found = {r.refresh_id: r.status for group in groups for r in scene.world.refreshes.of(group)}
    assert found == dict.fromkeys(started, "Successful")
    assert_status_is_true(scene)
    if JOURNAL in scene.aws.objects:
        list(scene.roll.resume())
        assert scene.old == [] or scene.selection.kind != "key"
    assert_given_back(scene, capacity)


@pytest.mark.parametrize(("name", "number", "call", "moment"), points())
def test_abort_stops_auto_scaling_after_a_roll_that_was_killed(name: str, number: int, call: str, moment: str) -> None:
    scene, capacity, _ = killed_at(name, number, moment)
    templates = scene.templates
    scene.clock.sleep(400)

    if JOURNAL in scene.aws.objects:
        list(scene.roll.abort())
        scene.clock.sleep(200)

    refreshes = [r for name in scene.world.autoscaling.groups for r in scene.world.refreshes.of(name)]
    assert all(r.ended for r in refreshes)
    assert {r.status for r in refreshes} <= {"Successful", "Cancelled", "RollbackSuccessful"}
    assert JOURNAL not in scene.aws.objects
    assert templates[0] == scene.templates[0] or "Successful" in {r.status for r in refreshes}
    assert_given_back(scene, capacity)


@pytest.mark.parametrize("seed", range(40 // EACH))
def test_a_roll_that_is_killed_again_and_again_ends_all_the_same(seed: int) -> None:
    chance = random.Random(seed)
    name = chance.choice(sorted(SCENES))
    make, options = SCENES[name]
    scene = make()
    capacity = scene.desired
    run_until_killed(scene, lambda: start(scene, options), chance.randrange(3, 30), chance.choice(["before", "after"]))
    for _ in range(chance.randrange(1, 5)):
        scene.clock.sleep(chance.choice([310, 400, 1500]))
        if JOURNAL not in scene.aws.objects:
            break
        assert_status_is_true(scene)
        aborting = scene.roll.status().journal.phase == "aborting"  # type: ignore[union-attr]
        way = scene.roll.abort if aborting or chance.random() < 0.3 else scene.roll.resume
        run_until_killed(scene, lambda: list(way()), chance.randrange(30), chance.choice(["before", "after"]))  # noqa: B023
    scene.clock.sleep(400)
    if JOURNAL in scene.aws.objects:
        aborting = scene.roll.status().journal.phase == "aborting"  # type: ignore[union-attr]
        list(scene.roll.abort() if aborting else scene.roll.resume())

    assert_given_back(scene, capacity)
