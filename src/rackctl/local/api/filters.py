"""The filters of EC2's and Auto Scaling's Describe operations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")

_FILTERS = 50
_VALUES = 200


class Filters(Generic[T]):
    """A request's filters: a resource must match every filter, by any of its values.

    ``*`` and ``?`` in a value stand for any text and any character, unless escaped by ``\\``.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
    """

    def __init__(
        self,
        asked: Sequence[Mapping[str, Any]],
        values: Mapping[str, Callable[[T], Iterable[str]]],
        tags: Callable[[T], Mapping[str, str]] | None = None,
        *,
        wildcards: bool = True,
    ) -> None:
        if len(asked) > _FILTERS:
            raise Refused("FilterLimitExceeded", f"The maximum number of filters on a single call is {_FILTERS}")
        self._filters: list[tuple[Callable[[T], Iterable[str]], frozenset[str], re.Pattern[str] | None]] = []
        for filter_ in asked:
            name, wanted = filter_.get("Name", "null"), filter_.get("Values", [])
            if len(wanted) > _VALUES:
                raise Refused(
                    "FilterLimitExceeded",
                    f"The maximum number of filter values specified on a single call is {_VALUES}",
                )
            patterns = [value for value in wanted if wildcards and re.search(r"[*?\\]", value)]
            pattern = re.compile("|".join(map(_regex, patterns)), re.DOTALL) if patterns else None
            self._filters.append((_values_of(name, values, tags), frozenset(wanted).difference(patterns), pattern))

    def __call__(self, thing: T) -> bool:
        return all(
            any(value in exact or (pattern is not None and pattern.fullmatch(value)) for value in values_of(thing))
            for values_of, exact, pattern in self._filters
        )


def _values_of(
    name: str, values: Mapping[str, Callable[[T], Iterable[str]]], tags: Callable[[T], Mapping[str, str]] | None
) -> Callable[[T], Iterable[str]]:
    if name in values:
        return values[name]
    if tags is not None:
        tags_of = tags
        if name.startswith("tag:"):
            key = name.removeprefix("tag:")
            return lambda thing: [value] if (value := tags_of(thing).get(key)) is not None else []
        if name == "tag-key":
            return tags_of
        if name == "tag-value":
            return lambda thing: tags_of(thing).values()
    raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")


def _regex(pattern: str) -> str:
    """Return the regular expression of a value with wildcards."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return "".join({"*": ".*", "?": "."}.get(part, re.escape(part[-1])) for part in parts)
