"""Limits on data of a hostile server, before and after its host key is known: OpenSSH's."""

from __future__ import annotations

import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import SshError
from rackctl.ssh.connect import connect
from rackctl.ssh.deadline import Deadline
from rackctl.ssh.paramiko_patches import paramiko
from tests.ssh.servers import Host, hosting, in_front_of, serving
from tests.ssh.test_connect import Key, check_of, run, target_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

VERSION = b"SSH-2.0-OpenSSH_9.9\r\n"
MIB = 1 << 20


def flood(data: bytes, *before: bytes, most: int = 400 * MIB) -> Callable[[socket.socket], None]:
    """Make a server that sends on and on."""

    def send(sock: socket.socket) -> None:
        for piece in before:
            sock.sendall(piece)
        for _ in range(most // len(data)):
            sock.sendall(data)

    return send


FLOODS = {
    "packet of 2 GiB": (flood(bytes(MIB), VERSION, struct.pack(">I", 0x7FFFFFF4)), "a packet of invalid length"),
    "packet of 1 MiB": (flood(bytes(MIB), VERSION, struct.pack(">I", 0x00100004)), "a packet of invalid length"),
    "packet of no length": (flood(bytes(64), VERSION, bytes(4)), "cannot be read|blocking|a packet of invalid length"),
    "version without end": (flood(b"SSH-2.0-" + b"x" * MIB), "a line of more than 8,192 bytes"),
    "line without end": (flood(b"x" * MIB), "a line of more than 8,192 bytes"),
    "lines without end": (flood(b"hello\r\n" * 10_000), "1,024 lines without a version"),
    "text after the version": (
        flood(b"Host is down for maintenance until 17:00\r\n" * 1000, VERSION),
        "a packet of invalid length|blocking",
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_input_beyond_the_limits_before_the_host_key_is_refused(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    send, says = FLOODS[kind]
    with serving(send) as port, pytest.raises(SshError, match=says):
        connect(target_of(sshd, port=port), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path))


def test_endless_ignore_packets_end_at_the_deadline(sshd: Sshd, tmp_path: Path) -> None:
    payload = b"\x02" + struct.pack(">I", 30_000) + bytes(30_000)
    padding = 16 - (len(payload) + 5) % 8
    packet = struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)
    with serving(flood(packet, VERSION, most=1 << 40)) as port, pytest.raises(SshError, match="key exchange within"):
        connect(
            target_of(sshd, port=port),
            [Key(sshd.key.read_bytes())],
            check_of(sshd, tmp_path),
            deadline=Deadline(30, 0.5),
        )


class Extending(Host):
    """Announces four thousand million extensions, which paramiko would count through."""

    def login(self) -> int:
        self.send(paramiko.common.MSG_EXT_INFO, 0xFFFFFFFF)
        return super().login()


def test_a_huge_count_of_extensions_is_refused(sshd: Sshd, tmp_path: Path) -> None:
    with hosting(sshd, Extending) as server, pytest.raises(SshError, match="4,294,967,295 extensions"):
        connect(target_of(server), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path))


def test_a_changed_host_key_at_rekeying_ends_the_connection(sshd: Sshd, tmp_path: Path) -> None:
    class Changing(Host):
        def session(self, channel: paramiko.Channel) -> None:
            # Its thread would wait for new keys in sending its last answer.
            while not channel.eof_received:
                time.sleep(0.01)
            other = paramiko.ECDSAKey.from_private_key_file(str(sshd.directory / "host_ecdsa"))
            server: paramiko.Transport = self.transport
            server.server_key_dict.clear()
            server.add_server_key(other)
            server.renegotiate_keys()

    with (
        hosting(sshd, Changing) as server,
        connect(target_of(server), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made,
        pytest.raises(SshError, match="a different host key than at first"),
    ):
        run(made, "true")


class Storming(Host):
    """Sends requests that every client refuses, by the thousand, and then an exit status."""

    def session(self, channel: paramiko.Channel) -> None:
        for number in range(1000):
            self.send(paramiko.common.MSG_GLOBAL_REQUEST, f"evil{number}@example.com", True)
            self.send(paramiko.common.MSG_CHANNEL_OPEN, "x11", 1000 + number, 2**21, 2**15, "192.0.2.1", 5)
            # paramiko's server would close the channel if one that wants a reply were refused.
            self.request(channel, "evil\x1b[31m")
            self.request(channel, "eow@openssh.com")
        self.request(channel, "exit-status", 5)


def test_thousands_of_requests_are_refused_and_the_command_keeps_its_status(cli: CommandLine) -> None:
    with hosting(cli.server, Storming) as server:
        ran = cli.at(server).ssh("true")

    assert (ran.returncode, ran.stdout, ran.stderr) == (5, b"", b"")


class Beyond(Host):
    """Sends on without being granted more, until the connection is closed."""

    is_over = threading.Event()

    def session(self, channel: paramiko.Channel) -> None:
        try:
            while self.transport.is_active():
                self.send(paramiko.common.MSG_CHANNEL_DATA, channel.remote_chanid, bytes(32_000))
        finally:
            self.is_over.set()


class Shouting(Host):
    """Sends more before the login than any client reads."""

    def login(self) -> int:
        for _ in range(20):
            self.banner("B" * 200_000 + "\n")
        return super().login()


def peak_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, and give the most memory that it had, in MiB."""
    peak = 0
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        with suppress(OSError, ProcessLookupError):
            lines = status.read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    return peak // 1024


def test_a_server_that_exceeds_its_window_is_disconnected(cli: CommandLine) -> None:
    with hosting(cli.server, Beyond) as server:
        process = cli.at(server).popen("yes", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # The connection is closed before anything was read.
        assert Beyond.is_over.wait(60)
    assert process.stdout
    assert process.stderr
    with process.stdout as output, process.stderr as said:
        output.read()
        peak, told = peak_of(process), said.read()

    assert process.returncode == 255
    assert b"more than the window" in told
    assert peak < 100


@pytest.mark.parametrize("kind", ["packet of 2 GiB", "version without end", "lines without end"])
def test_memory_and_status_under_a_flood(cli: CommandLine, kind: str) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's peak memory while it runs")
    with serving(FLOODS[kind][0]) as port:
        process = cli.popen("true", instance={"port": port}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        peak = peak_of(process)
        assert process.stderr
        with process.stderr as said:
            told = said.read()

    assert process.returncode == 255
    assert told.startswith(b"rackctl: ")
    assert b"Traceback" not in told
    assert peak < 100


def test_memory_under_long_banners(cli: CommandLine) -> None:
    with hosting(cli.server, Shouting) as server:
        process = cli.at(server).popen("true", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert peak_of(process) < 100
    assert process.returncode == 0


def test_openssh_refuses_the_same_floods(sshd: Sshd) -> None:
    for kind in ("packet of 2 GiB", "version without end", "lines without end"):
        with in_front_of(sshd, greet=FLOODS[kind][0]) as server:
            ran = subprocess.run(server.ssh("true"), capture_output=True, check=False, timeout=60)
        assert ran.returncode == 255
