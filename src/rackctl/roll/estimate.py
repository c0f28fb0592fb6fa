"""How long the rest of a roll may take, by the boots and drains that it has had so far."""

from __future__ import annotations

import heapq
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rackctl.roll.view import RollOptions, View

# What was long ago says less of what comes.
_LATEST = 50


class Learned:
    """The boots and drains that one process has seen, from its views of the groups, each with the time of the look.

    A boot is from when its group lacked the instance until it could take tasks, a drain until the instance terminates.
    """

    def __init__(self) -> None:
        self._boots: deque[float] = deque(maxlen=_LATEST)
        self._drains: deque[float] = deque(maxlen=_LATEST)
        self._lacked: dict[str, deque[float]] = {}
        self._seen: dict[str, set[str]] = {}
        self._booting: dict[str, float] = {}
        self._draining: dict[str, float] = {}

    def see(self, view: View, now: float) -> None:
        """Learn from a view of a group."""
        self._see_boots(view, now)
        for member in view.members:
            id_ = member.ec2_instance_id
            if member.is_terminating and id_ in self._draining:
                self._drains.append(now - self._draining.pop(id_))
            elif member.drain and member.is_old:
                self._draining.setdefault(id_, now - member.drain.elapsed)
            else:
                self._draining.pop(id_, None)

    def _see_boots(self, view: View, now: float) -> None:
        members = {m.ec2_instance_id: m for m in view.capacity}
        lacked = self._lacked.setdefault(view.group, deque())
        # The boot of an instance that is booting at the first look began at an unknown time.
        come = members.keys() - self._seen.get(view.group, members.keys())
        self._seen[view.group] = self._seen.get(view.group, set()) | members.keys()
        for id_ in sorted(come):
            if members[id_].is_old is not True:
                self._booting[id_] = lacked.popleft() if lacked else now
        while len(lacked) < view.missing:
            lacked.append(now)
        while len(lacked) > view.missing:
            lacked.pop()
        for id_, began in list(self._booting.items()):
            member = members.get(id_)
            if member and member.can_take_tasks:
                self._boots.append(now - began)
                del self._booting[id_]

    @property
    def boot(self) -> float | None:
        """The usual length of a boot, in seconds; None before there was one."""
        return median(self._boots) if self._boots else None

    @property
    def drain(self) -> float | None:
        return median(self._drains) if self._drains else None

    def seconds_left(self, views: Mapping[str, View], now: float) -> float | None:
        """Return how long the groups may take that these are the latest views of, one after the other.

        None as long as this roll has had no boot or no drain.
        """
        if self.boot is None or self.drain is None:
            return None
        return sum(self._of_group(view, now, self.boot, self.drain) for view in views.values() if view.old)

    def _of_group(self, view: View, now: float, boot: float, drain: float) -> float:
        coming = [m for m in view.capacity if not m.can_take_tasks and not m.is_old]
        boots = [max(boot - (now - self._booting.get(m.ec2_instance_id, now)), 0.0) for m in coming]
        drains = [max(drain - m.drain.elapsed, 0.0) for m in view.old if m.drain]
        surge = view.remaining_surge
        if not surge and not any(m.drain for m in view.old) and not coming:
            # It has not begun, or has no room.
            surge = min(view.options.extra, len(view.old), max(view.max_size - view.desired_capacity, 0))
            boots += [boot] * surge
        able = sum(m.can_take_tasks for m in view.capacity)
        enough = view.desired_capacity - view.remaining_surge - (0 if surge else view.options.batch)
        return seconds_of(
            ready=[0.0] * max(able - enough, 0) + boots + [boot] * view.missing,
            drains=drains,
            waiting=sum(m.drain is None for m in view.old),
            replacements=max(len(view.old) - surge, 0),
            boot=boot,
            drain=drain,
            options=view.options,
        )


def seconds_of(
    *,
    ready: Iterable[float],
    drains: Sequence[float],
    waiting: int,
    replacements: int,
    boot: float,
    drain: float,
    options: RollOptions,
) -> float:
    """Return how long a group takes in which all that is ready to be done is done, and boots and drains take time.

    ``ready`` is in how many seconds each instance can take tasks that stands in for one that is drained, ``drains`` how
    long each drain under way still takes, ``waiting`` how many are to follow, ``replacements`` how many of all these
    are replaced when they terminate.
    """
    stand_ins, end = list(ready), max(drains, default=0.0)
    heapq.heapify(stand_ins)
    ended = sorted(drains)
    places = [0.0] * max(options.batch - len(ended), 0) + ended
    heapq.heapify(places)

    def replace(at: float) -> None:
        nonlocal replacements
        if replacements > 0:
            replacements -= 1
            heapq.heappush(stand_ins, at + boot)

    for at in ended:
        replace(at)
    begun, not_before = len(ended), 0.0
    for _ in range(waiting):
        if not stand_ins:
            break
        if options.ends_batches and begun == options.batch:
            begun, not_before = 0, end + options.pause
        begun += 1
        over = max(heapq.heappop(stand_ins), heapq.heappop(places), not_before) + drain
        heapq.heappush(places, over)
        replace(over)
        end = max(end, over)
    return max([end, *stand_ins])
