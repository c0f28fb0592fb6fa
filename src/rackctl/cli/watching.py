"""`--watch`: refresh an output, in place on a terminal."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.console import draws_on, note, quiet_keyboard
from rackctl.cli.options import described
from rackctl.cli.signals import ending_at_once
from rackctl.errors import AccessDenied, RackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.cli.invocation import Invocation

_SECONDS = "2"


def watch_option(until: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option; ``until`` says in the help when the refreshing ends."""
    return click.option(
        "-w", "--watch", metavar="[SECONDS]", is_flag=False, flag_value=_SECONDS,
        help=described(f"Refresh every SECONDS{until}.", default=_SECONDS),
    )  # fmt: skip


def seconds_of(text: str) -> float:
    """Parse the option's value. Raises UsageError."""
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
    """Print a text every ``seconds``: in place on a terminal, else one after the other."""
    live, shown = draws_on(sys.stdout, invocation.environment), False
    with ending_at_once() if live else nullcontext(), quiet_keyboard() if live else nullcontext():
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
                if live:
                    _redraw(latest)
                else:
                    print_text(("\n" if shown else "") + latest)
                sys.stdout.flush()
                shown = True
                if is_over():
                    return
            invocation.clock.sleep(seconds)


def _redraw(text: str) -> None:
    """Overwrite the terminal with a text, without clearing it first, which would flicker.

    The terminal wraps long lines, so that nothing is cut off and a command can be copied whole.
    """
    from rich.cells import cell_len

    width, height = shutil.get_terminal_size()
    lines, left = text.splitlines(), height - 1
    drawn: list[str] = []
    for number, line in enumerate(lines):
        length = cell_len(click.unstyle(line))
        taken = max(-(-length // width), 1)
        rest = len(lines) - number
        # The last line says how many lines there is no room for.
        if taken > left - (1 if rest > 1 else 0):
            drawn.append(f"… and {rest} more\x1b[K\n")
            break
        left -= taken
        # After a full row the cursor is still on its last character, which \x1b[K would erase.
        full = length % width == 0 and line
        drawn.append(f"{line}\n" if full else f"{line}\x1b[K\n")
    click.echo(f"\x1b[H{''.join(drawn)}\x1b[J", nl=False, color=True)
