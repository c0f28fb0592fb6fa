"""Times in AWS's answers are read as botocore, the witness here, reads them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from botocore.utils import parse_timestamp as botocores
from hypothesis import given
from hypothesis import strategies as st

from rackctl.aws.timestamps import parse_timestamp

ZONES = st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=ZONES))
def test_iso_8601_is_read_as_botocore_reads_it(time: datetime) -> None:
    assert parse_timestamp(time.isoformat()) == botocores(time.isoformat()) == time


@given(st.floats(0, 4e9) | st.integers(-(2**33), 2**33))
def test_seconds_are_read_as_botocore_reads_them(seconds: float) -> None:
    # botocore rounds the local time, and may differ in the last microsecond.
    assert abs(parse_timestamp(seconds) - botocores(seconds)) <= timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26T10:00:00.000Z",  # EC2, Auto Scaling, S3's listing
        "2026-11-26T10:00:00Z",  # CloudFormation, IAM
        "2026-11-26T10:00:00.123456+00:00",
        "20261126T100000Z",
        "Thu, 26 Nov 2026 10:00:00 GMT",  # S3's headers
        "1795687200",
        "1795687200.5",
        "2026-11-26",
        "2026-11-26T10:00:00",
    ],
)
def test_every_form_that_services_use_is_read_as_botocore_reads_it(text: str) -> None:
    read, expected = parse_timestamp(text), botocores(text)
    assert (read, read.tzinfo is None) == (expected, expected.tzinfo is None)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_text_that_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="timestamp"):
        parse_timestamp(text)
