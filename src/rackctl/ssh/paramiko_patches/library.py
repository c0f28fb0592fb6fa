"""paramiko itself: imported in less time, silent, and with errors that tell apart how a connection ends."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Have a module look as if it were not installed."""
    missing = module not in sys.modules
    if missing:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if missing:
            del sys.modules[module]


# paramiko.config imports invoke for `Match exec` in config files that nobody here reads: a third of the import's time.
with _without("invoke"):
    import paramiko

__all__ = ["DeadlineReached", "Disconnected", "ProtocolError", "inside", "paramiko", "readable"]

# paramiko logs tracebacks of what it also raises, and a logger without a handler prints them on stderr.
_LOGGER = logging.getLogger("paramiko")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False
_LOGGER.setLevel(logging.CRITICAL + 1)


class ProtocolError(paramiko.SSHException):
    """The server sends what is no valid SSH."""


class DeadlineReached(paramiko.SSHException):
    """The server takes longer than it may."""


class Disconnected(paramiko.SSHException):
    """The server has sent SSH_MSG_DISCONNECT (RFC 4253, 11.1); the text is its description."""


def readable(text: bytes) -> str:
    """Decode a text of a server's, which should be UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def inside(thing: object) -> Any:
    """Look at an object of paramiko's without the face that its type stubs show."""
    return thing
