"""IAM's policy simulation for the rack's one user, by its policy and the injected denials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rackctl.local.api.operations import Asked, Result, Room, Service
from rackctl.local.api.wire_query import AutoScalingProtocol
from rackctl.local.iam_policy import Need
from rackctl.local.world.base import USER, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.local.world import World

# IAM's decision on an action, and the condition keys that it lacks.
Decide: TypeAlias = "Callable[[Need], tuple[str, list[str]]]"

_STRICTNESS: Final = ("allowed", "implicitDeny", "explicitDeny")


class IamProtocol(AutoScalingProtocol):
    """The query protocol, with IAM's errors: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html."""

    def mistaken(self, report: str) -> Refused:
        return Refused("InvalidInput", report)


class Simulations(Room["IamProtocol"]):
    def __init__(self, world: World, protocol: IamProtocol, *, decide: Decide) -> None:
        super().__init__(world, protocol)
        self._decide = decide

    def get_role(self, asked: Asked) -> Result:
        raise Refused("NoSuchEntity", f"The role with name {asked['RoleName']} cannot be found.", 404)

    def simulate_principal_policy(self, asked: Asked) -> Result:
        """Decide each action on each resource. The result itself has the strictest decision of all.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
        """
        principal = asked["PolicySourceArn"]
        if principal != f"arn:aws:iam::{self.world.account_id}:user/{USER}":
            raise Refused("NoSuchEntity", f"The entity {principal} cannot be found.", 404)
        for action in asked["ActionNames"]:
            if action.count(":") != 1:
                raise Refused("InvalidInput", f"Invalid Action Name: {action}")
        resources = asked.get("ResourceArns") or ["*"]
        context = {
            entry["ContextKeyName"]: (entry.get("ContextKeyValues") or [""])[0]
            for entry in asked.get("ContextEntries", ())
        }
        results = [
            self._result(action, [Need(action, resource, context) for resource in resources])
            for action in asked["ActionNames"]
        ]
        return {"IsTruncated": False, "EvaluationResults": results}

    def _result(self, action: str, needs: list[Need]) -> dict[str, Any]:
        decided = [(need.resource, *self._decide(need)) for need in needs]
        return {
            "EvalActionName": action,
            "EvalResourceName": "*",
            "EvalDecision": max((decision for _, decision, _ in decided), key=_STRICTNESS.index),
            "MatchedStatements": [],
            "MissingContextValues": list(dict.fromkeys(key for _, _, missing in decided for key in missing)),
            "ResourceSpecificResults": [
                {
                    "EvalResourceName": resource,
                    "EvalResourceDecision": decision,
                    "MatchedStatements": [],
                    "MissingContextValues": missing,
                }
                for resource, decision, missing in decided
                if resource != "*"
            ],
        }


class IamService(Service):
    def __init__(self, world: World, decide: Decide) -> None:
        super().__init__(world, "iam", IamProtocol, [Simulations], decide=decide)
