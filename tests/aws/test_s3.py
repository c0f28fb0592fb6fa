"""S3 as rackctl uses it: an object's age by S3's clock, keys, conditional writes, and the bucket's owner."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied
from tests.aws.answers import aws_answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.aws.s3 import Bucket

OWNER = "123456789012"
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

    stored = aws_answering(lambda _: (200, {**written, **headers}, b"x")).s3.bucket("bucket", owner=OWNER).get("key")

    assert stored
    assert (stored.body, stored.last_modified, stored.age) == (b"x", WRITTEN, age)


def test_listed_keys_are_those_that_were_stored_also_where_s3_url_encodes_them() -> None:
    """botocore asks for ``encoding-type=url``, and decodes the keys of an answer that names its EncodingType."""
    asked: list[str] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        asked.append(request.url)
        keys = "".join(f"<Contents><Key>racks%2Fa%3Db%3A%40%2B+c%2F{n}</Key></Contents>" for n in range(2))
        return 200, {"x-amz-request-id": "1"}, f"<R><EncodingType>url</EncodingType>{keys}</R>".encode()

    keys = list(aws_answering(answer).s3.bucket("bucket", owner=OWNER).keys("racks/a=b:@+ c/"))

    assert keys == ["racks/a=b:@+ c/0", "racks/a=b:@+ c/1"]
    assert "encoding-type=url" in asked[0]


def bucket(answer: Callable[[Any], tuple[int, dict[str, str], bytes]]) -> Bucket:
    return aws_answering(answer).s3.bucket("bucket", owner=OWNER)


def answers(status: int, code: str = "") -> Bucket:
    """Return a bucket of which every answer is this one."""
    body = f"<Error><Code>{code}</Code><Message>why</Message></Error>".encode() if code else b""
    return bucket(lambda _: (status, {"x-amz-request-id": "1", "ETag": '"2"'}, body))


ASKS: dict[str, Callable[[Bucket], object]] = {
    "get": lambda b: b.get("key"),
    "create": lambda b: b.create("key", b"x"),
    "replace": lambda b: b.replace("key", b"x", etag='"1"'),
    "delete": lambda b: b.delete("key", etag='"1"'),
    "keys": lambda b: list(b.keys("prefix/")),
    "try_conditional_write": lambda b: b.try_conditional_write("key"),
}
WRITES = {name: ASKS[name] for name in ("create", "replace", "delete")}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_request_for_a_bucket_of_another_region_is_redirected_there(ask: Callable[[Bucket], object]) -> None:
    """S3's guide, "Making requests": 301 PermanentRedirect, with the region in x-amz-bucket-region."""
    asked: list[str] = []
    id_ = {"x-amz-request-id": "1"}

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        asked.append(urlsplit(request.url).netloc)
        if len(asked) == 1:
            return 301, {**id_, "x-amz-bucket-region": "eu-west-1"}, b"<Error><Code>PermanentRedirect</Code></Error>"
        return 403, id_, b"<Error><Code>AccessDenied</Code><Message>there</Message></Error>"

    store = aws_answering(answer, endpoint_url=None).s3.bucket("bucket", owner=OWNER)
    with pytest.raises(AccessDenied, match="there"):
        ask(store)

    assert asked == ["bucket.s3.amazonaws.com", "bucket.s3.eu-west-1.amazonaws.com"]


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_every_call_names_the_account_that_must_own_the_bucket(ask: Callable[[Bucket], object]) -> None:
    """ExpectedBucketOwner, in botocore's S3 model: "If the account ID that you provide does not match the actual owner
    of the bucket, the request fails with the HTTP status code 403 Forbidden (access denied)."
    """
    owners: list[str] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        owners.append(request.headers["x-amz-expected-bucket-owner"])
        headers = {"x-amz-request-id": "1", "ETag": '"2"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        return 200, headers, b"<R></R>" if "list-type" in request.url else b""

    ask(bucket(answer))

    assert owners
    assert {owner if isinstance(owner, str) else owner.decode() for owner in owners} == {OWNER}


def test_a_failed_condition_is_distinguished_from_a_write() -> None:
    failed, done = answers(412, "PreconditionFailed"), answers(200)

    assert failed.create("key", b"x") is None
    assert failed.replace("key", b"x", etag='"1"') is None
    assert failed.delete("key", etag='"1"') is False
    assert done.create("key", b"x") == '"2"'
    assert done.replace("key", b"x", etag='"1"') == '"2"'
    assert done.delete("key", etag='"1"') is True


@pytest.mark.parametrize("ask", WRITES.values(), ids=WRITES.keys())
def test_a_conflict_of_two_writes_is_an_unanswered_call_and_no_failed_condition(
    ask: Callable[[Bucket], object],
) -> None:
    """PutObjectRequest.IfMatch, in botocore's S3 model: "If a conflicting operation occurs during the upload S3 returns
    a 409 ConditionalRequestConflict response. On a 409 failure you should fetch the object's ETag and retry the
    upload."
    """
    with pytest.raises(AwsError, match="s3://bucket/key: another conditional request was in progress") as caught:
        ask(answers(409, "ConditionalRequestConflict"))

    assert caught.value.code == "ConditionalRequestConflict"
    assert not caught.value.refused


def test_an_object_that_does_not_exist_counts_as_deleted_and_is_not_replaced() -> None:
    missing = answers(404, "NoSuchKey")

    assert missing.get("key") is None
    assert missing.delete("key", etag='"1"') is True
    assert missing.replace("key", b"x", etag='"1"') is None


def test_a_store_that_heeds_conditions_is_left_as_it_was_by_the_try_of_one() -> None:
    methods: list[str] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        methods.append(request.method)
        body = b"<Error><Code>PreconditionFailed</Code></Error>"
        return 412, {"x-amz-request-id": "1"}, body

    assert bucket(answer).try_conditional_write("key") is True
    assert methods == ["PUT"]


def test_a_conflict_shows_as_well_that_a_store_heeds_conditions() -> None:
    """Two plans that try it at the same time may meet.

    S3's error codes: ConditionalRequestConflict, 409, "A conflicting operation occurred" beside a conditional request.
    """
    assert answers(409, "ConditionalRequestConflict").try_conditional_write("key") is True


def test_a_store_that_ignores_conditions_is_found_out_and_left_as_it_was() -> None:
    methods: list[str] = []

    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        methods.append(request.method)
        return 200, {"x-amz-request-id": "1", "ETag": '"2"'}, b""

    assert bucket(answer).try_conditional_write("key") is False
    assert methods == ["PUT", "DELETE"]
