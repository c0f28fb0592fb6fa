"""The local rack's instances as SSH hosts."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import sys
import threading
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import asyncssh
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rackctl.local import processes
from rackctl.local.machine import Machine
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from pathlib import Path

    from rackctl.local.state import StateDir
    from rackctl.local.world import Host
    from rackctl.local.world.world import Container


class HostKeys:
    """The instances' Ed25519 host keys, derived from rack and instance."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _private(self, instance_id: str) -> Ed25519PrivateKey:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=f"ssh host key of {instance_id}".encode())
        return Ed25519PrivateKey.from_private_bytes(derived.derive(self._secret))

    def public(self, instance_id: str) -> str:
        """Return an instance's public host key as ``ssh-ed25519 BASE64``."""
        public = self._private(instance_id).public_key()
        return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def for_server(self, instance_id: str) -> asyncssh.SSHKey:
        pem = self._private(instance_id).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return asyncssh.import_private_key(pem)


class Hosts:
    """Runs an SSH server for each host, all in one thread.

    Each listens on its private address. With a gateway, none listens, and `proxy_command` connects to all.
    ``containers`` returns the containers that `docker ps` shows on an instance.
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
        self._machines: dict[str, Machine] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True)
        self._change = asyncio.Lock()
        self.proxy_command = ""

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    def set(self, hosts: Sequence[Host]) -> None:
        """Start and stop servers until exactly these hosts are up."""
        asyncio.run_coroutine_threadsafe(self._set(hosts), self._loop).result()

    def set_soon(self, hosts: Sequence[Host]) -> None:
        """Like `set`, without waiting."""
        asyncio.run_coroutine_threadsafe(self._set(hosts), self._loop)

    def close(self) -> None:
        """Stop all hosts and the processes on them."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        processes.end([path / "home" for path in _entries(self._state.hosts)])  # left by a killed daemon
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
                    machine = Machine(host, self._keys.for_server(id_), self._state, self._port)
                    try:
                        if not self._with_gateway:
                            await machine.listen()
                    except OSError as error:
                        sys.stderr.write(f"{id_} cannot listen on {host.private_ip}:{self._port}: {error}\n")
                        continue  # retried when the world changes next
                    self._machines[id_] = machine

    async def _removed(self, machine: Machine) -> None:
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
            pass  # docker.py reports that there is no answer
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
        """Forward a connection to the host named in its first line."""
        line = b""
        while not line.endswith(b"\n") and len(line) < 64:
            # Read one byte at a time: the bytes after the line are for the host.
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


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind a socket in a directory, also if its path is too long for a socket's address."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        listener.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)
