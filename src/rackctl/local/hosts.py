"""The local rack's instances as machines on the network: an SSH server for each, with a real shell behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal as signals
import socket
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

import asyncssh
from asyncssh.stream import SSHServerStreamSession
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rackctl.local import docker, processes
from rackctl.local.processes import Started, Terminal
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from asyncssh.packet import SSHPacket

    from rackctl.local.state import StateDir
    from rackctl.local.world import Host
    from rackctl.local.world.world import Container

USER: Final = "ec2-user"
_WINDOW: Final = 2 * 2**20
_PACKET: Final = 32768
# How long the last output of a terminal may take to come out of it once its process has ended, in seconds.
_LINGER: Final = 0.1
_FORWARDED: Final = frozenset({"LANG", "TERM", "COLORTERM", "NO_COLOR"})
_MOTD: Final = r"""
   __|  __|  __|
   _|  (   \__ \   ECS-optimized, after a fashion: an instance of
 ____|\___|____/   rackctl's local rack

What you type runs on your own machine, as you.
"""


class HostKeys:
    """The instances' host keys: Ed25519, always the same for the same rack and instance."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _private(self, instance_id: str) -> Ed25519PrivateKey:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=f"ssh host key of {instance_id}".encode())
        return Ed25519PrivateKey.from_private_bytes(derived.derive(self._secret))

    def public(self, instance_id: str) -> str:
        """Give an instance's public host key as ``ssh-ed25519 BASE64``."""
        public = self._private(instance_id).public_key()
        return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def for_server(self, instance_id: str) -> asyncssh.SSHKey:
        pem = self._private(instance_id).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return asyncssh.import_private_key(pem)


class Hosts:
    """Keeps an SSH server up for each host, in a thread of its own.

    Each listens on its private address, or, behind a gateway, on none: then `proxy_command` leads to them all.
    ``containers`` gives what `docker ps` shows on an instance.
    """

    def __init__(
        self,
        state: StateDir,
        keys: HostKeys,
        *,
        port: int,
        gateway: bool,
        containers: Callable[[str], Sequence[Container]],
    ) -> None:
        self._state = state
        self._keys = keys
        self._port = port
        self._with_gateway = gateway
        self._containers = containers
        self._machines: dict[str, _Machine] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True)
        self._change = asyncio.Lock()
        self.proxy_command = ""

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def set(self, hosts: Sequence[Host]) -> None:
        """Have exactly these hosts up; return when they are."""
        asyncio.run_coroutine_threadsafe(self._set(hosts), self._loop).result()

    def set_soon(self, hosts: Sequence[Host]) -> None:
        """Have exactly these hosts up, before long."""
        asyncio.run_coroutine_threadsafe(self._set(hosts), self._loop)

    def close(self) -> None:
        """Take all hosts down, and what runs on them."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        processes.end([path / "home" for path in _entries(self._state.hosts)])  # of a daemon that was killed
        listener = socket.socket(socket.AF_UNIX)
        self._state.docker_socket.unlink(missing_ok=True)
        _bind(listener, self._state.docker_socket)
        self._docker = await asyncio.start_unix_server(self._answer_docker, sock=listener)
        if self._with_gateway:
            gateway = self._listen_for_gateway()
            self._in_background(self._accept(gateway))
            connect = [sys.executable, "-m", "rackctl.local.connect", str(gateway.getsockname()[1])]
            self.proxy_command = f"{shlex.join(connect)} %h %p"

    async def _set(self, hosts: Sequence[Host]) -> None:
        async with self._change:
            wanted = {host.ec2_instance_id: host for host in hosts}
            gone = [self._machines.pop(id_) for id_ in list(self._machines) if id_ not in wanted]
            for machine in gone:
                await machine.disconnect()
                self._in_background(self._removed(machine))
            for id_, host in wanted.items():
                if id_ in self._machines:
                    self._machines[id_].host = host
                else:
                    machine = _Machine(host, self._keys, self._state, self._port)
                    try:
                        if not self._with_gateway:
                            await machine.listen()
                    except OSError as error:
                        sys.stderr.write(f"{id_} cannot listen on {host.private_ip}:{self._port}: {error}\n")
                        continue  # it is tried again when the world changes next
                    self._machines[id_] = machine

    async def _removed(self, machine: _Machine) -> None:
        await self._loop.run_in_executor(None, machine.remove)

    async def _close(self) -> None:
        async with self._change:
            self._docker.close()
            await asyncio.gather(*(machine.disconnect() for machine in self._machines.values()))
            used = [machine for machine in self._machines.values() if machine.was_used]
            homes = [machine.home for machine in used]
            sessions = {sid for machine in used for sid in machine.sessions}
            await self._loop.run_in_executor(None, processes.end, homes, sessions)
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            self._state.docker_socket.unlink(missing_ok=True)

    async def _answer_docker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            instance_id = (await reader.readline()).decode().strip()
            containers = await self._loop.run_in_executor(None, self._containers, instance_id)
            writer.write(json.dumps([asdict(container) for container in containers]).encode())
            await writer.drain()
        except (OSError, Refused):
            pass  # docker.py says that there is no answer
        finally:
            writer.close()

    # The gateway

    def _listen_for_gateway(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        listener.setblocking(False)
        return listener

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                connection, _ = await self._loop.sock_accept(listener)
                connection.setblocking(False)
                self._in_background(self._lead(connection))

    async def _lead(self, connection: socket.socket) -> None:
        """Take a connection on to the host whose address its first line gives."""
        line = b""
        while not line.endswith(b"\n") and len(line) < 64:
            # One byte at a time: what follows is the host's.
            byte = await self._loop.sock_recv(connection, 1)
            if not byte:
                break
            line += byte
        asked = line.decode("ascii", "replace").split()
        machine = next((m for m in self._machines.values() if [m.host.private_ip, str(self._port)] == asked), None)
        if machine is None:
            connection.close()
        else:
            await machine.serve(connection)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError | asyncssh.Error):
            traceback.print_exception(error)


class _Machine:
    """One host: its SSH server, its home directory, what runs on it."""

    def __init__(self, host: Host, keys: HostKeys, state: StateDir, port: int) -> None:
        self.host = host
        self._state = state
        self._directory = state.hosts / host.ec2_instance_id
        self.home = self._directory / "home"
        self._bin = self._directory / "bin"
        self.was_used = self._directory.exists()
        self.sessions: set[int] = set()
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.last_login = ""
        self.is_gone = False
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._port = port
        self._options = {
            "server_factory": lambda: _Server(self),
            "server_host_keys": [keys.for_server(host.ec2_instance_id)],
            "password_auth": False,
            "kbdint_auth": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "allow_scp": False,
            "login_timeout": 30,
        }

    async def listen(self) -> None:
        """Accept connections on the host's own address. Raises OSError when it cannot be had."""
        self._acceptor = await asyncssh.listen(self.host.private_ip, self._port, **self._options)

    async def serve(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        await asyncssh.run_server(connection, **self._options)

    async def disconnect(self) -> None:
        """Be gone from the network."""
        self.is_gone = True
        if self._acceptor is not None:
            # asyncio loses, and leaves open, a connection that it is accepting when its server closes.
            for listener in self._acceptor.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await asyncio.sleep(0)
            self._acceptor.close()
        for connection in list(self.connections):
            connection.abort()

    def remove(self) -> None:
        """End what runs here, and delete its files. It blocks."""
        if self.was_used:
            processes.end([self.home], self.sessions)
            shutil.rmtree(self._directory, ignore_errors=True)

    def start(
        self, command: bytes | None, environment: Mapping[str, str], terminal: Terminal | None, peer: tuple[str, int]
    ) -> Started:
        """Start a login shell, or a command in a shell. Raises OSError."""
        self.furnish()
        bash = shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin:/opt/homebrew/bin") or "/bin/bash"
        here = f"{self.host.private_ip} {self._port}"
        started = processes.start(
            [bash, "-l"] if command is None else [bash, "-c", os.fsdecode(command)],
            environment={
                "LANG": "C.UTF-8",
                **environment,
                "HOME": str(self.home),
                "USER": USER,
                "LOGNAME": USER,
                "SHELL": bash,
                "PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
                "HOSTNAME": self.host.hostname,
                "SSH_CLIENT": f"{peer[0]} {peer[1]} {self._port}",
                "SSH_CONNECTION": f"{peer[0]} {peer[1]} {here}",
                **({"TERM": terminal.name} if terminal else {}),
            },
            directory=self.home,
            terminal=terminal,
        )
        self.sessions.add(started.process.pid)
        return started

    def greeting(self, peer: str) -> str:
        """Give what a login shell begins with."""
        before, self.last_login = self.last_login, f"{time.strftime('%a %b %e %H:%M:%S %Y')} from {peer}"
        return (f"Last login: {before}\n" if before else "") + _MOTD

    def furnish(self) -> None:
        """Put what the instance's home and its own commands are made of in their places, the first time."""
        self.was_used = True
        if self.home.exists():
            return
        self._bin.mkdir(parents=True)
        full = f"{self.host.hostname}.ec2.internal"
        docker_py = [sys.executable, "-I", "-S", docker.__file__, str(self._state.root), self.host.ec2_instance_id]
        scripts = {
            # What the machine's own would do as root is none of an instance's business.
            "sudo": 'while [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n',
            "whoami": f"echo {USER}\n",
            "docker": f'exec {shlex.join(docker_py)} "$@"\n',
            "hostname": f"""case "$1" in
                "") echo {full} ;;
                -s | --short) echo {self.host.hostname} ;;
                -f | --fqdn | --long) echo {full} ;;
                -d | --domain) echo ec2.internal ;;
                -i | -I | --ip-address | --all-ip-addresses) echo {self.host.private_ip} ;;
                *) echo "hostname: you must be root to change the host name" >&2; exit 1 ;;
            esac
            """,
        }
        for name, text in scripts.items():
            script = self._bin / name
            script.write_text(f"#!/bin/sh\n{text}")
            script.chmod(0o700)
        # The system's own profile, which bash reads first, may set PATH and PS1.
        made = self._directory / "home.new"
        made.mkdir()
        path = shlex.quote(str(self._bin))
        (made / ".bash_profile").write_text(f"export PATH={path}:$PATH\n[ -f ~/.bashrc ] && . ~/.bashrc\n")
        (made / ".bashrc").write_text(f"PS1='[{USER}@{self.host.hostname} \\W]$ '\n")
        made.rename(self.home)


class _Server(asyncssh.SSHServer):
    """One connection: who may log in."""

    def __init__(self, machine: _Machine) -> None:
        self._machine = machine
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._machine.connections.add(conn)
        if self._machine.is_gone:
            conn.abort()  # it was being accepted when the host went

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's name
        if self._connection is not None:
            self._machine.connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - nobody comes in without
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
    """A session's channel, with what OpenSSH's server does and asyncssh's does not.

    These are asyncssh's own names for its handlers of requests, which it does not document: a test for each
    fails if they change.
    """

    _session: Any

    def _process_exec_request(self, packet: SSHPacket) -> bool:
        """Take a command as the bytes that it is: asyncssh refuses what is not UTF-8."""
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command=command.decode("utf-8", "surrogateescape"))

    def _process_subsystem_request(self, packet: SSHPacket) -> bool:
        self._session = SSHServerStreamSession(None, self._session.file_server, sftp_version=3)
        self._session.connection_made(self)
        return super()._process_subsystem_request(packet)

    def _process_eow_at_openssh_dot_com_request(self, packet: SSHPacket) -> bool:
        """Hear that the client reads no more: OpenSSH's PROTOCOL, section 2.1."""
        packet.check_end()
        self._session.reader_gone()
        return True

    def tell_end_of_write(self) -> None:
        """Say that nothing reads any more what the client sends."""
        self._send_request(b"eow@openssh.com")


class _Session(asyncssh.SSHServerSession[bytes]):
    """A shell or a command: moves its streams, reports its end."""

    def __init__(self, machine: _Machine) -> None:
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
        """Close our ends, of which a process hears as it does from OpenSSH: SIGHUP from a terminal, else SIGPIPE."""
        self._over = True
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.abort()
        for transport in self._outputs.values():
            transport.close()

    def file_server(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return _Files(channel, self._machine)

    # What a client asks for

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
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it is just ending
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
        return True  # the other direction stays open

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
        # The first may have ended before the second is connected.
        if self._connected and not self._outputs:
            self._all_outputs_ended()

    def _all_outputs_ended(self) -> None:
        if self._ended is None and not self._channel.is_closing():
            self._channel.write_eof()
        self._finish()

    # Its life

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
        with contextlib.suppress(RuntimeError):  # the loop has ended: so does everything
            self._loop.call_soon_threadsafe(self._process_ended, status)

    def _process_ended(self, status: int) -> None:
        self._ended = status
        if self._terminal is not None:
            # Jobs that it left behind may hold the terminal open for ever; what it wrote itself is about to come.
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
        # Not at once: the end of the input may be next, and asyncio's pipe does not bear being closed while it
        # tells that it is ready.
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._channel.is_closing():
            self._channel.resume_reading()

    def input_ended(self) -> None:
        """Hear that the process reads no more: what still comes is for nobody."""
        self.resume_input()

    def _finish(self) -> None:
        # A channel whose outputs have ended calls itself closing; its exit status is still to be sent.
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
    """SFTP, from the home directory on."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], machine: _Machine) -> None:
        super().__init__(channel)
        machine.furnish()
        self._home = os.fsencode(machine.home)

    def map_path(self, path: bytes) -> bytes:
        return os.path.normpath(os.path.join(self._home, path))  # noqa: PTH118 - paths here are bytes

    def exit(self) -> None:
        # To scp a session without an exit status is a failed one.
        self.channel.exit(0)


def _giving(output: _Output) -> Callable[[], _Output]:
    return lambda: output


def _raise(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind a socket in a directory whose path may be too long for a socket's address."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        listener.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)
