"""What is said to the person, beside the results."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from rackctl.cli.render import Canvas


def note(message: str) -> None:
    """Say something to the person, apart from the results."""
    say(f"rackctl: {message}")


def say(text: str) -> None:
    """Write a line to stderr; where a full disk or the like keeps it from being read, what goes on counts for more."""
    try:
        # Not click.echo, which goes round whoever has taken sys.stderr's place, as a live view does.
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return


def draws_on(stream: Any, environment: Mapping[str, str]) -> bool:
    """Tell whether a stream is a terminal that understands cursor movements."""
    return bool(stream.isatty()) and environment.get("TERM", "dumb") != "dumb"


def canvas_of(stream: Any, environment: Mapping[str, str]) -> Canvas:
    """Give what a stream offers: a terminal its width, and colour unless NO_COLOR (https://no-color.org) is set."""
    from rackctl.cli.render import Canvas

    if not stream.isatty():
        return Canvas()
    import shutil

    return Canvas(shutil.get_terminal_size().columns, draws_on(stream, environment) and not environment.get("NO_COLOR"))


@contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Keep what is typed from being echoed into what is drawn; Ctrl-C and the like still work."""
    import termios

    try:
        before = termios.tcgetattr(0)
    except (termios.error, OSError):
        yield  # stdin is no terminal
        return
    quiet = [*before]
    quiet[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(0, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
