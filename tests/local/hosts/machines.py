"""Hosts that a test sets, and SSH clients that log in to them."""

from __future__ import annotations

import re
import socket
import time
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING

import paramiko

from rackctl.keys import SshKey, generate
from rackctl.local import network
from rackctl.local.hosts import HostKeys, Hosts
from rackctl.local.state import StateDir
from rackctl.local.world import Host
from rackctl.local.world.world import Container

if TYPE_CHECKING:
    from pathlib import Path

ID = "i-0123456789abcdef0"
KEY = generate("key", created=datetime.now(UTC))
SECRET = b"s" * 32
NOW = time.time()
WEB = Container("0123456789ab", "example/web:42", '"sh -c bin/web and more"', NOW - 7300, NOW - 7290, "80/tcp", "web-1")
AGENT = Container("abcdef012345", "amazon/amazon-ecs-agent:latest", '"/agent"', NOW - 7400, NOW - 7399, "", "ecs-agent")


class Rack:
    """Hosts that a test sets, and clients that log in to them."""

    def __init__(self, directory: Path, *, gateway: bool) -> None:
        self.state = StateDir(directory)
        self.state.make()
        self.network = network.claim()
        self.port = self.network.ssh_port
        self.hosts = Hosts(
            self.state, HostKeys(SECRET), port=self.port, gateway=gateway, containers=lambda _: [WEB, AGENT]
        )
        self.hosts.start()
        self.host = Host(ID, f"{self.network.prefix}.0.4", "ip-127-0-0-4", KEY.public_key)
        self.hosts.set([self.host])

    def close(self) -> None:
        self.hosts.close()
        if self.network.claim:
            self.network.claim.close()

    def connect(self, *, user: str = "ec2-user", key: SshKey = KEY) -> paramiko.Transport:
        transport = paramiko.Transport(socket.create_connection((self.host.private_ip, self.port), timeout=10))
        transport.start_client(timeout=10)
        try:
            transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key(StringIO(key.private_key.decode())))
        except BaseException:
            transport.close()
            raise
        return transport


def drained(channel: paramiko.Channel) -> tuple[int, bytes, bytes]:
    """Read a channel to its end and give the status, stdout and stderr."""
    out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return channel.recv_exit_status(), out, err


def run(channel: paramiko.Channel, command: str) -> tuple[int, bytes, bytes]:
    channel.exec_command(command)
    channel.shutdown_write()
    return drained(channel)


def until(channel: paramiko.Channel, wanted: str) -> str:
    """Read from a terminal until something is there."""
    seen = ""
    while not re.search(wanted, seen):
        data = channel.recv(65536)
        assert data, f"the terminal ended before {wanted!r}: {seen!r}"
        seen += data.decode()
    return seen


def openssh(rack: Rack) -> list[str]:
    """Return the beginning of a command line of OpenSSH's client."""
    path = rack.state.root / "test-key"
    path.touch(mode=0o600)
    path.write_bytes(KEY.private_key)
    options = ("BatchMode=yes", "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", f"IdentityFile={path}")
    return ["ssh", "-F", "none", "-p", str(rack.port), *(word for option in options for word in ("-o", option))]
