"""Background work that an interrupt does not wait for."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_background(work: Callable[[], T], name: str | None = None) -> Future[T]:
    """Call ``work`` in a daemon thread, which ``name`` names; the future has its result or exception.

    An executor would join its threads at exit, and so wait for AWS or a server.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the future carries it
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
