"""Actions that count as allowed, denied or unknown after a simulation by IAM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.iam import Decision
from rackctl.errors import AccessDenied, RackctlError
from rackctl.permissions import Permission, principal_of, simulate
from rackctl.policies import Facts, grants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rackctl.aws.session import Aws

ROLE = "arn:aws:iam::123456789012:role/ci/deploy"
NAMED = {
    "<region>": ["us-east-1"],
    "<account>": ["123456789012"],
    "<cluster>": ["prod"],
    "<rack>": ["prod"],
    "<prefix>": ["rackctl/prod"],
    "<bucket>": ["keys"],
    "<bucket owner>": ["123456789012"],
    "<key>": ["k"],
    "<group>": ["hosts"],
}
GROUP = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:*:autoScalingGroupName/hosts"


@dataclass
class FakeIam:
    """Decides by ``decide``, and notes what it was asked."""

    decide: Callable[[str, str], Decision | Exception | None] = lambda action, resource: Decision(
        action, resource, "allowed"
    )
    asked: list[tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]] = field(default_factory=list)

    def simulate(
        self, principal: str, actions: Sequence[str], resources: Sequence[str], context: Mapping[str, str]
    ) -> list[Decision]:
        assert principal == ROLE
        self.asked.append((tuple(actions), tuple(resources), dict(context)))
        decided = [self.decide(action, resource) for action in actions for resource in resources]
        for one in decided:
            if isinstance(one, Exception):
                raise one
        return [one for one in decided if isinstance(one, Decision)]

    def role_arn(self, name: str) -> str:
        return f"arn:aws:iam::123456789012:role/ci/{name}"


@dataclass
class FakeAws:
    iam: FakeIam


def permissions(
    iam: FakeIam, role: str = "keyroll", *, named: Mapping[str, Sequence[str]] = NAMED, known: Sequence[str] = ()
) -> list[Permission]:
    return list(simulate(cast("Aws", FakeAws(iam)), ROLE, role, Facts(named), known))


def deciding(action: str, **decided: Any) -> FakeIam:
    """Make an IAM that decides so of one action, and allows all others."""
    return FakeIam(lambda a, r: Decision(a, r, **decided) if a == action else Decision(a, r, "allowed"))


def verdicts(found: Sequence[Permission], action: str) -> set[tuple[str, str]]:
    return {(permission.verdict, permission.reason) for permission in found if permission.action == action}


def test_every_action_that_a_role_needs_is_simulated() -> None:
    found = permissions(FakeIam(), "terminate", named={**NAMED, "<image parameter>": ["ops/image"]})

    assert {permission.verdict for permission in found} == {"allowed"}
    assert {permission.action for permission in found} == {a for grant in grants("terminate") for a in grant.actions}


@pytest.mark.parametrize(
    ("decided", "verdict", "reason"),
    [
        ({"decision": "implicitDeny"}, "denied", "no policy allows it"),
        ({"decision": "explicitDeny", "policies": ("no-stop",)}, "denied", "a policy no-stop denies it"),
        ({"decision": "implicitDeny", "allowed_by_boundary": False}, "denied",
         "the permissions boundary does not allow it"),
        ({"decision": "allowed", "allowed_by_organization": False}, "denied",
         "a service control policy of the organization does not allow it"),
        ({"decision": "implicitDeny", "unknown": ("aws:SourceIp",)}, "unknown",
         "it depends on aws:SourceIp, which a simulation does not include"),
        ({"decision": "allowed", "unknown": ("aws:SourceIp",)}, "unknown",
         "it depends on aws:SourceIp, which a simulation does not include"),
        ({"decision": "explicitDeny", "unknown": ("aws:SourceIp",)}, "denied", "a policy denies it"),
        ({"decision": "perhaps"}, "unknown", "IAM's simulation says perhaps"),
    ],
)  # fmt: skip
def test_only_an_unconditional_allow_counts_as_allowed(decided: dict[str, Any], verdict: str, reason: str) -> None:
    found = permissions(deciding("autoscaling:SetDesiredCapacity", **decided))

    assert verdicts(found, "autoscaling:SetDesiredCapacity") == {(verdict, reason)}
    assert {p.verdict for p in found if p.action != "autoscaling:SetDesiredCapacity"} == {"allowed"}


@pytest.mark.parametrize("action", ["kms:Encrypt", "s3:PutObject"])
def test_an_action_that_a_resource_s_policy_may_allow_is_unknown(action: str) -> None:
    """SimulatePrincipalPolicy: "does not automatically retrieve policies for the specified resources"."""
    found = permissions(deciding(action, decision="implicitDeny"))

    assert verdicts(found, action) == {("unknown", "no policy of the caller's allows it; the resource's policy may")}
    assert verdicts(permissions(deciding(action, decision="explicitDeny")), action) == {
        ("denied", "a policy denies it")
    }


def test_an_action_without_a_decision_is_unknown() -> None:
    iam = FakeIam(lambda a, r: None if a == "ecs:ListTasks" else Decision(a, r, "allowed"))

    assert verdicts(permissions(iam), "ecs:ListTasks") == {("unknown", "IAM's simulation gave no verdict")}


def test_actions_that_iam_does_not_simulate_together_are_simulated_one_by_one() -> None:
    iam = FakeIam()

    def decide(action: str, resource: str) -> Decision | Exception:
        together = len(iam.asked[-1][0]) > 1
        if together and action.startswith("ecs:"):
            return AwsError("different authorization information", code="InvalidInput")
        return Decision(action, resource, "allowed")

    iam.decide = decide
    found = permissions(iam, "list")

    assert {permission.verdict for permission in found} == {"allowed"}
    assert (("ecs:DescribeClusters",), ("arn:aws:ecs:us-east-1:123456789012:cluster/prod",)) in [
        (actions, resources) for actions, resources, _ in iam.asked
    ]


def test_a_failed_simulation_leaves_only_its_own_actions_unknown() -> None:
    iam = FakeIam(
        lambda a, r: (
            AwsError("it went wrong", code="ServiceFailure")
            if a == "ec2:DescribeInstances"
            else Decision(a, r, "allowed")
        )
    )

    found = permissions(iam, "list")

    assert verdicts(found, "ec2:DescribeInstances") == {("unknown", "it went wrong")}
    assert verdicts(found, "ecs:DescribeClusters") == {("allowed", "")}


def test_a_caller_who_may_not_simulate_gets_the_error() -> None:
    with pytest.raises(AccessDenied):
        permissions(FakeIam(lambda *_: AccessDenied("AWS denied iam:SimulatePrincipalPolicy")))


def test_an_action_on_a_name_that_the_rack_lacks_is_unknown_and_not_simulated() -> None:
    iam = FakeIam()
    without = {name: values for name, values in NAMED.items() if name != "<bucket>"}

    found = permissions(iam, named=without)

    assert verdicts(found, "s3:PutObject") == {("unknown", "not simulated: the rack's bucket is not known")}
    assert not any(action.startswith("s3:") for actions, _, _ in iam.asked for action in actions)


def test_actions_that_only_some_racks_need_are_not_simulated_on_others() -> None:
    numbered = {**NAMED, "<launch template>": ["lt-1"], "<numbered template>": ["lt-1"]}

    assert verdicts(permissions(FakeIam()), "ec2:RunInstances") == set()
    assert verdicts(permissions(FakeIam()), "iam:PassRole") == set()
    assert verdicts(permissions(FakeIam(), named=numbered), "ec2:RunInstances") == {("allowed", "")}
    assert verdicts(permissions(FakeIam(), named=numbered), "iam:PassRole") == set()


def test_an_unknown_role_is_not_simulated_by_an_asterisk() -> None:
    """Otherwise a policy that allows passing one role would count as denying it."""
    named = {**NAMED, "<launch template>": ["lt-1"], "<numbered template>": ["lt-1"], "<instance role>": ["*"]}

    assert verdicts(permissions(FakeIam(), named=named), "iam:PassRole") == {
        ("unknown", "not simulated: the rack's instance role is not known")
    }


def test_the_conditions_of_a_policy_are_the_context_of_its_simulation() -> None:
    iam = FakeIam()
    permissions(iam, "drain")

    (context,) = [context for actions, _, context in iam.asked if "ecs:DescribeTasks" in actions]
    assert context == {
        "aws:RequestedRegion": "us-east-1",
        "ecs:cluster": "arn:aws:ecs:us-east-1:123456789012:cluster/prod",
    }


def test_one_of_the_rack_s_own_resources_stands_for_an_asterisk() -> None:
    """A policy that allows ``instance/i-*`` would not match the text ``instance/*``."""
    instance = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
    iam = FakeIam()

    found = permissions(iam, "ssh", known=[instance])

    assert [p.resource for p in found if p.action == "ec2:GetConsoleOutput"] == [instance]
    assert [p.resource for p in found if p.action == "ec2:DescribeInstances"] == ["*"]


@pytest.mark.parametrize(
    ("caller", "principal"),
    [
        ("arn:aws:iam::123456789012:user/ops/alice", "arn:aws:iam::123456789012:user/ops/alice"),
        ("arn:aws:sts::123456789012:assumed-role/deploy/ci-7", ROLE),
    ],
)
def test_a_session_is_one_of_its_role(caller: str, principal: str) -> None:
    """IAM's guide, identifiers: ``assumed-role/ROLE/SESSION`` has no path, and a simulation takes roles alone."""
    assert principal_of(cast("Aws", FakeAws(FakeIam())), caller) == principal


@pytest.mark.parametrize("caller", ["arn:aws:iam::123456789012:root", "arn:aws:sts::123456789012:federated-user/bob"])
def test_a_caller_of_whom_nothing_can_be_simulated_is_refused(caller: str) -> None:
    with pytest.raises(RackctlError, match=r"root user|users and roles"):
        principal_of(cast("Aws", FakeAws(FakeIam())), caller)
