"""`decide`: a table of views, the actions that follow, and the reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.roll.decide import decide, evidence, waits_for
from rackctl.roll.view import (
    Done,
    Drain,
    EndBatch,
    LowerByMissing,
    Member,
    Prove,
    Raise,
    Reactivate,
    RollOptions,
    StartDrains,
    SuspendRebalancing,
    Terminate,
    Unsteady,
    View,
)

if TYPE_CHECKING:
    from rackctl.roll.view import Action

STILL = {"AZRebalance": 60.0}
OVER, UNDER_WAY = Drain(0, 60.0, 60.0, is_over=True), Drain(2, 60.0, 60.0)
EMPTY = "it is DRAINING and its tasks are STOPPED"


def old(id_: str, zone: str = "a", **more: Any) -> Member:
    return Member(id_, zone, is_old=True, **more)


def new(id_: str, zone: str = "a", **more: Any) -> Member:
    return Member(id_, zone, is_old=False, is_ours=True, **more)


def booting(id_: str, zone: str = "a", **more: Any) -> Member:
    return new(id_, zone, registration="unknown", is_active=False, agent_connected=False, **more)


def draining(id_: str, zone: str = "a", drain: Drain = UNDER_WAY) -> Member:
    return old(id_, zone, is_active=False, drain=drain)


def view(*members: Member, desired: int | None = None, **more: Any) -> View:
    given: dict[str, Any] = {"suspended": STILL, "is_proven": True, "zones": ("a", "b"), **more}
    return View("group", len(members) if desired is None else desired, 9, members=members, **given)


REPLACE: dict[str, tuple[View, Action | None]] = {
    "a group without instances is done": (view(), Done()),
    "new instances that can take tasks are the end": (view(new("i-1"), new("i-2", "b")), Done()),
    "zones are not to be rebalanced before anything else is changed": (
        view(old("i-1"), suspended={}),
        SuspendRebalancing(),
    ),
    "a surge comes before a drain": (view(old("i-1"), old("i-2", "b")), Raise(1)),
    "the surge is the batch": (view(*map(old, "123"), options=RollOptions(batch=2)), Raise(2)),
    "a surge may be larger than the batch": (view(*map(old, "123"), options=RollOptions(surge=3)), Raise(3)),
    "but not larger than what is to be replaced": (view(*map(old, "123"), options=RollOptions(surge=9)), Raise(3)),
    "the rest of a surge follows when there is room": (
        view(old("i-1"), old("i-2", "b"), old("i-3"), new("i-9", "b"), remaining_surge=1, options=RollOptions(surge=2)),
        Raise(1),
    ),
    "a surge that is larger than asked for now is kept": (
        view(old("i-1"), old("i-2", "b"), old("i-3"), new("i-8"), new("i-9", "b"), remaining_surge=2),
        StartDrains(("i-1",)),
    ),
    "the surge is what the maximum size allows": (
        replace(view(*map(old, "123"), options=RollOptions(batch=3)), max_size=4),
        Raise(1),
    ),
    "a surge that has not been launched yet is waited for": (view(old("i-1"), desired=2, remaining_surge=1), None),
    "a new instance that boots is waited for": (view(old("i-1"), booting("i-9", "b"), remaining_surge=1), None),
    "the first new instance is proven before anything is drained": (
        view(old("i-1"), new("i-9", "b"), remaining_surge=1, is_proven=False),
        Prove("i-9"),
    ),
    "then an old one is drained, of the zone where Auto Scaling launches next": (
        view(old("i-1"), old("i-2", "b"), new("i-9"), remaining_surge=1),
        StartDrains(("i-2",)),
    ),
    "no more are drained at once than the batch": (
        view(draining("i-1"), old("i-2"), new("i-9", "b"), remaining_surge=1),
        None,
    ),
    "while it drains, the rest of the surge has booted, and waits": (
        view(
            draining("i-1"),
            old("i-2"),
            old("i-3", "b"),
            new("i-8", "b"),
            new("i-9"),
            remaining_surge=2,
            options=RollOptions(surge=2),
        ),
        None,
    ),
    "the next one is drained while the replacement of the one before boots": (
        view(
            old("i-2"),
            old("i-3", "b"),
            old("i-4"),
            booting("i-7"),
            new("i-8", "b"),
            remaining_surge=2,
            options=RollOptions(surge=2),
        ),
        StartDrains(("i-2",)),
    ),
    "but not while the capacity before the surge would lack it": (
        view(
            old("i-2"),
            old("i-3", "b"),
            old("i-4"),
            booting("i-7"),
            booting("i-8", "b"),
            remaining_surge=2,
            options=RollOptions(surge=2),
        ),
        None,
    ),
    "what is seen to be empty is terminated": (
        view(draining("i-1", drain=OVER), old("i-2", "b"), new("i-9"), remaining_surge=1),
        Terminate("i-1", decrement=False, evidence=EMPTY),
    ),
    "the surge stands in for the last one": (
        view(draining("i-1", drain=OVER), new("i-8", "b"), new("i-9"), remaining_surge=1),
        Terminate("i-1", decrement=True, evidence=EMPTY),
    ),
    "but not before it is seen in which zone the replacement of another one comes": (
        view(draining("i-1", drain=OVER), new("i-8", "b"), new("i-9"), desired=4, remaining_surge=1),
        None,
    ),
    "which never comes where nothing can be launched": (
        view(
            draining("i-1", drain=OVER),
            new("i-8", "b"),
            new("i-9"),
            desired=4,
            remaining_surge=1,
            launch_failures=("no capacity",) * 3,
        ),
        Terminate("i-1", decrement=False, evidence=EMPTY),
    ),
    "nor where the zones would be uneven without a replacement": (
        view(draining("i-1", "b", drain=OVER), new("i-7"), new("i-8"), new("i-9"), remaining_surge=1),
        Terminate("i-1", decrement=False, evidence=EMPTY),
    ),
    "without room for a surge one is drained, and no second before a new one is proven": (
        replace(view(*map(old, ("i-1", "i-2")), options=RollOptions(batch=2), is_proven=False), max_size=2),
        StartDrains(("i-1",)),
    ),
    "an old instance is not drained while others cannot take tasks": (
        view(old("i-1"), old("i-2", is_active=False), new("i-9", "b"), remaining_surge=1, options=RollOptions(batch=1)),
        StartDrains(("i-2",)),
    ),
    "what ECS has not reported is waited for": (
        view(old("i-1", registration="unknown", agent_connected=False), new("i-9", "b"), remaining_surge=1),
        None,
    ),
    "what EC2 has not reported is neither old nor new": (view(replace(old("i-1"), is_old=None)), None),
    "what is registered nowhere stays": (
        view(old("i-1", registration="absent", agent_connected=False), new("i-9", "b"), remaining_surge=1),
        None,
    ),
    "unless it is given up": (
        view(
            old("i-1", registration="absent", agent_connected=False),
            new("i-9", "b"),
            remaining_surge=1,
            options=RollOptions(include_unregistered=True),
        ),
        Terminate("i-1", decrement=True, evidence="--include-unregistered"),
    ),
    "what could not register has no tasks": (
        view(
            old("i-1", registration="failed", agent_connected=False, is_confirmed=True),
            new("i-9", "b"),
            remaining_surge=1,
        ),
        Terminate(
            "i-1", decrement=True, evidence="it could not register with ECS, so that no task was ever placed on it"
        ),
    ),
    "but only once ECS has confirmed by id that no other registration lives": (
        view(old("i-1", registration="failed", agent_connected=False), new("i-9", "b"), remaining_surge=1),
        None,
    ),
    "an agent that is off keeps an instance": (
        view(old("i-1", agent_connected=False, agent_off_for=9e9), new("i-9", "b"), remaining_surge=1),
        None,
    ),
    "an agent that has just gone off is waited for, also by --force": (
        view(
            old("i-1", agent_connected=False, agent_off_for=5),
            new("i-9", "b"),
            remaining_surge=1,
            options=RollOptions(force=True),
        ),
        None,
    ),
    "what was set to ACTIVE by something else is drained again": (
        view(replace(draining("i-1"), is_active=True), new("i-9", "b"), remaining_surge=1),
        StartDrains(("i-1",)),
    ),
    "standby members are left alone": (view(old("i-1", lifecycle_state="Standby"), new("i-9"), desired=1), Done()),
    "a surge is taken back by --no-surge": (
        view(old("i-1"), old("i-2", "b"), new("i-9"), remaining_surge=1, options=RollOptions(surge=0)),
        StartDrains(("i-9",)),
    ),
}

MOVED = (Unsteady("api", "1 of 2 tasks running", 30.0),)
CHECKED, PAUSED = RollOptions(batch=2, checked=True), RollOptions(batch=2, pause=60.0)
THREE = (old("i-1"), old("i-2", "b"), old("i-3"), new("i-8"), new("i-9", "b"))

REPLACE |= {
    "nothing more is drained while a service is not steady again": (
        view(*THREE, remaining_surge=2, unsteady=MOVED),
        None,
    ),
    "but what is drained is terminated": (
        view(draining("i-1", drain=OVER), *THREE[1:], remaining_surge=2, unsteady=MOVED),
        Terminate("i-1", decrement=False, evidence=EMPTY),
    ),
    "--force waits for a service no longer than for a drain": (
        view(
            *THREE,
            remaining_surge=2,
            options=RollOptions(force=True),
            unsteady=(replace(MOVED[0], lasting=900.0), replace(MOVED[0], lasting=901.0)),
        ),
        StartDrains(("i-1",)),
    ),
    "a roll of which no instance is left does not wait for a service": (
        view(new("i-8"), new("i-9", "b"), unsteady=MOVED),
        Done(),
    ),
    "a batch that has begun takes on what it may": (
        view(draining("i-1"), *THREE[1:], new("i-7"), remaining_surge=3, begun=1, options=replace(CHECKED, surge=3)),
        StartDrains(("i-2",)),
    ),
    "and no more, although one of it is gone": (
        view(draining("i-1"), *THREE[1:], new("i-7"), remaining_surge=3, begun=2, options=replace(CHECKED, surge=3)),
        None,
    ),
    "it ends when nothing of it is under way": (view(*THREE, remaining_surge=2, begun=2, options=CHECKED), EndBatch()),
    "also if it has taken on fewer": (view(*THREE, remaining_surge=2, begun=1, options=PAUSED), EndBatch()),
    "and its services are steady": (view(*THREE, remaining_surge=2, begun=2, unsteady=MOVED, options=CHECKED), None),
    "without a surge when its replacements can take tasks": (
        view(old("i-1"), booting("i-9", "b"), begun=1, options=RollOptions(surge=0, checked=True)),
        None,
    ),
    "then it does": (view(old("i-1"), new("i-9", "b"), begun=1, options=replace(CHECKED, surge=0)), EndBatch()),
    "the last one ends too": (view(new("i-8"), new("i-9", "b"), begun=1, options=CHECKED), EndBatch()),
    "once its services are steady": (
        view(new("i-8"), new("i-9", "b"), begun=1, unsteady=MOVED, options=CHECKED),
        None,
    ),
    "the next one begins after the pause": (view(*THREE, remaining_surge=2, pause_left=5.0, options=PAUSED), None),
    "during which a surge is launched": (
        view(*THREE, remaining_surge=2, pause_left=5.0, options=replace(PAUSED, surge=3)),
        Raise(1),
    ),
}

RESTORE: dict[str, tuple[View, Action | None]] = {
    "nothing is left of the surge": (view(old("i-1")), Done()),
    "what is taken back waits for no service": (
        view(old("i-1"), old("i-2", "b"), new("i-9"), remaining_surge=1, unsteady=MOVED, pause_left=5.0),
        StartDrains(("i-9",)),
    ),
    "what is still drained gets tasks again": (view(draining("i-1")), Reactivate(("i-1",))),
    "what was never launched is given back": (
        view(old("i-1"), old("i-2", "b"), desired=3, remaining_surge=1),
        LowerByMissing(),
    ),
    "a zone that waits for an instance gets it first": (
        view(old("i-1"), old("i-2"), desired=3, remaining_surge=1),
        None,
    ),
    "but not one that cannot be launched": (
        view(old("i-1"), old("i-2"), desired=3, remaining_surge=1, launch_failures=("no capacity",) * 3),
        LowerByMissing(),
    ),
    "a new instance goes before an old one, drained": (
        view(old("i-1"), old("i-2", "b"), new("i-9"), remaining_surge=1),
        StartDrains(("i-9",)),
    ),
    "one that this roll launched and that never registered goes at once": (
        view(old("i-1"), replace(booting("i-9"), registration="absent"), remaining_surge=1),
        Terminate("i-9", decrement=True, evidence="this roll launched it, and it never registered with ECS"),
    ),
    "one that is not known to have registered does not": (view(old("i-1"), booting("i-9"), remaining_surge=1), None),
    "none that is needed goes while another one boots": (
        view(old("i-1"), new("i-9"), replace(booting("i-8", "b"), unready_for=30), remaining_surge=1),
        None,
    ),
}


@pytest.mark.parametrize("situation", REPLACE)
def test_to_replace(situation: str) -> None:
    seen, action = REPLACE[situation]

    assert decide(seen, "replace") == action


@pytest.mark.parametrize("situation", RESTORE)
def test_to_restore(situation: str) -> None:
    seen, action = RESTORE[situation]

    assert decide(seen, "restore") == action


@pytest.mark.parametrize(
    ("member", "options", "why"),
    [
        (old("i-1"), RollOptions(), ""),
        (draining("i-1"), RollOptions(), ""),
        (draining("i-1", drain=OVER), RollOptions(), EMPTY),
        (draining("i-1", drain=Drain(1, 900.0)), RollOptions(), ""),
        (draining("i-1", drain=Drain(1, 900.0)), RollOptions(force=True), "--force"),
        (draining("i-1", drain=Drain(1, 899.0)), RollOptions(force=True), ""),
        (old("i-1", registration="unknown"), RollOptions(force=True, include_unregistered=True), ""),
        (replace(draining("i-1", drain=OVER), abandoned=2), RollOptions(), ""),
        (replace(draining("i-1", drain=OVER), abandoned=2), RollOptions(force=True), "--force"),
    ],
)
def test_evidence(member: Member, options: RollOptions, why: str) -> None:
    assert evidence(member, options) == why


def test_what_is_waited_for_is_named_with_its_state() -> None:
    seen = view(
        old("i-1", is_terminating=True, lifecycle_state="Terminating:Wait"),
        draining("i-2"),
        replace(old("i-3"), is_old=None),
        old("i-4", registration="unknown"),
        old("i-5", registration="absent"),
        booting("i-6", described="InService, not registered with ECS yet", lifecycle_state="Pending"),
        old("i-7", lifecycle_state="Standby"),
        desired=7,
        hooks=("ecs-managed-draining-hook",),
        unsteady=(Unsteady("api", "1 of 2 tasks running"),),
        pause_left=80.0,
    )

    assert waits_for(seen, "replace") == [
        "i-1 to terminate (Terminating:Wait, held by lifecycle hook ecs-managed-draining-hook)",
        "i-2 to drain (2 tasks left)",
        "EC2 to report i-3",
        "ECS to report i-4",
        "i-5 to register with ECS",
        "i-6 to take tasks (InService, not registered with ECS yet)",
        "2 instances to launch",
        "service api to be steady again (1 of 2 tasks running)",
        "the end of the pause between batches (1 minute left)",
    ]
