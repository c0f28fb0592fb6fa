"""Stacks of CDK, and one written by hand, on the local rack: found, adopted and rolled without a change to them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.keys import generate
from tests.local.rolls import Observer
from tests.stack import Stack, deploy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local_rack import LocalRackProcess

# Each is over two seconds: a stack is deployed, adopted and rolled, with real logins.
pytestmark = pytest.mark.timeout(300)
FIRST = datetime(2026, 1, 2, tzinfo=UTC)


class Person:
    """Commands on an existing cluster, with AWS's variables and the rack's name set."""

    def __init__(self, rack: LocalRackProcess, stack: Stack, key_file: Path) -> None:
        self.rack = rack
        self.stack = stack
        self.key_file = key_file
        described = rack.description
        self._environment = {
            **rack.environment,
            "RACKCTL_STATE_DIR": str(key_file.parent / "state"),
            "AWS_ENDPOINT_URL": described.endpoint_url,
            "AWS_ACCESS_KEY_ID": described.access_key_id,
            "AWS_SECRET_ACCESS_KEY": described.secret_access_key,
            "AWS_REGION": described.region,
            "RACKCTL_RACK": stack.cluster,
            # Instances of the local rack take SSH there; where loopback has one address, a command leads to them.
            "RACKCTL_SSH_PORT": str(rack.control("status")["ssh_port"]),
            **({"RACKCTL_PROXY_COMMAND": described.proxy_command} if described.proxy_command else {}),
        }

    def types(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.local.fast", f"{self.rack.options.speed}", *words],
            env=self._environment, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def instances(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.types("instances", "-o", "json"))
        return {instance["id"]: instance for instance in found if instance["status"] == "active"}

    def openssh(self, instance: dict[str, Any]) -> int:
        """Log in with OpenSSH's client and the key in the file, and return its exit status."""
        proxy = self._environment.get("RACKCTL_PROXY_COMMAND")
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"]
        options += [f"ProxyCommand={proxy}"] if proxy else []
        done = subprocess.run(
            ["ssh", "-F", "none", *(word for option in options for word in ("-o", option)), "-i", str(self.key_file),
             "-p", self._environment["RACKCTL_SSH_PORT"], f"ec2-user@{instance['private_ip']}", "true"],
            capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode


@pytest.fixture(params=["AddCapacity", "CapacityProvider", "ByHand"])
def person(request: pytest.FixtureRequest, start_local_rack: Callable[..., LocalRackProcess], tmp_path: Path) -> Person:
    rack = start_local_rack(instances=0, key=False)
    key = generate("ops", created=FIRST)
    key_file = tmp_path / "ops.pem"
    key_file.write_bytes(key.private_key)
    key_file.chmod(0o600)
    rack.client("ec2").import_key_pair(KeyName="ops", PublicKeyMaterial=key.public_key.encode())
    stack = deploy(rack, request.param)

    def is_up() -> bool:
        (cluster,) = rack.client("ecs").describe_clusters(clusters=[stack.cluster])["clusters"]
        return (cluster["registeredContainerInstancesCount"], cluster["runningTasksCount"]) == (3, 2)

    rack.wait_for(is_up, "three instances and two tasks")
    return Person(rack, stack, key_file)


def adopt(person: Person) -> None:
    """Type what getting-started.md says, up to the first login."""
    person.types("racks", "adopt", person.stack.cluster, "--create", "--yes")
    person.types("instances", "keys", "import", str(person.key_file))


def test_a_stack_is_found_adopted_and_logged_in_to_without_a_change_to_it(person: Person) -> None:
    """OpenSSH is the witness: what the file's key opens, the stored key opens too."""
    defined, instances = person.stack.definition(), person.instances()
    assert len(instances) == 3

    assert person.stack.cluster in person.types("racks", "find")
    adopt(person)

    for id_, instance in instances.items():
        assert person.types("instances", "ssh", id_, "echo", "there") == "there\n"
        assert person.openssh(instance) == 0
    assert person.stack.definition() == defined


def test_a_stack_is_rolled_with_its_key_renewed_and_stays_unchanged(person: Person) -> None:
    adopt(person)
    defined, old = person.stack.definition(), person.instances()

    plan = json.loads(person.types("instances", "keyroll", "plan", "-o", "json"))
    with Observer(person.rack, person.stack.cluster) as observer:
        assert person.types("instances", "keyroll") == "Rebooting instances...\n"

    assert {group["key"]["way"] for group in plan["groups"]} == {"keep"}
    assert (plan["refused"], plan["groups"][0]["key"]["key_pairs"]) == (False, ["ops"])
    assert person.stack.definition() == defined
    new = person.instances()
    assert len(new) == 3
    assert not old.keys() & new.keys()
    assert observer.broken_promises == []
    for id_, instance in new.items():
        assert person.types("instances", "ssh", id_, "echo", "there") == "there\n"
        assert person.openssh(instance) != 0
