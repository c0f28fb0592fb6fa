"""The neighbours of ssh, as they are typed, on the local rack: run, ssh-config with OpenSSH's programs, ssh-agent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.ssh.agent import running_agent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.local_rack import LocalRackProcess


def rackctl(rack: LocalRackProcess, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = rack.environment | more.pop("environment", {})
    argv = ["rackctl", *words]
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL, **more
    )


def test_run_reaches_every_instance_with_one_list_and_one_key_from_aws(own_local_rack: LocalRackProcess) -> None:
    rackctl(own_local_rack, "instances", "run", "--all", "--", "true")
    since = own_local_rack.calls()[-1]["number"]

    ran = rackctl(own_local_rack, "-r", "local", "instances", "run", "--all", "-o", "json", "--", "hostname")

    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(one["id"] for one in told) == own_local_rack.ids()
    assert len({one["stdout"] for one in told}) == 3
    assert sorted(own_local_rack.actions(since=since)) == [
        "ec2:DescribeInstances",
        "ecs:DescribeClusters",
        "ecs:DescribeContainerInstances",
        "ecs:ListContainerInstances",
        "kms:Decrypt",
        "s3:GetObject",
        "s3:ListObjectsV2",
    ]


def test_quick_commands_always_have_a_status(local_rack: LocalRackProcess) -> None:
    # A command that ended before its streams were connected once had no exit status.
    for _ in range(4):
        assert rackctl(local_rack, "instances", "run", "--all", "--", "echo out; echo err >&2").returncode == 0


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_stops_the_commands_on_all_instances(
    local_rack: LocalRackProcess, signum: signal.Signals, status: int
) -> None:
    argv = ["rackctl", "instances", "run", "--all", "--", "echo $$; exec sleep 600"]
    with subprocess.Popen(argv, env=local_rack.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout
        pids = [int(run.stdout.readline().split()[-1]) for _ in local_rack.ids()]
        # Twice, as an impatient user presses it.
        run.send_signal(signum)
        run.send_signal(signum)
        run.communicate(timeout=30)

    assert run.returncode == status
    local_rack.wait_for(lambda: all(map(gone, pids)), "the end of the commands")


@pytest.fixture
def openssh(local_rack: LocalRackProcess, tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A configuration of rackctl's, and an environment without the rack's settings but with its key in an agent."""
    with running_agent() as agent:
        config = tmp_path / "config"
        added = rackctl(local_rack, "instances", "ssh-agent", "add", environment=agent)
        assert added.returncode == 0, added.stderr
        config.write_text(rackctl(local_rack, "instances", "ssh-config").stdout)
        yield str(config), {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **agent}


def test_plain_ssh_works_by_the_configuration(
    local_rack: LocalRackProcess, openssh: tuple[str, dict[str, str]]
) -> None:
    config, environment = openssh

    seen = set()
    for id_ in local_rack.ids():
        argv = ["ssh", "-F", config, id_, "hostname; exit 5"]
        ran = subprocess.run(argv, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert ran.returncode == 5, ran.stderr
        seen.add(ran.stdout)
    assert len(seen) == 3


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_works_by_the_configuration(
    local_rack: LocalRackProcess, openssh: tuple[str, dict[str, str]], tmp_path: Path, protocol: str
) -> None:
    config, environment = openssh
    here, back, id_ = tmp_path / "here", tmp_path / "back", local_rack.ids()[0]
    here.write_bytes(os.urandom(1_000_000))

    for source, target in ((str(here), f"{id_}:copied"), (f"{id_}:copied", str(back))):
        argv = ["scp", "-q", protocol, "-F", config, source, target]
        ran = subprocess.run(argv, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr

    assert back.read_bytes() == here.read_bytes()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed: `sudo apt-get install rsync`")
def test_rsync_works_by_the_configuration(
    local_rack: LocalRackProcess, openssh: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    config, environment = openssh
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page").write_text("hello")

    there = f"{local_rack.ids()[0]}:site/"
    for source, target in ((f"{tmp_path}/site/", there), (there, f"{tmp_path}/back/")):
        argv = ["rsync", "-a", "-e", f"ssh -F {config}", source, target]
        ran = subprocess.run(argv, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran.stderr

    assert (tmp_path / "back" / "page").read_text() == "hello"
