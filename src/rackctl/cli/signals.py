"""SIGINT, SIGTERM and SIGHUP while a command must clean up before it ends."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rackctl.errors import SIGNALLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signal_handlers(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Install a handler for these signals. A signal that nohup or a shell has ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in ENDING}
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let these signals raise KeyboardInterrupt or SystemExit, so that cleanup code runs."""

    def end(number: int, _: object) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(SIGNALLED + number)

    with signal_handlers(end):
        yield
