"""The live view of a roll on a terminal."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from rackctl.cli.console import note
from rackctl.cli.roll_progress import LiveView
from rackctl.roll.report import Event
from tests.fakes.clock import FakeClock
from tests.fakes.world import START

if TYPE_CHECKING:
    from collections.abc import Callable


def live_view(
    *,
    console: Console | None = None,
    clock: FakeClock | None = None,
    begin: Callable[[], None] = lambda: None,
    stopping: bool = False,
) -> LiveView:
    return LiveView(console or Console(quiet=True), clock or FakeClock(), "prod", begin, lambda: stopping)


def render(view: LiveView, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width, height=30)
    with console.capture() as capture:
        console.print(view._render())
    return capture.get()


def test_the_live_view_shows_each_instance_what_it_waits_for_and_how_far_the_roll_is() -> None:
    clock, begun = FakeClock(), []
    view = live_view(clock=clock, begin=lambda: begun.append(True))

    def event(message: str, **more: Any) -> Event:
        return Event(START, "instance", message, "g", done=1, total=4, seconds_left=150, waiting=3, **more)

    with view:
        view.show(Event(START, "surge", "group g: desired capacity 4 → 5", "g", total=4))
        said = "Pending, not registered with ECS"
        view.show(event("", ec2_instance_id="i-2", phase="launching", is_new=True, waits_for=said))
        clock.sleep(5)
        said = "2 tasks left: no room for web"
        view.show(event("", ec2_instance_id="i-1", phase="draining", tasks_left=2, waits_for=said))
        clock.sleep(65)
        text = render(view)

    assert begun == [True]
    assert re.search(r"i-1 +old +draining +1:05 +2 tasks left: no room for web", text)
    assert re.search(r"i-2 +new +launching +1:10 +Pending, not registered with ECS", text)
    assert "and 3 waiting" in text
    assert "prod: replacing  1 of 4 replaced  1:10  about 1 minute left" in text


@pytest.mark.parametrize("width", [64, 80, 120])
def test_only_what_an_instance_waits_for_is_cut_when_the_terminal_is_narrow(width: int) -> None:
    view = live_view(console=Console(quiet=True, width=width))
    long = "1 task left: (service worker) was unable to place a task because no container instance met all of its needs"
    with view:
        for id_, more in (
            ("i-0a19bcc46de2f00d1", {"phase": "draining", "tasks_left": 1, "waits_for": long}),
            ("i-0cb84185aa11bb22c", {"phase": "terminating", "waits_for": "termination"}),
        ):
            details: Any = more
            view.show(Event(START, "instance", "", "g", id_, total=3, **details))
        lines = render(view, width).splitlines()

    assert re.match(r"INSTANCE +PHASE +TIME +WAITS FOR", lines[0])
    assert re.match(r"i-0a19bcc46de2f00d1 +old +draining +0:00 +1 task.*…", lines[1])
    assert re.match(r"i-0cb84185aa11bb22c +old +terminating +0:00 +termination", lines[2])
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [64, 80, 120])
def test_what_the_roll_waits_for_is_shown_and_wrapped_but_never_cut(width: int) -> None:
    view = live_view(console=Console(quiet=True, width=width))
    said = "waiting for ECS to report i-0a19bcc46de2f00d1, and i-0cb84185aa11bb22c to terminate (Terminating:Wait, held by lifecycle hook ecs-managed-draining-termination-hook)"  # noqa: E501
    with view:
        view.show(Event(START, "waiting", said, "g", total=3))
        text = render(view, width)

    assert said in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width


def test_what_the_roll_waits_for_is_no_longer_shown_once_something_has_happened() -> None:
    view = live_view()
    with view:
        view.show(Event(START, "waiting", "waiting for ECS to report i-1", "g", total=3))
        view.show(Event(START, "instance", "", "g", "i-1", "ready", total=3))
        text = render(view)

    assert "waiting for ECS" not in text


def test_an_abort_counts_nothing_as_replaced_and_calls_new_instances_new() -> None:
    view = live_view()
    with view:
        view.show(
            Event(START, "instance", "", "g", "i-3", "draining", 1, done=1, total=3, is_new=True, doing="aborting")
        )
        text = render(view)

    assert re.search(r"i-3 +new +draining", text)
    assert "prod: rolling back  0:00" in text
    assert "replaced" not in text
    assert "waiting" not in text


def test_the_live_view_of_many_instances_fits_the_terminal_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "20")
    view = live_view(stopping=True)
    with view:
        for number in range(60):
            phase: Any = "gone" if number < 50 else "draining"
            view.show(Event(START, "instance", "", "g", f"i-{number}", phase, 1, done=50, total=100, waiting=40))
        text = render(view)

    assert len(text.splitlines()) <= 20
    assert "and 40 waiting, 50 gone" in text
    assert "stopping; Ctrl-C again stops at once" in text


def test_a_line_on_stderr_during_the_live_view_stays_above_it() -> None:
    screen = StringIO()
    with live_view(console=Console(file=screen, force_terminal=True, width=80)) as view:
        view.show(Event(START, "instance", "", "g", "i-1", "draining", 1, total=3))
        note("i-2: trusting its host key")

    # Whole, on a line of its own.
    assert re.search(
        r"\nrackctl: i-2: trusting its host key *\r?\n|^.*rackctl: i-2: trusting its host key\n", screen.getvalue()
    )
