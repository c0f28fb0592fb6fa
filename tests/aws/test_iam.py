"""Decisions of IAM's simulation, read from answers in the form of the API reference.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.iam import Decision
from rackctl.errors import AccessDenied
from tests.aws.answers import aws_answering

ROLE = "arn:aws:iam::123456789012:role/ci/deploy"
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/prod"
ACTION = "ecs:DescribeClusters"


def answered(result: str, *, more: str = "") -> tuple[int, dict[str, str], bytes]:
    page = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>" + (f"<Marker>{more}</Marker>" if more else "")
    body = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"<SimulatePrincipalPolicyResult><EvaluationResults>{result}</EvaluationResults>{page}"
        "</SimulatePrincipalPolicyResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        "</SimulatePrincipalPolicyResponse>"
    )
    return 200, {"Content-Type": "text/xml"}, body.encode()


def result(decision: str, *, details: str = "", each: str = "") -> str:
    return (
        f"<member><EvalActionName>{ACTION}</EvalActionName><EvalDecision>{decision}</EvalDecision>"
        f"<EvalResourceName>arn:${{Partition}}:ecs:cluster</EvalResourceName>{details}"
        f"<ResourceSpecificResults>{each}</ResourceSpecificResults></member>"
    )


def of(resource: str, decision: str, details: str = "") -> str:
    return (
        f"<member><EvalResourceName>{resource}</EvalResourceName>"
        f"<EvalResourceDecision>{decision}</EvalResourceDecision>{details}</member>"
    )


def simulated(answer: str, resources: list[str]) -> list[Decision]:
    aws = aws_answering(lambda _: answered(answer))
    return aws.iam.simulate(ROLE, [ACTION], resources, {})


def test_each_resource_has_a_decision_of_its_own_below_that_of_all() -> None:
    """EvaluationResult: "the most restrictive decision across all resources"; each is in ResourceSpecificResults."""
    other = f"{CLUSTER}-other"

    found = simulated(result("implicitDeny", each=of(CLUSTER, "allowed") + of(other, "implicitDeny")), [CLUSTER, other])

    assert [(d.resource, d.decision) for d in found] == [(CLUSTER, "allowed"), (other, "implicitDeny")]


def test_the_decision_of_an_asterisk_is_that_of_the_result() -> None:
    assert simulated(result("allowed"), ["*"]) == [Decision(ACTION, "*", "allowed")]


def test_missing_context_values_are_read_with_the_resource() -> None:
    missing = "<MissingContextValues><member>aws:MultiFactorAuthPresent</member></MissingContextValues>"

    assert simulated(result("implicitDeny", each=of(CLUSTER, "implicitDeny", missing)), [CLUSTER]) == [
        Decision(ACTION, CLUSTER, "implicitDeny", unknown=("aws:MultiFactorAuthPresent",))
    ]


def test_missing_context_values_of_an_asterisk_are_read_from_the_result() -> None:
    missing = "<MissingContextValues><member>aws:SourceIp</member></MissingContextValues>"

    assert simulated(result("implicitDeny", details=missing), ["*"])[0].unknown == ("aws:SourceIp",)


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("Organizations", {"allowed_by_organization": False}),
        ("PermissionsBoundary", {"allowed_by_boundary": False}),
    ],
)
def test_boundaries_and_service_control_policies_that_deny_are_reported(detail: str, expected: dict[str, Any]) -> None:
    details = f"<{detail}DecisionDetail><AllowedBy{detail}>false</AllowedBy{detail}></{detail}DecisionDetail>"

    found = simulated(result("implicitDeny", details=details, each=of(CLUSTER, "implicitDeny")), [CLUSTER])

    assert found == [Decision(ACTION, CLUSTER, "implicitDeny", **expected)]


def test_the_policy_that_denies_is_named() -> None:
    matched = "<MatchedStatements><member><SourcePolicyId>no-stop</SourcePolicyId></member></MatchedStatements>"

    assert simulated(result("explicitDeny", each=of(CLUSTER, "explicitDeny", matched)), [CLUSTER])[0].policies == (
        "no-stop",
    )


def test_all_pages_are_read_and_each_asks_the_same() -> None:
    """SimulatePrincipalPolicy: Marker of the answer is that of the next request."""
    sent: list[dict[str, list[str]]] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        sent.append(parse_qs(request.body if isinstance(request.body, str) else request.body.decode()))
        return answered(result("allowed", each=of(f"{CLUSTER}{len(sent)}", "allowed")), more="" if sent[1:] else "m")

    found = aws_answering(answer).iam.simulate(ROLE, [ACTION], [CLUSTER], {"ecs:cluster": CLUSTER})

    assert [d.resource for d in found] == [f"{CLUSTER}1", f"{CLUSTER}2"]
    assert [page.get("Marker") for page in sent] == [None, ["m"]]
    assert {page["ContextEntries.member.1.ContextKeyName"][0] for page in sent} == {"ecs:cluster"}
    assert {page["PolicySourceArn"][0] for page in sent} == {ROLE}


def test_a_role_s_arn_has_the_path_that_its_session_s_leaves_out() -> None:
    body = f"<GetRoleResponse><GetRoleResult><Role><Arn>{ROLE}</Arn></Role></GetRoleResult>\
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetRoleResponse>"

    assert aws_answering(lambda _: (200, {}, body.encode())).iam.role_arn("deploy") == ROLE


@pytest.mark.parametrize(
    ("code", "status", "error"), [("AccessDenied", 403, AccessDenied), ("InvalidInput", 400, AwsError)]
)
def test_a_refusal_is_an_error_that_names_the_action(code: str, status: int, error: type[Exception]) -> None:
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>\
<RequestId>1</RequestId></ErrorResponse>"

    with pytest.raises(error, match="iam:SimulatePrincipalPolicy"):
        aws_answering(lambda _: (status, {}, body.encode())).iam.simulate(ROLE, [ACTION], [CLUSTER], {})
