"""STS: the caller's identity."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from rackctl.aws.client import Client, Document


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller's identity. ``answered`` is the answer's Date, None if it has none."""

    account: str
    arn: str
    answered: datetime | None = None


class Sts:
    def __init__(self, call: Client) -> None:
        self._call = call

    def caller(self) -> Caller:
        """Return the identity of the credentials. IAM cannot deny this call."""
        return self._call("get_caller_identity", lambda answer: Caller(answer["Account"], answer["Arn"], _date(answer)))


def clock_skew(caller: Caller, now: datetime) -> float | None:
    """Return the seconds by which a clock is behind AWS's, negative if it is ahead; None if unknown."""
    return (caller.answered - now).total_seconds() if caller.answered else None


def _date(answer: Document) -> datetime | None:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else None
