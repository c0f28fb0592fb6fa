"""STS: who calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rackctl.aws.client import Client


@dataclass(frozen=True, slots=True)
class Caller:
    account: str
    arn: str


class Sts:
    def __init__(self, call: Client) -> None:
        self._call = call

    def caller(self) -> Caller:
        """Give the identity that the credentials belong to. IAM cannot deny this call."""
        return self._call("get_caller_identity", lambda answer: Caller(answer["Account"], answer["Arn"]))
