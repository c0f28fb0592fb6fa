"""Thousands of groups, rolled at random: larger than those of test_every_state.py, and with all faults."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rackctl.roll.view import RollOptions
from tests.roll.worlds import World, group, step

_WORLDS = 100


def any_group(chance: random.Random) -> World:
    zones = "".join(chance.choice("aabbAB") for _ in range(chance.randrange(1, 13)))
    options = RollOptions(
        batch=chance.randrange(1, 5),
        surge=chance.choice([None, 0, *range(1, 9)]),
        include_unregistered=chance.random() < 0.3,
        pause=chance.choice([0.0, 0.0, 60.0]),
        checked=chance.random() < 0.2,
    )
    world = group(
        zones, room=chance.randrange(6), options=options,
        crashes=chance.randrange(3), acts=chance.randrange(3), misreads=chance.randrange(6),
    )  # fmt: skip
    # Some cannot take tasks at the start: they could not register, or their registration is unknown.
    for n in range(len(world.instances)):
        if chance.random() < 0.1:
            state = chance.choice(["failed", "foreign"])
            world = replace(world, instances=world.changed(n, state=state), promised=world.promised - 1)
    return world.having(world.instances, settles=chance.random() < 0.5)


@pytest.mark.parametrize("seed", range(30))
def test_no_group_loses_capacity_or_a_task_and_every_roll_ends(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(_WORLDS):
        world = any_group(chance)
        for _ in range(1500):
            world = step(world, chance)
            if world.over:
                break
        else:
            raise AssertionError(f"no end: {world}")


def test_a_group_without_trouble_ends_with_new_instances_alone() -> None:
    chance = random.Random(1)
    for count in range(1, 13):
        world = group("ab" * (count // 2) + "a" * (count % 2), options=RollOptions(batch=1 + count % 3))
        while not world.over:
            world = step(world, chance)
        alive = [instance for instance in world.instances if instance.state != "terminating"]
        assert [(i.is_old, i.state) for i in alive] == [(False, "active")] * count
