"""The local rack's evaluation of IAM policies, beside that of @cloud-copilot/iam-simulate, which is not ours.

`make iam-verdicts` has it judge requests under the policies of `racks policy`: iam_verdicts.json. It also checks that
each action takes the resource and each request may have its condition keys, by AWS's service authorization reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rackctl.local.iam_policy import Need, Policy
from rackctl.local.world.base import Refused
from rackctl.policies import ROLES

JUDGED = json.loads(Path(__file__).with_name("iam_verdicts.json").read_text(encoding="utf-8"))


def named(request: dict[str, Any]) -> str:
    return f"{request['action']} {'may' if request['allowed'] else 'may not'} {request['resource'][-40:]}"


@pytest.mark.parametrize("request_", JUDGED["requests"], ids=named)
def test_each_request_is_judged_as_another_simulator_judges_it(request_: dict[str, Any]) -> None:
    need = Need(request_["action"], request_["resource"], request_["context"])

    assert Policy(JUDGED["policy"]).allows(need) is request_["allowed"]


def test_requests_of_both_kinds_were_judged_with_each_operator_and_key_that_the_policies_have() -> None:
    """Run `make iam-verdicts` after a role gets a condition of another kind."""
    conditions = [statement.get("Condition", {}) for statement in JUDGED["policy"]["Statement"]]
    there = {(operator, key) for condition in conditions for operator, keys in condition.items() for key in keys}
    judged = {key for request in JUDGED["requests"] for key in request["context"]}
    of_roles = {
        (operator, key)
        for role in ROLES.values()
        for part in (role.grants, *role.parts.values())
        for grant in part
        for operator, keys in grant.conditions.items()
        for key in keys
    }

    assert of_roles - there == set()
    # Of encryption contexts the simulator knows nothing.
    assert {key for _, key in of_roles} - judged == {"kms:EncryptionContext:rackctl:rack"}
    assert {request["allowed"] for request in JUDGED["requests"]} == {True, False}


ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}
GET = Need("s3:GetObject", "arn:aws:s3:::b/x", {"s3:ResourceAccount": "1"})


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([ALLOW], True),
        (ALLOW, True),
        ([], False),
        ([{**ALLOW, "Action": ["s3:Get*"]}], True),
        ([{**ALLOW, "Action": "s3:PutObject"}], False),
        ([ALLOW, {**ALLOW, "Effect": "Deny"}], False),
        ([ALLOW, {**ALLOW, "Effect": "Deny", "Condition": {"StringEquals": {"s3:ResourceAccount": "2"}}}], True),
        ([{**ALLOW, "Condition": {"StringEquals": {"s3:ResourceAccount": ["2", "1"]}}}], True),
        ([{**ALLOW, "Condition": {"StringEquals": {"S3:resourceaccount": "1"}}}], True),
        ([{**ALLOW, "Condition": {"StringEquals": {"aws:PrincipalTag/x": "1"}}}], False),
        ([{**ALLOW, "Condition": {"StringLike": {"s3:ResourceAccount": "?"}}}], True),
    ],
)
def test_a_deny_wins_and_a_condition_on_a_missing_key_does_not_hold(statements: Any, allowed: bool) -> None:
    """IAM's guide, policy evaluation logic, and condition operators, on keys that are not present."""
    assert Policy({"Version": "2012-10-17", "Statement": statements}).allows(GET) is allowed


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        "x",
        {"Statement": [{}]},
        {"Statement": [{"Effect": "Maybe", "Action": "*"}]},
        {"Statement": [{**ALLOW, "Condition": {"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}}]},
    ],
)
def test_an_invalid_policy_or_an_unknown_operator_is_refused(document: Any) -> None:
    with pytest.raises(Refused):
        Policy(document)
