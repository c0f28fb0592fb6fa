from __future__ import annotations

import pytest

from tests.local.api.clients import Rack, new_world


@pytest.fixture
def rack() -> Rack:
    """An empty region."""
    return Rack(new_world())


@pytest.fixture
def seeded() -> Rack:
    """A cluster "rack" that has run for an hour on three instances of a group "rack-instances"."""
    world = new_world()
    world.seed("rack", 3)
    return Rack(world)
