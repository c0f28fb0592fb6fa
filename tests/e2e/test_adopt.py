"""`racks find` and `racks adopt` on a cluster of a stack without rackctl's tags: `local up --foreign`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import boto3_client, with_rack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Shell


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Shell]:
    yield from with_rack(tmp_path, "--foreign")


def cluster_of(shell: Shell) -> str:
    return str(shell.json("rackctl racks find -o json")[0]["cluster"])


def tags_of(shell: Shell) -> dict[str, str]:
    ecs = boto3_client(shell, "ecs")
    (arn,) = ecs.list_clusters()["clusterArns"]
    tags = {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}
    return {key: value for key, value in tags.items() if key.startswith("rackctl:")}


def test_a_cluster_of_a_stack_is_found_adopted_and_used(foreign: Shell) -> None:
    """Over two seconds: a rack of its own."""
    (found,) = foreign.json("rackctl racks find -o json")
    name = found["cluster"]
    assert (found["owner"], found["ready"]) == ({"kind": "cdk", "stack": "Local"}, False)
    assert found["lacks"] == ["a bucket", "a KMS key", "the private key of ops"]

    shown = foreign(f"rackctl racks adopt {name} --create --dry-run")
    assert shown.status == 0
    assert "would create bucket rackctl-local-clustereb0386a7-" in shown.stdout
    assert tags_of(foreign) == {}

    refused = foreign(f"rackctl racks adopt {name} --create")
    assert (refused.status, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert tags_of(foreign) == {}

    adopted = foreign(f"rackctl racks adopt {name} --create --yes")
    assert (adopted.status, adopted.stdout) == (0, f"Cluster {name} is now a rack\n")
    assert adopted.stderr.count("rackctl: done: ") == 9
    assert f"rackctl -r {name} instances keys import FILE" in adopted.stderr
    assert set(tags_of(foreign)) == {"rackctl:bucket", "rackctl:kms-key"}
    # A stack owns the cluster, so Terraform does not.
    assert "Terraform" not in adopted.stderr

    again = foreign(f"rackctl racks adopt {name} --create --yes")
    assert again.stdout == f"Cluster {name} is a rack already; nothing was changed\n"
    assert foreign.json("rackctl racks find -o json")[0]["lacks"] == ["the private key of ops"]
    shown_settings = foreign.json("rackctl racks show -o json")["settings"]
    assert shown_settings["bucket"]["from"] == "tag rackctl:bucket"


def test_adopt_shows_its_steps_and_asks_on_a_terminal(foreign: Shell) -> None:
    """Over two seconds: a rack of its own."""
    name = cluster_of(foreign)

    status, drawn = foreign.on_terminal(f"rackctl racks adopt {name} --create", columns=200, typed="n\n")
    assert status == 130
    assert "create bucket rackctl-local-" in drawn
    assert "Do this? [y/N]" in drawn
    assert tags_of(foreign) == {}

    status, drawn = foreign.on_terminal(f"rackctl racks adopt {name} --create", columns=200, typed="y\n")
    assert status == 0
    assert f"Cluster {name} is now a rack" in drawn
    assert set(tags_of(foreign)) == {"rackctl:bucket", "rackctl:kms-key"}


def test_a_denied_step_names_its_action_and_what_is_left_and_is_repeated(foreign: Shell) -> None:
    """Over two seconds: a rack of its own."""
    name = cluster_of(foreign)
    assert foreign("rackctl local faults add deny s3:PutBucketVersioning").status == 0

    stopped = foreign(f"rackctl racks adopt {name} --create --yes")

    assert stopped.status == 4
    assert "s3:PutBucketVersioning" in stopped.stderr
    assert "left to do: turn on versioning" in stopped.stderr
    assert tags_of(foreign) == {}
    assert foreign("rackctl local faults clear").status == 0
    assert foreign(f"rackctl racks adopt {name} --create --yes").stderr.count("done: ") == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("prod --bucket ''", "it is empty: is a variable in your script unset?"),
        ("prod --kms-key 'a b'", "it must be a KMS key's id, its ARN or alias/NAME"),
        ("", "Missing argument 'CLUSTER'"),
    ],
)
def test_invalid_arguments_are_refused_before_any_call(bare: Shell, words: str, says: str) -> None:
    ran = bare(f"rackctl racks adopt {words}")

    assert (ran.status, ran.stdout) == (2, "")
    assert says in ran.stderr.replace('"', "'") or says.lower() in ran.stderr.lower()


def test_a_cluster_that_does_not_exist_is_not_adopted(shell: Shell) -> None:
    ran = shell("rackctl racks adopt locla --create --yes")

    assert ran.status == 3
    assert "did you mean local?" in ran.stderr
