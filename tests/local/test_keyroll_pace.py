"""Alarms, checks, pauses and services that settle, on the local rack, with an observer of its services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import RollIncomplete
from rackctl.roll.view import RollOptions
from tests.local.rolls import SOON, Observer, Rolls, put_alarm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local_rack import LocalRackProcess

# Each of these is over two seconds, for it is a roll with real logins.
pytestmark = pytest.mark.timeout(300)

WATCHED = RollOptions(drain_timeout=120, boot_timeout=200, surge=2, alarms=("errors",))


def test_an_alarm_stops_a_roll_with_every_instance_active_and_resume_continues_it(rolls: Rolls) -> None:
    put_alarm(rolls.process, "errors")
    rolls.process.set_condition("stuck-drain")
    with Observer(rolls.process) as observer:
        events = rolls.roll.start(WATCHED)
        draining = next(event for event in events if event.phase == "draining")
        put_alarm(rolls.process, "errors", "ALARM", "too many errors")
        with pytest.raises(RollIncomplete, match="alarm errors is in state ALARM: too many errors") as caught:
            list(events)
    assert observer.broken_promises == []
    assert draining.ec2_instance_id in rolls.process.ids()
    assert rolls.statuses() == {"ACTIVE"}
    assert "keyroll resume --rack local" in caught.value.hint

    rolls.process.clear_condition("stuck-drain")
    put_alarm(rolls.process, "errors", "OK")
    list(rolls.roll.resume())

    rolls.assert_given_back(3)


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


def test_a_permission_that_is_missing_for_an_alarm_is_named_before_anything_is_changed(rolls: Rolls) -> None:
    put_alarm(rolls.process, "errors")
    before = rolls.changes()
    rolls.process.faults.add("deny", "cloudwatch:DescribeAlarms")

    typed = rolls.command("plan", "--alarm", "errors")
    _, said = typed.communicate()

    assert typed.returncode == 4
    assert "cloudwatch:DescribeAlarms" in said
    assert rolls.changes() == before


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


def test_no_instance_is_drained_while_a_service_of_the_last_one_has_too_few_tasks(
    start_local_rack: Callable[..., LocalRackProcess],
) -> None:
    rolls = Rolls(start_local_rack(instances=4))
    rolls.process.seed_service("api", desired=4, memory=1100, minimum_percent=50, maximum_percent=100)
    ecs = rolls.process.client("ecs")

    def want(count: int) -> None:
        ecs.update_service(cluster=rolls.rack.cluster, service="api", desiredCount=count)

    with Observer(rolls.process) as observer:
        events = rolls.roll.start(RollOptions(surge=2, drain_timeout=300, boot_timeout=SOON.boot_timeout))
        first = next(event for event in events if event.phase == "draining")
        # One fits on an instance: the others are wanted in vain.
        want(12)
        draining = {first.ec2_instance_id}
        for event in events:
            if event.phase == "draining":
                draining.add(event.ec2_instance_id)
            if "waiting for services to be steady again: api (" in event.message:
                break
        assert "of 12 tasks running" in event.message
        assert draining == {first.ec2_instance_id}
        want(4)
        list(events)

    assert [promise for promise in observer.broken_promises if not promise.startswith("api")] == []
    rolls.assert_given_back(4)
