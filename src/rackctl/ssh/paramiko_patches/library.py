"""paramiko, imported faster and without its logging; and exceptions that it lacks."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Make a module look as if it were not installed."""
    missing = module not in sys.modules
    if missing:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if missing:
            del sys.modules[module]


# paramiko.config imports invoke, a third of the import time, for `Match exec` in config files. rackctl reads none.
with _without("invoke"):
    import paramiko

__all__ = ["DeadlineReached", "Disconnected", "ProtocolError", "inside", "paramiko", "readable"]

# paramiko logs the tracebacks of errors that it also raises; a logger without a handler prints them on stderr.
_LOGGER = logging.getLogger("paramiko")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False
_LOGGER.setLevel(logging.CRITICAL + 1)


class ProtocolError(paramiko.SSHException):
    """The server sent something that is not valid SSH; the text says what."""


class DeadlineReached(paramiko.SSHException):
    """The deadline has passed."""


class Disconnected(paramiko.SSHException):
    """The server sent SSH_MSG_DISCONNECT (RFC 4253, 11.1); the text is its description."""


def readable(text: bytes) -> str:
    """Decode a server's text as UTF-8, or as Latin-1 if it is not UTF-8."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def inside(thing: object) -> Any:
    """Return an object of paramiko's without its static type, for access to private names."""
    return thing
