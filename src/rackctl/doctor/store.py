"""The checks of the bucket, the KMS key, and the stored keys."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rackctl.doctor.finding import Finding, failed
from rackctl.errors import AccessDenied, RackctlError
from rackctl.keys import expected
from rackctl.storage import bucket_rules, unfit, wrong_region
from rackctl.text import counted, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rackctl.keys import KeyStore
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance

_AT_ONCE = 8


def bucket(rack: Rack) -> Iterator[Finding]:
    """Check the bucket's owner, its region and its settings, each separately."""
    if not rack["bucket"]:
        yield Finding("bucket", "skipped", "no bucket is set")
        return
    settings = rack.aws.s3.bucket_settings(rack["bucket"], owner=rack.store.owner)
    name = settings.name
    try:
        region = settings.region()
    except AccessDenied as error:
        yield failed(
            "bucket",
            error,
            what=f"bucket {name} belongs to another account than {settings.owner}, or the caller may not list it",
        )
        return
    adopt = f"`rackctl racks adopt {rack.cluster} --create`"
    if region is None:
        remedy = f"check the setting bucket ({rack.setting('bucket').origin}); {adopt} creates it"
        yield Finding("bucket", "problem", f"there is no bucket {name}", remedy)
        return
    if wrong := wrong_region(name, region, rack.ecs_cluster):
        yield Finding("bucket", "warning", f"{wrong}: each depends on both regions", wrong.hint)
    there = []
    for rule in bucket_rules(settings):
        try:
            holds = rule.holds()
        except RackctlError as error:
            yield failed("bucket", error, status="skipped", what=f"whether {rule.there}")
            continue
        if holds:
            there.append(rule.there)
        else:
            yield Finding("bucket", "warning", rule.lacking, f"{adopt} sets it")
    yield Finding("bucket", "ok", f"{name} belongs to account {settings.owner}" + "".join(f"; {t}" for t in there))


def kms(rack: Rack) -> Iterator[Finding]:
    """Check state, account and rotation of the KMS key. The plan has tried to use it."""
    if not rack["kms_key"]:
        yield Finding("kms", "skipped", "no KMS key is set")
        return
    name, cluster = rack.kms_key, rack.ecs_cluster
    try:
        key = rack.aws.kms.key(name)
    except AccessDenied as error:
        yield failed("kms", error, status="skipped", what=f"the state of KMS key {name}")
        return
    if key is None:
        yield Finding(
            "kms",
            "problem",
            f"there is no KMS key {name} in this account and region",
            f"check the setting kms_key ({rack.setting('kms_key').origin})",
        )
        return
    if key.account != cluster.account:
        yield Finding(
            "kms", "warning", f"KMS key {name} belongs to account {key.account}, which can disable or delete it"
        )
    elif problem := unfit(key, name, cluster):
        yield Finding("kms", "problem", str(problem), problem.hint)
        return
    try:
        rotates = rack.aws.kms.rotates(key.arn)
    except RackctlError as error:
        yield Finding("kms", "ok", f"{name} is {key.state}")
        yield failed("kms", error, status="skipped", what=f"whether KMS key {name} is rotated")
        return
    if rotates:
        yield Finding("kms", "ok", f"{name} is {key.state} and rotated")
    else:
        yield Finding(
            "kms",
            "warning",
            f"KMS key {name} is {key.state}, and not rotated",
            f"`aws kms enable-key-rotation --key-id {key.arn}`",
        )


def keys(rack: Rack, store: KeyStore, instances: Sequence[RackInstance]) -> Iterator[Finding]:
    """Check that each instance's key is stored, in the generation that it was launched with, and can be decrypted."""
    launched = [i.instance for i in instances if i.instance and not i.is_terminating]
    if not rack["bucket"]:
        yield Finding("keys", "skipped", "no bucket is set")
        return
    if not launched:
        yield Finding("keys", "skipped", "the rack has no instance")
        return
    stored = store.everything()
    used: Counter[tuple[str, datetime | None]] = Counter(
        (i.key_name, expected(stored[i.key_name], i.first_launch_time) if stored.get(i.key_name) else None)
        for i in launched
    )
    wanted = [(name, since, count) for (name, since), count in used.items() if since]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda one: _opened(store, *one), wanted)
    for (name, since), count in used.items():
        if since is None:
            yield _not_stored(name, count)


def _opened(store: KeyStore, name: str, since: datetime, count: int) -> Finding:
    try:
        store.open(name, since)
    except RackctlError as error:
        return Finding("keys", "problem", f"the key {name} of {counted(count, 'instance')}: {error}", error.hint)
    return Finding(
        "keys", "ok", f"{name} of {rfc3339(since)} is stored and can be decrypted: {counted(count, 'instance')}"
    )


def _not_stored(name: str, count: int) -> Finding:
    if not name:
        return Finding(
            "keys",
            "warning",
            f"{counted(count, 'instance')} launched without a key pair: rackctl cannot log in",
            "name a key pair in the code that creates the group, or run a keyroll: `rackctl instances keyroll plan` "
            "shows how",
        )
    return Finding(
        "keys",
        "warning",
        f"the key {name} of {counted(count, 'instance')} is not stored",
        f"`rackctl instances keys import --name {name} FILE` stores it, if you have the private key; until then "
        "`rackctl instances ssh -i FILE ID`",
    )
