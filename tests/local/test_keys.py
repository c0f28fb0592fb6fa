"""`rackctl instances keys` on a cluster that is no rack yet, and on a rack whose key was renewed."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rackctl.keys import KeyStore, generate
from rackctl.local.state import Options
from rackctl.text import rfc3339
from tests.local_rack import LocalRackProcess
from tests.ssh.person import Person

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRackProcess]:
    rack = LocalRackProcess(tmp_path_factory.mktemp("foreign"), Options(speed=100.0, foreign=True))
    yield rack
    rack.down()


@pytest.fixture(scope="module")
def store(foreign: LocalRackProcess) -> dict[str, str]:
    """A bucket and a KMS key, made by plain boto3, as the variables that name them."""
    foreign.client("s3").create_bucket(Bucket="keys-of-ops")
    key = foreign.client("kms").create_key()["KeyMetadata"]["KeyId"]
    return {"RACKCTL_BUCKET": "keys-of-ops", "RACKCTL_KMS_KEY": key}


def run(
    rack: LocalRackProcess, *words: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["rackctl", "--rack", rack.rack.name, "instances", *words],
        env={**rack.environment, **(environment or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def listed(rack: LocalRackProcess, environment: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    ran = run(rack, "keys", "list", "-o", "json", environment=environment)
    assert ran.returncode == 0, ran.stderr
    documents: list[dict[str, object]] = json.loads(ran.stdout)
    return documents


def reach(rack: LocalRackProcess) -> list[str]:
    return ["--port", rack.description.ssh_port]


def test_a_cluster_that_is_no_rack_is_logged_in_to_with_its_key(foreign: LocalRackProcess) -> None:
    ran = run(foreign, "ssh", "-i", foreign.description.key_file, *reach(foreign), foreign.ids()[0], "echo in")

    assert (ran.returncode, ran.stdout) == (0, "in\n"), ran.stderr


def test_a_key_that_was_imported_logs_in(foreign: LocalRackProcess, store: dict[str, str], tmp_path: Path) -> None:
    """The stored key is compared with EC2's key pair, read by boto3."""
    ids = foreign.ids()
    (pair,) = foreign.client("ec2").describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    before = listed(foreign, store)
    assert before == [{"key_name": "ops", "generation": None, "stored": False, "age_seconds": None, "instances": ids}]

    first = run(foreign, "keys", "import", foreign.description.key_file, environment=store)
    again = run(foreign, "keys", "import", "--name", "ops", foreign.description.key_file, environment=store)

    since = rfc3339(pair["CreateTime"])
    assert (first.returncode, first.stdout.split(",")[:2]) == (0, ["stored key ops", f" generation {since}"])
    assert again.stdout == first.stdout.replace("stored", "already stored:", 1)
    (after,) = listed(foreign, store)
    assert (after["generation"], after["stored"], after["instances"]) == (since, True, ids)
    shown = run(foreign, "keys", "show", "ops", environment=store)
    assert shown.stdout.split()[:2] == pair["PublicKey"].split()[:2]
    ran = run(foreign, "ssh", *reach(foreign), ids[0], "echo in", environment=store)
    assert (ran.returncode, ran.stdout) == (0, "in\n"), ran.stderr
    kept = foreign.client("s3").list_objects_v2(Bucket="keys-of-ops")["Contents"]
    assert len(kept) == 1
    body = foreign.client("s3").get_object(Bucket="keys-of-ops", Key=kept[0]["Key"])["Body"].read()
    assert b"PRIVATE" not in body

    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    refused = run(foreign, "keys", "import", str(other), environment=store)
    assert refused.returncode == 3
    assert "EC2 has no key pair in this region with the key" in refused.stderr


def test_generations_that_no_instance_can_have_are_pruned(own_local_rack: LocalRackProcess) -> None:
    keys = KeyStore(own_local_rack.rack)
    (name,) = keys.names()
    newest = keys.open(name, keys.generations(name)[0])
    # The instances were launched within the day before the rack was started.
    for age in (1, 2, 3, 4):
        keys.store(generate(name, created=newest.created - DAY * age))
    times = keys.generations(name)

    tried = run(own_local_rack, "keys", "prune", "--dry-run")
    asked = run(own_local_rack, "keys", "prune")
    assert keys.generations(name) == times
    assert (tried.returncode, tried.stdout, tried.stderr.count("would be deleted")) == (0, "", 2)
    assert (asked.returncode, "use --yes" in asked.stderr) == (2, True)

    with Person([shutil.which("rackctl", path=own_local_rack.environment["PATH"]) or "", "--rack", "local", "instances",
                 "keys", "prune"], own_local_rack.environment) as person:  # fmt: skip
        person.expect(r"Delete 2 generations\? \[y/N\]")
        person.type("n\n")
        assert person.wait() == 130
    assert keys.generations(name) == times

    done = run(own_local_rack, "keys", "prune", "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"deleted key {name}, generation {rfc3339(time)}\n" for time in times[:2])
    assert keys.generations(name) == times[2:]
    assert run(own_local_rack, "ssh", own_local_rack.ids()[0], "true").returncode == 0
    assert "nothing to delete" in run(own_local_rack, "keys", "prune", "--yes").stderr


def test_an_unknown_key_is_not_shown(own_local_rack: LocalRackProcess) -> None:
    ran = run(own_local_rack, "keys", "show", "none")

    assert (ran.returncode, ran.stdout) == (3, "")
    assert "no key none is stored" in ran.stderr
