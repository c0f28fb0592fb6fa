"""Alarms, checks, pauses and services that settle, on the local rack, with an observer of its services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.local.rolls import Observer, Rolls, put_alarm

if TYPE_CHECKING:
    from pathlib import Path


# Each of these is over two seconds, for it is a roll with real logins.
pytestmark = pytest.mark.timeout(300)

WATCHED = RollOptions(drain_timeout=120, boot_timeout=200, surge=2, alarms=("errors",))


def test_a_roll_comes_through_though_calls_for_its_alarms_fail_now_and_then(rolls: Rolls) -> None:
    put_alarm(rolls.process, "errors")
    with Observer(rolls.process) as observer:
        events = rolls.roll.start(WATCHED)
        next(events)
        # Each time, botocore waits in real time, which is a hundred times as long for the roll.
        rolls.process.faults.add("throttle", "cloudwatch:DescribeAlarms", count=1)
        rolls.process.faults.add("error", "cloudwatch:DescribeAlarms", code="InternalServiceFault", status=500, count=1)
        list(events)

    assert observer.broken_promises == []
    assert len(rolls.process.faults) == 0
    rolls.assert_given_back(3)


def test_a_check_is_shown_line_by_line_and_stops_the_roll_when_it_fails(rolls: Rolls, tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = (
        f"printf 'after %s\\033[2J\\n' \"$RACKCTL_ROLL_INSTANCES\"; echo x >> {count}; test $(wc -l < {count}) -lt 2"
    )

    typed = rolls.command("--check", command)
    out, said = typed.communicate()

    assert (typed.returncode, out) == (6, "Rebooting instances...\n")
    assert len(re.findall(r"check: after i-[0-9a-f]+", said)) == 2
    assert "\x1b" not in said
    assert "the check after a batch failed with exit status 1." in said
    refused = rolls.command("resume")
    _, said = refused.communicate()
    assert refused.returncode == 1
    assert "resume --rack local --check COMMAND" in said
    resumed = rolls.command("resume", "--check", "true")
    resumed.communicate()
    assert resumed.returncode == 0
    rolls.assert_given_back(3)
