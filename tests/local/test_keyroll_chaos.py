"""A roll's process is killed at each call that changes something, before and after it takes effect.

The list of calls is the log of a whole roll. Then another process resumes the roll, or aborts it. All of it takes
four minutes on two cores: `make chaos` (RACKCTL_CHAOS=all) does it; otherwise it is a sample, another one each time,
whose seed is printed and can be given as RACKCTL_CHAOS.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.roll.view import RollOptions
from tests.local.rolls import Observer, Rolls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

_CHOSEN = os.environ.get("RACKCTL_CHAOS", "")
_SAMPLE = {"key": 2, "outdated": 1}  # points for each way and moment
_SHARES = 4 if _CHOSEN == "all" else 1  # so that the workers are done at the same time
_SPEED = 200.0
_ENDS = [(moment, way) for moment in ("before", "after") for way in ("resume", "abort")]
# The moment at which a roll is killed, and how it is ended. A sample of all of them is one test on one local rack.
ENDS = [[end] for end in _ENDS] if _CHOSEN == "all" else [_ENDS]


@dataclass(frozen=True)
class Point:
    number: int
    call: str
    moment: str


def calls_of(rolls: Rolls, options: RollOptions) -> list[dict[str, Any]]:
    """Roll once, and give the calls that a roll can be killed at."""
    before = rolls.process.calls()[-1]["number"]
    list(rolls.roll.start(options, rolls.selection))
    return rolls.process.calls(since=before, mutating=True)


def points_among(calls: list[dict[str, Any]], moment: str) -> list[Point]:
    """Return the points of a roll's calls. One that was refused, as a dry run is, had no effect to be killed after."""
    numbered = [(number, call) for number, call in enumerate(calls) if moment == "before" or call["carried_out"]]
    return [Point(number, f"{call['service']}:{call['action']}", moment) for number, call in numbered]


def chance_of(*what: object) -> random.Random | None:
    """Return the random generator of a test's sample, and print how to repeat it; None for all points."""
    if _CHOSEN == "all":
        return None
    seed = int(_CHOSEN) if _CHOSEN else time.time_ns() % 2**32
    print(f"a sample: repeat it with RACKCTL_CHAOS={seed}, or all with RACKCTL_CHAOS=all")
    return random.Random(" ".join(map(str, (seed, *what))))


def kill_at(rolls: Rolls, point: Point, *options: str) -> bool:
    """Roll in another process, and kill it while its call of this number is held; return whether it was killed.

    Heartbeats are calls too, and there are more of them or fewer, so that a roll may be over before its last number.
    """
    before = rolls.process.calls()[-1]["number"]
    rolls.process.faults.add(f"hang-{point.moment}", "*:*", mutating=True, skip=point.number, count=1)
    child = rolls.command(*options)

    def held() -> bool:
        calls = rolls.process.calls(since=before, mutating=True)
        holding = any(c["faults"] and (point.moment == "before" or c["carried_out"]) for c in calls)
        return holding or child.poll() is not None

    rolls.process.wait_for(held, f"the call {point}", seconds=60)
    child.send_signal(signal.SIGKILL)
    said = child.communicate()
    rolls.process.faults.clear()
    assert child.returncode in {-signal.SIGKILL, 0}, said
    return child.returncode != 0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(_SHARES))
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ", ".join(map(" ".join, ends)))
@pytest.mark.parametrize("reason", ["key", "outdated"])
def test_a_roll_killed_at_any_call_is_finished_by_resume_and_rolled_back_by_abort(
    start_local_rack: Callable[..., LocalRackProcess],
    *,
    reason: str,
    ends: list[tuple[str, str]],
    share: int,
    record_property: Callable[[str, object], None],
) -> None:
    # Over two seconds: these are dozens of rolls, each of a process and a server.
    rolls = Rolls(start_local_rack(speed=_SPEED))
    if reason == "outdated":
        rolls.outdate()
    calls = calls_of(rolls, RollOptions())
    chance = chance_of(reason, ends, share)
    chosen: list[tuple[Point, str]] = []
    for moment, way in ends:
        points = points_among(calls, moment)[share::_SHARES]
        chosen += [(point, way) for point in (chance.sample(points, _SAMPLE[reason]) if chance else points)]
    killed = 0
    for point, way in chosen:
        print(f"{way} after being killed {point.moment} {point.call} ({point.number})")
        if reason == "outdated":
            rolls.outdate()
        with Observer(rolls.process) as observer:
            killed += _kill_and_end(rolls, point, way)
        assert observer.broken_promises == []
        assert observer.samples
    record_property("disturbed", killed)
    assert killed >= len(chosen) - 2


def _kill_and_end(rolls: Rolls, point: Point, way: str) -> bool:
    old, image = rolls.key_in_use(), rolls.image_in_use()
    killed = kill_at(rolls, point)
    status = rolls.roll.status()
    if status is None:
        assert rolls.journal_is_gone()
    elif status.journal.selection.kind != "key":
        assert not status.found.is_live
        for event in getattr(rolls.roll, way)():
            print(f"  {event.message}")
        assert (rolls.image_in_use(), rolls.key_in_use()) == (image, old)
        if way == "resume":
            assert rolls.images() == {image}
    else:
        assert not status.found.is_live
        # One that terminates is not rolled back to: an abort that finds nothing else of the old key finishes the roll.
        staying = set(rolls.keys_of_instances())
        some_old = staying != {status.journal.key_name} or status.journal.phase == "preparing"
        for event in getattr(rolls.roll, way)():
            print(f"  {event.message}")
        if way == "resume":
            assert set(rolls.keys_of_instances()) == {status.journal.key_name}
        elif some_old:
            assert rolls.key_in_use() == old
    rolls.assert_given_back(3)
    return killed
