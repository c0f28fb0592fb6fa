# ruff: noqa: SLF001 - this module exists to access paramiko's private members
"""A connection from its first byte to the login, and the messages about sessions that paramiko drops."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.ssh import algorithms
from rackctl.ssh.paramiko_patches.library import (
    DeadlineReached,
    Disconnected,
    ProtocolError,
    inside,
    paramiko,
    readable,
)
from rackctl.ssh.paramiko_patches.packetizer import Packetizer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from rackctl.ssh.deadline import Deadline

_common = paramiko.common

# OpenSSH's limit (kex.c).
_MOST_LINES = 1024
_MOST_EXTENSIONS = 1024
# At most this many replies are held back during a key exchange, in which a server sends no requests.
_MOST_HELD = 1024


class _GroupExchange(inside(paramiko).kex_gex.KexGexSHA256):  # type: ignore[misc]
    """Group exchange with OpenSSH's sizes: 3,072 bits for 128-bit ciphers, at least 2,048.

    paramiko accepts 1,024 bits, and never returns from a negative group.
    """

    preferred_bits = 3072

    def _parse_kexdh_gex_group(self, message: paramiko.Message) -> None:
        if (bits := message.get_mpint()) < 1 << (self.min_bits - 1):
            raise ProtocolError(f"a group of {bits.bit_length()} bits for the key exchange")
        message.rewind()
        inside(super())._parse_kexdh_gex_group(message)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The contents of USERAUTH_FAILURE (RFC 4252, 5.1)."""

    methods: tuple[str, ...]
    partial_success: bool


class _Login(paramiko.auth_handler.AuthHandler):
    """paramiko's login, with refusals distinguished from lost connections, and with banners."""

    refusal: Refusal | None = None
    _is_requested = False

    def _request_auth(self) -> None:
        # The service is requested once (RFC 4253, 10): some servers close the connection at a second request.
        if inside(self).transport.has_auth_service:
            accepted = paramiko.Message()
            accepted.add_string("ssh-userauth")
            accepted.rewind()
            self._parse_service_accept(accepted)
        else:
            inside(super())._request_auth()

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        if self._is_requested:
            raise ProtocolError("a service that was not requested")
        self._is_requested = inside(self).transport.has_auth_service = True
        inside(super())._parse_service_accept(message)

    def _parse_userauth_success(self, message: paramiko.Message) -> None:
        self._require_request()
        inside(super())._parse_userauth_success(message)

    def _parse_userauth_failure(self, message: paramiko.Message) -> None:
        self._require_request()
        methods = readable(message.get_string()).split(",")
        self.refusal = Refusal(tuple(methods), partial_success=message.get_boolean())
        if self.auth_event is not None:
            self.auth_event.set()

    def _require_request(self) -> None:
        if not self._is_requested:
            raise ProtocolError("an answer to a login that was not started")

    def _parse_userauth_banner(self, message: paramiko.Message) -> None:
        transport = inside(self).transport
        transport.last_banner = readable(message.get_string())
        transport.show_banner(transport.last_banner)


class Transport(paramiko.Transport):
    """paramiko's transport without its deadlocks, with a deadline, and with the server's reasons in its errors.

    The transport's thread calls ``show_banner`` with each text that the server sends before the login.
    """

    packetizer: Packetizer
    _kex_info = {  # noqa: RUF012 - as it stands in paramiko.Transport
        **inside(paramiko.Transport)._kex_info,
        "curve25519-sha256": inside(paramiko).kex_curve25519.KexCurve25519,
        "diffie-hellman-group-exchange-sha256": _GroupExchange,
    }

    def __init__(
        self,
        sock: socket.socket,
        *,
        deadline: Deadline | None = None,
        show_banner: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(sock, packetizer_class=Packetizer)
        self.packetizer.deadline = self._deadline = deadline
        self.show_banner = show_banner
        # The last lines before the version, and the last banner.
        self.preamble: deque[str] = deque(maxlen=3)
        self.last_banner = ""
        self.offered: dict[str, Any] = {}
        self.has_auth_service = False
        # The server's reason for not opening a channel.
        self.channel_refusal = ""
        self._end: Exception | None = None
        # Keepalives detect a dead peer; new keys behind 8 MiB of data can take a while.
        self.clear_to_send_timeout = float("inf")
        self._held: deque[paramiko.Message] = deque()
        self._channel_handler_table = {
            **inside(paramiko.Transport)._channel_handler_table,
            _common.MSG_CHANNEL_REQUEST: self._on_channel_request,
            _common.MSG_CHANNEL_FAILURE: self._on_channel_failure,
        }
        self._listeners: dict[int, Callable[[str, str], None]] = {}
        options = self.get_security_options()
        options.kex = tuple(name for name in algorithms.KEY_EXCHANGES if name in self._kex_info)
        options.ciphers = algorithms.CIPHERS
        options.digests = algorithms.MACS

    # Up to the login

    def prefer_host_keys(self, types: Sequence[str]) -> None:
        """Prefer host keys of these types."""
        options = self.get_security_options()
        first = [name for kind in types for name in algorithms.OF_KEY_TYPE.get(kind, (kind,))]
        options.key_types = (
            *(name for name in first if name in options.key_types),
            *(name for name in options.key_types if name not in first),
        )

    def exchange_keys(self) -> bytes:
        """Exchange keys and return the verified host key. Raises paramiko's errors."""
        done = threading.Event()
        self.start_client(event=done)
        self._await(done)
        if not self.initial_kex_done:
            raise self.get_exception() or EOFError
        assert self.host_key
        return self.host_key.asbytes()

    def log_in(self, user: str, key: paramiko.PKey) -> Refusal | None:
        """Log in with a key; return the refusal, after which another may be tried. Raises paramiko's errors."""
        done = threading.Event()
        self.auth_handler = login = _Login(self)
        login.auth_publickey(user, key, done)
        self._await(done)
        if not login.is_authenticated() and login.refusal is None:
            raise self.get_exception() or EOFError
        if self._deadline and login.refusal is None:
            self.packetizer.deadline = None
            self._deadline.finish()
        return login.refusal

    def _await(self, done: threading.Event) -> None:
        # The transport's thread checks the deadline too, except while it reads a packet.
        while not done.wait(1):
            if self._deadline and self._deadline.left < -1:
                raise DeadlineReached

    def get_exception(self) -> Exception | None:
        """Return why the connection ended. If it is open, return once why a channel was not opened."""
        error = super().get_exception()
        if self._end or isinstance(error, paramiko.ChannelException):
            return self._end or error
        if error and not isinstance(error, paramiko.SSHException | EOFError | OSError):
            # paramiko or cryptography failed on a packet of the server.
            unread = f"a packet that cannot be read ({type(error).__name__})"
            error = ProtocolError(str(error) if isinstance(error, OverflowError) else unread)
        self._end = error
        return error

    def _check_banner(self) -> None:
        # paramiko allows 100 lines of UTF-8, two seconds apart. RFC 4253, 4.2 has no such limits.
        for _ in range(_MOST_LINES):
            line = self.packetizer.read_line()
            if line.startswith(b"SSH-"):
                break
            self.preamble.append(readable(line))
        else:
            raise ProtocolError(f"{_MOST_LINES:,} lines without a version")
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            raise ProtocolError(f"version {readable(line)} instead of SSH-2.0")
        self.preamble.clear()
        # As bytes, for the exchange hash.
        self.remote_version = line  # type: ignore[assignment]

    @property
    def server_version(self) -> str:
        """The server's version string; empty before it has arrived."""
        return inside(self).remote_version.decode("latin-1") if self.remote_version else ""

    def _parse_kex_init(self, message: paramiko.Message) -> None:
        self.offered = inside(self)._really_parse_kex_init(message)
        message.rewind()
        inside(super())._parse_kex_init(message)

    @property
    def disagreement(self) -> tuple[str, Sequence[str]]:
        """The first kind of algorithm without one in common, and the server's offer of it."""
        ours = {
            "key exchange": (self.preferred_kex, "kex_algo_list"),
            "host key type": (self.preferred_keys, "server_key_algo_list"),
            "cipher": (self.preferred_ciphers, "server_encrypt_algo_list"),
            "MAC": (self.preferred_macs, "server_mac_algo_list"),
            "compression": (self.preferred_compression, "server_compress_algo_list"),
        }
        for kind, (known, name) in ours.items():
            offered: list[str] = self.offered.get(name, [])
            if not {*known} & {*offered}:
                return kind, offered
        return "algorithm", ()

    def _parse_ext_info(self, message: paramiko.Message) -> None:
        if (count := message.get_int()) > _MOST_EXTENSIONS:
            raise ProtocolError(f"{count:,} extensions")
        message.rewind()
        inside(super())._parse_ext_info(message)

    def _verify_key(self, host_key: bytes, signature: bytes) -> None:
        if self.host_key and host_key != self.host_key.asbytes():
            raise ProtocolError("a different host key than at first")
        inside(super())._verify_key(host_key, signature)

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self._end = Disconnected(readable(message.get_string()))

    # Sessions

    def listen(self, channel: paramiko.Channel, listener: Callable[[str, str], None]) -> None:
        """Call ``listener(request, argument)``, in the transport's thread, for two requests that paramiko drops.

        They are ``exit-signal`` with the signal's name (RFC 4254, 6.10), and ``eow@openssh.com`` when the command has
        closed its stdin (OpenSSH's PROTOCOL, 2.1).
        """
        self._listeners[channel.get_id()] = listener

    def _on_channel_request(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        kind = readable(message.get_string())
        listener = self._listeners.get(channel.get_id())
        if listener and kind in {"exit-signal", "eow@openssh.com"}:
            message.get_boolean()
            listener(kind, readable(message.get_string()) if kind == "exit-signal" else "")
            return
        message.rewind()
        message.get_int()
        inside(channel)._handle_request(message)

    def _on_channel_failure(self, channel: paramiko.Channel, _: paramiko.Message) -> None:
        # paramiko would close the channel, but a session can continue without a terminal.
        inside(channel).event_ready = False
        inside(channel).event.set()

    def _parse_channel_open_failure(self, message: paramiko.Message) -> None:
        # paramiko drops the text, and fails if it is not UTF-8.
        channel_id, code, text = message.get_int(), message.get_int(), readable(message.get_string())
        shown = _common.CONNECTION_FAILED_CODE.get(code, f"code {code}")
        self.channel_refusal = f"{shown}: {text}" if text else shown
        without_text = paramiko.Message()
        without_text.add_int(channel_id)
        without_text.add_int(code)
        without_text.rewind()
        inside(super())._parse_channel_open_failure(without_text)

    def _send_user_message(self, data: paramiko.Message) -> None:
        # This thread must not wait for the new keys, since it is the one that receives them.
        if threading.current_thread() is not self:
            inside(super())._send_user_message(data)
        elif self.clear_to_send.is_set():
            inside(self)._send_message(data)
        elif len(self._held) < _MOST_HELD:
            self._held.append(data)
        else:
            raise ProtocolError("too many requests during a key exchange")

    def _parse_newkeys(self, message: paramiko.Message) -> None:
        inside(super())._parse_newkeys(message)
        while self._held:
            inside(self)._send_message(self._held.popleft())

    def send_keepalive(self) -> None:
        """Send a keepalive that requests a reply, unless that would block.

        paramiko's own keepalive requests no reply, and so never detects a dead peer.
        """
        message = paramiko.Message()
        message.add_byte(_common.cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_if_it_can(message)

    def send_disconnect(self) -> None:
        """Send SSH_MSG_DISCONNECT (RFC 4253, 11.1), unless that would block."""
        self._send_if_it_can(_disconnect())

    def _send_if_it_can(self, message: paramiko.Message) -> None:
        # A thread that is blocked in sending holds this lock.
        if not self.clear_to_send_lock.acquire(blocking=False):
            return
        try:
            if self.clear_to_send.is_set() and self.packetizer.can_write():
                inside(self)._send_message(message)
        except EOFError:
            return
        finally:
            self.clear_to_send_lock.release()


class HostKeyTransport(Transport):
    """Only for `exchange_keys`: the connection ends after the key exchange, so no cipher in common is needed."""

    preferred_ciphers = algorithms.ANY_CIPHER
    preferred_macs = algorithms.ANY_MAC
    preferred_compression = algorithms.ANY_COMPRESSION

    def _activate_outbound(self) -> None:
        # The host key is verified, and nothing is encrypted yet.
        inside(self)._send_message(_disconnect())
        self.initial_kex_done = True
        raise Disconnected


def _disconnect() -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(_common.cMSG_DISCONNECT)
    message.add_int(_BY_APPLICATION)
    message.add_string("disconnected by user")
    message.add_string("")
    return message


_BY_APPLICATION = 11
