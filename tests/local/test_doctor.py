"""`rackctl doctor` on the local rack: each check is ok without a problem, and has a remedy with one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.local.state import Options
from tests.local_rack import LocalRackProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result


@pytest.fixture
def rack(start_local_rack: Callable[..., LocalRackProcess]) -> LocalRackProcess:
    return start_local_rack()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRackProcess]:
    made = LocalRackProcess(tmp_path_factory.mktemp("foreign"), Options(speed=100.0, foreign=True))
    yield made
    made.down()


def run(rack: LocalRackProcess, *words: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *words], obj=Invocation(environment=rack.environment))


def found(rack: LocalRackProcess, *words: str) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = json.loads(run(rack, "-o", "json", *words).stdout)
    return findings


def of(findings: list[dict[str, Any]], check: str) -> list[tuple[str, str, str]]:
    return [(f["status"], f["message"], f["remedy"]) for f in findings if f["check"] == check]


def test_a_rack_that_is_well_has_no_problem_and_nothing_is_changed(local_rack: LocalRackProcess) -> None:
    before = len(local_rack.calls(mutating=True))

    result = run(local_rack)

    assert result.exit_code == 0, result.stdout
    assert "problem" not in result.stdout
    # The try of a conditional write, which S3 refuses, is a call of a kind that changes something.
    changed = local_rack.calls(mutating=True)[before:]
    assert {(call["action"], call["status"]) for call in changed} <= {("PutObject", 404), ("PutObject", 412)}


def test_every_check_has_a_line(local_rack: LocalRackProcess) -> None:
    checks = {finding["check"] for finding in found(local_rack)}

    assert checks == {
        "credentials", "region", "clock", "cluster", "roll", "store", "groups", "processes", "capacity", "hooks",
        "agents", "registrations", "services", "key", "sharing", "providers", "bucket", "kms", "keys", "ssh",
    }  # fmt: skip


def test_an_instance_of_each_subnet_is_logged_in_to(local_rack: LocalRackProcess) -> None:
    told = of(found(local_rack), "ssh")

    assert [status for status, _, _ in told] == ["ok", "ok", "ok"]
    assert all("the key is accepted" in message for _, message, _ in told)


def test_a_cluster_that_is_not_a_rack_yet_is_reported_with_what_it_lacks(foreign: LocalRackProcess) -> None:
    result = run(foreign)
    findings = found(foreign)

    assert result.exit_code == 1
    assert [status for status, _, _ in of(findings, "store")] == ["problem", "problem"]
    assert of(findings, "bucket") == [("skipped", "no bucket is set", "")]
    assert of(findings, "kms") == [("skipped", "no KMS key is set", "")]
    assert "not tagged for rackctl" in of(findings, "cluster")[0][1]


@pytest.mark.parametrize(
    ("befalls", "check", "status", "says"),
    [
        ("agent-off", "agents", "problem", "the agent of"),
        ("registered-twice", "registrations", "warning", "has 2 registrations"),
    ],
)
def test_problems_of_an_instance_are_reported(
    rack: LocalRackProcess, befalls: str, check: str, status: str, says: str
) -> None:
    rack.control("befall", incident=befalls, instance=rack.ids()[0])

    told = of(found(rack), check)

    assert [(s, m) for s, m, _ in told if s == status and says in m]


def test_a_suspended_process_is_a_problem_with_its_remedy(rack: LocalRackProcess) -> None:
    (group,) = rack.aws.autoscaling.all_groups()
    rack.client("autoscaling").suspend_processes(
        AutoScalingGroupName=group.auto_scaling_group_name, ScalingProcesses=["Launch"]
    )

    [(status, message, remedy)] = of(found(rack), "processes")

    assert (status, message) == ("problem", f"the Launch process of group {group.auto_scaling_group_name} is suspended")
    assert remedy.startswith("`aws autoscaling resume-processes")


def test_a_kms_key_that_is_disabled_is_a_problem(rack: LocalRackProcess) -> None:
    kms = rack.client("kms")
    kms.disable_key(KeyId=kms.describe_key(KeyId=rack.rack["kms_key"])["KeyMetadata"]["KeyId"])

    findings = found(rack)

    assert [status for status, _, _ in of(findings, "kms")] == ["problem"]
    assert "problem" in {status for status, _, _ in of(findings, "store")}


def test_a_key_that_is_not_stored_is_reported_with_the_command_that_stores_it(rack: LocalRackProcess) -> None:
    store = rack.rack.store
    for key in list(store.keys(f"{rack.rack['prefix']}/keys/")):
        store.delete(key)

    [(status, message, remedy)] = of(found(rack), "keys")

    assert status == "warning"
    assert "of 3 instances is not stored" in message
    assert "rackctl instances keys import" in remedy


def test_a_denied_check_names_the_missing_action_and_hides_no_other(rack: LocalRackProcess) -> None:
    rack.faults.add("deny", "kms:Encrypt")
    rack.faults.add("deny", "s3:GetBucketVersioning")

    findings = found(rack)

    assert any("kms:Encrypt" in message + remedy for _, message, remedy in of(findings, "store"))
    assert [s for s, m, r in of(findings, "bucket") if "s3:GetBucketVersioning" in m + r] == ["skipped"]
    assert {status for status, _, _ in of(findings, "ssh")} == {"ok"}


def test_without_credentials_all_other_checks_are_skipped_with_the_reason(rack: LocalRackProcess) -> None:
    rack.faults.add("error", "sts:*", code="ExpiredToken")

    findings = found(rack)

    assert findings[0]["status"] == "problem"
    assert {f["status"] for f in findings[1:]} == {"skipped"}
    assert "no credentials" in findings[1]["message"]


def test_strict_counts_warnings(rack: LocalRackProcess) -> None:
    rack.control("befall", incident="registered-twice", instance=rack.ids()[0])

    assert run(rack).exit_code == 0
    assert run(rack, "--strict").exit_code == 1
