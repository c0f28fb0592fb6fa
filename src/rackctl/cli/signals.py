"""SIGINT, SIGTERM and SIGHUP while a command must clean up before it ends."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rackctl.errors import SIGNALLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signal_handlers(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Install a handler for these signals. A signal that nohup or a shell has ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    taken = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in taken:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


@contextmanager
def ending_at_once(*, deaf_then: bool = False) -> Iterator[None]:
    """Let these signals raise KeyboardInterrupt or SystemExit, so that cleanup code runs.

    ``deaf_then`` has further ones ignored, for a cleanup that takes its time.
    """

    def end(number: int, _: object) -> None:
        if deaf_then:
            for each in _ENDING:
                signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(SIGNALLED + number)

    with signal_handlers(end):
        yield
