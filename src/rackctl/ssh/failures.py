"""paramiko's exceptions as SshErrors, which distinguish refused, closed, timed out and unreachable."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rackctl.errors import SshError
from rackctl.ssh.paramiko_patches import DeadlineReached, Disconnected, ProtocolError, paramiko

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.ssh.deadline import Deadline
    from rackctl.ssh.dial import Link
    from rackctl.ssh.paramiko_patches import Transport
    from rackctl.ssh.reach import Target

# A longer text of a server is cut.
_LONGEST_TEXT = 500


class NoCommonAlgorithm(SshError):
    """The server and rackctl have no algorithm of some kind, such as a cipher, in common."""


@contextmanager
def during_login(target: Target, link: Link, transport: Transport, deadline: Deadline) -> Iterator[None]:
    """Turn every exception that paramiko raises, including EOFError and OSError, into an SshError."""
    try:
        yield
    except (paramiko.SSHException, EOFError, OSError) as error:
        if (status := link.proxy_status(patience=1)) is not None:
            ended = f"exited with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
            raise SshError(f"{target} cannot be reached: the command {ended}") from error
        raise _login_error(target, transport, deadline, error) from error


def _login_error(target: Target, transport: Transport, deadline: Deadline, error: Exception) -> SshError:
    if isinstance(error, DeadlineReached):
        return _too_late(target, transport, deadline)
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return _no_common_algorithm(target, transport)
    if isinstance(error, Disconnected):
        return SshError(f"{target} closed the connection during the {_stage(transport)}: {shorten(str(error))}")
    if isinstance(error, ProtocolError):
        return SshError(f"{target} sent {shorten(str(error))}")
    if isinstance(error, EOFError | OSError):
        return _closed(target, transport)
    return SshError(f"{target}: the {_stage(transport)} failed: {shorten(str(error))}")


def _stage(transport: Transport) -> str:
    if not transport.server_version:
        return "version exchange"
    return "login" if transport.initial_kex_done else "key exchange"


def _too_late(target: Target, transport: Transport, deadline: Deadline) -> SshError:
    if not deadline.has_received:
        return SshError(
            f"{target} accepted the connection, but sent nothing within {min(deadline.first_byte, deadline.total):g} s",
            hint="it may be starting or overloaded; try again, or wait longer with --connect-timeout",
        )
    limit = min(deadline.login, deadline.total)
    return SshError(f"{target} did not finish the {_stage(transport)} within {limit:g} s")


def _closed(target: Target, transport: Transport) -> SshError:
    said = transport.last_banner if transport.server_version else " / ".join(transport.preamble)
    reason = f"; its message: {shorten(said)}" if said.strip() else ""
    return SshError(f"{target} closed the connection during the {_stage(transport)}{reason}")


def _no_common_algorithm(target: Target, transport: Transport) -> SshError:
    kind, offered = transport.disagreement
    return NoCommonAlgorithm(
        f"{target} and rackctl have no {kind} in common; the server offers {shorten(', '.join(offered)) or 'none'}",
        hint="OpenSSH may have one: `rackctl instances ssh-config` prints a configuration for it",
    )


def shorten(text: str) -> str:
    """Return a server's text as one line of limited length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}…"
