"""Servers with behaviour that OpenSSH's sshd cannot have, each in a few lines."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rackctl.ssh.paramiko_patches import paramiko

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ssh.sshd import Sshd


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen, and give each connection to a thread of its own; it is closed when the thread is done. Give the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:

        def serve(sock: socket.socket) -> None:
            with sock, suppress(OSError, EOFError, paramiko.SSHException):
                handle(sock)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        # A thread that waits in accept() would keep the port open.
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def sending(*pieces: bytes, then_close: bool = True) -> Iterator[int]:
    """Send something to each who connects, and close the connection or stay silent; give the port."""
    over = threading.Event()

    def send(sock: socket.socket) -> None:
        for piece in pieces:
            sock.sendall(piece)
        if then_close:
            # A server that closes with something unread resets the connection, and what it sent is lost.
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        else:
            over.wait(60)

    with serving(send) as port:
        yield port
        over.set()


@contextmanager
def in_front_of(
    server: Sshd,
    *,
    greet: Callable[[socket.socket], None] = lambda _: None,
    shape: Callable[[bytes], bytes] = lambda data: data,
) -> Iterator[Sshd]:
    """Lead to an sshd, after a greeting, with what it sends changed or held up on the way."""

    def relay(sock: socket.socket) -> None:
        greet(sock)
        with socket.create_connection((server.host, server.port)) as real:

            def up() -> None:
                with suppress(OSError):
                    while data := sock.recv(65536):
                        real.sendall(data)
                    real.shutdown(socket.SHUT_WR)

            threading.Thread(target=up, daemon=True).start()
            while data := real.recv(65536):
                sock.sendall(shape(data))
            sock.shutdown(socket.SHUT_WR)

    with serving(relay) as port:
        yield replace(server, port=port)


class Host(paramiko.ServerInterface):
    """An SSH server that accepts every key and ends every command with 0, unless a test overrides that."""

    transport: paramiko.Transport

    def login(self) -> int:
        """Decide about a login; give one of paramiko's AUTH_ constants."""
        return paramiko.common.AUTH_SUCCESSFUL

    def session(self, channel: paramiko.Channel) -> None:
        """Do what a command does."""
        self.request(channel, "exit-status", 0)

    def send(self, kind: int, *fields: str | bytes | int | bool) -> None:
        """Send a message; text and bytes are strings, and numbers have 32 bits, on the wire (RFC 4251, 5)."""
        message = paramiko.Message()
        message.add_byte(bytes([kind]))
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            elif isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        sender: Any = self.transport
        sender._send_message(message)

    def request(self, channel: paramiko.Channel, kind: str, *fields: str | bytes | int | bool) -> None:
        self.send(paramiko.common.MSG_CHANNEL_REQUEST, channel.remote_chanid, kind, False, *fields)

    def disconnect(self, description: str | bytes) -> None:
        """Say goodbye; closing is left to the client, which might not read it otherwise."""
        self.send(paramiko.common.MSG_DISCONNECT, 11, description, "")

    def banner(self, text: str | bytes) -> None:
        self.send(paramiko.common.MSG_USERAUTH_BANNER, text, "")

    # Methods that paramiko calls

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return self.login()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_env_request(self, channel: paramiko.Channel, name: Any, value: Any) -> bool:
        return False

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        # The session must not end before its beginning has been granted. paramiko grants it once more after this.
        self.send(paramiko.common.MSG_CHANNEL_SUCCESS, channel.remote_chanid)
        threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self.session(channel)
            channel.close()


@contextmanager
def hosting(like: Sshd, make: Callable[[], Host]) -> Iterator[Sshd]:
    """Run a `Host` for each connection, with the host key of an sshd."""
    over = threading.Event()

    def handle(sock: socket.socket) -> None:
        transport = paramiko.Transport(sock)
        transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(like.directory / "host_ed25519")))
        host = make()
        host.transport = transport
        transport.start_server(server=host)
        # paramiko knows channels by weak references alone.
        kept = []
        while transport.is_active() and not over.is_set():
            kept.append(transport.accept(0.2))
        transport.close()

    with serving(handle) as port:
        yield replace(like, port=port)
        over.set()
