"""The required settings of a rack's bucket and KMS key: `racks adopt` sets them, `doctor` checks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rackctl.errors import AccessDenied, RackctlError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.aws.bucket_settings import BucketSettings
    from rackctl.aws.kms import KmsKey
    from rackctl.model import EcsCluster

BucketStep = Literal["block public access", "require TLS", "version", "encrypt"]


@dataclass(frozen=True, slots=True)
class BucketRule:
    """One setting of a bucket. ``holds`` reads it; ``there`` and ``lacking`` are the messages for set and not set."""

    step: BucketStep
    holds: Callable[[], bool]
    there: str
    lacking: str


def bucket_rules(bucket: BucketSettings) -> tuple[BucketRule, ...]:
    """Return the rules for a bucket that holds SSH keys."""
    name = bucket.name
    return (
        BucketRule(
            "block public access",
            bucket.public_access_is_blocked,
            "public access is blocked",
            f"bucket {name} does not block public access",
        ),
        BucketRule(
            "require TLS",
            bucket.requires_tls,
            "TLS is required",
            f"bucket {name} accepts requests without TLS",
        ),
        BucketRule(
            "version",
            lambda: bucket.versioning() == "Enabled",
            "versioning is on",
            f"bucket {name} is not versioned: deleted and overwritten objects are lost",
        ),
        BucketRule(
            "encrypt",
            lambda: bucket.encryption()[0] in {"aws:kms", "aws:kms:dsse"},
            "new objects are encrypted with KMS",
            f"bucket {name} does not encrypt new objects with KMS",
        ),
    )


def wrong_region(bucket: str, region: str, cluster: EcsCluster) -> RackctlError | None:
    """Return the error of a bucket in another region than its cluster. Some stores report no region (empty)."""
    if region in {"", cluster.region}:
        return None
    return RackctlError(
        f"bucket {bucket} is in {region}, and cluster {cluster.name} in {cluster.region}",
        hint="use a bucket in the cluster's region",
    )


def unfit(key: KmsKey, name: str, cluster: EcsCluster) -> RackctlError | None:
    """Return the error of a KMS key that cannot seal the SSH keys of a cluster's rack; None for one that can."""
    if key.account != cluster.account:
        return AccessDenied(
            f"KMS key {name} belongs to account {key.account}, and cluster {cluster.name} to {cluster.account}",
            hint="use a key of the cluster's account",
        )
    if key.region != cluster.region:
        return RackctlError(
            f"KMS key {name} is in {key.region}, and cluster {cluster.name} in {cluster.region}",
            hint="use a key of the cluster's region",
        )
    if key.manager == "AWS":
        return RackctlError(f"KMS key {name} is managed by AWS: only AWS's services can use it", hint="use another key")
    if (key.usage, key.spec) != ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT"):
        return RackctlError(
            f"KMS key {name} is for {key.usage} with {key.spec}",
            hint="use a symmetric key (SYMMETRIC_DEFAULT) for ENCRYPT_DECRYPT",
        )
    if key.state == "PendingDeletion":
        return RackctlError(
            f"KMS key {name} cannot be used: it is {key.state}",
            hint=f"`aws kms cancel-key-deletion --key-id {key.arn}`, then `aws kms enable-key --key-id {key.arn}`",
        )
    if key.state != "Enabled":
        return RackctlError(
            f"KMS key {name} cannot be used: it is {key.state}", hint=f"`aws kms enable-key --key-id {key.arn}`"
        )
    return None
