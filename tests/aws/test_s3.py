"""S3 objects as rackctl reads them: their age by S3's own clock, and their keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.aws.answers import aws_answering

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
    written = {"Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT", "ETag": '"1"', "x-amz-request-id": "1"}

    stored = aws_answering(lambda _: (200, {**written, **headers}, b"x")).s3.get("bucket", "key")

    assert stored
    assert (stored.body, stored.last_modified, stored.age) == (b"x", WRITTEN, age)


def test_listed_keys_are_those_that_were_stored_also_where_s3_url_encodes_them() -> None:
    """botocore asks for ``encoding-type=url``, and decodes the keys of an answer that names its EncodingType."""
    asked: list[str] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.url)
        keys = "".join(f"<Contents><Key>racks%2Fa%3Db%3A%40%2B+c%2F{n}</Key></Contents>" for n in range(2))
        return 200, {"x-amz-request-id": "1"}, f"<R><EncodingType>url</EncodingType>{keys}</R>".encode()

    keys = list(aws_answering(answer).s3.keys("bucket", "racks/a=b:@+ c/"))

    assert keys == ["racks/a=b:@+ c/0", "racks/a=b:@+ c/1"]
    assert "encoding-type=url" in asked[0]
