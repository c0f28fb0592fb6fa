"""What the operations of the three services have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from botocore import xform_name

if TYPE_CHECKING:
    from rackctl.local.api.wire import Protocol
    from rackctl.local.world import World

# Parameters and results, by their names in the service's model. Times are epoch seconds.
Asked: TypeAlias = Mapping[str, Any]
Result: TypeAlias = dict[str, Any]

# How many client tokens a service remembers; AWS does so for a day at least.
_TOKENS = 10_000


class Operations:
    """A service's operations: a subclass's public methods, each named after the operation it carries out.

    A method takes the parameters, which are as the model has them, and gives the result or raises Refused.
    """

    protocol: Protocol

    def __init__(self, world: World) -> None:
        self.world = world
        self._done: dict[tuple[str, str], tuple[Asked, Result]] = {}

    def call(self, name: str, asked: Asked) -> Result:
        """Carry out an operation; one whose client token has been seen before only gives its result again.

        So a client can send again what it has had no answer to.
        https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
        """
        token = asked.get("ClientToken") or asked.get("clientToken")
        if token is None:
            return self._carry_out(name, asked)
        if (name, token) in self._done:
            before, result = self._done[name, token]
            if before != asked:
                raise self.protocol.token_reused()
            return result
        result = self._carry_out(name, asked)
        if len(self._done) >= _TOKENS:
            del self._done[next(iter(self._done))]
        self._done[name, token] = (asked, result)
        return result

    def _carry_out(self, name: str, asked: Asked) -> Result:
        result: Result = getattr(self, xform_name(name))(asked)
        return result

    @classmethod
    def methods(cls) -> frozenset[str]:
        return frozenset(name for name in vars(cls).keys() - vars(Operations).keys() if not name.startswith("_"))


def derived(prefix: str, from_id: str, digits: int = 17) -> str:
    """Give an id that always goes with another: a network interface's with its instance's."""
    return f"{prefix}{hashlib.sha256(f'{prefix}{from_id}'.encode()).hexdigest()[:digits]}"


def tags_from(tags: list[dict[str, str]]) -> dict[str, str]:
    """Read Key/Value documents."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags}


def tag_documents(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Give Key/Value documents."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
