"""S3: the settings of a bucket: creation, versioning, public access, TLS, encryption.

Each method is one setting, so that a setting that may not be read does not hide the others.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.aws.client import Client, Document

T = TypeVar("T")

# CreateBucket rejects this region's name: it creates the bucket there if no region is given.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucketConfiguration.html
_DEFAULT_REGION = "us-east-1"
_NO_SUCH_BUCKET = {"404", "NoSuchBucket", "NotFound"}
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class BucketSettings:
    """The settings of one bucket. Every call except CreateBucket names the account that must own it."""

    def __init__(self, call: Client, name: str, owner: str) -> None:
        self._call = call
        self.name = name
        self.owner = owner

    def region(self) -> str | None:
        """Return the bucket's region; None if there is no such bucket.

        Raises AccessDenied for another account's bucket, and if the caller may not list it: S3 does not distinguish
        them.
        """
        try:
            # Empty if an S3-compatible store does not report it.
            return self._ask("head_bucket", lambda answer: str(answer.get("BucketRegion", "")))
        except AwsError as error:
            if error.code in _NO_SUCH_BUCKET:
                return None
            raise

    def versioning(self) -> str:
        """Return ``Enabled``, ``Suspended``, or an empty string if it was never enabled."""
        return self._ask("get_bucket_versioning", lambda answer: str(answer.get("Status", "")))

    def encryption(self) -> tuple[str, str]:
        """Return the encryption of new objects and its KMS key: ``aws:kms`` and a key, or ``AES256`` and ""."""
        try:
            return self._ask("get_bucket_encryption", _encryption)
        except AwsError as error:
            if error.code == "ServerSideEncryptionConfigurationNotFoundError":
                return "", ""
            raise

    def public_access_is_blocked(self) -> bool:
        """Return whether the bucket itself blocks public access in all four ways; the account may block it too."""
        try:
            return self._ask(
                "get_public_access_block",
                lambda answer: all(answer["PublicAccessBlockConfiguration"].get(block) is True for block in _BLOCKS),
            )
        except AwsError as error:
            if error.code == "NoSuchPublicAccessBlockConfiguration":
                return False
            raise

    def requires_tls(self) -> bool:
        """Return whether the bucket's policy denies all requests without TLS, of any principal.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html
        """
        return self._policy(
            lambda policy: any(
                _denies_plain_requests(statement, self.name) for statement in _listed(policy.get("Statement", []))
            )
        )

    def require_tls(self, partition: str) -> None:
        """Add a statement to the bucket's policy that denies requests without TLS."""
        policy = self._policy(lambda policy: policy)
        arn = f"arn:{partition}:s3:::{self.name}"
        deny = {
            "Sid": "DenyRequestsWithoutTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        statements = [*_listed(policy.get("Statement", [])), deny]
        self._change(
            "put_bucket_policy", Policy=json.dumps({"Version": "2012-10-17", **policy, "Statement": statements})
        )

    def _policy(self, read: Callable[[dict[str, Any]], T]) -> T:
        """Return ``read`` of the bucket's policy, or of an empty one if it has none."""
        try:
            return self._ask("get_bucket_policy", lambda answer: read(_policy(answer)))
        except AwsError as error:
            if error.code == "NoSuchBucketPolicy":
                return read({})
            raise

    def create(self, region: str) -> None:
        """Create the bucket in a region. If the account owns it already, that is no error."""
        where = {} if region == _DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self._call("create_bucket", resource=self._resource, Bucket=self.name, **where)
        except AwsError as error:
            if error.code == "BucketAlreadyExists":
                raise RackctlError(
                    f"bucket {self.name} exists already in another account: all accounts share the names of buckets",
                    hint="choose another name",
                ) from error
            if error.code != "BucketAlreadyOwnedByYou":
                raise

    def enable_versioning(self) -> None:
        self._change("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})

    def encrypt_with(self, kms_key: str) -> None:
        """Encrypt new objects with a KMS key, and with a bucket key, so that S3 calls KMS less often."""
        by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": kms_key}
        rule = {"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}
        self._change("put_bucket_encryption", ServerSideEncryptionConfiguration={"Rules": [rule]})

    def block_public_access(self) -> None:
        self._change("put_public_access_block", PublicAccessBlockConfiguration=dict.fromkeys(_BLOCKS, True))

    @property
    def _resource(self) -> str:
        return f"bucket {self.name}"

    def _ask(self, operation: str, read: Callable[[Document], T]) -> T:
        return self._call(operation, read, resource=self._resource, Bucket=self.name, ExpectedBucketOwner=self.owner)

    def _change(self, operation: str, **parameters: Any) -> None:
        self._call(operation, resource=self._resource, Bucket=self.name, ExpectedBucketOwner=self.owner, **parameters)


def _encryption(answer: Document) -> tuple[str, str]:
    for rule in answer["ServerSideEncryptionConfiguration"]["Rules"]:
        if by_default := rule.get("ApplyServerSideEncryptionByDefault"):
            return str(by_default["SSEAlgorithm"]), str(by_default.get("KMSMasterKeyID", ""))
    return "", ""


def _policy(answer: Document) -> dict[str, Any]:
    policy = json.loads(answer["Policy"])
    if not isinstance(policy, dict):
        raise TypeError("the policy is not a JSON object")
    return policy


def _denies_plain_requests(statement: Document, bucket: str) -> bool:
    resources = _listed(statement.get("Resource", ()))
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and not {"s3:*", "*"}.isdisjoint(_listed(statement.get("Action", ())))
        and any(re.fullmatch(rf"\*|arn:[\w-]+:s3:::({re.escape(bucket)}/)?\*", str(one)) for one in resources)
        and _is_about_tls(statement.get("Condition", {}))
    )


def _is_about_tls(condition: Document) -> bool:
    """Return whether a condition is exactly that the request came without TLS."""
    keys = [(key, value) for operator in condition.values() for key, value in operator.items()]
    return (
        set(condition) in ({"Bool"}, {"BoolIfExists"})
        and [key.lower() for key, _ in keys] == ["aws:securetransport"]
        and [str(value).lower() for value in _listed(keys[0][1])] == ["false"]
    )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
