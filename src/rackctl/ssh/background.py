"""Work that goes on beside the main thread, which an interrupt need not wait for."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do a piece of work in a daemon thread; ``result()`` waits for it and raises what it raised.

    An executor's threads are joined at exit, however long AWS or a server takes to answer; these are not.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
