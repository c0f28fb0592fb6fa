"""`rackctl doctor --as`: what the caller may do, by a simulation that obeys the same denials as the calls."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from tests.local_rack import LocalRackProcess

USER = "arn:aws:iam::123456789012:user/rackctl-local"
STOP = "autoscaling:TerminateInstanceInAutoScalingGroup"


def typed(rack: LocalRackProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["rackctl", "--rack", "local", *words], env=rack.environment, capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip


def permissions(rack: LocalRackProcess, role: str) -> dict[str, list[str]]:
    """Return the messages of the check by their statuses."""
    found: dict[str, list[str]] = {}
    for finding in json.loads(typed(rack, "doctor", "--as", role, "-o", "json").stdout):
        if finding["check"] == "permissions":
            found.setdefault(finding["status"], []).append(finding["message"])
    return found


def simulation(rack: LocalRackProcess, **asked: Any) -> Any:
    return rack.client("iam").simulate_principal_policy(**{"PolicySourceArn": USER, "ActionNames": [STOP], **asked})


def test_a_caller_who_may_do_everything_has_no_problem(local_rack: LocalRackProcess) -> None:
    for role in ("list", "ssh", "terminate"):
        found = permissions(local_rack, role)

        assert found.keys() == {"ok"}
        assert found["ok"][0].startswith(f"{USER} may take ")
        assert found["ok"][0].endswith(f" actions that `{role}` needs")


def test_the_action_that_is_denied_is_the_one_that_the_command_fails_for(own_local_rack: LocalRackProcess) -> None:
    own_local_rack.faults.add("deny", STOP)

    (problem,) = permissions(own_local_rack, "terminate")["problem"]
    failed = typed(own_local_rack, "instances", "terminate", own_local_rack.ids()[0])

    assert problem.startswith(f"{STOP} on arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:")
    assert problem.endswith(": no policy allows it")
    assert failed.returncode == 4
    assert STOP in failed.stderr
    assert "problem" not in permissions(own_local_rack, "ssh")


def test_a_caller_who_may_not_simulate_is_told_so_and_the_rest_is_checked(own_local_rack: LocalRackProcess) -> None:
    own_local_rack.faults.add("deny", "iam:*")

    done = typed(own_local_rack, "doctor", "--as", "keyroll", "-o", "json")

    (told,) = [finding for finding in json.loads(done.stdout) if finding["check"] == "permissions"]
    assert (told["status"], told["remedy"]) == (
        "skipped",
        "the IAM permission that is missing: iam:SimulatePrincipalPolicy",
    )
    assert done.returncode == 0


def test_the_simulation_answers_boto3_as_the_api_reference_says(own_local_rack: LocalRackProcess) -> None:
    """IAM's API reference, EvaluationResult: one for each action, with the resources' own decisions in it."""
    resources = ["arn:aws:s3:::a", "arn:aws:s3:::b"]
    own_local_rack.faults.add("deny", STOP)

    answer = simulation(own_local_rack, ActionNames=[STOP, "s3:ListBucket"], ResourceArns=resources)
    everything = simulation(own_local_rack, ActionNames=["s3:ListBucket"])

    denied, allowed = answer["EvaluationResults"]
    assert (denied["EvalActionName"], denied["EvalDecision"]) == (STOP, "implicitDeny")
    assert allowed["EvalDecision"] == "allowed"
    assert [each["EvalResourceName"] for each in allowed["ResourceSpecificResults"]] == resources
    assert {each["EvalResourceDecision"] for each in denied["ResourceSpecificResults"]} == {"implicitDeny"}
    assert answer["IsTruncated"] is False
    assert everything["EvaluationResults"][0]["ResourceSpecificResults"] == []


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"PolicySourceArn": f"{USER}-other"}, "NoSuchEntity"),
        ({"ActionNames": ["TerminateInstances"]}, "InvalidInput"),
    ],
)
def test_a_simulation_of_what_there_is_not_is_refused(
    local_rack: LocalRackProcess, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        simulation(local_rack, **asked)

    assert caught.value.response["Error"]["Code"] == code


def test_sts_names_a_user_as_sts_does(local_rack: LocalRackProcess) -> None:
    """STS's API reference, GetCallerIdentity: ``arn:aws:iam::123456789012:user/Alice``."""
    assert local_rack.client("sts").get_caller_identity()["Arn"] == USER
