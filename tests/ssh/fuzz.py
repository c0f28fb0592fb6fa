"""Handshakes that go wrong at any byte of any packet: ``python -m tests.ssh.fuzz [COUNT [SEED]]`` (``make fuzz``).

Two kinds of server. One sends the beginning of a connection as an sshd would, and spoils it: cut off, silent, slow,
oversized, garbage. The other speaks SSH to the letter, up to and beyond the key exchange, and sends messages whose
contents are spoilt. Whatever it is, a login ends well or in an SshError, not much later than at its deadline.
"""

from __future__ import annotations

import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackctl.errors import SshError
from rackctl.ssh.connect import connect
from rackctl.ssh.deadline import Deadline
from rackctl.ssh.dial import Link
from rackctl.ssh.host_keys import HostKeyCheck, HostKeyFile
from rackctl.ssh.paramiko_patches import paramiko
from rackctl.ssh.reach import Target
from rackctl.ssh.session import Session
from tests.ssh.servers import Host

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE = 0.4
# Beyond the deadline: what closing takes, and a machine that is busy.
SLACK = 20.0


@dataclass
class Key:
    private_key: bytes
    key_name: str = "fuzzed"


@dataclass(frozen=True)
class Outcome:
    """The result of one input: empty, or the problem."""

    wrong: str
    said: str


class Fuzz:
    """Inputs made of numbers, so that each can be had again."""

    def __init__(self, directory: Path) -> None:
        for name in ("host", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / name], check=True
            )
        self.host_key = paramiko.Ed25519Key.from_private_key_file(str(directory / "host"))
        self.key = Key((directory / "key").read_bytes())
        self.check = HostKeyCheck("i-0f", HostKeyFile(directory), "off", console_output=str)

    def try_(self, seed: int) -> Outcome:
        """Connect, log in and run a command against the server that a number means."""
        chance = random.Random(seed)
        ours, theirs = socket.socketpair()
        serve: Callable[[socket.socket, random.Random], None] = chance.choice([self.raw, self.spoken])
        server = threading.Thread(target=self._guarded, args=(serve, theirs, chance), daemon=True)
        server.start()
        result: Future[str] = Future()

        def go() -> None:
            try:
                result.set_result(self._connect(ours))
            except BaseException as error:  # noqa: BLE001 - judged below
                result.set_exception(error)

        threading.Thread(target=go, daemon=True).start()
        try:
            said, wrong = result.result(DEADLINE + SLACK), ""
        except SshError as error:
            said, wrong = str(error), "" if error.exit_code == 255 else f"exit code {error.exit_code}"
        except TimeoutError:
            said, wrong = "", "it hangs"
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is wrong
            said, wrong = "", f"{type(error).__name__}: {error}"
        theirs.close()
        return Outcome(wrong, said)

    def _connect(self, sock: socket.socket) -> str:
        link: Future[Link] = Future()
        link.set_result(Link(sock))
        target = Target("i-0f", "127.0.0.1", 22, "user")
        with connect(target, [self.key], self.check, link=link, deadline=Deadline(DEADLINE, DEADLINE)) as made:
            session = Session(made, b"true", stdin=None, stdout=_ignore, stderr=_ignore)
            # After the login a server may be silent for as long as it likes.
            closing = threading.Timer(DEADLINE, made.close)
            closing.start()
            try:
                return str(session.wait())
            finally:
                closing.cancel()

    @staticmethod
    def _guarded(
        serve: Callable[[socket.socket, random.Random], None], sock: socket.socket, chance: random.Random
    ) -> None:
        with suppress(Exception):
            serve(sock, chance)

    # A server of bytes

    def raw(self, sock: socket.socket, chance: random.Random) -> None:
        pieces = [
            b"".join(
                bytes(chance.choices(range(256), k=chance.randrange(40))) + b"\n"
                for _ in range(chance.choice([0, 0, 3]))
            ),
            b"SSH-2.0-OpenSSH_9.9\r\n",
            _packet(_kexinit(chance)),
            _packet(b"\x1f" + _string(bytes(51)) + _string(bytes(32)) + _string(bytes(83))),
            _packet(b"\x15"),
            _garbage(chance, 200),
        ]
        which = chance.randrange(len(pieces))
        how = chance.choice(["cut", "silent", "flip", "garbage", "length", "drip", "repeat", "whole"])
        spoilt = pieces[which]
        if how in {"cut", "silent"}:
            spoilt = spoilt[: chance.randrange(len(spoilt) + 1)]
        elif how == "flip" and spoilt:
            changed = bytearray(spoilt)
            for _ in range(chance.randrange(1, 8)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            spoilt = bytes(changed)
        elif how == "garbage":
            spoilt = _garbage(chance, 3000)
        elif how == "length":
            spoilt = struct.pack(">I", chance.choice([0, 1, 4, 5, 12, 2**18 + 4, 2**31 - 12, 2**32 - 4])) + spoilt[4:]
        elif how == "repeat":
            spoilt *= chance.randrange(2, 2000)
        for piece in [*pieces[:which], spoilt]:
            if how == "drip":
                for byte in piece:
                    sock.sendall(bytes([byte]))
                    time.sleep(0.001)
            else:
                sock.sendall(piece)
        if how in {"cut", "repeat", "garbage"}:
            sock.close()
        elif how == "silent":
            time.sleep(DEADLINE * 3)
        else:
            sock.sendall(b"".join(pieces[which + 1 :]))
            time.sleep(chance.choice([0, DEADLINE * 3]))

    # A server of messages

    def spoken(self, sock: socket.socket, chance: random.Random) -> None:
        transport = paramiko.Transport(sock)
        transport.add_server_key(self.host_key)
        host = _Spoiling(chance)
        host.transport = transport
        transport.start_server(server=host)
        over = time.monotonic() + DEADLINE * 3
        kept = []
        while transport.is_active() and time.monotonic() < over:
            kept.append(transport.accept(0.05))
        transport.close()


class _Spoiling(Host):
    """Sends spoilt messages at one of three moments, and goes on as if nothing had been."""

    KINDS = (*range(1, 8), 20, 21, *range(30, 35), 50, 51, 52, 53, 60, 61, *range(80, 83), *range(90, 101), 0, 127, 255)

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.moment = chance.choice(["login", "open", "session"])

    def spoil(self, moment: str) -> None:
        if moment != self.moment:
            return
        for _ in range(self.chance.choice([1, 1, 3, 50])):
            message = paramiko.Message()
            message.add_byte(bytes([self.chance.choice(self.KINDS)]))
            message.add_bytes(self._contents())
            sender: Any = self.transport
            sender._send_message(message)

    def _contents(self) -> bytes:
        chance = self.chance
        fields = []
        for _ in range(chance.randrange(6)):
            kind = chance.randrange(5)
            if kind == 0:
                fields.append(struct.pack(">I", chance.choice([0, 1, 2, 255, 2**16, 2**31, 2**32 - 1])))
            elif kind == 1:
                words = [b"exit-status", b"exit-signal", b"publickey", b"eow@openssh.com", b"ssh-userauth", b"\xff\xfe"]
                fields.append(_string(chance.choice(words)))
            elif kind == 2:
                fields.append(_string(_garbage(chance, 300)))
            elif kind == 3:
                fields.append(bytes([chance.choice([0, 1, 255])]))
            else:
                # A string that says it is longer than it is.
                fields.append(struct.pack(">I", chance.choice([100, 2**20 + 1, 2**32 - 1])) + b"short")
        return b"".join(fields)

    def login(self) -> int:
        self.spoil("login")
        return super().login()

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.spoil("open")
        return super().check_channel_request(kind, chanid)

    def session(self, channel: paramiko.Channel) -> None:
        self.spoil("session")
        super().session(channel)


def _garbage(chance: random.Random, most: int) -> bytes:
    return bytes(chance.choices(range(256), k=chance.randrange(1, most)))


def _ignore(_: bytes) -> None:
    return


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _packet(payload: bytes) -> bytes:
    padding = 16 - (len(payload) + 5) % 8
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def _kexinit(chance: random.Random) -> bytes:
    kex = chance.choice(
        [b"curve25519-sha256", b"diffie-hellman-group-exchange-sha256", b"mlkem768x25519-sha256", b"none", b""]
    )
    lists = (kex, b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, b"none", b"none", b"", b"")
    return b"\x14" + bytes(16) + b"".join(map(_string, lists)) + bytes(5)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"{count} inputs from seed {first}")
    kinds: dict[str, int] = {}
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        fuzz = Fuzz(Path(directory))
        for seed in range(first, first + count):
            outcome = fuzz.try_(seed)
            if outcome.wrong:
                failed += 1
                print(f"seed {seed}: {outcome.wrong}")
            kind = outcome.said.partition(")")[2].partition(":")[0][:60] or outcome.said
            kinds[kind] = kinds.get(kind, 0) + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    for kind, times in sorted(kinds.items(), key=lambda item: -item[1])[:25]:
        print(f"{times:6}  {kind}")
    print(f"{failed} failed; peak memory {peak} MiB, with the servers in it")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
