"""A real OpenSSH server for the tests of ssh, and rackctl as a process that connects to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.ssh.entry import ID
from tests.ssh.sshd import HOW_TO_INSTALL, Sshd, find_sshd, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    need_sshd()
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def need_sshd() -> None:
    if find_sshd() is None:
        if os.environ.get("RACKCTL_REQUIRE_SSHD"):
            pytest.fail(f"sshd is not installed: {HOW_TO_INSTALL}")
        pytest.skip(f"sshd is not installed: {HOW_TO_INSTALL}")


@dataclass(frozen=True)
class CommandLine:
    """`rackctl` in a process of its own, on a rack of one instance: a given sshd."""

    server: Sshd
    state: Path

    def environment(self, **description: Any) -> dict[str, str]:
        described = {"key": str(self.server.key), "port": self.server.port, "user": self.server.user, **description}
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "RACKCTL_CONFIG": "/nowhere",
            "RACKCTL_STATE_DIR": str(self.state),
            "RACKCTL_TEST_INSTANCE": json.dumps(described),
        }
        return {**os.environ, **own}

    def argv(self, *words: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "tests.ssh.entry", "instances", *words]

    def at(self, server: Sshd) -> CommandLine:
        """The same command line, on another server."""
        return CommandLine(server, self.state)

    def ssh(self, *words: str | bytes, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run `rackctl instances ssh ID WORDS…`; options before the id go in ``options``."""
        return self.run("ssh", *more.pop("options", ()), ID, *words, **more)

    def run(self, *words: str | bytes, **more: Any) -> subprocess.CompletedProcess[bytes]:
        more.setdefault("stdin", subprocess.DEVNULL) if "input" not in more else None
        environment = self.environment(**more.pop("instance", {})) | more.pop("environment", {})
        return subprocess.run(self.argv(*words), env=environment, capture_output=True, check=False, timeout=60, **more)

    def popen(self, *words: str | bytes, **more: Any) -> subprocess.Popen[bytes]:
        environment = self.environment(**more.pop("instance", {})) | more.pop("environment", {})
        options = more.pop("options", ())
        return subprocess.Popen(self.argv("ssh", *options, ID, *words), env=environment, **more)


@pytest.fixture
def cli(sshd: Sshd, tmp_path: Path) -> CommandLine:
    """The command line, on an instance whose host key is known."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "host_keys").write_text(f"{ID} {sshd.host_key}\n")
    return CommandLine(sshd, state)
