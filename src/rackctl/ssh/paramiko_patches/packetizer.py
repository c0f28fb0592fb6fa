"""Packets read from the socket in large pieces, within size limits and a deadline."""

from __future__ import annotations

import select
import socket
import sys
from typing import TYPE_CHECKING

from rackctl.ssh.paramiko_patches.library import DeadlineReached, ProtocolError, paramiko

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from rackctl.ssh.arrivals import Stream
    from rackctl.ssh.deadline import Deadline

_READ = 256 * 1024

# OpenSSH's limits (packet.c and kex.c); most apply before the host key is known.
LONGEST_PACKET = 256 * 1024
LONGEST_LINE = 8192


class Packetizer(paramiko.packet.Packetizer):
    """Reads the socket in large pieces; paramiko reads twice a packet."""

    # paramiko requests new keys after 512 MiB, and deadlocks if the channel closes meanwhile (paramiko #822). These are
    # OpenSSH's limits for AES: 2^32 blocks and 2^31 packets (RFC 4344, 3.2). The server may request new keys sooner.
    REKEY_BYTES = 2**36
    REKEY_PACKETS = 2**31

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._sock = sock
        self._received = memoryview(b"")
        self._acknowledge_at_once = sys.platform == "linux" and sock.family in {socket.AF_INET, socket.AF_INET6}
        # Until the login.
        self.deadline: Deadline | None = None
        # Streams that were fed since their readers were last notified.
        self.fed: list[Stream] = []
        # How often the peer proved to be alive: it sent data, or accepted data again after a while.
        self.signs_of_life = 0

    def allow_delayed_acks(self) -> None:
        """Let the kernel delay acknowledgements again, once the command runs."""
        self._acknowledge_at_once = False

    # paramiko's timer ends with the first packet of the key exchange; the deadline covers everything.

    def start_handshake(self, timeout: float) -> None:  # noqa: ARG002 - paramiko's signature
        return

    def complete_handshake(self) -> None:
        return

    def read_line(self) -> bytes:
        """Read a line without its end."""
        while (end := bytes(self._received[:LONGEST_LINE]).find(b"\n")) < 0:
            if len(self._received) >= LONGEST_LINE:
                raise ProtocolError(f"a line of more than {LONGEST_LINE:,} bytes")
            self._received = memoryview(bytes(self._received) + self._receive(check_rekey=False))
        line, self._received = bytes(self._received[:end]), self._received[end + 1 :]
        return line.removesuffix(b"\r")

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if not 0 <= n <= LONGEST_PACKET:
            raise ProtocolError(f"a packet of invalid length, below 0 or above {LONGEST_PACKET:,} bytes")
        if n <= len(self._received):
            taken, self._received = self._received[:n], self._received[n:]
            return bytes(taken)
        if not self._received:
            self._received = memoryview(self._receive(check_rekey=check_rekey))
        pieces = [self._received]
        missing = n - len(self._received)
        while missing > 0:
            pieces.append(memoryview(self._receive(check_rekey=False)))
            missing -= len(pieces[-1])
        last = pieces[-1]
        pieces[-1], self._received = last[: len(last) + missing], last[len(last) + missing :]
        return b"".join(pieces)

    def _receive(self, *, check_rekey: bool) -> bytes:
        # A reader that is notified of each packet would take the interpreter lock from this thread, which decrypts the
        # next.
        while self.fed:
            self.fed.pop().notify_reader()
        while True:
            self._check_deadline()
            if self._acknowledge_at_once:
                # A server without TCP_NODELAY holds back its next packet until the last one is acknowledged.
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            try:
                received = self._sock.recv(_READ)
            except TimeoutError:
                # The socket has a timeout of 0.1 s, so that this thread can check whether it should end.
                if self.closed:
                    raise EOFError from None
                if check_rekey and self.need_rekey():
                    raise paramiko.packet.NeedRekeyException from None
                continue
            except OSError:
                if self.closed:
                    raise EOFError from None
                raise
            if not received:
                raise EOFError
            self.signs_of_life += 1
            if self.deadline:
                self.deadline.received()
            return received

    def _check_deadline(self) -> None:
        if self.deadline and self.deadline.left <= 0:
            raise DeadlineReached

    def write_all(self, out: Buffer) -> None:
        left = memoryview(out)
        waited = False
        while left:
            try:
                sent = self._sock.send(left)
            except TimeoutError:
                if self.closed:
                    raise EOFError from None
                self._check_deadline()
                waited = True
                continue
            except OSError:
                raise EOFError from None
            self.signs_of_life += waited
            left = left[sent:]

    def can_write(self) -> bool:
        """Return whether a small packet can be sent without blocking."""
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLOUT)
        except ValueError:
            return False
        return bool(poll.poll(0))
