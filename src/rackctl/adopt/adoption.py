"""Adopt a cluster as a rack: a bucket and a KMS key for its SSH keys, and tags on the cluster that name them.

Existing resources are checked first. An interrupted adoption can be repeated: only missing steps are done, and the
tags, which make the cluster a rack, come last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from rackctl.errors import AccessDenied, NotFound, UsageError
from rackctl.settings import SETTINGS
from rackctl.storage import bucket_rules, unfit, wrong_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.aws.bucket_settings import BucketSettings
    from rackctl.aws.kms import Kms, KmsKey
    from rackctl.model import EcsCluster
    from rackctl.rack import Rack

Step = Literal[
    "create key", "name key", "rotate key", "create bucket", "block public access", "require TLS", "version", "encrypt",
    "tag",
]  # fmt: skip

# The lengths of the longest names. https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
# https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateAlias.html
_BUCKET_NAME = 63
_ALIAS = 256


@dataclass(frozen=True, slots=True)
class Adoption:
    """The plan of an adoption.

    ``there`` are the parts that need no change; ``warnings`` are those that are missing and will not be created.
    ``kms_key`` is an ARN, empty for a key that does not exist yet; ``alias`` is the key's future alias. ``tags`` are
    those that the cluster lacks.
    """

    cluster: EcsCluster
    rack: str
    bucket: str
    kms_key: str
    alias: str
    steps: tuple[Step, ...]
    there: tuple[str, ...]
    warnings: tuple[str, ...]
    tags: tuple[str, ...] = ()

    @property
    def named_tags(self) -> dict[str, str]:
        """The tags of the cluster that name bucket and key; a new key has no ARN yet."""
        return {SETTINGS["bucket"].tag: self.bucket, SETTINGS["kms_key"].tag: self.kms_key}

    def describe(self, step: Step) -> str:
        """Describe a step in the imperative: ``create …``."""
        match step:
            case "create key":
                return f"create a KMS key for rack {self.rack}"
            case "name key":
                return f"name the KMS key {self.alias}"
            case "rotate key":
                return "turn on the yearly rotation of the KMS key"
            case "create bucket":
                return f"create bucket {self.bucket} in {self.cluster.region}"
            case "block public access":
                return f"block public access to bucket {self.bucket}"
            case "require TLS":
                return f"let bucket {self.bucket} refuse requests without TLS"
            case "version":
                return f"turn on versioning of bucket {self.bucket}"
            case "encrypt":
                return f"encrypt new objects in bucket {self.bucket} with the KMS key"
            case "tag":
                return f"tag cluster {self.cluster.name}: {', '.join(self.tags)}"


@dataclass(slots=True)
class _Findings:
    steps: list[Step] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def check(self, holds: Callable[[], bool], name: str, lacking: str, step: Step, *, create: bool) -> None:
        """Check one setting. If it is missing, add a step, or a warning if nothing may be created.

        Raises AccessDenied if it may not be read and a step depends on it.
        """
        try:
            found = holds()
        except AccessDenied as error:
            if create:
                raise
            self.warnings.append(f"cannot check whether {name}: {error}")
            return
        if found:
            self.there.append(name)
        elif create:
            self.steps.append(step)
        else:
            self.warnings.append(lacking)


class Adopter:
    """Makes a rack of the cluster of a `Rack`."""

    def __init__(self, rack: Rack) -> None:
        self._rack = rack
        self._cluster = rack.ecs_cluster
        self._kms: Kms = rack.aws.kms

    def plan(self, *, bucket: str = "", kms_key: str = "", create: bool = False) -> Adoption:
        """Check the existing resources, and return the plan.

        Raises RackctlError for a bucket or a key that cannot be this rack's: of another account or region, in use
        under another name, or missing although nothing may be created.
        """
        found = _Findings()
        named_bucket = self._named("bucket", bucket)
        name = named_bucket or (default_bucket(self._cluster) if create else "")
        named_key = self._named("kms_key", kms_key)
        if not name or not (named_key or create):
            lacking = " and ".join(word for word, given in (("--bucket", name), ("--kms-key", named_key)) if not given)
            raise UsageError(
                f"cluster {self._cluster.name} names no bucket and key yet",
                hint=f"pass {lacking}, or create them with --create",
            )
        key, alias = self._key(named_key, found, create=create)
        self._bucket(name, found, create=create)
        tags = {SETTINGS["bucket"].tag: name, SETTINGS["kms_key"].tag: key.arn if key else ""}
        untagged = tuple(tag for tag, value in tags.items() if not self._is_tagged(tag, value))
        if untagged:
            found.steps.append("tag")
        else:
            found.there.append(f"cluster {self._cluster.name} is tagged")
        return Adoption(
            self._cluster,
            self._rack.name,
            name,
            key.arn if key else "",
            alias,
            tuple(found.steps),
            tuple(found.there),
            tuple(found.warnings),
            untagged,
        )

    def carry_out(self, adoption: Adoption) -> Iterator[Step]:
        """Do the steps of an adoption, and yield each when it is done. Raises RackctlError; repeat it then."""
        bucket = self._settings(adoption.bucket)
        key = adoption.kms_key
        for step in adoption.steps:
            match step:
                case "create key":
                    key = self._kms.create_key(description(self._rack.name)).arn
                case "name key":
                    self._kms.create_alias(adoption.alias, key)
                case "rotate key":
                    self._kms.enable_rotation(key)
                case "create bucket":
                    bucket.create(self._cluster.region)
                case "block public access":
                    bucket.block_public_access()
                case "require TLS":
                    bucket.require_tls(self._cluster.cluster_arn.split(":")[1])
                case "version":
                    bucket.enable_versioning()
                case "encrypt":
                    bucket.encrypt_with(key)
                case "tag":
                    values = {**adoption.named_tags, SETTINGS["kms_key"].tag: key}
                    self._rack.aws.ecs.tag(self._cluster.cluster_arn, {tag: values[tag] for tag in adoption.tags})
            yield step

    def _settings(self, bucket: str) -> BucketSettings:
        return self._rack.aws.s3.bucket_settings(bucket, owner=self._cluster.account)

    def _named(self, setting: str, asked: str) -> str:
        """Return the bucket or key of the option or of the rack. Raises UsageError if the two differ.

        The stored SSH keys are not moved: with another store, the rack would not find them.
        """
        there = self._rack[setting]
        if not asked or not there or asked == there or (setting == "kms_key" and self._are_same(asked, there)):
            return asked or there
        origin = self._rack.setting(setting).origin
        raise UsageError(
            f"cluster {self._cluster.name} has {setting} {there} already ({origin}), not {asked}",
            hint=f"leave out {'--bucket' if setting == 'bucket' else '--kms-key'}; to change it, move the "
            f"stored objects first, then change {origin}",
        )

    def _are_same(self, one: str, other: str) -> bool:
        keys = [self._kms.key(name) for name in (one, other)]
        return keys[0] is not None and keys[0] == keys[1]

    def _is_tagged(self, tag: str, value: str) -> bool:
        there = self._cluster.tags.get(tag, "")
        if not value or not there:
            return False
        return there == value or (tag == SETTINGS["kms_key"].tag and self._are_same(there, value))

    def _key(self, named: str, found: _Findings, *, create: bool) -> tuple[KmsKey | None, str]:
        """Return the key to use, None for a new one, and its future alias."""
        alias = default_alias(self._cluster.name)
        key = self._kms.key(named) if named else self._made_before(alias)
        if named and key is None:
            raise NotFound(
                f"there is no KMS key {named} in this account and region",
                hint="check --kms-key, or leave it out and use --create",
            )
        if key is None:
            found.steps += ["create key", "name key", "rotate key"]
            return None, alias
        if problem := unfit(key, named or alias, self._cluster):
            raise problem
        found.there.append(f"KMS key {named or key.arn} is enabled")
        if not named and alias not in self._kms.aliases():
            found.steps.append("name key")
        found.check(
            lambda: self._kms.rotates(key.arn),
            "the KMS key is rotated",
            f"KMS key {named or alias} is not rotated",
            "rotate key",
            create=create,
        )
        return key, alias

    def _made_before(self, alias: str) -> KmsKey | None:
        """Return the key that an earlier adoption has created, with or without its alias."""
        # Not described by its alias: if there is none, DescribeKey needs more than the permission to describe keys.
        aliases = self._kms.aliases()
        if key_id := aliases.get(alias):
            return self._kms.key(key_id)
        for arn in self._kms.key_arns():
            if arn.rpartition("/")[2] in aliases.values():
                continue
            key = self._kms.key(arn)
            if key and key.description == description(self._rack.name) and key.state == "Enabled":
                return key
        return None

    def _bucket(self, name: str, found: _Findings, *, create: bool) -> None:
        bucket = self._settings(name)
        try:
            region = bucket.region()
        except AccessDenied as error:
            raise AccessDenied(
                f"cannot use bucket {name}: it belongs to another account than {self._cluster.account}, or the "
                "caller may not list it",
                hint=error.hint,
            ) from error
        if region is None:
            if not create:
                raise NotFound(f"there is no bucket {name}", hint="check --bucket, or create it with --create")
            found.steps += ["create bucket", "block public access", "require TLS", "version", "encrypt"]
            return
        if problem := wrong_region(name, region, self._cluster):
            raise problem
        found.there.append(f"bucket {name} is in account {self._cluster.account}")
        for rule in bucket_rules(bucket):
            found.check(rule.holds, rule.there, rule.lacking, rule.step, create=create)


def default_bucket(cluster: EcsCluster) -> str:
    """Return the name of a cluster's bucket, unique in all accounts: ``rackctl-NAME-ACCOUNT-REGION``."""
    plain = re.sub(r"[^a-z0-9-]", "-", cluster.name.lower()).strip("-")
    return _named_for(cluster.name, plain, "rackctl-", f"-{cluster.account}-{cluster.region}", _BUCKET_NAME)


def default_alias(cluster_name: str) -> str:
    """Return the alias of a cluster's KMS key: ``alias/rackctl-NAME``."""
    return _named_for(cluster_name, cluster_name, "alias/rackctl-", "", _ALIAS)


def description(rack: str) -> str:
    """Return the description of a rack's KMS key, by which a key without an alias is found again."""
    return f"SSH keys of rackctl's rack {rack}"


def _named_for(name: str, plain: str, before: str, after: str, longest: int) -> str:
    """Put a name between two words. If it is too long or has other characters, it is changed and ends in its hash."""
    room = longest - len(before) - len(after)
    if plain == name and len(plain) <= room:
        return f"{before}{plain}{after}"
    digest = sha256(name.encode()).hexdigest()[:6]
    return f"{before}{plain[: room - 7].rstrip('-')}-{digest}{after}"
