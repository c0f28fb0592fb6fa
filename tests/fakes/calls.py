"""The calls of a fake AWS: each is counted, and can be interrupted before or after it takes effect, or answered
wrongly."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from rackctl.aws.errors import AwsError
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.world_aws import WorldAws


@contextmanager
def as_aws() -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise AwsError(f"AWS refused: {refused.message}", code=refused.code, refused=True) from refused


def mutating(method: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a call that changes something: it is counted, and can be cut off before or after it takes effect."""

    @wraps(method)
    def call(self: WorldAws, *args: Any, **kwargs: Any) -> Any:
        number = len(self.mutations)
        self.mutations.append(method.__name__)
        for interfere in self.interfering:
            interfere(number, method.__name__, "before")
        with as_aws():
            result = method(self, *args, **kwargs)
        for interfere in self.interfering:
            interfere(number, method.__name__, "after")
        return result

    return call


def reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: WorldAws, *args: Any, **kwargs: Any) -> Any:
        self.reads.append(method.__name__)
        for interfere in self.interfering:
            interfere(-1, method.__name__, "before")
        with as_aws():
            answer = method(self, *args, **kwargs)
        for misread in self.misreading:
            answer = misread(method.__name__, answer)
        return answer

    return call
