"""An IAM policy that restricts the rack's user. moto evaluates it, except for its conditions.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Decision = Literal["allowed", "explicitDeny", "implicitDeny"]

_OPERATORS: Final[dict[str, Callable[[str, str], bool]]] = {
    "StringEquals": lambda wanted, actual: wanted == actual,
    "StringLike": lambda wanted, actual: fnmatchcase(actual, wanted.replace("[", "[[]")),
    # "The ArnEquals and ArnLike condition operators behave identically."
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    "ArnEquals": lambda wanted, actual: fnmatchcase(actual, wanted.replace("[", "[[]")),
    "ArnLike": lambda wanted, actual: fnmatchcase(actual, wanted.replace("[", "[[]")),
    "Bool": lambda wanted, actual: wanted.lower() == actual.lower(),
}


class Need(NamedTuple):
    """An IAM action on a resource that a call needs.

    ``context`` are the condition keys of the request. ``named`` is the resource in the service's refusal, if it is
    another.
    """

    action: str
    resource: str
    context: Mapping[str, str] = {}
    named: str = ""


class Policy:
    """A policy document. Raises Refused for an invalid one, and for unsupported condition operators."""

    def __init__(self, document: Any) -> None:
        try:
            statements = document["Statement"]
            self._statements = list(statements) if isinstance(statements, list) else [statements]
            for statement in self._statements:
                if statement["Effect"] not in {"Allow", "Deny"} or not {"Action", "NotAction"} & statement.keys():
                    raise validation_error(f"not a statement of a policy: {statement}")
                if unknown := statement.get("Condition", {}).keys() - _OPERATORS.keys():
                    raise validation_error(
                        f"the local rack does not support the condition operators {', '.join(sorted(unknown))}"
                    )
        except (AttributeError, KeyError, TypeError) as error:
            raise validation_error(f"not an IAM policy: {type(error).__name__} {error}") from error

    def allows(self, need: Need) -> bool:
        """Return whether a statement allows a need of a call, and none denies it."""
        return self.decision(need) == "allowed"

    def decision(self, need: Need) -> Decision:
        """Return IAM's decision on a need of a call."""
        effects = {
            statement["Effect"]
            for statement in self._about(need)
            if _holds(statement.get("Condition", {}), need.context)
        }
        return "explicitDeny" if "Deny" in effects else "allowed" if "Allow" in effects else "implicitDeny"

    def unknown_keys(self, need: Need) -> list[str]:
        """Return the condition keys of the applicable statements that the request lacks."""
        actual = {key.lower() for key in need.context}
        keys = (
            key for statement in self._about(need) for one in statement.get("Condition", {}).values() for key in one
        )
        return [key for key in dict.fromkeys(keys) if key.lower() not in actual]

    def _about(self, need: Need) -> Iterator[Mapping[str, Any]]:
        """Yield the statements that apply to an action and a resource, regardless of their conditions."""
        from moto.iam.access_control import IAMPolicyStatement, PermissionResult

        for statement in self._statements:
            # moto treats an Allow whose condition does not hold as a Deny.
            bare = IAMPolicyStatement({key: value for key, value in statement.items() if key != "Condition"})
            if bare.is_action_permitted(need.action, need.resource) != PermissionResult.NEUTRAL:
                yield statement


def _holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """Return whether each key has one of its values; a key that the request lacks has none."""
    actual = {key.lower(): value for key, value in context.items()}
    return all(
        key.lower() in actual
        and any(
            _OPERATORS[operator](str(value), actual[key.lower()])
            for value in (values if isinstance(values, list) else [values])
        )
        for operator, keys in condition.items()
        for key, values in keys.items()
    )
