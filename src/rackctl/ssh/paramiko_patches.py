# ruff: noqa: SLF001 - private members of paramiko are what this module is about
"""Whatever reaches below paramiko's documented surface, each with its reason.

Tested with paramiko 5.1.0; tests/ssh/test_paramiko_patches.py fails when what is relied on here has changed.
"""

from __future__ import annotations

import io
import logging
import os
import select
import socket
import sys
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer


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
    from paramiko import packet
    from paramiko.auth_handler import AuthHandler
    from paramiko.common import (
        MSG_CHANNEL_REQUEST,
        cMSG_CHANNEL_REQUEST,
        cMSG_DISCONNECT,
        cMSG_GLOBAL_REQUEST,
    )

__all__ = ["Transport", "load_private_key", "open_session", "paramiko", "request_pty", "send_eow", "send_signal"]

# paramiko logs tracebacks of what it also raises, and a logger without a handler prints them on stderr.
_LOGGER = logging.getLogger("paramiko")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False
_LOGGER.setLevel(logging.CRITICAL + 1)

_READ = 256 * 1024

# curve25519 is the quickest exchange; its hybrid with ML-KEM costs hardly more, and what it protects stays secret.
_KEX = (
    "mlkem768x25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
)
# paramiko prefers CTR with an HMAC: 24 µs of hashing for each 32 KiB, where GCM takes 4 µs in all.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)


class Packetizer(packet.Packetizer):
    """Reads the socket in large pieces, where paramiko asks the kernel twice a packet."""

    # paramiko asks for new keys after 512 MiB, and deadlocks when the channel closes meanwhile (paramiko #822). These
    # are OpenSSH's limits for AES: 2^32 blocks and 2^31 packets (RFC 4344, 3.2). The server may ask sooner.
    REKEY_BYTES = 2**36
    REKEY_PACKETS = 2**31

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._sock = sock
        self._received = memoryview(b"")
        self._acknowledge_at_once = sys.platform == "linux" and sock.family in {socket.AF_INET, socket.AF_INET6}
        # Streams that have been fed since their readers were last told.
        self.fed: list[Stream] = []
        # How often the peer was seen to be there: it sent something, or took something after it had not for a while.
        self.signs_of_life = 0

    def stop_hurrying(self) -> None:
        """Let the kernel delay acknowledgements again: what is left is bulk, or typed by a person."""
        self._acknowledge_at_once = False

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n <= len(self._received):
            taken, self._received = self._received[:n], self._received[n:]
            return bytes(taken)
        if not self._received:
            self._received = memoryview(self._left_by_readline() or self._receive(check_rekey=check_rekey))
        pieces = [self._received]
        missing = n - len(self._received)
        while missing > 0:
            pieces.append(memoryview(self._receive(check_rekey=False)))
            missing -= len(pieces[-1])
        last = pieces[-1]
        pieces[-1], self._received = last[: len(last) + missing], last[len(last) + missing :]
        return b"".join(pieces)

    def _left_by_readline(self) -> bytes:
        # Packetizer.readline, which reads the peer's version, reads on beyond it and keeps that.
        left: bytes = self._Packetizer__remainder  # type: ignore[has-type]
        self._Packetizer__remainder = b""
        return left

    def _receive(self, *, check_rekey: bool) -> bytes:
        # A reader that is told of each packet takes the interpreter from the thread that decrypts the next.
        while self.fed:
            self.fed.pop().tell_reader()
        while True:
            if self.handshake_timed_out():
                raise EOFError
            if self._acknowledge_at_once:
                # A server that has not set TCP_NODELAY holds its next packet back until the last is acknowledged.
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                received = self._sock.recv(_READ)
            except TimeoutError:
                # The transport's socket has a timeout of 0.1 s, so that its thread looks around now and then.
                if self.closed:
                    raise EOFError from None
                if check_rekey and self.need_rekey():
                    raise packet.NeedRekeyException from None
                continue
            except OSError:
                if self.closed:
                    raise EOFError from None
                raise
            if not received:
                raise EOFError
            self.signs_of_life += 1
            return received

    def write_all(self, out: Buffer) -> None:
        left = memoryview(out)
        waited = False
        while left:
            try:
                sent = self._sock.send(left)
            except TimeoutError:
                if self.closed:
                    raise EOFError from None
                waited = True
                continue
            except OSError:
                raise EOFError from None
            self.signs_of_life += waited
            left = left[sent:]

    def can_write(self) -> bool:
        """Tell whether a small packet would go out without waiting."""
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLOUT)
        except ValueError:
            return False
        return bool(poll.poll(0))


def _inside(thing: object) -> Any:
    """Look at an object of paramiko's without the face that its type stubs show."""
    return thing


class Transport(paramiko.Transport):
    """paramiko's transport, which never waits for itself, and which hears what servers say about their sessions."""

    packetizer: Packetizer

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, packetizer_class=Packetizer)
        # The peer's being alive is the keepalive's to judge; a new key behind 8 MiB of data can take a while.
        self.clear_to_send_timeout = float("inf")
        self._held: deque[paramiko.Message] = deque()
        self._channel_handler_table = {
            **_inside(paramiko.Transport)._channel_handler_table,
            MSG_CHANNEL_REQUEST: self._hear_channel_request,
        }
        self._listeners: dict[int, Callable[[str, str], None]] = {}
        options = self.get_security_options()
        options.kex = tuple(name for name in _KEX if name in _inside(self)._kex_info)
        options.ciphers = _CIPHERS
        options.digests = _MACS

    def listen(self, channel: paramiko.Channel, listener: Callable[[str, str], None]) -> None:
        """Have ``listener(request, argument)`` called, by the transport's thread, for what paramiko drops.

        That is ``exit-signal`` with the signal's name (RFC 4254, 6.10), and ``eow@openssh.com`` when the command
        reads no more (OpenSSH's PROTOCOL, 2.1).
        """
        self._listeners[channel.get_id()] = listener

    def _hear_channel_request(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        kind = message.get_text()
        listener = self._listeners.get(channel.get_id())
        if listener and kind in {"exit-signal", "eow@openssh.com"}:
            message.get_boolean()
            listener(kind, message.get_text() if kind == "exit-signal" else "")
            return
        message.rewind()
        message.get_int()
        _inside(channel)._handle_request(message)

    def _send_user_message(self, data: paramiko.Message) -> None:
        # Of all threads this one may not wait for the new keys, since it is the one that would receive them.
        if threading.current_thread() is not self:
            _inside(super())._send_user_message(data)
        elif self.clear_to_send.is_set():
            _inside(self)._send_message(data)
        else:
            self._held.append(data)

    def _parse_newkeys(self, message: paramiko.Message) -> None:
        _inside(super())._parse_newkeys(message)
        while self._held:
            _inside(self)._send_message(self._held.popleft())

    def log_in(self, user: str, key: paramiko.PKey) -> Refusal | None:
        """Log in with a key; give what the server said if it refused. Raises what paramiko raises for all else."""
        done = threading.Event()
        self.auth_handler = login = _Login(self)
        try:
            login.auth_publickey(user, key, done)
            login.wait_for_response(done)
        except paramiko.AuthenticationException:
            if login.refusal is None:
                raise
        return login.refusal

    def ask_alive(self) -> None:
        """Ask the peer for an answer, any answer; skip it where that would mean waiting.

        paramiko's own keepalive wants no reply, so that nothing is ever missed.
        """
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_if_it_can(message)

    def say_goodbye(self) -> None:
        """Tell the peer that this connection ends on purpose (RFC 4253, 11.1), where that would not mean waiting."""
        message = paramiko.Message()
        message.add_byte(cMSG_DISCONNECT)
        message.add_int(_BY_APPLICATION)
        message.add_string("disconnected by user")
        message.add_string("")
        self._send_if_it_can(message)

    def _send_if_it_can(self, message: paramiko.Message) -> None:
        # Somebody who is held up in sending has this lock.
        if not self.clear_to_send_lock.acquire(blocking=False):
            return
        try:
            if self.clear_to_send.is_set() and self.packetizer.can_write():
                _inside(self)._send_message(message)
        except EOFError:
            return
        finally:
            self.clear_to_send_lock.release()


_BY_APPLICATION = 11


@dataclass(frozen=True, slots=True)
class Refusal:
    """What USERAUTH_FAILURE said (RFC 4252, 5.1): ways to go on, and whether the key itself was accepted."""

    methods: tuple[str, ...]
    partial_success: bool


class _Login(AuthHandler):
    """paramiko's login, which does not tell a refusal from a timeout or a lost connection."""

    refusal: Refusal | None = None

    def _parse_userauth_failure(self, message: paramiko.Message) -> None:
        methods = message.get_string().decode("utf-8", "replace").split(",")
        self.refusal = Refusal(tuple(methods), partial_success=message.get_boolean())
        message.rewind()
        _inside(super())._parse_userauth_failure(message)


class Stream:
    """One stream's received data; stands in for paramiko's BufferedPipe.

    That one keeps an array, from whose front each read moves all the rest down. This one's reader is told what is
    there when nothing more can be had without waiting for the network.
    """

    def __init__(self, fed: list[Stream]) -> None:
        self._ready = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._closed = False
        self._fed = fed

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        if self not in self._fed:
            self._fed.append(self)

    def tell_reader(self) -> None:
        with self._ready:
            self._ready.notify()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """Wait for data and give up to so many bytes, whole pieces where they fit; empty at the end."""
        with self._ready:
            while not self._pieces and not self._closed:
                if not self._ready.wait(timeout):
                    raise TimeoutError
            taken: list[bytes] = []
            left = nbytes
            while self._pieces and len(self._pieces[0]) <= left:
                taken.append(self._pieces.popleft())
                left -= len(taken[-1])
            if self._pieces and not taken:
                first = self._pieces.popleft()
                taken.append(first[:nbytes])
                self._pieces.appendleft(first[nbytes:])
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def read_ready(self) -> bool:
        return bool(self._pieces)

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def __len__(self) -> int:
        with self._ready:
            return sum(map(len, self._pieces))


def open_session(transport: Transport, window: int, listener: Callable[[str, str], None]) -> paramiko.Channel:
    """Open a session's channel with a window of so many bytes. Raises what paramiko raises."""
    channel = transport.open_session(window_size=window)
    # Nothing is received on a session before its command or shell is asked for.
    channel.in_buffer = Stream(transport.packetizer.fed)  # type: ignore[assignment]
    channel.in_stderr_buffer = Stream(transport.packetizer.fed)  # type: ignore[assignment]
    transport.listen(channel, listener)
    return channel


def request_pty(channel: paramiko.Channel, term: str, size: tuple[int, int, int, int], modes: bytes) -> None:
    """Ask for a PTY of columns, rows, and both in pixels, with encoded modes, which paramiko leaves out."""
    message = _channel_request(channel, "pty-req", reply=True)
    message.add_string(os.fsencode(term))
    for number in size:
        message.add_int(number)
    message.add_string(modes)
    _inside(channel)._event_pending()
    _inside(channel).transport._send_user_message(message)
    _inside(channel)._wait_for_event()


def send_eow(channel: paramiko.Channel) -> None:
    """Tell an OpenSSH server that nobody reads the session's output any more."""
    message = _channel_request(channel, "eow@openssh.com", reply=False)
    _inside(channel).transport._send_user_message(message)


def send_signal(channel: paramiko.Channel, name: str) -> None:
    """Have the server send a signal to the session's processes, by its name without SIG (RFC 4254, 6.9)."""
    message = _channel_request(channel, "signal", reply=False)
    message.add_string(name)
    _inside(channel).transport._send_user_message(message)


def _channel_request(channel: paramiko.Channel, kind: str, *, reply: bool) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(kind)
    message.add_boolean(reply)
    return message


def load_private_key(openssh_pem: bytes) -> paramiko.PKey:
    """Load an unencrypted private key in OpenSSH's format.

    An RSA key is not checked for being made of primes, which takes a quarter of a second at 4,096 bits: it was made
    by rackctl, and KMS has authenticated it. Raises ValueError for what is no such key.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key: Any = load_ssh_private_key(openssh_pem, None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, RSAPrivateKey):
            return paramiko.RSAKey(key=key)
        return paramiko.Ed25519Key(file_obj=io.StringIO(openssh_pem.decode("ascii")))
    except (paramiko.SSHException, TypeError) as error:
        raise ValueError(str(error)) from error
