"""A real ssh-agent for one test."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def need_openssh() -> None:
    for program in ("ssh", "scp", "ssh-agent", "ssh-add"):
        if shutil.which(program) is None:
            pytest.skip(f"`{program}` is not installed: `sudo apt-get install openssh-client` installs it")


@contextmanager
def running_agent() -> Iterator[dict[str, str]]:
    """Run an agent; give the environment that leads to it."""
    need_openssh()
    # Not pytest's directory: the path of a socket has 108 characters at most.
    with tempfile.TemporaryDirectory(prefix="agent") as directory:
        socket = Path(directory, "socket")
        with subprocess.Popen(
            ["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as agent:
            try:
                while not socket.exists():
                    assert agent.poll() is None
                    time.sleep(0.01)
                yield {"SSH_AUTH_SOCK": str(socket)}
            finally:
                agent.terminate()


def keys_in(environment: dict[str, str]) -> list[str]:
    """Return the fingerprints of the keys that an agent has."""
    listed = subprocess.run(["ssh-add", "-l"], env=environment, capture_output=True, text=True, check=False)
    assert listed.returncode in {0, 1}
    return [line.split()[1] for line in listed.stdout.splitlines() if line.startswith(("256 ", "4096 "))]
