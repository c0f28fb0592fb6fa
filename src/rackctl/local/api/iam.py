"""As much of IAM as a simulation needs: what the rack's one user may do is all but what is denied on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.local.api.operations import Asked, Result, Room, Service
from rackctl.local.api.wire_query import AutoScalingProtocol
from rackctl.local.world.base import USER, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.local.world import World


class IamProtocol(AutoScalingProtocol):
    """The query protocol, in IAM's words: https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html."""

    def mistaken(self, report: str) -> Refused:
        return Refused("InvalidInput", report)


class Simulations(Room["IamProtocol"]):
    def __init__(self, world: World, protocol: IamProtocol, *, denies: Callable[[str], bool]) -> None:
        super().__init__(world, protocol)
        self._denies = denies

    def get_role(self, asked: Asked) -> Result:
        raise Refused("NoSuchEntity", f"The role with name {asked['RoleName']} cannot be found.", 404)

    def simulate_principal_policy(self, asked: Asked) -> Result:
        """Decide each action on each resource. Whatever is asked of, the answer has the strictest of all at its top.

        https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
        """
        principal = asked["PolicySourceArn"]
        if principal != f"arn:aws:iam::{self.world.account_id}:user/{USER}":
            raise Refused("NoSuchEntity", f"The entity {principal} cannot be found.", 404)
        for action in asked["ActionNames"]:
            if action.count(":") != 1:
                raise Refused("InvalidInput", f"Invalid Action Name: {action}")
        resources = [name for name in asked.get("ResourceArns", ()) if name != "*"]
        return {
            "IsTruncated": False,
            "EvaluationResults": [self._result(action, resources) for action in asked["ActionNames"]],
        }

    def _result(self, action: str, resources: list[str]) -> dict[str, Any]:
        decision = "implicitDeny" if self._denies(action) else "allowed"
        matched = [{"SourcePolicyId": "user_rackctl-local"}] if decision == "allowed" else []
        of_each = {"MatchedStatements": matched, "MissingContextValues": []}
        return {
            "EvalActionName": action,
            "EvalResourceName": "*",
            "EvalDecision": decision,
            **of_each,
            "ResourceSpecificResults": [
                {"EvalResourceName": resource, "EvalResourceDecision": decision, **of_each} for resource in resources
            ],
        }


class IamService(Service):
    """``denies`` says of an action whether the user may not take it."""

    def __init__(self, world: World, denies: Callable[[str], bool]) -> None:
        super().__init__(world, "iam", IamProtocol, [Simulations], denies=denies)
