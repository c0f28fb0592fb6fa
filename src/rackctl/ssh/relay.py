"""A relay between standard input and output and an instance's SSH server, for OpenSSH's ProxyCommand."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from typing import TYPE_CHECKING

from rackctl.background import in_background
from rackctl.errors import SshError
from rackctl.ssh.dial import dial

if TYPE_CHECKING:
    from rackctl.ssh.deadline import Deadline
    from rackctl.ssh.reach import Target

_READ = 256 * 1024


def join(target: Target, deadline: Deadline) -> None:
    """Relay standard input and output to an instance's SSH server, until the server or the reader closes.

    If the target has a proxy command, this process becomes that command. Raises SshError.
    """
    if target.proxy:
        try:
            os.execvp(target.proxy.argv[0], target.proxy.argv)  # noqa: S606 - no shell is wanted
        except OSError as error:
            raise SshError(f"cannot run `{target.proxy.shown}`: {error.strerror}") from error
    with closing(dial(target, deadline)) as link:
        # The timeout was for connecting; a session may be silent for any time.
        link.sock.settimeout(None)
        in_background(lambda: _send(link.sock))
        try:
            while data := link.sock.recv(_READ):
                _write(data)
        except BrokenPipeError:
            return
        except OSError as error:
            raise SshError(f"the connection to {target} was lost: {error.strerror or error}") from error


def _send(sock: socket.socket) -> None:
    while data := os.read(0, _READ):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]
