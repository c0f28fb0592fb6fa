"""The socket to an instance's SSH server: a TCP connection, or a proxy command.

Separate from `connect`, so that the connection is made while paramiko is being imported.
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

from rackctl.errors import SshError

if TYPE_CHECKING:
    import subprocess

    from rackctl.ssh.deadline import Deadline
    from rackctl.ssh.reach import Target


class Link:
    """A socket to a server, and the proxy command behind it, if any."""

    def __init__(self, sock: socket.socket, proxy: subprocess.Popen[bytes] | None = None) -> None:
        self.sock = sock
        self.proxy = proxy

    def close(self) -> None:
        """Close the socket; end the proxy as OpenSSH does, by a SIGHUP, and wait for it."""
        self.sock.close()
        if self.proxy is None or self.proxy.poll() is not None:
            return
        self.proxy.send_signal(signal.SIGHUP)
        if self.proxy_status(patience=2) is None:
            self.proxy.kill()
            self.proxy.wait()

    def proxy_status(self, *, patience: float) -> int | None:
        """Wait up to ``patience`` seconds for the proxy to end; return its status, or None."""
        if self.proxy is None:
            return None
        from subprocess import TimeoutExpired

        try:
            return self.proxy.wait(patience)
        except TimeoutExpired:
            return None


def dial(target: Target, deadline: Deadline) -> Link:
    """Connect to a server, or start its proxy command. Raises SshError."""
    return _start_proxy(target) if target.proxy else Link(_connect(target, deadline))


def _connect(target: Target, deadline: Deadline) -> socket.socket:
    # A host name as bytes is not encoded by IDNA, whose codec is slow to import.
    host = target.host.encode() if target.host.isascii() else target.host
    try:
        sock = socket.create_connection((host, target.port), timeout=max(deadline.left, 0.001))  # type: ignore[arg-type]
    except ConnectionRefusedError as error:
        raise SshError(
            f"{target} refused the connection",
            hint="its SSH server may not be running yet, or may listen on another port: see --port",
        ) from error
    except TimeoutError as error:
        raise SshError(
            f"{target} did not answer within {min(deadline.first_byte, deadline.total):g} s",
            hint="check that its security group allows this machine; or try --address, --jump or --via ssm",
        ) from error
    except OSError as error:
        raise SshError(
            f"{target} cannot be reached: {error.strerror or error}", hint="try --address, --jump or --via ssm"
        ) from error
    # Send keystrokes at once: paramiko does not set TCP_NODELAY on a socket that it is given.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _start_proxy(target: Target) -> Link:
    """Start the proxy command on one end of a socket pair, with rackctl's stderr.

    paramiko.ProxyCommand loops when its process has died, never reads its stderr, and leaves it a zombie.
    """
    import subprocess

    assert target.proxy
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return Link(ours, subprocess.Popen(target.proxy.argv, stdin=theirs.fileno(), stdout=theirs.fileno()))
        except OSError as error:
            ours.close()
            raise SshError(f"cannot run `{target.proxy.shown}`: {error.strerror}") from error
