"""A loopback network for one rack."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST: Final = "127.77"
SSH_PORT: Final = 2222


class NoNetworkError(OSError):
    """All networks are taken."""


@dataclass(frozen=True, slots=True)
class Network:
    """A claimed network: the first half of its addresses, as in ``127.77``; the SSH port; the claim's socket.

    The claim is a listening socket on an address that no instance gets. It excludes every other process of the machine,
    and ends with this process. Without a claim, only 127.0.0.1 can be bound.
    """

    prefix: str
    ssh_port: int
    claim: socket.socket | None


def claim(wished: str = FIRST, wished_port: int = SSH_PORT, *, gateway: bool | None = None) -> Network:
    """Claim the preferred network or another one. ``gateway``: only 127.0.0.1 can be bound."""
    if gateway is None:
        gateway = not _can_be_bound()
    if gateway:
        return Network(wished, wished_port, None)
    for port in (wished_port, *(SSH_PORT + 100 * n for n in range(10))):
        for prefix in _prefixes(wished):
            claim = socket.socket()
            try:
                claim.bind((f"{prefix}.255.254", port))
                claim.listen()
            except OSError as error:
                claim.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return Network(prefix, port, claim)
    raise NoNetworkError("no network in 127.0.0.0/8 is free: stop a local rack with `rackctl local down`")


def _prefixes(wished: str) -> Iterator[str]:
    yield wished
    yield from (prefix for n in (*range(77, 127), *range(64, 77)) if (prefix := f"127.{n}") != wished)


def _can_be_bound() -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((f"{FIRST}.255.254", 0))
        except OSError:
            return False
    return True
