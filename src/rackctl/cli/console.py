"""Messages on stderr, and what a terminal can show."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rackctl.errors import UsageError
from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from rackctl.cli.render import Canvas


def note(message: str) -> None:
    """Write a message of rackctl's to stderr."""
    say(f"rackctl: {message}")


def say(text: str) -> None:
    """Write a line to stderr. A failure, such as a full disk, does not stop the command; a closed pipe does."""
    try:
        # Not click.echo, which bypasses a replaced sys.stderr, as the live view has it.
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return


AWS = "AWS to answer"

# A wait that is shorter needs no message; in seconds.
_SAY_AFTER = 2.0


@contextmanager
def waiting_for(what: str, say_it: Callable[[str], object] = note) -> Iterator[None]:
    """Say on a terminal what is waited for if what is done here takes longer than two seconds.

    It is for waits that end within a minute or two by themselves, of which a log needs no line.
    """
    if not sys.stderr.isatty():
        yield
        return
    timer = threading.Timer(_SAY_AFTER, say_it, [f"waiting for {what}"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def confirm(question: str, *, done: str) -> None:
    """Ask on the terminal, and return for yes. Raises click.Abort for no.

    Without a terminal it raises UsageError, which says that nothing was ``done``.
    """
    import click

    if not sys.stdin.isatty():
        raise UsageError(
            f"stdin is not a terminal, so rackctl cannot ask; nothing was {done}",
            hint=f"see what would be {done} with --dry-run, then use --yes",
        )
    if not click.confirm(question, err=True):
        raise click.Abort


def draws_on(stream: Any, environment: Mapping[str, str]) -> bool:
    """Return whether a stream is a terminal that supports cursor movements."""
    return bool(stream.isatty()) and environment.get("TERM", "dumb") != "dumb"


def stdout_canvas(environment: Mapping[str, str]) -> Canvas:
    """Return the width and colour support of stdout; NO_COLOR (https://no-color.org) turns colour off."""
    from rackctl.cli.render import Canvas

    if not sys.stdout.isatty():
        return Canvas()
    import shutil

    has_color = draws_on(sys.stdout, environment) and not environment.get("NO_COLOR")
    return Canvas(shutil.get_terminal_size().columns, has_color)


@contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Turn the terminal's echo off, so that typed characters do not garble a live view. Signals still work."""
    import os
    import termios

    try:
        before = termios.tcgetattr(0)
        in_foreground = os.tcgetpgrp(0) == os.getpgrp()
    except (termios.error, OSError):
        in_foreground = False  # stdin is not a terminal
    if not in_foreground:
        # The kernel would stop a background process that changes the terminal (SIGTTOU).
        yield
        return
    quiet = [*before]
    quiet[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(0, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
