"""Doctor's checks of the clock and of the caller's permissions. An unknown is never ok."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.sts import Caller
from rackctl.doctor import account
from tests.fakes.world import Scene

if TYPE_CHECKING:
    from rackctl.doctor import Finding

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ARN = "arn:aws:iam::123456789012:user/ops"


def clock(answered: datetime | None) -> Finding:
    caller = Caller("123456789012", ARN, answered)
    return next(f for f in account.credentials(Scene().rack, caller, NOW) if f.check == "clock")


@pytest.mark.parametrize(
    ("seconds", "status", "says"),
    [
        (0, "ok", "agrees"),
        (29, "ok", "agrees"),
        (31, "warning", "behind AWS's"),
        (-31, "warning", "ahead of AWS's"),
        (241, "problem", "behind AWS's"),
        (-3600, "problem", "ahead of AWS's"),
    ],
)
def test_the_clock_is_compared_with_the_date_of_aws_s_answer(seconds: float, status: str, says: str) -> None:
    found = clock(NOW + timedelta(seconds=seconds))

    assert found.status == status
    assert says in found.message
    assert bool(found.remedy) == (status != "ok")


def test_a_clock_that_cannot_be_compared_is_not_ok() -> None:
    assert clock(None).status == "skipped"


def test_a_cluster_of_another_account_is_a_warning() -> None:
    found = list(account.cluster(Scene().rack, Caller("999999999999", ARN)))

    assert [f.status for f in found] == ["ok", "warning"]
    assert "belongs to account 123456789012, not to the caller's account" in found[1].message
    assert [f.status for f in account.cluster(Scene().rack, Caller("123456789012", ARN))] == ["ok"]
