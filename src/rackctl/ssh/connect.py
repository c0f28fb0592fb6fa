"""Connect to an instance: socket or proxy, key exchange, host key, and only then the login with its one key."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rackctl.errors import SshError
from rackctl.ssh.background import in_background
from rackctl.ssh.dial import Link, dial
from rackctl.ssh.host_keys import HostKey
from rackctl.ssh.paramiko_patches import Transport, load_private_key, paramiko

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from rackctl.ssh.host_keys import HostKeyCheck
    from rackctl.ssh.reach import Target

# A proxy may ask its user for a password, or start a session with AWS, before the server is heard.
_PROXY_TIMEOUT = 120.0


class LoginRefused(SshError):
    """The server does not accept the key: it has answered the login with USERAUTH_FAILURE."""


class MoreThanKeyRequired(SshError):
    """The server accepts the key, and asks for a password or the like besides."""


class Identity(Protocol):
    """The key pair to log in with; `rackctl.keys.SshKey` is one."""

    @property
    def key_name(self) -> str: ...

    @property
    def private_key(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Ask the server every ``interval`` seconds for a sign of life; it is lost after ``count`` without an answer."""

    interval: float = 15
    count: int = 4


class Connection:
    """An authenticated connection to an instance. Close it, or use it as a context manager."""

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
    def banner(self) -> str:
        """What the server had to say before the login, without anything that would steer a terminal."""
        text = (self.transport.get_banner() or b"").decode("utf-8", "replace")
        return "".join(character for character in text if character.isprintable() or character in "\n\t")

    @property
    def is_openssh(self) -> bool:
        """Whether the server knows OpenSSH's own extensions."""
        return "OpenSSH" in self.transport.remote_version

    @property
    def loss(self) -> SshError:
        """The error to raise when the server has gone without a word."""
        why = "the server no longer answers" if self._given_up else "the server has closed it, or the network has"
        return SshError(f"the connection to {self.target} was lost: {why}")

    def close(self) -> None:
        """Close it and everything on it, and see its proxy end."""
        if self._closed.is_set():
            return
        self._closed.set()
        self.transport.say_goodbye()
        self.transport.close()
        self.link.close()

    def keep_alive(self, keepalive: Keepalive) -> None:
        """Watch the server from now on, and close the connection when it has gone."""
        threading.Thread(target=self._watch, args=(keepalive,), daemon=True).start()

    def _watch(self, keepalive: Keepalive) -> None:
        # What counts is questions without an answer and not time: this process may have been stopped meanwhile.
        unanswered, signs = 0, self.transport.packetizer.signs_of_life
        while not self._closed.wait(keepalive.interval):
            if signs != (signs := self.transport.packetizer.signs_of_life):
                unanswered = 0
            if unanswered == keepalive.count:
                self._given_up = True
                self.transport.close()
                return
            self.transport.ask_alive()
            unanswered += 1


def connect(
    target: Target,
    identity: Callable[[], Identity],
    check: HostKeyCheck,
    *,
    link: Future[Link] | None = None,
    keepalive: Keepalive = Keepalive(),
) -> Connection:
    """Connect and log in, offering nothing but the one key.

    ``link`` is what `dial` gives, where that was begun before. ``identity`` is asked for the key while the connection
    is being made; what it raises is raised here. The host key is accepted or refused before anything is sent that the
    user has. Raises SshError.
    """
    opening = in_background(lambda: _open(target, check, link.result() if link else dial(target)))
    try:
        key = identity()
        try:
            private = load_private_key(key.private_key)
        except ValueError as error:
            raise SshError(f"the SSH key {key.key_name} cannot be used: {error}") from error
    except BaseException:
        opening.add_done_callback(lambda opened: None if opened.exception() else opened.result().close())
        raise
    connection = opening.result()
    try:
        _log_in(connection, key.key_name, private)
    except BaseException:
        connection.close()
        raise
    connection.keep_alive(keepalive)
    return connection


def introduce(target: Target, check: HostKeyCheck) -> None:
    """Have an instance's host key checked, and pinned, without logging in. Raises SshError."""
    _open(target, check, dial(target)).close()


def _open(target: Target, check: HostKeyCheck, link: Link) -> Connection:
    transport = Transport(link.sock)
    if link.proxy:
        transport.banner_timeout = _PROXY_TIMEOUT
    try:
        options = transport.get_security_options()
        first = [name for kind in check.preferred_types for name in _ALGORITHMS.get(kind, (kind,))]
        options.key_types = (
            *(name for name in first if name in options.key_types),
            *(name for name in options.key_types if name not in first),
        )
        with translated(target, link):
            transport.start_client()
            presented = transport.get_remote_server_key().asbytes()
        check.accept(HostKey.of(presented))
    except BaseException:
        transport.close()
        link.close()
        raise
    return Connection(target, transport, link)


# One RSA key serves several signature algorithms (RFC 8332).
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


def _log_in(connection: Connection, key_name: str, private: paramiko.PKey) -> None:
    target = connection.target
    with translated(target):
        refusal = connection.transport.log_in(target.user, private)
    if refusal is None:
        return
    if refusal.partial_success:
        raise MoreThanKeyRequired(
            f"{target} wants more of {target.user} than a key: {', '.join(refusal.methods)}",
            hint="its sshd_config must allow a login by public key alone",
        )
    raise LoginRefused(
        f"{target} did not let {target.user} in with the key {key_name}",
        hint="does its image have another user? See --user; "
        "`rackctl instances -o wide` shows which key each instance was launched with",
    )


@contextmanager
def translated(target: Target, link: Link | None = None) -> Iterator[None]:
    """Turn whatever paramiko raises inside, EOFError and OSError among it, into an SshError."""
    try:
        yield
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise SshError(f"{target} and rackctl have no algorithm in common: {error}") from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise SshError(_what_went_wrong(target, link, error)) from error


def _what_went_wrong(target: Target, link: Link | None, error: Exception) -> str:
    if link and (status := link.proxy_status(patience=1)) is not None:
        ended = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        return f"{target} cannot be reached: the command ended {ended}"
    text = " ".join(str(error).split())
    if "protocol banner" in text or "protocol version" in text:
        return f"{target} does not answer as an SSH server does"
    if not text or isinstance(error, EOFError | OSError):
        return f"{target} closed the connection before the login"
    return f"{target}: {text}"
