"""Fixtures of local racks as processes, and methods that control such a rack.

``local_rack`` is one rack for all tests of a worker that change nothing, or nothing that another would notice.
``start_local_rack`` starts racks of a test's own, ``own_local_rack`` is one such of three instances. They have a
key in their store unless told ``key=False``, and time runs 100 times as fast as AWS's.

    def test_something(own_local_rack: LocalRackProcess) -> None:
        own_local_rack.faults.add("throttle", "ecs:*", count=3)
        own_local_rack.set_condition("stuck-drain")
        Instances(own_local_rack.rack, SystemClock()).list()
        assert own_local_rack.calls(mutating=True) == []

Where they are wanted, a conftest imports them and names them in ``__all__``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.session import Aws, Credentials
from rackctl.config import read_config
from rackctl.files import config_file
from rackctl.local import control
from rackctl.local.state import Options, RackDescription, StateDir
from rackctl.local_rack import find_local_rack
from rackctl.rack import Rack, Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_openssh = pytest.mark.skipif(
    shutil.which("ssh") is None and not os.environ.get("RACKCTL_REQUIRE_SSHD"),
    reason="no OpenSSH client on this machine; .ci/run installs it",
)
SPEED = 100.0


@dataclass
class Faults:
    """Faults of calls to the APIs: `rackctl.local.faults`."""

    control: control.Control

    def add(self, kind: str, pattern: str, **details: Any) -> int:
        """Have something go wrong with ``service:Action``; give the fault's number."""
        number: int = self.control("add_fault", kind=kind, pattern=pattern, **details)
        return number

    def clear(self) -> None:
        self.control("clear_faults")

    def __len__(self) -> int:
        return len(self.control("faults"))


class LocalRackProcess:
    """A local rack in a process, under a state directory."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.directory = directory
        self.options = options
        self.state = StateDir(directory)
        self.notes: tuple[str, ...] = ()
        self.description: RackDescription
        self.up()

    def up(self) -> None:
        """Start it, or start it again."""
        found = control.start(self.directory, self.options)
        self.notes, self.description = found.notes, found.rack
        self.control = control.Control(found.rack)
        self.faults = Faults(self.control)
        for made in ("rack", "aws"):
            self.__dict__.pop(made, None)

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which `rackctl` finds this rack, and nothing of the developer's."""
        return {
            "HOME": str(self.directory),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "RACKCTL_STATE_DIR": str(self.directory),
            "RACKCTL_CONFIG": str(self.directory / "config.toml"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @cached_property
    def rack(self) -> Rack:
        """The rack as a command has it."""
        environment = self.environment
        return Sources({}, environment, read_config(config_file(environment)), find_local_rack(self.directory)).rack()

    @cached_property
    def aws(self) -> Aws:
        return self.rack.aws

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.description.access_key_id, self.description.secret_access_key)

    def client(self, service: str, **config: Any) -> Any:
        """Make a client of plain boto3, which tries everything just once."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.description.endpoint_url,
            region_name=self.description.region,
            aws_access_key_id=self.description.access_key_id,
            aws_secret_access_key=self.description.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def ids(self) -> list[str]:
        """Return the ids of the instances that exist, sorted."""
        ids: list[str] = self.control("status")["instance_ids"]
        return ids

    def services(self, cluster: str = "") -> dict[str, dict[str, Any]]:
        """Return each service's ``running``, ``desired``, ``minimum_percent`` and ``strategy``, as they really are."""
        services: dict[str, dict[str, Any]] = self.control("services", cluster=cluster or self.description.name)
        return services

    def seed_service(self, name: str, **details: Any) -> None:
        """Found a service that has run for an hour: ``desired``, ``strategy``, ``memory``, ``minimum_percent``, …"""
        self.control("seed_service", cluster=self.description.name, name=name, **details)

    def set_policy(self, policy: Any) -> None:
        """Allow the rack's user only what an IAM policy allows; everything for None."""
        self.control("set_policy", policy=policy)

    def set_condition(self, name: str, argument: str = "") -> None:
        self.control("set_condition", name=name, argument=argument)

    def clear_condition(self, name: str) -> None:
        self.control("clear_condition", name=name)

    def befall(self, incident: str, ec2_instance_id: str) -> None:
        self.control("befall", incident=incident, instance=ec2_instance_id)

    def calls(self, *, since: int = 0, mutating: bool = False) -> list[dict[str, Any]]:
        """Return the calls of AWS's APIs, oldest first: their ``number``, ``service``, ``action``, ``status``, …

        ``status`` is None while one is under way, or when its caller got no answer; ``carried_out`` tells which.
        """
        calls = self.control("calls", since=since)
        return [call for call in calls if call["mutating"] or not mutating]

    def actions(self, *, since: int = 0, mutating: bool = False) -> list[str]:
        """Return the same calls as ``service:Action``."""
        return [f"{call['service']}:{call['action']}" for call in self.calls(since=since, mutating=mutating)]

    def wait_for(self, condition: Callable[[], Any], what: str, *, seconds: float = 20) -> Any:
        """Wait for something to become true, and give it."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """End the daemon as nothing should."""
        os.kill(self.description.pid, signal.SIGKILL)
        self.wait_for(lambda: self.state.holder() is None, "the daemon's end")

    def down(self) -> None:
        control.down(self.directory)


@pytest.fixture
def start_local_rack(tmp_path: Path) -> Iterator[Callable[..., LocalRackProcess]]:
    """Start local racks, each with a state directory of its own, or with one that is given as ``directory``."""
    started: list[LocalRackProcess] = []
    numbers = count()  # several may be started at once

    def start(*, directory: Path | None = None, **options: Any) -> LocalRackProcess:
        rack = LocalRackProcess(directory or tmp_path / f"rack{next(numbers)}", Options(**{"speed": SPEED, **options}))
        started.append(rack)
        return rack

    yield start
    for rack in started:
        rack.down()


@pytest.fixture
def own_local_rack(start_local_rack: Callable[..., LocalRackProcess]) -> LocalRackProcess:
    return start_local_rack()


@pytest.fixture(scope="session")
def local_rack() -> Iterator[LocalRackProcess]:
    directory = Path(tempfile.mkdtemp(prefix="rackctl-"))
    rack = LocalRackProcess(directory, Options(speed=SPEED))
    yield rack
    rack.down()
    shutil.rmtree(directory)
