"""Small groups, explored exhaustively: every order of boots, drains and terminations, with what may go wrong between.

`decide` is a pure function, so that a group, the roll's journal and what may happen are a finite graph. It is safe in
every state that can be reached, and the end can be reached from each: the checks are in tests/roll/worlds.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import pytest

from rackctl.roll.view import EndBatch, Prove, Raise, RollOptions, StartDrains, Terminate
from tests.roll.worlds import Unsafe, World, act, group, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rackctl.roll.view import Action

RecordProperty: TypeAlias = "Callable[[str, object], None]"
SURGE, BATCH, NO_SURGE = RollOptions(), RollOptions(batch=2), RollOptions(surge=0)
AHEAD = RollOptions(surge=2)  # one boots while another drains


def explore(start: World) -> dict[World, set[World]]:
    """Return every state that can be reached, and those that may come next after each."""
    following: dict[World, set[World]] = {}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        if world not in following:
            following[world] = set(steps(world))
            queue.extend(following[world])
    return following


def without_an_end(following: dict[World, set[World]]) -> list[World]:
    """Return the states from which no end can be reached."""
    before: dict[World, set[World]] = {world: set() for world in following}
    for world, nexts in following.items():
        for after in nexts:
            before[after].add(world)
    ending = {world for world in following if world.over}
    queue = deque(ending)
    while queue:
        for world in before[queue.popleft()] - ending:
            ending.add(world)
            queue.append(world)
    return [world for world in following if world not in ending]


def groups() -> Iterable[tuple[str, str, RollOptions, int]]:
    for zones in ("a", "ab", "aab", "aabb", "aB", "aAb", "aaBB"):
        for name, options, room in (("surge", SURGE, 9), ("full", SURGE, 0), ("no surge", NO_SURGE, 9)):
            yield zones, name, options, room
        if len(zones) > 1 and zones.islower():
            yield zones, "batch", BATCH, 9
            yield zones, "little room", BATCH, 1
            yield zones, "ahead", AHEAD, 9
            yield zones, "far ahead", RollOptions(surge=3), 9
            yield zones, "batches ahead", RollOptions(batch=2, surge=3), 9


TROUBLE = {
    "nothing": {},
    "a crash": {"crashes": 1},
    "an operator": {"acts": 1},
    "a wrong reading": {"misreads": 1},
}


# Some seconds for the largest: every state of four instances in batches of two, with an operator, is 19,000 states.
@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case[0]} {case[1]}") for case in groups()])
def test_a_roll_is_safe_in_every_state_and_can_end_from_each(
    case: tuple[str, str, RollOptions, int], trouble: str, record_property: RecordProperty
) -> None:
    zones, _, options, room = case
    following = explore(group(zones, room=room, options=options, **TROUBLE[trouble]))

    record_property("states", len(following))
    assert without_an_end(following) == []


GENTLE = {
    "steady": RollOptions(surge=2),
    "steady without a surge": RollOptions(surge=0),
    "pause": RollOptions(pause=60.0),
    "check": RollOptions(batch=2, surge=3, checked=True),
    "pause and check without a surge": RollOptions(surge=0, pause=60.0, checked=True),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("options", GENTLE)
@pytest.mark.parametrize("zones", ["ab", "aab", "abA"])
def test_no_tasks_are_moved_before_the_batch_before_is_over_and_its_services_are_steady(
    zones: str, options: str, trouble: str, record_property: RecordProperty
) -> None:
    following = explore(replace(group(zones, options=GENTLE[options], **TROUBLE[trouble]), settles=True))

    record_property("states", len(following))
    assert without_an_end(following) == []


@pytest.mark.parametrize("zones", ["a", "ab"])
def test_a_crash_an_operator_and_a_wrong_reading_in_one_roll_are_safe_in_every_state(
    zones: str, record_property: RecordProperty
) -> None:
    following = explore(group(zones, crashes=1, acts=1, misreads=1))

    record_property("states", len(following))
    assert without_an_end(following) == []


@pytest.mark.parametrize(
    "action",
    [
        Terminate("i-000", decrement=False, evidence=""),
        Terminate("i-000", decrement=True, evidence=""),
        StartDrains(("i-000", "i-001")),
        Prove("i-000"),
        Raise(10),
        EndBatch(),
    ],
)
def test_what_no_roll_may_do_is_found_to_be_unsafe(action: Action) -> None:
    # Without this, nothing above could fail.
    with pytest.raises(Unsafe):
        act(replace(group("ab"), rebalancing=False), action)


def test_a_state_from_which_no_end_can_be_reached_is_found() -> None:
    world = group("a")
    assert without_an_end({world: {world}}) == [world]
