"""Pages of lists, and the tokens that name the next page."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rackctl.local.world.base import Refused

T = TypeVar("T")

# Parameters that may differ from page to page.
_SIZES = frozenset({"MaxResults", "MaxRecords", "maxResults"})


def page(
    items: Iterable[T],
    *,
    order: Callable[[T], Any],
    asked: Mapping[str, Any],
    limit: int,
    invalid_token: Refused,
    token_name: str = "NextToken",  # noqa: S107 - a parameter's name
    matches: Callable[[T], bool] = lambda _: True,
    descending: bool = False,
) -> tuple[list[T], str | None]:
    """Return the requested page, and the token of the next one; None at the end.

    A token names the last item of its page, so that items that come and go between two pages do not shift the others.
    It is valid for the same request alone: raises ``invalid_token`` for another request or a made-up token. ``order``
    returns a unique value that JSON can hold.
    """
    scope = _scope({name: value for name, value in asked.items() if name not in {token_name, *_SIZES}})
    ahead = sorted(items, key=order, reverse=descending)
    if token := asked.get(token_name):
        last = _open(token, scope, invalid_token)
        ahead = [item for item in ahead if (order(item) < last if descending else order(item) > last)]
    found: list[T] = []
    for item in ahead:
        if matches(item):
            if len(found) == limit:
                return found, _seal(order(found[-1]), scope)
            found.append(item)
    return found, None


def _scope(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _seal(last: object, scope: str) -> str:
    text = json.dumps(last)
    seal = hashlib.sha256(f"{scope}{text}".encode()).hexdigest()[:16]
    return base64.urlsafe_b64encode(f"{seal}{text}".encode()).decode()


def _open(token: str, scope: str, invalid_token: Refused) -> Any:
    try:
        text = base64.urlsafe_b64decode(token.encode()).decode()[16:]
        last = json.loads(text)
    except ValueError:
        raise invalid_token from None
    if _seal(last, scope) != token:
        raise invalid_token
    return last
