"""Refusals, warnings and stops: a table of situations, each with its reason and its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.problems import in_plan, in_roll, of_alarms
from rackctl.roll.view import AlarmSeen, Drain, RollOptions, Unsteady
from tests.roll.test_decide import booting, draining, new, old, view

if TYPE_CHECKING:
    from rackctl.roll.problems import Problem
    from rackctl.roll.view import View

FORCE, INCLUDE = RollOptions(force=True), RollOptions(include_unregistered=True)
OFF = old("i-1", agent_connected=False, tasks=2)
UNREGISTERED = old("i-1", registration="absent", agent_connected=False)

# The view, what a plan says of it and what a roll that replaces: a part of the reason, "warns: " before a warning.
SITUATIONS: dict[str, tuple[View, str, str]] = {
    "nothing is wrong": (view(old("i-1")), "", ""),
    "Launch is suspended": (
        view(old("i-1"), suspended={"Launch": 30.0}),
        "the Launch process of group group is suspended",
        "the Launch process of group group is suspended",
    ),
    "Launch is seen suspended for a moment": (
        view(old("i-1"), suspended={"Launch": 0.0}),
        "the Launch process of group group is suspended",
        "",
    ),
    "an instance refresh": (
        view(old("i-1"), refresh="r-1"),
        "instance refresh r-1 of group group is in progress",
        "instance refresh r-1 of group group is in progress",
    ),
    "an agent is off": (
        view(replace(OFF, agent_off_for=121)),
        "the agent of i-1 is off: ECS cannot move its 2 tasks",
        "the agent of i-1 is off: ECS cannot move its 2 tasks",
    ),
    "an agent reconnects": (view(replace(OFF, agent_off_for=5)), "the agent of i-1 is off", ""),
    "an agent is off, and --force": (
        view(replace(OFF, agent_off_for=121), options=FORCE),
        "warns: the agent of i-1 is off: --force terminates the instance with its 2 tasks",
        "warns: the agent of i-1 is off: --force terminates the instance with its 2 tasks",
    ),
    "a dead registration has tasks": (
        view(old("i-1", abandoned=3, agent_off_for=121)),
        "a dead registration of i-1 has tasks: ECS cannot move its 3 tasks",
        "a dead registration of i-1 has tasks: ECS cannot move its 3 tasks",
    ),
    "an instance is registered nowhere": (
        view(replace(UNREGISTERED, unready_for=901)),
        "not registered with this cluster: what runs on it is not known",
        "not registered with this cluster: what runs on it is not known",
    ),
    "an instance has not registered yet": (
        view(replace(UNREGISTERED, unready_for=60)),
        "warns: i-1 of group group is in service and not registered with this cluster yet",
        "",
    ),
    "an instance is registered nowhere, and --include-unregistered": (
        view(replace(UNREGISTERED, unready_for=901), options=INCLUDE),
        "warns: i-1 of group group is in service and not registered with this cluster: --include-unregistered",
        "warns: i-1 of group group is in service and not registered with this cluster: --include-unregistered",
    ),
    "the group lacks instances": (
        view(old("i-1"), desired=3, launch_failures=("no capacity",)),
        "warns: group group lacks 2 of 3 instances: no capacity",
        "",
    ),
    "no capacity, three times": (
        view(old("i-1"), desired=2, remaining_surge=1, launch_failures=("no capacity",) * 3),
        "warns: group group lacks 1 of 2",
        "group group has 1 instances of 2",
    ),
    "the group launches old instances again": (
        view(old("i-1"), launches_old="launches with key k again", launches_old_for=21.0),
        "",
        "group group launches with key k again: the group or its launch template was changed",
    ),
    "an instance came with the old key": (
        view(old("i-1", is_late=True)),
        "",
        "i-1 joined group group as an old instance",
    ),
    "new instances do not last": (view(old("i-1"), lost=3), "", "3 new instances in a row of group group"),
    "the surge is taken back": (view(old("i-1"), surges_lost=3), "", "the desired capacity of group group was lowered"),
    "a new instance cannot register": (
        view(old("i-1"), new("i-9", registration="failed", is_confirmed=True, status_reason="no token")),
        "",
        "i-9 could not register with ECS (REGISTRATION_FAILED): no token",
    ),
    "a new instance does not come": (
        view(old("i-1"), replace(booting("i-9"), unready_for=901)),
        "",
        "gave up after 900 s waiting for i-9",
    ),
    "ECS does not report an instance": (
        view(new("i-1", registration="unknown", unreported_for=121)),
        "",
        "AWS has not reported i-1 for 121 s",
    ),
    "a drain takes too long": (
        view(draining("i-1", drain=Drain(2, 901.0, blocked="t1 of web (RUNNING)"))),
        "",
        "i-1 still has 2 tasks after 900 s of draining: t1 of web (RUNNING)",
    ),
    "a service does not become steady again": (
        view(old("i-1"), unsteady=(Unsteady("api", "1 of 2 tasks running", 901.0),)),
        "",
        "service api is not steady again 900 s after tasks of it were moved: 1 of 2 tasks running",
    ),
    "a service does not become steady again, and --force": (
        view(old("i-1"), unsteady=(Unsteady("api", "1 of 2 tasks running", 901.0),), options=FORCE),
        "",
        "",
    ),
    "a drain takes too long, and --force": (view(draining("i-1", drain=Drain(2, 901.0)), options=FORCE), "", ""),
}


def told(problems: list[Problem]) -> str:
    return "\n".join(f"{'warns: ' if problem.warns else ''}{problem.reason}" for problem in problems)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_rule_has_one_wording_in_a_plan_and_in_a_roll(situation: str) -> None:
    seen, plan, roll = SITUATIONS[situation]

    assert plan in told(in_plan(seen))
    assert roll in told(in_roll(seen, "replace"))
    assert bool(plan) == bool(in_plan(seen))
    assert bool(roll) == bool(in_roll(seen, "replace"))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_whatever_refuses_or_stops_has_a_remedy(situation: str) -> None:
    seen, _, _ = SITUATIONS[situation]

    for problem in (*in_plan(seen), *in_roll(seen, "replace"), *in_roll(seen, "restore")):
        assert problem.warns or problem.remedy


def test_a_hint_names_no_surge_only_where_something_was_surged() -> None:
    lacking = view(old("i-1"), desired=2, launch_failures=("no capacity",) * 3)

    (surged,) = in_roll(replace(lacking, remaining_surge=1), "replace")
    (without,) = in_roll(lacking, "replace")

    assert "--no-surge" in surged.remedy
    assert "--no-surge" not in without.remedy


@pytest.mark.parametrize(
    ("seen", "plan", "roll"),
    [
        (AlarmSeen("errors", "OK"), "", ""),
        (
            AlarmSeen("errors", "ALARM", "5 errors"),
            "alarm errors is in state ALARM: 5 errors",
            "alarm errors is in state ALARM: 5 errors",
        ),
        (
            AlarmSeen("errors", "INSUFFICIENT_DATA"),
            "warns: alarm errors has insufficient data",
            "warns: alarm errors has insufficient data",
        ),
        (AlarmSeen("errors", "", lasting=119.0), "CloudWatch reports no metric or composite alarm errors", ""),
        (
            AlarmSeen("errors", "", lasting=121.0),
            "CloudWatch reports no metric or composite alarm errors",
            "CloudWatch reports no metric or composite alarm errors",
        ),
    ],
)
def test_what_an_alarm_forbids(seen: AlarmSeen, plan: str, roll: str) -> None:
    for expected, problems in (
        (plan, list(of_alarms([seen], lasting=0))),
        (roll, in_roll(view(old("i-1"), alarms=(seen,)), "replace")),
    ):
        assert told(problems)[: len(expected)] == expected
        assert bool(problems) == bool(expected)
        assert all(problem.warns or problem.remedy for problem in problems)


def test_an_abort_stops_for_no_alarm_and_no_service() -> None:
    seen = view(old("i-1"), alarms=(AlarmSeen("errors", "ALARM"),), unsteady=(Unsteady("api", "", 901.0),))

    assert in_roll(seen, "restore") == []
