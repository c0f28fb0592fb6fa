"""How old an object is, S3's own clock tells, whatever the time is here."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest

from rackctl.aws.s3 import S3

WRITTEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({"date": "Fri, 02 Jan 2026 03:05:06 GMT"}, 61),
        # Two of S3's servers may differ by a second.
        ({"date": "Fri, 02 Jan 2026 03:04:04 GMT"}, 0),
        ({}, 0),
    ],
)
def test_an_objects_age_is_the_difference_of_two_times_of_s3s(headers: dict[str, str], age: float) -> None:
    def call(*_: object, **__: object) -> dict[str, Any]:
        metadata = {"HTTPHeaders": headers}
        return {"Body": BytesIO(b"x"), "ETag": '"1"', "LastModified": WRITTEN, "ResponseMetadata": metadata}

    stored = S3(call).get("bucket", "key")  # type: ignore[arg-type]

    assert stored
    assert (stored.body, stored.last_modified, stored.age) == (b"x", WRITTEN, age)
