"""What is said to the person, beside the results."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


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
