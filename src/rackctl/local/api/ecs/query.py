"""The cluster query language, which filters container instances.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeAlias

# The values of a container instance by subject: "agentConnected", "attribute:ecs.instance-type".
Values: TypeAlias = Mapping[str, "Value"]
Value: TypeAlias = str | float | bool | tuple[str, ...] | None
Predicate: TypeAlias = Callable[[Values], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<sign>==|!=|>=|<=|=~|!~|&&|\|\||[()\[\],<>!])|(?P<word>[^\s()\[\],<>=!&|"']+))"""
)
_SUBJECT = re.compile(
    r"agentConnected|agentVersion|ec2InstanceId|registeredAt|runningTasksCount|task:group|attribute:[\w./-]+"
)
_OPERATORS = {
    "==": "==", "equals": "==", "!=": "!=", "not_equals": "!=", ">": ">", "greater_than": ">", ">=": ">=",
    "greater_than_equal": ">=", "<": "<", "less_than": "<", "<=": "<=", "less_than_equal": "<=", "=~": "=~",
    "matches": "=~", "!~": "!~", "not_matches": "!~", "in": "in", "not_in": "!in", "exists": "exists",
    "not_exists": "!exists",
}  # fmt: skip
_NUMBERS = frozenset({"registeredAt", "runningTasksCount"})
_ORDER = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def parse(expression: str) -> Predicate:
    """Parse an expression. Raises ValueError with the reason."""
    reader = _Reader(_tokens(expression))
    predicate = reader.either()
    if reader.next is not None:
        raise ValueError(f"unexpected {reader.next!r}")
    return predicate


def _tokens(expression: str) -> list[str]:
    tokens, at, end = [], 0, len(expression.rstrip())
    while at < end:
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"unexpected {expression[at:].strip()[:1]!r}")
        tokens.append(match[match.lastgroup or 0])
        at = match.end()
    return tokens


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens[::-1]

    @property
    def next(self) -> str | None:
        return self._tokens[-1] if self._tokens else None

    def take(self, expected: str = "") -> str:
        if not self._tokens or (expected and self._tokens[-1] != expected):
            found = repr(self._tokens[-1]) if self._tokens else "the end"
            raise ValueError(f"{repr(expected) if expected else 'something'} expected in place of {found}")
        return self._tokens.pop()

    def either(self) -> Predicate:
        left = self.both()
        while self.next in {"or", "||"}:
            self.take()
            left = _either(left, self.both())
        return left

    def both(self) -> Predicate:
        left = self.single()
        while self.next in {"and", "&&"}:
            self.take()
            left = _both(left, self.single())
        return left

    def single(self) -> Predicate:
        if self.next in {"not", "!"}:
            self.take()
            denied = self.single()
            return lambda values: not denied(values)
        if self.next == "(":
            self.take()
            inner = self.either()
            self.take(")")
            return inner
        return self.comparison()

    def comparison(self) -> Predicate:
        subject = self.take()
        if not _SUBJECT.fullmatch(subject):
            raise ValueError(f"unknown subject {subject!r}")
        sign = self.take()
        if sign == "!" and self.next in {"in", "exists"}:
            sign = f"!{self.take()}"
        sign = _OPERATORS.get(sign, sign)
        if sign not in {*_OPERATORS.values()}:
            raise ValueError(f"unknown operator {sign!r}")
        if sign in {"exists", "!exists"}:
            return lambda values: (subject in values) == (sign == "exists")
        if sign in {"in", "!in"}:
            wanted = [_value(subject, one) for one in self.list()]
            return lambda values: any(_equal(values, subject, one) for one in wanted) == (sign == "in")
        return _comparison(subject, sign, _value(subject, self.take()))

    def list(self) -> list[str]:
        self.take("[")
        items = [self.take()]
        while self.next == ",":
            self.take()
            items.append(self.take())
        self.take("]")
        return items


def _either(left: Predicate, right: Predicate) -> Predicate:
    return lambda values: left(values) or right(values)


def _both(left: Predicate, right: Predicate) -> Predicate:
    return lambda values: left(values) and right(values)


def _value(subject: str, token: str) -> str:
    if token in {"(", ")", "[", "]", ",", "!", "&&", "||", *_ORDER, "==", "!=", "=~", "!~", "and", "or", "not"}:
        raise ValueError(f"a value expected in place of {token!r}")
    text = token[1:-1] if token[0] in "\"'" else token
    if subject in _NUMBERS:
        _number(text)
    return text


def _comparison(subject: str, sign: str, wanted: str) -> Predicate:
    if sign == "==":
        return lambda values: _equal(values, subject, wanted)
    if sign == "!=":
        return lambda values: not _equal(values, subject, wanted)
    if sign in {"=~", "!~"}:
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise ValueError(f"{wanted!r} is not a regular expression: {error}") from error
        return lambda values: any(pattern.search(text) for text in _texts(values.get(subject))) == (sign == "=~")
    compare = _ORDER[sign]
    bound = _number(wanted)

    def ordered(values: Values) -> bool:
        value = values.get(subject)
        return not isinstance(value, str | tuple | None) and compare(value, bound)

    return ordered


def _equal(values: Values, subject: str, wanted: str) -> bool:
    value = values.get(subject)
    if isinstance(value, float):
        return value == _number(wanted)
    return wanted in _texts(value)


def _texts(value: Value) -> tuple[str, ...]:
    match value:
        case None:
            return ()
        case tuple():
            return value
        case bool():
            return (str(value).lower(),)
        case _:
            return (str(value),)


def _number(text: str) -> float:
    """Read a number, or a time as epoch seconds."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor a time") from None
