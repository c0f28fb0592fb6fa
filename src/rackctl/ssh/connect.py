"""Connect to an instance: socket or proxy, key exchange, host key check, then the login with its key."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rackctl.background import in_background
from rackctl.errors import SshError
from rackctl.ssh.deadline import Deadline
from rackctl.ssh.dial import Link, dial
from rackctl.ssh.failures import during_login, shorten
from rackctl.ssh.host_keys import HostKey
from rackctl.ssh.paramiko_patches import Disconnected, HostKeyTransport, Transport, load_private_key, paramiko

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from rackctl.ssh.host_keys import HostKeyCheck
    from rackctl.ssh.reach import Target


class LoginRefused(SshError):
    """The server refused the key with USERAUTH_FAILURE.

    ``attempt`` is key, user and address, for a message that names the instance itself.
    """

    def __init__(self, message: str, *, hint: str, attempt: str) -> None:
        super().__init__(message, hint=hint)
        self.attempt = attempt


class MoreThanKeyRequired(SshError):
    """The server accepted the key and requires another authentication method too."""


class Identity(Protocol):
    """The key pair to log in with; `rackctl.keys.SshKey` is one."""

    @property
    def key_name(self) -> str: ...

    @property
    def private_key(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Send a keepalive every ``interval`` seconds; after ``count`` unanswered ones the connection is lost."""

    interval: float = 15
    count: int = 4


class Connection:
    """An authenticated connection to an instance; a context manager."""

    def __init__(self, target: Target, transport: Transport, link: Link) -> None:
        self.target = target
        self.transport = transport
        self.link = link
        self._closed = threading.Event()
        self._given_up = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_openssh(self) -> bool:
        """Whether the server supports OpenSSH's extensions."""
        return "OpenSSH" in self.transport.server_version

    @property
    def loss(self) -> SshError:
        """The error to raise if the connection ended before the command did."""
        if self._given_up:
            return SshError(f"the connection to {self.target} was lost: the server does not answer keepalives")
        ended = self.transport.get_exception()
        if isinstance(ended, Disconnected):
            return SshError(f"{self.target} closed the connection: {shorten(str(ended))}")
        if isinstance(ended, paramiko.SSHException):
            return SshError(f"the connection to {self.target} was lost: the server sent {shorten(str(ended))}")
        return SshError(f"the connection to {self.target} was lost: it was closed without a reason")

    def close(self) -> None:
        """Close the connection and its sessions, and wait for its proxy to end."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.transport.send_disconnect()
        self.transport.close()
        self.link.close()

    def keep_alive(self, keepalive: Keepalive) -> None:
        """Start keepalives: the connection is closed if the server stops answering."""
        threading.Thread(target=self._watch, args=(keepalive,), daemon=True).start()

    def _watch(self, keepalive: Keepalive) -> None:
        # Count unanswered keepalives, not seconds: this process may have been stopped meanwhile.
        unanswered, signs = 0, self.transport.packetizer.signs_of_life
        while not self._closed.wait(keepalive.interval):
            if signs != (signs := self.transport.packetizer.signs_of_life):
                unanswered = 0
            if unanswered == keepalive.count:
                self._given_up = True
                self.transport.close()
                return
            self.transport.send_keepalive()
            unanswered += 1


def connect(
    target: Target,
    identities: Iterable[Identity],
    check: HostKeyCheck,
    *,
    link: Future[Link] | None = None,
    deadline: Deadline | None = None,
    keepalive: Keepalive = Keepalive(),
    show_banner: Callable[[str], None] = lambda _: None,
) -> Connection:
    """Connect and log in with the first of these keys that the server accepts, and no other.

    ``identities`` yields at least one key: the first is fetched while the connection is made, each further one after a
    refusal. ``link`` is the result of an earlier `dial`, if any. The host key is checked before the user name or a
    signature is sent. Another thread calls ``show_banner`` with each text that the server sends before the login.
    Raises SshError, and the errors of ``identities``.
    """
    limit = deadline or Deadline()

    def open_() -> Connection:
        dialed = link.result() if link else dial(target, limit)
        return _open(target, check, dialed, limit, Transport(dialed.sock, deadline=limit, show_banner=show_banner))

    opening, candidates = in_background(open_), iter(identities)
    try:
        key = next(candidates)
        private = _loaded(key)
    except BaseException:
        opening.add_done_callback(lambda opened: None if opened.exception() else opened.result().close())
        raise
    connection = opening.result()
    try:
        refused = 1
        while not _accepts(connection, private, limit):
            another = next(candidates, None)
            if another is None:
                raise _refused(target, key.key_name, refused)
            private, refused = _loaded(another), refused + 1
    except BaseException:
        connection.close()
        raise
    connection.keep_alive(keepalive)
    return connection


def pin_host_key(target: Target, check: HostKeyCheck, *, deadline: Deadline | None = None) -> None:
    """Check and pin an instance's host key by a key exchange, without a login. Raises SshError."""
    limit = deadline or Deadline()
    link = dial(target, limit)
    _open(target, check, link, limit, HostKeyTransport(link.sock, deadline=limit)).close()


def _open(target: Target, check: HostKeyCheck, link: Link, deadline: Deadline, transport: Transport) -> Connection:
    try:
        transport.prefer_host_keys(check.preferred_types)
        with during_login(target, link, transport, deadline):
            presented = transport.exchange_keys()
        check.accept(HostKey.of(presented))
    except BaseException:
        transport.close()
        link.close()
        raise
    return Connection(target, transport, link)


def _loaded(key: Identity) -> paramiko.PKey:
    try:
        return load_private_key(key.private_key)
    except ValueError as error:
        raise SshError(f"the SSH key {key.key_name} cannot be used: {error}") from error


def _accepts(connection: Connection, private: paramiko.PKey, deadline: Deadline) -> bool:
    """Log in with a key, and return whether the server accepted it. Raises SshError."""
    target = connection.target
    with during_login(target, connection.link, connection.transport, deadline):
        refusal = connection.transport.log_in(target.user, private)
    if refusal and refusal.partial_success:
        raise MoreThanKeyRequired(
            f"{target} accepted the key of {target.user}, and requires another method too: "
            f"{shorten(', '.join(refusal.methods))}",
            hint="its sshd_config must allow a login by public key alone",
        )
    return refusal is None


def _refused(target: Target, key_name: str, keys: int) -> LoginRefused:
    tried = f"key {key_name}" if keys == 1 else f"{keys} generations of key {key_name}"
    return LoginRefused(
        f"{target} refused {tried} for user {target.user}",
        hint="if the image has another user, name it with --user; "
        "`rackctl instances -o wide` shows which key each instance was launched with",
        attempt=f"{tried}, user {target.user}, {target.way}",
    )
