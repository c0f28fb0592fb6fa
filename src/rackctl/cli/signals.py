"""What asks a command to end, while it does what is not to be cut off just anywhere."""

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
def heard(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Have these signals handled so; one that nohup, or a shell for its background job, has ignored stays ignored."""
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
    """Have these signals end the command as an exception does, so that what it has changed here is restored."""

    def end(number: int, _: object) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(SIGNALLED + number)

    with heard(end):
        yield
