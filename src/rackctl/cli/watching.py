"""`--watch`: show something again and again, in place on a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.console import draws_on, note
from rackctl.errors import AccessDenied, RackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.cli.invocation import Invocation

_SECONDS = "2"


def watch_option(until: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option; ``until`` says when it ends by itself."""
    return click.option(
        "-w", "--watch", metavar="[SECONDS]", is_flag=False, flag_value=_SECONDS,
        help=f"Show it again and again{until}, every {_SECONDS} seconds unless told.",
    )  # fmt: skip


def seconds_of(text: str) -> float:
    """Read the option's value. Raises UsageError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f'--watch: "{text}" is not a number of seconds', hint="for example --watch 5")
    return seconds


def print_text(text: str) -> None:
    if text:
        click.echo(text)


def repeat(
    invocation: Invocation, text: Callable[[], str], seconds: float, *, is_over: Callable[[], bool] = lambda: False
) -> None:
    """Print a text again and again: in place on a terminal, one after the other elsewhere."""
    in_place = draws_on(sys.stdout, invocation.environment)
    shown = False
    while True:
        try:
            latest = text()
        except AccessDenied:
            raise
        except RackctlError as error:
            if not shown:
                raise
            note(str(error))
        else:
            if in_place:
                _redraw(latest)
            else:
                print_text(("\n" if shown else "") + latest)
            sys.stdout.flush()
            shown = True
            if is_over():
                return
        invocation.clock.sleep(seconds)


def _redraw(text: str) -> None:
    """Replace what is on the terminal by a text, cut to its size; no line is ever empty in between."""
    width, height = shutil.get_terminal_size()
    lines = text.splitlines()
    if len(lines) >= height:
        hidden = len(lines) - height + 2
        lines = [*lines[: height - 2], f"… and {hidden} more"]
    drawn = "".join(f"{line[:width]}\x1b[K\n" for line in lines)
    click.echo(f"\x1b[H{drawn}\x1b[J", nl=False, color=True)
