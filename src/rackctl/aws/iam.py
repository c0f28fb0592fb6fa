"""IAM: simulations of the policies of a user or a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.aws.client import Client, Document


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an action on a resource is allowed.

    ``decision`` is IAM's: ``allowed``, ``implicitDeny`` or ``explicitDeny``. ``unknown`` are context keys of a policy
    that had no value. ``policies`` are those whose statements decided.
    """

    action: str
    resource: str
    decision: str
    unknown: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    allowed_by_boundary: bool = True
    allowed_by_organization: bool = True


class Iam:
    def __init__(self, call: Client) -> None:
        self._call = call

    def role_arn(self, name: str) -> str:
        """Return the ARN of a role, with the path that the ARN of its sessions lacks."""
        return self._call("get_role", lambda answer: str(answer["Role"]["Arn"]), resource=f"role {name}", RoleName=name)

    def simulate(
        self, principal: str, actions: Sequence[str], resources: Sequence[str], context: Mapping[str, str]
    ) -> list[Decision]:
        """Return IAM's decision on each action on each resource, for a user or a role by its ARN.

        ``context`` are the values of context keys. The policies of the resources themselves are not simulated.
        """
        entries = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in context.items()
        ]
        pages = self._call.pages(
            "simulate_principal_policy",
            lambda page: [
                decision for result in page["EvaluationResults"] for decision in _decisions(result, resources)
            ],
            resource=principal,
            PolicySourceArn=principal,
            ActionNames=list(actions),
            ResourceArns=list(resources),
            ContextEntries=entries,
        )
        return list(dict.fromkeys(decision for page in pages for decision in page))


def _decisions(result: Document, resources: Sequence[str]) -> Iterator[Decision]:
    """Yield the decision on each resource; for ``*`` that of the whole result, the strictest of all."""
    action = str(result["EvalActionName"])
    organization = result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is not False
    each = result.get("ResourceSpecificResults") or [
        {**result, "EvalResourceDecision": result["EvalDecision"], "EvalResourceName": name} for name in resources
    ]
    for one in each:
        detail = one.get("PermissionsBoundaryDecisionDetail") or result.get("PermissionsBoundaryDecisionDetail", {})
        yield Decision(
            action,
            str(one["EvalResourceName"]),
            str(one["EvalResourceDecision"]),
            tuple(one.get("MissingContextValues", ())),
            tuple(str(statement["SourcePolicyId"]) for statement in one.get("MatchedStatements", ())),
            detail.get("AllowedByPermissionsBoundary") is not False,
            organization,
        )
