"""S3: small objects, and the conditional writes that locks are made of."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from rackctl.aws.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rackctl.aws.client import Client, Document

# 412 when the condition does not hold, 409 when two conditional writes meet.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_CONDITION_FAILED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read. ``age`` is the seconds since it was written: both ends are of S3's own clock."""

    body: bytes
    etag: str
    last_modified: datetime
    age: float = 0.0


class S3:
    def __init__(self, call: Client) -> None:
        self._call = call

    def get(self, bucket: str, key: str) -> StoredObject | None:
        """Read an object, or None where there is none. Raises NotFound for no such bucket."""
        try:
            return self._call("get_object", _stored, resource=_url(bucket, key), Bucket=bucket, Key=key)
        except AwsError as error:
            if error.code in {"NoSuchKey", "404"}:
                return None
            raise

    def create(self, bucket: str, key: str, body: bytes) -> str | None:
        """Write an object that must not exist yet, and give its ETag; None when it does exist."""
        return self._put(bucket, key, body, IfNoneMatch="*")

    def replace(self, bucket: str, key: str, body: bytes, *, etag: str) -> str | None:
        """Write an object over the version with this ETag, and give the new one; None when it has changed."""
        return self._put(bucket, key, body, IfMatch=etag)

    def delete(self, bucket: str, key: str, *, etag: str = "") -> bool:
        """Delete an object, with ``etag`` only while it is that version; tell whether it was.

        One that is not there is deleted.
        """
        condition = {"IfMatch": etag} if etag else {}
        try:
            self._call("delete_object", resource=_url(bucket, key), Bucket=bucket, Key=key, **condition)
        except AwsError as error:
            if error.code in {"NoSuchKey", "404"}:
                return True
            if error.code in _CONDITION_FAILED:
                return False
            raise
        return True

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the keys of the objects under a prefix, in S3's order."""
        for page in self._call.pages(
            "list_objects_v2",
            lambda page: [str(document["Key"]) for document in page.get("Contents", ())],
            resource=_url(bucket, prefix),
            Bucket=bucket,
            Prefix=prefix,
        ):
            yield from page

    def _put(self, bucket: str, key: str, body: bytes, **condition: Any) -> str | None:
        try:
            return self._call(
                "put_object",
                lambda answer: str(answer["ETag"]),
                resource=_url(bucket, key),
                Bucket=bucket,
                Key=key,
                Body=body,
                ContentType="application/json",
                **condition,
            )
        except AwsError as error:
            # Of an object that is gone, S3 says so rather than that the condition has failed.
            if error.code in _CONDITION_FAILED or ("IfMatch" in condition and error.code in {"NoSuchKey", "404"}):
                return None
            raise


def _stored(answer: Document) -> StoredObject:
    with answer["Body"] as body:
        written: datetime = answer["LastModified"]
        return StoredObject(body.read(), answer["ETag"], written, _age(written, answer))


def _age(written: datetime, answer: Document) -> float:
    """Compare two times of one answer. A Date is in every one (RFC 9110, 6.6.1); without it, it is as good as new."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return max((parsedate_to_datetime(date) - written).total_seconds(), 0.0) if date else 0.0


def _url(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"
