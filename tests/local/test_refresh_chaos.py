"""A roll by an instance refresh: its process is killed at each call that changes something, on a server over HTTP.

Auto Scaling goes on, `status` says so, and another process finishes the roll, be the key of a new name or kept under
the name of its pair. `make chaos` (RACKCTL_CHAOS=all) kills it
everywhere; otherwise it is a sample, another one each time, whose seed is printed and can be given as RACKCTL_CHAOS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.local.kept import KeptRolls
from tests.local.rolls import Observer, Rolls
from tests.local.test_keyroll_chaos import ENDS, Point, calls_of, chance_of, kill_at, points_among

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

_SPEED = 200.0
_OPTIONS = ("--engine", "refresh")
# By then the refresh of three instances, with its pause, is over.
_SOON = 40.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ", ".join(map(" ".join, ends)))
@pytest.mark.parametrize("name", ["new", "kept"])
def test_auto_scaling_continues_at_whichever_call_the_roll_is_killed(
    start_local_rack: Callable[..., LocalRackProcess],
    *,
    name: str,
    ends: list[tuple[str, str]],
    record_property: Callable[[str, object], None],
) -> None:
    # Over two seconds: these are whole rolls, each of a process and a server.
    process = start_local_rack(speed=_SPEED)
    rolls = KeptRolls(process, configuration=False) if name == "kept" else Rolls(process)
    rolls.drain_by_ecs()
    calls = calls_of(rolls, RollOptions(engine="refresh"))
    chance = chance_of("refresh", name, ends)
    chosen: list[tuple[Point, str]] = []
    for moment, way in ends:
        # Of the many writes of the journal in the middle every third.
        points = [
            p for p in points_among(calls, moment) if p.call != "s3:PutObject" or p.number < 12 or p.number % 3 == 0
        ]
        chosen += [(point, way) for point in (chance.sample(points, 1) if chance else points)]
    killed = 0
    for point, way in chosen:
        print(f"{way} after being killed {point.moment} {point.call} ({point.number})")
        with Observer(rolls.process) as observer:
            killed += _kill_and_end(rolls, point, way)
        assert observer.broken_promises == []
        assert observer.samples
    record_property("disturbed", killed)
    # The observed progress of a refresh is written to the journal, so the number of calls varies.
    assert killed >= 0.8 * len(chosen) - 1


def _kill_and_end(rolls: Rolls, point: Point, way: str) -> bool:
    before = {refresh.instance_refresh_id for refresh in rolls.refreshes()}
    killed = kill_at(rolls, point, *_OPTIONS)
    started = [r for r in rolls.refreshes() if r.instance_refresh_id not in before]
    status = rolls.roll.status()
    assert (status is None) == rolls.journal_is_gone()
    if status:
        assert not status.found.is_live
        seen = status.groups[0].refresh
        assert (seen.instance_refresh_id if seen else None) == (started[0].instance_refresh_id if started else None)
    if started and way == "resume":
        rolls.process.wait_for(lambda: not rolls.refreshes()[0].is_active, "the refresh's end", seconds=_SOON)
        assert rolls.refreshes()[0].status == "Successful"
    if status:
        for event in getattr(rolls.roll, way)():
            print(f"  {event.message}")
    if started:
        # A refresh without another launch template version cannot be rolled back.
        aborted = "Cancelled" if isinstance(rolls, KeptRolls) else "RollbackSuccessful"
        assert rolls.refreshes()[0].status in {"Successful", *({aborted} if way == "abort" else ())}
    rolls.assert_given_back(3)
    if isinstance(rolls, KeptRolls):
        rolls.assert_each_lets_in_a_stored_key()
    return killed
