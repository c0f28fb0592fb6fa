"""The undocumented parts of paramiko that rackctl relies on. A failure here means that paramiko has changed."""

from __future__ import annotations

import inspect
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from rackctl.ssh import paramiko_patches
from rackctl.ssh.arrivals import Stream
from rackctl.ssh.connect import Connection, connect
from rackctl.ssh.paramiko_patches import HostKeyTransport, ProtocolError, Transport, load_private_key
from rackctl.ssh.paramiko_patches.packetizer import LONGEST_LINE, LONGEST_PACKET, Packetizer
from rackctl.ssh.session import Session
from tests.ssh.test_connect import Key, check_of, ignore, run, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ssh.sshd import Sshd


@pytest.fixture
def connection(sshd: Sshd, tmp_path: Path) -> Iterator[Connection]:
    with connect(target_of(sshd), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made:
        yield made


def test_paramiko_has_a_tested_version() -> None:
    assert paramiko.__version__.split(".")[:2] == ["5", "1"], "run tests/ssh and benchmarks/ssh.py, then name it here"


def test_importing_leaves_invoke_out_and_importable() -> None:
    script = "import sys, rackctl.ssh.session; print('invoke' in sys.modules); import invoke; print(invoke.__name__)"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert result.stdout == "False\ninvoke\n"


def test_most_modules_of_ssh_do_not_import_paramiko() -> None:
    modules = ("rackctl.cli.ssh", *(f"rackctl.ssh.{name}" for name in ("reach", "host_keys", "terminal", "dial")))
    check = "assert 'paramiko' not in sys.modules and 'boto3' not in sys.modules"

    subprocess.run([sys.executable, "-c", f"import sys, {', '.join(modules)}; {check}"], check=True)


def test_the_private_names_in_use_exist(connection: Connection) -> None:
    transport: Any = connection.transport
    channel: Any = transport.open_session()

    for name in ("_channel_handler_table", "_kex_info", "_send_message", "clear_to_send", "clear_to_send_lock"):
        assert hasattr(transport, name)
    for name in ("_check_add_window", "_event_pending", "_handle_request", "event_ready"):
        assert hasattr(channel, name)


def test_the_overridden_methods_have_paramikos_signatures() -> None:
    for ours, theirs, names in (
        (Packetizer, paramiko.packet.Packetizer, ("read_all", "write_all", "start_handshake", "complete_handshake")),
        (
            Transport,
            paramiko.Transport,
            (
                "_check_banner",
                "_parse_channel_open_failure",
                "_parse_disconnect",
                "_parse_ext_info",
                "_parse_kex_init",
                "_parse_newkeys",
                "_send_user_message",
                "_verify_key",
                "get_exception",
            ),
        ),
        (HostKeyTransport, paramiko.Transport, ("_activate_outbound",)),
    ):
        for name in names:
            parameters = [inspect.signature(getattr(one, name)).parameters for one in (ours, theirs)]
            assert len(parameters[0]) == len(parameters[1])
    for name in ("feed", "close"):
        assert hasattr(paramiko.buffered_pipe.BufferedPipe, name)
        assert hasattr(Stream, name)


def test_channels_use_their_buffers_by_known_names() -> None:
    source = inspect.getsource(paramiko.Channel)

    used = {part.split("(")[0] for part in source.split(".in_buffer.")[1:]}
    # set_event serves fileno(), and read_ready and read serve recv(), which are not used here.
    assert used == {"read_ready", "read", "feed", "close", "set_event"}


def test_the_preferred_algorithms_are_negotiated(connection: Connection) -> None:
    transport: Any = connection.transport

    assert transport.local_cipher == transport.remote_cipher == "aes128-gcm@openssh.com"
    assert transport.get_security_options().kex[:2] == ("mlkem768x25519-sha256", "curve25519-sha256")
    assert transport.host_key_type == "ssh-ed25519"


def test_rekeying_limits_are_those_of_openssh(connection: Connection) -> None:
    assert connection.transport.packetizer.REKEY_BYTES == 2**36
    assert connection.transport.packetizer.REKEY_PACKETS == 2**31


@pytest.fixture
def counted(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> tuple[Connection, list[str]]:
    """A connection that asks for new keys after 4 MiB of its own accord, and how often there were new ones."""
    rekeyed: list[str] = []
    transport = connection.transport
    monkeypatch.setattr(transport.packetizer, "REKEY_BYTES", 4 << 20)
    agreed = transport._parse_newkeys

    def count(message: paramiko.Message) -> None:
        rekeyed.append("new keys")
        agreed(message)

    handlers: Any = transport
    monkeypatch.setitem(handlers._handler_table, paramiko.common.MSG_NEWKEYS, count)
    return connection, rekeyed


def test_rekeying_by_the_client_while_the_channel_closes(counted: tuple[Connection, list[str]]) -> None:
    # paramiko #822: its own thread waits for the new keys that it would have to receive.
    connection, rekeyed = counted
    for extra in (0, 1, 32_768, 100_000, 0, 0):
        session = Session(
            connection, f"head -c {(4 << 20) + extra} /dev/zero".encode(), stdin=None, stdout=ignore, stderr=ignore
        )
        assert session.wait() == 0
    assert len(rekeyed) >= 4


def test_messages_of_the_transports_thread_wait_for_new_keys() -> None:
    ours, theirs = socket.socketpair()
    sent: list[bytes] = []

    class Watched(Transport):
        def _send_message(self, message: paramiko.Message) -> None:
            sent.append(message.asbytes())

        def run(self) -> None:
            hello = paramiko.Message()
            hello.add_string("hello")
            self._send_user_message(hello)
            self.finished_without_waiting = not sent
            self.clear_to_send.set()
            self._send_user_message(hello)

    with theirs:
        transport = Watched(ours)
        transport.start()
        transport.join(10)
        assert not transport.is_alive()
        assert transport.finished_without_waiting
        assert len(sent) == 1
        ours.close()


def test_a_packet_may_end_anywhere_in_a_read() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(0.1)
    data = os.urandom(1 << 20)

    def send() -> None:
        with theirs:
            theirs.sendall(data)

    threading.Thread(target=send, daemon=True).start()
    packetizer = Packetizer(ours)
    got = bytearray()
    step = 0
    while len(got) < len(data):
        step += 1
        got += packetizer.read_all(min(1 + step * 997 % 40_000, len(data) - len(got)))
    with pytest.raises(EOFError):
        packetizer.read_all(1)
    ours.close()

    assert got == data


def test_data_after_a_line_is_read_next() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"hello\nSSH-2.0-x\r\nnext")
        packetizer = Packetizer(ours)
        assert packetizer.read_line() == b"hello"
        assert packetizer.read_line() == b"SSH-2.0-x"
        theirs.sendall(b" and more")
        assert packetizer.read_all(8) == b"next and"
        assert packetizer.read_all(5) == b" more"
        ours.close()


def test_long_lines_and_packets_are_refused_unread() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        theirs.sendall(bytes(LONGEST_LINE))
        packetizer = Packetizer(ours)
        with pytest.raises(ProtocolError, match="a line of more than 8,192 bytes"):
            packetizer.read_line()
        for length in (LONGEST_PACKET + 1, 0x7FFFFFF4, -1):
            with pytest.raises(ProtocolError, match="above 262,144"):
                packetizer.read_all(length)


def test_exit_signal_and_eow_reach_the_session(connection: Connection) -> None:
    assert run(connection, "kill -HUP $$").status == 129


def test_no_traceback_of_paramiko_reaches_stderr() -> None:
    logger = logging.getLogger("paramiko")

    assert not logger.propagate
    assert logger.handlers
    assert not logger.isEnabledFor(logging.CRITICAL)
    assert paramiko_patches.paramiko is paramiko


def test_private_keys_are_loaded_from_memory() -> None:
    def pem(key: Any, form: serialization.PrivateFormat = serialization.PrivateFormat.OpenSSH) -> bytes:
        encoded: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return encoded

    rsa_key, ecdsa_key = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())

    assert load_private_key(pem(rsa_key)).get_name() == "ssh-rsa"
    assert load_private_key(pem(ecdsa_key)).get_name() == "ecdsa-sha2-nistp256"
    for unusable in (b"", b"garbage", pem(rsa_key, serialization.PrivateFormat.PKCS8)):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the caller says more
            load_private_key(unusable)
