"""`rackctl doctor --as`: the caller's permissions, by a simulation with the same denials as the calls."""

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
        assert found["ok"][0].startswith(f"{USER} is allowed ")
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


def test_without_the_permission_to_simulate_permissions_are_skipped_and_the_rest_is_checked(
    own_local_rack: LocalRackProcess,
) -> None:
    own_local_rack.faults.add("deny", "iam:*")

    done = typed(own_local_rack, "doctor", "--as", "keyroll", "-o", "json")

    (told,) = [finding for finding in json.loads(done.stdout) if finding["check"] == "permissions"]
    assert (told["status"], told["remedy"]) == (
        "skipped",
        "the IAM permission that is missing: iam:SimulatePrincipalPolicy",
    )
    assert done.returncode == 0


def test_the_simulation_answers_boto3_as_in_the_api_reference(own_local_rack: LocalRackProcess) -> None:
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
def test_a_simulation_of_an_unknown_user_role_or_action_is_refused(
    local_rack: LocalRackProcess, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as caught:
        simulation(local_rack, **asked)

    assert caught.value.response["Error"]["Code"] == code


def test_sts_names_a_user_as_sts_does(local_rack: LocalRackProcess) -> None:
    """STS's API reference, GetCallerIdentity: ``arn:aws:iam::123456789012:user/Alice``."""
    assert local_rack.client("sts").get_caller_identity()["Arn"] == USER


def policy_for(rack: LocalRackProcess, *roles: str) -> dict[str, Any]:
    printed = typed(rack, "racks", "policy", *(word for role in roles for word in ("--for", role)))
    assert printed.returncode == 0, printed.stderr
    policy: dict[str, Any] = json.loads(printed.stdout)
    # A user needs this to be simulated; `racks policy` does not know the user.
    simulates = {"Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": USER}
    return {**policy, "Statement": [*policy["Statement"], simulates]}


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    statements = []
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if kept := [one for one in actions if one != action]:
            statements.append({**statement, "Action": kept})
    return {**policy, "Statement": statements}


def test_the_printed_policy_is_enough_and_an_action_taken_out_of_it_is_the_one_that_is_missing(
    own_local_rack: LocalRackProcess,
) -> None:
    """The local rack decides by the policy, with moto's IAM. Over two seconds: a few dozen commands' worth of calls."""
    policy = policy_for(own_local_rack, "keyroll", "doctor")
    own_local_rack.set_policy(policy)
    whole = permissions(own_local_rack, "keyroll")
    own_local_rack.set_policy(without(policy, "ecs:UpdateContainerInstancesState"))
    lacking = permissions(own_local_rack, "keyroll")

    assert "problem" not in whole, whole
    (problem,) = lacking["problem"]
    assert problem.startswith(
        "ecs:UpdateContainerInstancesState on arn:aws:ecs:us-east-1:123456789012:container-instance/"
    )
    assert problem.endswith(": no policy allows it")


def test_a_condition_that_a_simulation_cannot_know_is_no_permission(own_local_rack: LocalRackProcess) -> None:
    policy = policy_for(own_local_rack, "list", "doctor")
    from_office = {"StringEquals": {"aws:SourceIp": "192.0.2.1"}}
    only = {"Effect": "Allow", "Action": "ecs:DescribeClusters", "Resource": "*", "Condition": from_office}
    statements = [*without(policy, "ecs:DescribeClusters")["Statement"], only]
    own_local_rack.set_policy({**policy, "Statement": statements})
    answer = simulation(own_local_rack, ActionNames=["ecs:DescribeClusters"])["EvaluationResults"][0]

    assert (answer["EvalDecision"], answer["MissingContextValues"]) == ("implicitDeny", ["aws:SourceIp"])


def test_an_explicit_deny_is_distinguished_from_an_implicit_one(own_local_rack: LocalRackProcess) -> None:
    """IAM's guide, policy evaluation logic: an explicit deny overrides any allow."""
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = {"Effect": "Deny", "Action": STOP, "Resource": "*"}
    own_local_rack.set_policy({"Version": "2012-10-17", "Statement": [allow, deny]})

    (problem,) = permissions(own_local_rack, "terminate")["problem"]

    assert problem.endswith(": a policy denies it")
