"""A rack for OpenSSH's own programs: client configuration, and keys in the agent."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError, UsageError
from rackctl.files import make_own_directory, write_private
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from rackctl.ssh.host_keys import Mode


@dataclass(frozen=True, slots=True)
class Host:
    """An instance as a Host of ssh_config(5).

    ``proxy`` is the proxy command, with OpenSSH's ``%h`` and ``%p``. ``identity_files`` are public keys whose private
    halves are in the agent; if there are none, the user's configuration chooses the keys.
    """

    ec2_instance_id: str
    user: str
    port: str
    proxy: Sequence[str]
    identity_files: Sequence[Path]


def host_entry(host: Host, known_hosts: Path, check: Mode) -> str:
    """Return the text of a Host. ``known_hosts`` is rackctl's file of pinned keys, which OpenSSH only reads.

    Raises UsageError for values that ssh_config cannot express.
    """
    id_ = host.ec2_instance_id
    for setting, value in (("ssh_user", host.user), ("ssh_port", host.port)):
        if problem := SETTINGS[setting].problem(value):
            raise UsageError(f'ssh_config cannot express the {setting} "{value}": {problem}')
    lines = [
        f"Host {id_}",
        f"  HostName {id_}",
        f"  HostKeyAlias {id_}",
        f"  User {host.user}",
        f"  Port {host.port}",
        f"  ProxyCommand {_command(host.proxy)}",
        # The proxy pins the key before it passes on the first byte.
        f"  StrictHostKeyChecking {'no' if check == 'off' else 'yes'}",
        f"  UserKnownHostsFile {'/dev/null' if check == 'off' else _path(known_hosts)}",
        "  GlobalKnownHostsFile /dev/null",
        "  UpdateHostKeys no",
        "  ServerAliveInterval 15",
        "  ServerAliveCountMax 4",
    ]
    if host.identity_files:
        # The agent that `ssh-agent add` loads, even if the user's `Host *` names another IdentityAgent.
        lines += [
            "  IdentityAgent SSH_AUTH_SOCK",
            "  IdentitiesOnly yes",
            *(f"  IdentityFile {_path(path)}" for path in host.identity_files),
        ]
    return "".join(f"{line}\n" for line in lines)


def _command(argv: Sequence[str]) -> str:
    """Return a command for OpenSSH, which expands its % tokens and has the user's shell run it.

    OpenSSH does not quote the values of tokens. Only two are used, which need no quotes: the host, an instance id, and
    the port.
    """
    return " ".join(word if word in {"%h", "%p"} else shlex.quote(_printable(word)).replace("%", "%%") for word in argv)


def _path(path: Path) -> str:
    text = str(path)
    if "${" in text:
        raise UsageError(f"ssh_config cannot express the path {text}: ${{…}} is a variable there")
    return _quoted(text.replace("%", "%%"))


def _quoted(text: str) -> str:
    """Quote a word for ssh_config."""
    return '"' + _printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _printable(text: str) -> str:
    if not text.isprintable():
        raise UsageError(f"ssh_config cannot express {text!r}")
    return text


def write_public_key(directory: Path, key_name: str, public_key: str, generation: datetime) -> Path:
    """Write a public key to the file by which OpenSSH selects the agent's key; return its path."""
    path = directory / "public_keys" / f"{key_name}.{generation:%Y%m%dT%H%M%SZ}.pub"
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
    """The ssh-agent of an environment, through ``ssh-add``; keys go to its stdin, never to a file."""

    # ssh-add(1): 0 on success, 1 when the command fails, 2 when the agent cannot be reached.
    _FAILED, _UNREACHABLE = 1, 2

    def __init__(self, environment: Mapping[str, str], *, timeout: float = 10) -> None:
        self._environment = dict(environment)
        self._timeout = timeout

    def require(self) -> None:
        """Raise RackctlError, with the remedy, unless an agent of this user answers."""
        if not (path := self._environment.get("SSH_AUTH_SOCK")):
            raise _no_agent("SSH_AUTH_SOCK is not set")
        try:
            owner = os.stat(path).st_uid  # noqa: PTH116 - a path as the environment has it
        except OSError as error:
            raise _no_agent(f"SSH_AUTH_SOCK is {path}: {error.strerror}") from error
        if owner != os.geteuid():
            raise _no_agent(f"the agent at SSH_AUTH_SOCK, {path}, belongs to another user (uid {owner})")
        listed = self._run("-l", timeout=self._timeout)
        if listed.returncode == self._UNREACHABLE:
            raise _no_agent(f"nothing listens at SSH_AUTH_SOCK, {path}: the agent may have ended")
        # With an agent without keys ssh-add fails too, and says so on stdout.
        if listed.returncode not in {0, self._FAILED} or listed.stderr:
            raise _no_agent(f"SSH_AUTH_SOCK, {path}, is not an agent{_said(listed.stderr)}")

    def add(self, private_key: bytes, *, lifetime: int) -> None:
        """Load a private key for ``lifetime`` seconds. Raises RackctlError if the agent refuses it."""
        self._require_done(self._run("-q", "-t", str(lifetime), "-", given=private_key))

    def holds(self, public_key: str) -> bool:
        """Return whether the agent has a key, given as ``TYPE BASE64``."""
        listed = self._run("-L").stdout.decode("utf-8", "replace").splitlines()
        return public_key in (" ".join(line.split()[:2]) for line in listed)

    def remove(self, public_key: str) -> None:
        """Remove a key. Raises RackctlError if the agent refuses."""
        self._require_done(self._run("-q", "-d", "-", given=f"{public_key}\n".encode("ascii")))

    def _run(self, *words: str, given: bytes = b"", timeout: float | None = None) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ["ssh-add", *words],
                input=given,
                capture_output=True,
                env=self._environment,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            path = self._environment["SSH_AUTH_SOCK"]
            raise _no_agent(f"the agent at SSH_AUTH_SOCK, {path}, did not answer within {timeout:g} s") from error
        except OSError as error:
            raise RackctlError(
                f"cannot run `ssh-add`, which connects to the agent: {error.strerror}",
                hint="install the OpenSSH client (openssh-client)",
            ) from error

    def _require_done(self, ran: subprocess.CompletedProcess[bytes]) -> None:
        if ran.returncode == self._UNREACHABLE:
            raise _no_agent("it has ended")
        if ran.returncode:
            raise RackctlError(f"`ssh-add` failed{_said(ran.stderr) or f': exit status {ran.returncode}'}")


def _said(text: bytes) -> str:
    line = " ".join(text.decode("utf-8", "replace").split())
    return f": {line}" if line else ""


def _no_agent(why: str) -> RackctlError:
    return RackctlError(f"there is no ssh-agent: {why}", hint='start one in this shell: eval "$(ssh-agent)"')
