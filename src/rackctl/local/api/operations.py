"""Classes and functions that the operations of the three services share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from botocore import xform_name

if TYPE_CHECKING:
    from rackctl.local.api.wire import Protocol
    from rackctl.local.world import World

# Parameters and results, by their names in the service's model. Times are epoch seconds.
Asked: TypeAlias = Mapping[str, Any]
Result: TypeAlias = dict[str, Any]

# The number of client tokens that a service keeps; AWS keeps them for at least a day.
_TOKENS = 10_000


P = TypeVar("P", bound="Protocol")


class Room(Generic[P]):
    """Some of a service's operations: a subclass's public methods, each named after the operation it carries out.

    A method takes parameters that fit the model, and returns the result or raises Refused.
    """

    def __init__(self, world: World, protocol: P) -> None:
        self.world = world
        self.protocol = protocol

    @classmethod
    def methods(cls) -> frozenset[str]:
        return frozenset(name for name in vars(cls) if not name.startswith("_"))


class Service:
    """A service of AWS: its protocol and its operations. ``given`` are further arguments of its rooms."""

    def __init__(
        self, world: World, name: str, protocol: type[P], rooms: Sequence[type[Room[P]]], **given: Any
    ) -> None:
        made_of = protocol(name, frozenset[str]().union(*(room.methods() for room in rooms)))
        self.protocol: Protocol = made_of
        self._methods: dict[str, Callable[[Asked], Result]] = {
            method: getattr(made, method)
            for made in (room(world, made_of, **given) for room in rooms)
            for method in made.methods()
        }
        self._done: dict[tuple[str, str], tuple[Asked, Result]] = {}

    def call(self, name: str, asked: Asked) -> Result:
        """Carry out an operation. If its client token is known, return the earlier result.

        So a client can retry a call whose answer it did not get.
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
        return self._methods[xform_name(name)](asked)


def derived(prefix: str, from_id: str, digits: int = 17) -> str:
    """Return an id that is derived from another: a network interface's from its instance's."""
    return f"{prefix}{hashlib.sha256(f'{prefix}{from_id}'.encode()).hexdigest()[:digits]}"


def tags_from(tags: list[dict[str, str]]) -> dict[str, str]:
    """Read Key/Value documents."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags}


def tag_documents(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return Key/Value documents."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
