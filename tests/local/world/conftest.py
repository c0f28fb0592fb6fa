"""A world of three instances and a way to let its time pass."""

from __future__ import annotations

import pytest

from rackctl.local.world import World
from tests.local.world.days import START


@pytest.fixture
def world() -> World:
    made = World(region="eu-west-1", account_id="123456789012", now=START, seed=7)
    made.seed("local", 3)
    made.advance(START + 1)
    return made
