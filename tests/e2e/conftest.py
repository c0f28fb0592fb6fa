"""The installed command, run by a shell, on a local rack that only this test process uses."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
SPEED = 60


@dataclass(frozen=True)
class Ran:
    status: int
    stdout: str
    stderr: str


@dataclass
class Shell:
    """bash in an environment in which nothing of the developer's own can be found but PATH."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "RACKCTL_STATE_DIR": str(self.home / "state"),
            "RACKCTL_CONFIG": str(self.home / "config.toml"),
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.extra,
        }

    def __call__(self, script: str, *, stdin: str = "", **changes: str | None) -> Ran:
        """Run a script. ``changes`` to the environment unset what is None."""
        environment = {k: v for k, v in {**self.environment, **changes}.items() if v is not None}
        done = subprocess.run(
            ["bash", "-c", script],
            input=stdin.encode(),
            capture_output=True,
            env=environment,
            cwd=self.home,
            timeout=90,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, script: str) -> Any:
        ran = self(script)
        assert ran.status == 0, ran.stderr
        return json.loads(ran.stdout)

    def ids(self) -> list[str]:
        return self("rackctl instances -o id").stdout.split()

    def on_terminal(
        self, script: str, *, columns: int = 80, rows: int = 24, term: str = "xterm", typed: str = ""
    ) -> tuple[int, str]:
        """Run a script on a pseudo-terminal, with something typed ahead; give its status and what it drew there."""
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = {**self.environment, "TERM": term}
        process = subprocess.Popen(
            ["bash", "-c", script],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            cwd=self.home,
            start_new_session=True,
        )
        os.close(follower)
        os.write(leader, typed.encode())
        drawn = bytearray()
        try:
            while piece := os.read(leader, 65536):
                drawn += piece
        except OSError:
            pass  # Linux says EIO where others say end of file
        finally:
            os.close(leader)
        return process.wait(timeout=30), drawn.decode()


def eventually(probe: Callable[[], object], what: str, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds} s"
        time.sleep(0.1)


def with_rack(home: Path, *options: str) -> Iterator[Shell]:
    """Yield a shell whose machine has a local rack, and take it down at the end."""
    shell = Shell(home)
    up = shell(" ".join([f"rackctl local up --speed {SPEED}", *options]))
    assert up.status == 0, up.stderr
    yield shell
    down = shell("rackctl local down")
    assert down.status == 0, down.stderr


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell whose machine has a local rack of three instances, which tests leave as it is."""
    yield from with_rack(tmp_path_factory.mktemp("home"))


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Shell]:
    """A shell with a local rack of its own, in which an hour is a minute."""
    yield from with_rack(tmp_path)


def hurry(shell: Shell) -> Shell:
    """Have rackctl's clock go as fast as the rack: what waits for a roll waits no longer than the roll takes there."""
    (shell.home / "bin").mkdir()
    program = shell.home / "bin" / "rackctl"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.local.fast {SPEED} "$@"\n')
    program.chmod(0o755)
    shell.extra["PATH"] = f"{program.parent}:{shell.environment['PATH']}"
    return shell


@pytest.fixture
def hurried(changing: Shell) -> Shell:
    """Return the same with a rackctl whose clock goes as fast."""
    return hurry(changing)


@pytest.fixture
def bare(tmp_path: Path) -> Shell:
    """A shell on a machine with no rack, no configuration and no credentials."""
    return Shell(tmp_path)


def settings(shell: Shell) -> Mapping[str, str]:
    """Read what `rackctl local env` sets, as a shell understands it."""
    ran = shell('eval "$(rackctl local env)" && env -0')
    assert ran.status == 0, ran.stderr
    return dict(line.split("=", 1) for line in ran.stdout.split("\0") if "=" in line)


def boto3_client(shell: Shell, service: str) -> Any:
    """Make a client of boto3's own for the local rack, with what `rackctl local env` sets."""
    given = settings(shell)
    return boto3.client(
        service,
        endpoint_url=given["AWS_ENDPOINT_URL"],
        region_name=given["AWS_REGION"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )
