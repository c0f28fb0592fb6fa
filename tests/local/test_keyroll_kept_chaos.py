"""SIGKILL between every two calls of a roll that keeps the key pair's name, over HTTP; then another process ends it.

However it ends: launches work, the pair is the new one or the old one, and each instance lets in a stored generation.
All points take some minutes on two cores: `make chaos` (RACKCTL_CHAOS=all) does them; otherwise it is a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.local.kept import NAME, KeptRolls
from tests.local.rolls import Observer
from tests.local.test_keyroll_chaos import ENDS, Point, calls_of, chance_of, kill_at, points_among

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

_SHARES = 2
_SPEED = 200.0


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(_SHARES))
@pytest.mark.parametrize("ends", ENDS, ids=lambda ends: ", ".join(map(" ".join, ends)))
def test_a_roll_killed_at_any_call_leaves_a_pair_to_launch_with_and_instances_to_log_in_to(
    start_local_rack: Callable[..., LocalRackProcess], *, ends: list[tuple[str, str]], share: int
) -> None:
    # Over two seconds: these are dozens of rolls, each of a process and a server.
    rolls = KeptRolls(start_local_rack(speed=_SPEED), configuration=bool(share))
    calls = calls_of(rolls, RollOptions())
    chance = chance_of(ends, share)
    chosen: list[tuple[Point, str]] = []
    for moment, way in ends:
        points = points_among(calls, moment)[share::_SHARES]
        if chance:
            # One of the calls that change the pair, or one of all.
            near = [point for point in points if "KeyPair" in point.call]
            points = [chance.choice(chance.choice([near or points, points]))]
        chosen += [(point, way) for point in points]
    killed = 0
    for point, way in chosen:
        print(f"{way} after being killed {point.moment} {point.call} ({point.number})")
        with Observer(rolls.process) as observer:
            killed += _kill_and_end(rolls, point, way)
        assert observer.broken_promises == []
    # Heartbeats are calls, too, of which there are more or fewer each time.
    assert killed >= 0.8 * len(chosen) - 1


def _kill_and_end(rolls: KeptRolls, point: Point, way: str) -> bool:
    before, pair = rolls.made(), rolls.pair()
    old = set(rolls.process.ids())
    killed = kill_at(rolls, point)
    status = rolls.roll.status()
    if status is None:
        assert rolls.journal_is_gone()
    else:
        for event in getattr(rolls.roll, way)():
            print(f"  {event.message}")
        record = status.journal.key_pairs[NAME]
        # Instances launched before the first change of the pair may have been replaced since.
        assert rolls.pair()["PublicKey"] == pair["PublicKey"] or way == "resume" or not _some(rolls, old)
        assert record.old_public_key == pair["PublicKey"]
    assert rolls.made() == before
    assert rolls.pair()["Tags"] == pair["Tags"]
    if status is not None and way == "resume":
        assert not _some(rolls, old)
        assert rolls.pair()["PublicKey"] != pair["PublicKey"]
    another = rolls.launch_one_more()
    rolls.assert_each_lets_in_a_stored_key()
    assert rolls.pair()["PublicKey"] in rolls.keys.public_keys(NAME).values()
    rolls.take_away(another)
    rolls.assert_given_back(3)
    return killed


def _some(rolls: KeptRolls, old: set[str]) -> set[str]:
    """Return the old instances that stay."""
    return {i.ec2_instance_id for i in rolls.aws.ec2.instances_by_id(sorted(old)) if not i.is_terminating}
