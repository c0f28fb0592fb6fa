"""Responses that are incomplete or not AWS's."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rackctl.local.api import Answer

if TYPE_CHECKING:
    from rackctl.local.faults import Fault

_PAGE: Final = b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body><h1>Please log in</h1></body></html>\n"


def spoiled(answer: Answer, fault: Fault) -> Answer:
    """Return the response of a fault in place of the answer."""
    junk = random.Random(fault.number).randbytes(256)  # noqa: S311 - noise, not secrets
    half = answer.body[: len(answer.body) // 2]
    bodies = {"object": b"{}", "null": b"null", "blank": b"", "garbage": junk, "truncate": half}
    match fault.kind:
        case "cut" | "drip" | "two-dates":
            return replace(answer, way=fault.kind, seconds=fault.seconds)
        case "html":
            return Answer(200, {"Content-Type": "text/html; charset=utf-8"}, _PAGE)
        case "no-content":
            return Answer(204, {}, b"")
        case "gzip-junk":
            return Answer(200, {**answer.headers, "Content-Encoding": "gzip"}, junk)
        case "truncate":
            return replace(answer, headers=_without_length(answer), body=bodies["truncate"])
        case _:
            return Answer(200, _without_length(answer), bodies[fault.kind])


def _without_length(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
