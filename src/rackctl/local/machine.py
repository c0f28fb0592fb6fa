"""One instance as a machine: the listener of its SSH server, its home directory, its processes."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

import asyncssh

from rackctl.local import docker, processes
from rackctl.local.sessions import USER, Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from rackctl.local.processes import Started, Terminal
    from rackctl.local.state import StateDir
    from rackctl.local.world import Host

_MOTD: Final = r"""
   __|  __|  __|
   _|  (   \__ \   ECS-optimized, after a fashion: an instance of
 ____|\___|____/   rackctl's local rack

What you type runs on your own machine, as you.
"""


class Machine:
    """One host: its SSH server, its home directory, its processes."""

    def __init__(self, host: Host, key: asyncssh.SSHKey, state: StateDir, port: int) -> None:
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
            "server_factory": lambda: Server(self),
            "server_host_keys": [key],
            "password_auth": False,
            "kbdint_auth": False,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "allow_scp": False,
            "login_timeout": 30,
        }

    async def listen(self) -> None:
        """Accept connections on the host's own address. Raises OSError if it cannot be bound."""
        self._acceptor = await asyncssh.listen(self.host.private_ip, self._port, **self._options)

    async def serve(self, connection: socket.socket) -> None:
        """Serve a connection that the gateway has accepted."""
        await asyncssh.run_server(connection, **self._options)

    async def disconnect(self) -> None:
        """Close the listener and all connections."""
        self.is_gone = True
        if self._acceptor is not None:
            # If its server closes, asyncio leaves open a connection that it is just accepting.
            for listener in self._acceptor.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await asyncio.sleep(0)
            self._acceptor.close()
        for connection in list(self.connections):
            connection.abort()

    def remove(self) -> None:
        """Kill the processes and delete the files. Blocks."""
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
        """Return the text that a login shell begins with."""
        before, self.last_login = self.last_login, f"{time.strftime('%a %b %e %H:%M:%S %Y')} from {peer}"
        return (f"Last login: {before}\n" if before else "") + _MOTD

    def furnish(self) -> None:
        """Create the home directory and the instance's own commands, once."""
        self.was_used = True
        if self.home.exists():
            return
        self._bin.mkdir(parents=True)
        full = f"{self.host.hostname}.ec2.internal"
        docker_py = [sys.executable, "-I", "-S", docker.__file__, str(self._state.root), self.host.ec2_instance_id]
        scripts = {
            # In place of the machine's own sudo, which would run commands as root.
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
