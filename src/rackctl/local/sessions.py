"""The SSH server of an instance: authentication, and the streams of each session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import asyncssh
from asyncssh.stream import SSHServerStreamSession

from rackctl.local import processes
from rackctl.local.processes import Started, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from asyncssh.packet import SSHPacket

    from rackctl.local.world import Host

USER: Final = "ec2-user"
_WINDOW: Final = 2 * 2**20
_PACKET: Final = 32768
# Seconds for which a terminal's last output may arrive after the end of its process.
_LINGER: Final = 0.1
_FORWARDED: Final = frozenset({"LANG", "TERM", "COLORTERM", "NO_COLOR"})


class Machine(Protocol):
    """The machine of an SSH server."""

    host: Host
    home: Path
    is_gone: bool
    connections: set[asyncssh.SSHServerConnection]

    def start(
        self, command: bytes | None, environment: Mapping[str, str], terminal: Terminal | None, peer: tuple[str, int]
    ) -> Started:
        """Start a login shell, or a command in a shell. Raises OSError."""

    def greeting(self, peer: str) -> str:
        """Return the text that a login shell begins with."""

    def furnish(self) -> None:
        """Create the home directory and the instance's own commands, once."""


class Server(asyncssh.SSHServer):
    """One connection: authentication."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._machine.connections.add(conn)
        if self._machine.is_gone:
            conn.abort()  # accepted while the host was stopping

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's name
        if self._connection is not None:
            self._machine.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - every user must authenticate
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        authorized = self._machine.host.authorized_key
        return (
            username == USER
            and bool(authorized)
            and key.public_data == asyncssh.import_public_key(authorized).public_data
        )

    def session_requested(self) -> tuple[_Channel, _Session]:
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        channel = _Channel(self._connection, loop, True, False, False, 0, 0, None, "strict", _WINDOW, _PACKET)
        return channel, _Session(self._machine)


class _Channel(asyncssh.SSHServerChannel[bytes]):
    """A session channel, with behaviour of OpenSSH's server that asyncssh lacks.

    The methods' names are asyncssh's undocumented ones for handlers of requests; if they change, a test for each fails.
    """

    _session: Any

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Accept a command of any bytes: asyncssh rejects one that is not UTF-8."""
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command=command.decode("utf-8", "surrogateescape"))

    def _process_subsystem_request(self, packet: SSHPacket) -> bool:
        self._session = SSHServerStreamSession(None, self._session.file_server, sftp_version=3)
        self._session.connection_made(self)
        return super()._process_subsystem_request(packet)

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        """Handle eow@openssh.com: the client reads no more (OpenSSH's PROTOCOL, section 2.1)."""
        packet.check_end()
        self._session.reader_gone()
        return True

    def tell_end_of_write(self) -> None:
        """Send eow@openssh.com: the process has closed its standard input."""
        self._send_request(b"eow@openssh.com")


class _Session(asyncssh.SSHServerSession[bytes]):
    """A shell or a command: forwards its streams and its exit status."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._terminal: Terminal | None = None
        self._pid = 0
        self._ended: int | None = None
        self._over = False
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: dict[_Output, asyncio.ReadTransport] = {}
        self._connected = False
        self._paused = False
        self._early: list[bytes] = []
        self._early_eof = False
        self._told_end = False

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = cast("_Channel", chan)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's name
        """Close this end of the streams; as with OpenSSH, the process gets SIGHUP from its terminal, or SIGPIPE."""
        self._over = True
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.abort()
        for transport in self._outputs.values():
            transport.close()

    def file_server(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return _Files(channel, self._machine)

    # Requests of the client

    def pty_requested(self, term_type: str, term_size: Sequence[int], term_modes: Mapping[int, int]) -> bool:
        self._terminal = Terminal(term_type, term_size[0], term_size[1], dict(term_modes))
        return True

    def shell_requested(self) -> bool:
        return self._begin(None)

    def exec_requested(self, command: str) -> bool:
        return self._begin(command.encode("utf-8", "surrogateescape"))

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:  # noqa: ARG002
        if self._terminal is not None and self._stdin is not None:
            processes.resize(self._stdin.get_extra_info("pipe").fileno(), width, height)

    def signal_received(self, signal: str) -> None:
        number = getattr(signals, f"SIG{signal}", None)
        if number is not None and self._pid and self._ended is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the process is just ending
                os.killpg(self._pid, number)

    def break_received(self, msec: int) -> bool:  # noqa: ARG002 - asyncssh's name
        return False

    # From the client to the process

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002 - asyncssh's name
        if self._stdin is None:
            self._early.append(data)
        elif not self._stdin.is_closing():
            self._stdin.write(data)
        elif not self._told_end and not self._channel.is_closing():
            self._told_end = True
            self._channel.tell_end_of_write()

    def eof_received(self) -> bool:
        if self._stdin is None:
            self._early_eof = True
        elif self._terminal is None:
            self._stdin.close()
        return True  # keep the other direction open

    def reader_gone(self) -> None:
        for output, transport in self._outputs.items():
            if output.datatype is None and self._terminal is None:
                transport.close()

    # From the process to the client

    def pause_writing(self) -> None:
        self._paused = True
        for transport in self._outputs.values():
            if not transport.is_closing():
                transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        for transport in self._outputs.values():
            if not transport.is_closing():
                transport.resume_reading()

    def output(self, data: bytes, datatype: int | None) -> None:
        if not self._channel.is_closing():
            self._channel.write(data, datatype)

    def output_ended(self, output: _Output) -> None:
        self._outputs.pop(output, None)
        # The first stream may have ended before the second is connected.
        if self._connected and not self._outputs:
            self._all_outputs_ended()

    def _all_outputs_ended(self) -> None:
        if self._ended is None and not self._channel.is_closing():
            self._channel.write_eof()
        self._finish()

    # The process

    def _begin(self, command: bytes | None) -> bool:
        environment = {
            name: value
            for name, value in self._channel.get_environment().items()
            if name in _FORWARDED or name.startswith("LC_")
        }
        peer = self._channel.get_extra_info("peername") or ("127.0.0.1", 0)
        try:
            started = self._machine.start(command, environment, self._terminal, peer[:2])
        except OSError as error:
            sys.stderr.write(f"cannot start a process on {self._machine.host.ec2_instance_id}: {error}\n")
            return False
        self._pid = started.process.pid
        if command is None and self._terminal is not None:
            self._channel.write(self._machine.greeting(peer[0]).replace("\n", "\r\n").encode())
        self._loop.create_task(self._connect(started)).add_done_callback(_raise)
        return True

    async def _connect(self, started: Started) -> None:
        for descriptor, datatype in ((started.stdout, None), (started.stderr, asyncssh.EXTENDED_DATA_STDERR)):
            if descriptor is not None:
                output = _Output(self, datatype)
                transport, _ = await self._loop.connect_read_pipe(_giving(output), os.fdopen(descriptor, "rb", 0))
                self._outputs[output] = transport
                if self._paused:
                    transport.pause_reading()
        self._connected = True
        if not self._outputs:
            self._all_outputs_ended()
        writer, _ = await self._loop.connect_write_pipe(lambda: _Input(self), os.fdopen(started.stdin, "wb", 0))
        self._stdin = writer
        for data in self._early:
            writer.write(data)
        if self._early_eof:
            self.eof_received()
        threading.Thread(target=self._wait, args=(started,), daemon=True).start()
        if self._over:
            # The connection was lost meanwhile.
            self.connection_lost(None)

    def _wait(self, started: Started) -> None:
        status = started.process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._process_ended, status)

    def _process_ended(self, status: int) -> None:
        self._ended = status
        if self._terminal is not None:
            # Background jobs may keep the terminal open; wait only for the output of the process itself.
            self._loop.call_later(_LINGER, self._hang_up)
        self._finish()

    def _hang_up(self) -> None:
        if self._paused:
            self._loop.call_later(_LINGER, self._hang_up)
        else:
            for transport in self._outputs.values():
                transport.close()

    def pause_input(self) -> None:
        self._channel.pause_reading()

    def resume_input(self) -> None:
        # Not now: the input may end next, and asyncio's pipe must not be closed within its own callback.
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._channel.is_closing():
            self._channel.resume_reading()

    def input_ended(self) -> None:
        """Discard further input: the process has closed its standard input."""
        self.resume_input()

    def _finish(self) -> None:
        # asyncssh reports a channel whose outputs have ended as closing, although its exit status must still be sent.
        if self._ended is None or self._outputs or self._over:
            return
        self._over = True
        if self._ended < 0:
            name = signals.Signals(-self._ended).name.removeprefix("SIG")
            self._channel.exit_with_signal(name)
        else:
            self._channel.exit(self._ended)
        if self._stdin is not None:
            self._stdin.close()


class _Output(asyncio.Protocol):
    def __init__(self, session: _Session, datatype: int | None) -> None:
        self._session = session
        self.datatype = datatype

    def data_received(self, data: bytes) -> None:
        self._session.output(data, self.datatype)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a terminal's end is an error (EIO)
        self._session.output_ended(self)


class _Input(asyncio.Protocol):
    def __init__(self, session: _Session) -> None:
        self._session = session

    def pause_writing(self) -> None:
        self._session.pause_input()

    def resume_writing(self) -> None:
        self._session.resume_input()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self._session.input_ended()


class _Files(asyncssh.SFTPServer):
    """SFTP, starting in the home directory."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], machine: Machine) -> None:
        super().__init__(channel)
        machine.furnish()
        self._home = os.fsencode(machine.home)

    def map_path(self, path: bytes) -> bytes:
        return os.path.normpath(os.path.join(self._home, path))  # noqa: PTH118 - paths here are bytes

    def exit(self) -> None:
        # scp treats a session without an exit status as failed.
        self.channel.exit(0)


def _giving(output: _Output) -> Callable[[], _Output]:
    return lambda: output


def _raise(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)
