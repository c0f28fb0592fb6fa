"""A real OpenSSH server on loopback, for the tests and the benchmarks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOW_TO_INSTALL = "`sudo apt-get install openssh-server` (or your system's way) installs it"


@dataclass(frozen=True)
class Sshd:
    """A running server. ``key`` is the path of the private key that it lets in."""

    port: int
    user: str
    directory: Path
    process: subprocess.Popen[bytes]
    host: str = "127.0.0.1"

    @property
    def key(self) -> Path:
        return self.directory / "key"

    @property
    def host_key(self) -> str:
        """Its Ed25519 host key, as ``TYPE BASE64``."""
        return " ".join((self.directory / "host_ed25519.pub").read_text().split()[:2])

    def ssh(self, *words: str) -> list[str]:
        """Return the command line of the OpenSSH client for this server."""
        return [
            "ssh", "-F", "none", "-i", str(self.key), "-p", str(self.port), "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.directory}/known",
            "-o", "LogLevel=ERROR", f"{self.user}@{self.host}", *words,
        ]  # fmt: skip

    def signal_children(self, signum: signal.Signals) -> None:
        """Send a signal to whatever serves its connections."""
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signum)

    def children(self) -> list[int]:
        """Return the processes that serve its connections, each before what it started itself."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
        parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]


def find_sshd() -> str | None:
    """Return the whole path of sshd, which it requires in argv[0]."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")


@contextmanager
def running(directory: Path, host: str = "127.0.0.1", **options: str) -> Iterator[Sshd]:
    """Run a server whose files are in a directory; ``options`` are of its sshd_config."""
    program = find_sshd()
    assert program, f"sshd is not installed: {HOW_TO_INSTALL}"
    if os.geteuid() == 0:
        # Debian's sshd drops its privileges in there, and its service makes it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name, kind in (("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("key", "ed25519")):
        if not (directory / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", directory / name], check=True)
    authorized = directory / "authorized_keys"
    if not authorized.exists():
        shutil.copy(directory / "key.pub", authorized)
    user = pwd.getpwuid(os.getuid()).pw_name
    for _ in range(5):
        port = _free_port(host)
        settings = {
            "ListenAddress": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "AuthorizedKeysFile": str(authorized),
            "UsePAM": "no",
            "StrictModes": "no",
            "PidFile": "none",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "MaxStartups": "100",
            "MaxSessions": "100",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            **options,
        }
        config = directory / f"sshd_config.{port}"
        host_keys = [f"HostKey {directory / name}" for name in ("host_ed25519", "host_ecdsa")]
        config.write_text("\n".join([*host_keys, *(f"{name} {value}" for name, value in settings.items())]) + "\n")
        with (directory / "sshd.log").open("ab") as log:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        if _listens(host, port, process):
            break
    else:
        raise AssertionError((directory / "sshd.log").read_text())
    server = Sshd(port, user, directory, process, host)
    try:
        yield server
    finally:
        server.signal_children(signal.SIGKILL)
        process.terminate()
        process.wait()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        port: int = sock.getsockname()[1]
        return port


def _listens(host: str, port: int, process: subprocess.Popen[bytes]) -> bool:
    while process.poll() is None:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return True
    return False
