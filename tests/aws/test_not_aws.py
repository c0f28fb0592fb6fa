"""A response that is not AWS's is the same kind of error for every call, and never an error in rackctl itself."""

from __future__ import annotations

import dataclasses
import json
import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError, Unanswered, Where
from rackctl.errors import RackctlError
from tests.aws.answers import aws_answering
from tests.aws.documents import Answer, answer, operation_of
from tests.aws.operations import ask, calls_of, methods, service_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HTML = b"<html><body><h1>Log in to the guest network</h1></body></html>"
ID = {"x-amzn-RequestId": "1", "x-amz-request-id": "1"}
FOREIGN: dict[str, Answer] = {
    "HTML": (200, {"Content-Type": "text/html"}, HTML),
    "HTML that is no XML": (200, {"Content-Type": "text/html"}, b"<!DOCTYPE html><br><p>Welcome"),
    "HTML, forbidden": (403, {"Content-Type": "text/html"}, HTML),
    "HTML, not found": (404, {"Content-Type": "text/html"}, HTML),
    "HTML, unavailable": (503, {"Content-Type": "text/html"}, HTML),
    "text": (200, {"Content-Type": "text/plain"}, b"gateway timeout"),
    "nothing": (200, {}, b""),
    "no content": (204, {}, b""),
    "an empty object": (200, {"Content-Type": "application/json"}, b"{}"),
    "null": (200, {"Content-Type": "application/json"}, b"null"),
    "a list": (200, {"Content-Type": "application/json"}, b"[1]"),
    "a number": (500, {"Content-Type": "application/json"}, b"3"),
    "an unknown root": (200, {"Content-Type": "text/xml"}, b"<a><b>1</b></a>"),
    "gzip that is none": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08junk"),
    "bytes": (200, {}, bytes(range(256))),
    "a proxy's error in JSON": (502, {"Content-Type": "application/json"}, b'{"error": {"code": 502}}'),
}
# Of AWS's by its id, and without what the operation must answer.
LACKING: dict[str, Answer] = {
    "an empty object": (200, ID, b"{}"),
    "null": (200, ID, b"null"),
    "a list": (200, ID, b"[1]"),
    "HTML": (200, ID, HTML),
    "an empty result": (200, ID, b"<R><requestId>1</requestId></R>"),
}


@pytest.fixture(autouse=True)
def _ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries take their time, and change nothing here."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


class Desk:
    """An AWS whose every answer is what ``respond`` gives. It is shared: clients take most of the time to make."""

    def __init__(self) -> None:
        self.respond: Callable[[Any], Answer]
        self.aws = aws_answering(self._respond)

    def _respond(self, request: Any) -> Answer:
        return self.respond(request)


@cache
def desk() -> Desk:
    return Desk()


def asked(module: str, method: str, respond: Callable[[str], Answer]) -> Any:
    """Call a method, whose every operation gets the answer that ``respond`` gives to its name."""
    desk().respond = lambda request: respond(operation_of(service_of(module), request))
    return ask(calls_of(desk().aws, module), method)


@pytest.mark.parametrize(("module", "method"), methods())
def test_a_whole_answer_is_read_to_the_types_that_are_declared(module: str, method: str) -> None:
    result = asked(module, method, lambda operation: answer(service_of(module), operation))

    assert ill_typed(result) == []


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize(("module", "method"), methods())
def test_a_response_that_is_not_awss_is_an_unanswered_call_that_names_endpoint_and_operation(
    module: str, method: str, foreign: str
) -> None:
    operations: list[str] = []

    def respond(operation: str) -> Answer:
        operations.append(operation)
        return FOREIGN[foreign]

    with pytest.raises(Unanswered) as caught:
        asked(module, method, respond)

    named = Where(service_of(module), action=operations[-1])
    assert f"http://127.0.0.1:1 returned an unexpected (non-AWS) response to {named}" in str(caught.value)
    assert not caught.value.refused


@pytest.mark.parametrize("lacking", LACKING)
@pytest.mark.parametrize(("module", "method"), methods())
def test_an_answer_without_a_required_member_is_unanswered_or_read(module: str, method: str, lacking: str) -> None:
    outcome: Any
    try:
        outcome = asked(module, method, lambda _: LACKING[lacking])
    except AwsError as error:
        outcome = error
    assert isinstance(outcome, Unanswered) or is_500(outcome) or not outcome or outcome is True, "made of nothing"


def is_500(outcome: Any) -> bool:
    """Whether it is botocore's reading of an S3 answer with status 200 and without XML: a failure, to be retried."""
    return isinstance(outcome, AwsError) and (outcome.code, outcome.refused) == ("500", False)


# Over two seconds: some thousand answers.
@pytest.mark.parametrize(("module", "method"), methods())
def test_no_damage_to_an_answer_is_an_error_in_rackctl_itself(module: str, method: str) -> None:
    seed = random.randrange(2**32)  # pytest-randomly seeds it
    dice = random.Random(seed)

    def damage(operation: str) -> Answer:
        status, headers, body = answer(service_of(module), operation)
        return status, headers, damaged(body, dice)

    aws = aws_answering(lambda request: damage(operation_of(service_of(module), request)))
    for _ in range(60):
        try:
            result = ask(calls_of(aws, module), method)
        except RackctlError:
            continue
        assert ill_typed(result) == [], seed


@pytest.mark.parametrize(("module", "method"), methods())
def test_pages_whose_token_repeats_come_to_an_end(module: str, method: str) -> None:
    operations: list[str] = []

    def respond(operation: str) -> Answer:
        operations.append(operation)
        assert len(operations) < 20, "it goes on and on"
        return answer(service_of(module), operation, token="same")

    try:
        asked(module, method, respond)
    except Unanswered as error:
        ended = str(error)
        assert operations.count(operations[-1]) == 2
    else:
        ended = ""
    assert len(set(operations)) == len(operations) or "a page token that repeats" in ended


def damaged(body: bytes, dice: random.Random) -> bytes:
    if body.startswith(b"{") and dice.random() < 0.7:
        return json.dumps(with_another_value(json.loads(body), dice)).encode()
    start, end = sorted(dice.randrange(len(body) + 1) for _ in range(2))
    match dice.randrange(4):
        case 0:
            return body[:start]
        case 1:
            return body[:start] + body[end:]
        case 2:
            return body[:start] + dice.randbytes(3) + body[start:]
        case _:
            text = dice.choice([b"", b"-1", b"99999999999999999999", b"x", b"2026-13-45T99:99:99Z", b"&#0;", b"\xff"])
            opened = body.rfind(b">", 0, end + 1) + 1
            closed = body.find(b"<", opened)
            return body[:opened] + text + body[closed:] if closed > 0 else body


def with_another_value(value: Any, dice: random.Random) -> Any:
    """Replace or remove one value somewhere in a JSON document."""
    places = list(places_in(value))
    if not places:
        return dice.choice([None, [], "x"])
    inside, key = dice.choice(places)
    if isinstance(inside, dict) and dice.random() < 0.3:
        del inside[key]
    else:
        inside[key] = dice.choice([None, True, -1, 1e400, 10**20, "x", "", [], [None], {}, {"name": []}, [[1]]])
    return value


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places_in(value[key])


def ill_typed(value: Any) -> list[str]:
    """The members of a result that are not of the type that its dataclass declares."""
    if isinstance(value, dict):
        return [wrong for item in value.values() for wrong in ill_typed(item)]
    if isinstance(value, list | tuple):
        return [wrong for item in value for wrong in ill_typed(item)]
    if not dataclasses.is_dataclass(value):
        return []
    plain = {"str": str, "int": int, "bool": bool}
    members = [(field.name, field.type, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return [
        *(
            f"{type(value).__name__}.{name}: {found!r}"
            for name, declared, found in members
            if type(found) is not plain.get(str(declared), type(found))
        ),
        *(wrong for _, _, found in members for wrong in ill_typed(found)),
    ]
