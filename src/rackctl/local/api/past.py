"""Snapshots of a world: AWS's describe calls are eventually consistent and may return an older state."""

from __future__ import annotations

import pickle
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rackctl.local.world import World


class Past:
    """Snapshots of a world, kept while a `late` fault is in force."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._snapshots: deque[tuple[float, int, bytes]] = deque()

    def remember(self, seconds: float) -> None:
        """Take a snapshot, and drop those that are older than a number of AWS's seconds."""
        world = self._world
        if not self._snapshots or self._snapshots[-1][1] != world.version:
            snapshot = pickle.dumps(world, pickle.HIGHEST_PROTOCOL)
            self._snapshots.append((world.now, world.version, snapshot))
        self._drop(world.now - seconds / world.speed)

    def forget(self) -> None:
        self._snapshots.clear()

    def _drop(self, since: float) -> None:
        # The newest of the older snapshots is the state at that time.
        while len(self._snapshots) > 1 and self._snapshots[1][0] <= since:
            self._snapshots.popleft()

    def as_of(self, seconds: float) -> World:
        """Return the world as it was a number of AWS's seconds ago, or the oldest snapshot."""
        self.remember(seconds)
        at = self._world.now - seconds / self._world.speed
        found = self._snapshots[0]
        for snapshot in self._snapshots:
            if snapshot[0] > at:
                break
            found = snapshot
        world: World = pickle.loads(found[2])  # noqa: S301 - made a moment ago
        return world
