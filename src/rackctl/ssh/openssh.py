"""What OpenSSH's own programs are told about a rack: a client's configuration, and keys for the agent."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError, UsageError
from rackctl.files import make_own_directory, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rackctl.ssh.host_keys import Mode


@dataclass(frozen=True, slots=True)
class Host:
    """An instance as an entry of ssh_config(5).

    ``proxy`` is the command that leads there; its ``%h``, ``%p`` and ``%r`` are OpenSSH's. ``identity_file`` is of the
    public key whose private half the agent has, or None to leave the choice of keys to the user's configuration.
    """

    ec2_instance_id: str
    user: str
    port: str
    proxy: Sequence[str]
    identity_file: Path | None


def host_entry(host: Host, known_hosts: Path, check: Mode) -> str:
    """Write one entry. ``known_hosts`` are rackctl's pins, which OpenSSH reads and never writes.

    Raises UsageError for a path that ssh_config cannot express.
    """
    id_ = host.ec2_instance_id
    lines = [
        f"Host {id_}",
        f"  HostName {id_}",
        f"  HostKeyAlias {id_}",
        f"  User {_quoted(host.user)}",
        f"  Port {host.port}",
        f"  ProxyCommand {_command(host.proxy, host.user)}",
        # The proxy has pinned a key by its own rules before OpenSSH sees the first byte, so none is new to it.
        f"  StrictHostKeyChecking {'no' if check == 'off' else 'yes'}",
        f"  UserKnownHostsFile {'/dev/null' if check == 'off' else _path(known_hosts)}",
        "  GlobalKnownHostsFile /dev/null",
        "  UpdateHostKeys no",
        "  ServerAliveInterval 15",
        "  ServerAliveCountMax 4",
    ]
    if host.identity_file:
        lines += ["  IdentitiesOnly yes", f"  IdentityFile {_path(host.identity_file)}"]
    return "".join(f"{line}\n" for line in lines)


_TOKEN = re.compile(r"%[hpr]")


def _command(argv: Sequence[str], user: str) -> str:
    """Write a command for OpenSSH, which replaces what follows a % and gives the rest to the user's shell.

    OpenSSH quotes nothing: a user whose name, perhaps a tag of the cluster, is more than a plain word to a shell stands
    there quoted in place of ``%r``.
    """
    plain = shlex.quote(user) == user and not user.startswith("-")
    words = (user if word == "%r" and not plain else word for word in argv)
    return " ".join(
        word if _TOKEN.fullmatch(word) else shlex.quote(_printable(word)).replace("%", "%%") for word in words
    )


def _path(path: Path) -> str:
    text = str(path)
    if "${" in text:
        raise UsageError(f"OpenSSH cannot be told of the path {text}: it takes ${{…}} for a variable")
    return _quoted(text.replace("%", "%%"))


def _quoted(text: str) -> str:
    """Quote a word for ssh_config."""
    return '"' + _printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(text: str) -> str:
    if not text.isprintable():
        raise UsageError(f"OpenSSH's configuration cannot hold {text!r}")
    return text


def write_public_key(directory: Path, key_name: str, public_key: str) -> Path:
    """Keep a public key where OpenSSH can read which key of the agent to offer; give the file."""
    path = directory / "public_keys" / f"{key_name}.pub"
    line = f"{public_key} {key_name}\n"
    try:
        make_own_directory(path.parent)
        if path.exists() and path.read_text(encoding="utf-8") == line:
            return path
        write_private(path, line.encode())
    except OSError as error:
        raise RackctlError(
            f"cannot write {path}: {error.strerror}", hint="name another state directory with RACKCTL_STATE_DIR"
        ) from error
    return path


class Agent:
    """The ssh-agent of an environment, through ``ssh-add``: keys go to its standard input, never into a file."""

    # ssh-add(1): 0 on success, 1 when the command fails, 2 when the agent cannot be reached.
    _UNREACHABLE = 2

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def require(self) -> None:
        """Raise RackctlError, with the remedy, unless there is an agent."""
        if not self._environment.get("SSH_AUTH_SOCK"):
            raise _no_agent("SSH_AUTH_SOCK is not set")
        if self._run("-l").returncode == self._UNREACHABLE:
            raise _no_agent(f"nothing answers at SSH_AUTH_SOCK, {self._environment['SSH_AUTH_SOCK']}")

    def add(self, private_key: bytes, *, lifetime: int) -> None:
        """Load a private key for so many seconds. Raises RackctlError when the agent does not take it."""
        self._require_done(self._run("-q", "-t", str(lifetime), "-", given=private_key))

    def holds(self, public_key: str) -> bool:
        """Tell whether the agent has a key, given as ``TYPE BASE64``."""
        listed = self._run("-L").stdout.decode("utf-8", "replace").splitlines()
        return public_key in (" ".join(line.split()[:2]) for line in listed)

    def remove(self, public_key: str) -> None:
        """Take a key out. Raises RackctlError when the agent does not."""
        self._require_done(self._run("-q", "-d", "-", given=f"{public_key}\n".encode("ascii")))

    def _run(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["ssh-add", *words], input=given, capture_output=True, env=self._environment, check=False
            )
        except OSError as error:
            raise RackctlError(
                f"cannot run `ssh-add`, which talks to the agent: {error.strerror}",
                hint="install the OpenSSH client (openssh-client)",
            ) from error

    def _require_done(self, ran: subprocess.CompletedProcess[bytes]) -> None:
        if ran.returncode == self._UNREACHABLE:
            raise _no_agent("it has gone")
        if ran.returncode:
            told = " ".join(ran.stderr.decode("utf-8", "replace").split())
            raise RackctlError(f"`ssh-add` failed: {told or f'exit status {ran.returncode}'}")


def _no_agent(why: str) -> RackctlError:
    return RackctlError(f"there is no ssh-agent: {why}", hint='start one in this shell: eval "$(ssh-agent)"')
