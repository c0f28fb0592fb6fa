"""S3: small objects in one bucket, and the conditional writes that a lock needs."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rackctl.aws.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from rackctl.aws.bucket_settings import BucketSettings
    from rackctl.aws.client import Client, Document

T = TypeVar("T")

# 412: the condition does not hold. 409: another conditional write was in progress; retry this one.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
_CONDITION_FAILED = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "409"}
_NOT_THERE = {"NoSuchKey", "404"}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was read. ``age`` is the seconds since it was written, by S3's own clock."""

    body: bytes
    etag: str
    last_modified: datetime
    age: float = 0.0


class S3:
    def __init__(self, call: Client) -> None:
        self._call = call

    def bucket(self, name: str, *, owner: str) -> Bucket:
        """Return a bucket; S3 refuses every call on it unless this account owns it."""
        return Bucket(self._call, name, owner)

    def bucket_settings(self, name: str, *, owner: str) -> BucketSettings:
        """Return the settings of a bucket that this account owns or will own."""
        from rackctl.aws.bucket_settings import BucketSettings

        return BucketSettings(self._call, name, owner)


class Bucket:
    """One bucket. Every call names its owner, so that S3 refuses a bucket of that name in another account.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
    """

    def __init__(self, call: Client, name: str, owner: str) -> None:
        self._call = call
        self.name = name
        self.owner = owner

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def get(self, key: str) -> StoredObject | None:
        """Read an object; None if it does not exist. Raises NotFound if the bucket does not exist."""
        try:
            return self._ask("get_object", _stored, key)
        except AwsError as error:
            if error.code in _NOT_THERE:
                return None
            raise

    def create(self, key: str, body: bytes) -> str | None:
        """Write an object that must not exist yet; return its ETag, or None if it exists."""
        return self._put(key, body, IfNoneMatch="*")

    def put(self, key: str, body: bytes) -> None:
        """Write an object, overwriting an existing one."""
        self._put(key, body)

    def replace(self, key: str, body: bytes, *, etag: str) -> str | None:
        """Overwrite an object if it has this ETag; return the new ETag, or None if the object has changed."""
        return self._put(key, body, IfMatch=etag)

    def delete(self, key: str, *, etag: str = "") -> bool:
        """Delete an object; with ``etag``, only that version of it. Return False if the object has another version.

        An object that does not exist counts as deleted.
        """
        condition = {"IfMatch": etag} if etag else {}
        try:
            self._ask("delete_object", lambda _: None, key, **condition)
        except AwsError as error:
            if error.code in _NOT_THERE:
                return True
            if error.code in _CONDITION_FAILED:
                return False
            raise self._unless_conflict(error, key) from error
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys of the objects under a prefix, in S3's order."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of each object under a prefix, in S3's order."""
        for page in self._call.pages(
            "list_objects_v2",
            lambda page: [(str(found["Key"]), int(found.get("Size", 0))) for found in page.get("Contents", ())],
            resource=self.url(prefix),
            Bucket=self.name,
            ExpectedBucketOwner=self.owner,
            Prefix=prefix,
        ):
            yield from page

    def try_conditional_write(self, key: str) -> bool:
        """Try a write whose condition cannot hold; return whether S3 refused it for that reason.

        ``key`` must never be in use: a store that ignores conditions writes the object, which is then deleted. A
        conflict with another conditional request, for example the same try by another process, shows too that the store
        evaluates conditions. Raises AccessDenied if the caller may not write.
        """
        try:
            if self._put(key, b"", IfMatch='"00000000000000000000000000000000"') is None:
                return True
        except AwsError as error:
            if error.code in _CONFLICT:
                return True
            raise
        self.delete(key)
        return False

    def _put(self, key: str, body: bytes, **condition: Any) -> str | None:
        try:
            return self._ask(
                "put_object",
                lambda answer: str(answer["ETag"]),
                key,
                Body=body,
                ContentType="application/json",
                **condition,
            )
        except AwsError as error:
            # If the object is gone, S3 answers NoSuchKey and not that the condition has failed.
            if error.code in _CONDITION_FAILED or ("IfMatch" in condition and error.code in _NOT_THERE):
                return None
            raise self._unless_conflict(error, key) from error

    def _ask(self, operation: str, read: Callable[[Document], T], key: str, **parameters: Any) -> T:
        return self._call(
            operation,
            read,
            resource=self.url(key),
            Bucket=self.name,
            Key=key,
            ExpectedBucketOwner=self.owner,
            **parameters,
        )

    def _unless_conflict(self, error: AwsError, key: str) -> AwsError:
        """Turn a conflict into a call without an answer: it does not show which write succeeded."""
        if error.code not in _CONFLICT:
            return error
        return AwsError(
            f"S3 could not write {self.url(key)}: another conditional request was in progress ({error.code})",
            code=error.code,
            hint="try again in a moment",
        )


def _stored(answer: Document) -> StoredObject:
    with answer["Body"] as body:
        written: datetime = answer["LastModified"]
        return StoredObject(body.read(), answer["ETag"], written, _age(written, answer))


def _age(written: datetime, answer: Document) -> float:
    """Return the age of an object by two times of one answer.

    Without a Date, which every answer has (RFC 9110, 6.6.1), it is 0.
    """
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return max((parsedate_to_datetime(date) - written).total_seconds(), 0.0) if date else 0.0
