"""Doctor's checks of the bucket, the KMS key and the stored keys, on S3 and KMS; each remedy is tried.

Each test changes one setting of a rack that is well, by plain boto3, and sets it back.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.clock import SystemClock
from rackctl.doctor import store
from rackctl.instances import Instances
from rackctl.keys import KeyStore
from rackctl.local.state import Options
from tests.local_rack import LocalRackProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.doctor import Finding
    from rackctl.rack import Rack

OTHER = "210987654321"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRackProcess]:
    made = LocalRackProcess(tmp_path_factory.mktemp("store"), Options(speed=100.0))
    yield made
    made.down()


def fresh(rack: LocalRackProcess) -> Rack:
    """Return the rack as the next command has it, with the cluster's tags of now."""
    rack.__dict__.pop("rack", None)
    return rack.rack


def found(rack: LocalRackProcess, check: str) -> list[Finding]:
    now = fresh(rack)
    match check:
        case "bucket":
            return list(store.bucket(now))
        case "kms":
            return list(store.kms(now))
        case _:
            return list(store.keys(now, KeyStore(now), Instances(now, SystemClock()).list()))


def wrong(rack: LocalRackProcess, check: str) -> Finding:
    (one,) = [finding for finding in found(rack, check) if finding.status != "ok"]
    return one


def follow(rack: LocalRackProcess, finding: Finding, *more: str) -> None:
    """Type the first command of a remedy, as a person does, into a shell with AWS's settings of this rack."""
    command = re.findall(r"`(.+?)`", finding.remedy)[0]
    words = [*shlex.split(command), *more]
    done = subprocess.run(words, env=rack.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def key_arn(rack: LocalRackProcess) -> str:
    return str(rack.client("kms").describe_key(KeyId=fresh(rack)["kms_key"])["KeyMetadata"]["Arn"])


def tag(rack: LocalRackProcess, name: str, value: str) -> None:
    rack.client("ecs").tag_resource(
        resourceArn=fresh(rack).ecs_cluster.cluster_arn, tags=[{"key": f"rackctl:{name}", "value": value}]
    )


def test_a_store_that_is_as_it_should_be_is_ok(rack: LocalRackProcess) -> None:
    (bucket,) = found(rack, "bucket")
    (kms,) = found(rack, "kms")
    (key,) = found(rack, "keys")

    assert {bucket.status, kms.status, key.status} == {"ok"}
    assert bucket.message == (
        "rackctl-local-123456789012 belongs to account 123456789012; public access is blocked; TLS is required; "
        "versioning is on; new objects are encrypted with KMS"
    )
    assert kms.message == "alias/rackctl-local is Enabled and rotated"
    assert re.fullmatch(r"local-keypair-\w+ of \S+Z is stored and can be decrypted: 3 instances", key.message)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s3, bucket: s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}),
         "is not versioned"),
        (lambda s3, bucket: s3.delete_public_access_block(Bucket=bucket), "does not block public access"),
        (lambda s3, bucket: s3.delete_bucket_policy(Bucket=bucket), "accepts requests without TLS"),
        (lambda s3, bucket: s3.delete_bucket_encryption(Bucket=bucket), "does not encrypt new objects with KMS"),
    ],
)  # fmt: skip
def test_each_setting_of_the_bucket_is_warned_of_and_adopt_sets_it(
    rack: LocalRackProcess, change: Callable[[Any, str], object], says: str
) -> None:
    change(rack.client("s3"), fresh(rack)["bucket"])

    finding = wrong(rack, "bucket")
    follow(rack, finding, "--yes")

    assert finding.status == "warning"
    assert says in finding.message
    assert {f.status for f in found(rack, "bucket")} == {"ok"}


def test_a_setting_that_may_not_be_read_is_not_ok_and_hides_no_other(rack: LocalRackProcess) -> None:
    rack.faults.add("deny", "s3:GetBucketVersioning")
    rack.client("s3").delete_public_access_block(Bucket=fresh(rack)["bucket"])
    try:
        statuses = {f.status: f for f in found(rack, "bucket")}
    finally:
        rack.faults.clear()
    follow(rack, statuses["warning"], "--yes")

    assert statuses["skipped"].message.startswith("whether versioning is on: AWS denied s3:GetBucketVersioning")
    assert statuses["skipped"].remedy == "the IAM permission that is missing: s3:GetBucketVersioning"
    assert "versioning" not in statuses["ok"].message


def test_a_bucket_that_is_not_there_or_another_account_s_is_a_problem(rack: LocalRackProcess) -> None:
    there = fresh(rack)["bucket"]
    tag(rack, "bucket", "rackctl-nowhere")
    missing = wrong(rack, "bucket")
    tag(rack, "bucket", f"rackctl-local-{OTHER}")
    foreign = wrong(rack, "bucket")
    tag(rack, "bucket", there)

    assert (missing.status, missing.message) == ("problem", "there is no bucket rackctl-nowhere")
    assert "tag rackctl:bucket" in missing.remedy
    assert foreign.status == "problem"
    assert "belongs to another account than 123456789012, or the caller may not list it" in foreign.message


def test_a_key_that_is_not_rotated_is_warned_of(rack: LocalRackProcess) -> None:
    kms, arn = rack.client("kms"), key_arn(rack)
    kms.disable_key_rotation(KeyId=arn)
    finding = wrong(rack, "kms")
    kms.enable_key_rotation(KeyId=arn)

    assert finding.status == "warning"
    assert finding.remedy == f"`aws kms enable-key-rotation --key-id {arn}`"
    assert {f.status for f in found(rack, "kms")} == {"ok"}


def test_a_key_that_cannot_be_used_is_a_problem(rack: LocalRackProcess) -> None:
    kms, arn = rack.client("kms"), key_arn(rack)
    kms.disable_key(KeyId=arn)
    disabled = wrong(rack, "kms")
    kms.enable_key(KeyId=arn)
    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    pending = wrong(rack, "kms")
    kms.cancel_key_deletion(KeyId=arn)
    kms.enable_key(KeyId=arn)

    assert (disabled.status, disabled.remedy) == ("problem", f"`aws kms enable-key --key-id {arn}`")
    assert (pending.status, "PendingDeletion" in pending.message) == ("problem", True)
    assert f"`aws kms cancel-key-deletion --key-id {arn}`" in pending.remedy
    assert {f.status for f in found(rack, "kms")} == {"ok"}


def test_a_kms_key_that_does_not_exist_is_a_problem_and_one_that_may_not_be_described_is_skipped(
    rack: LocalRackProcess,
) -> None:
    there = fresh(rack)["kms_key"]
    tag(rack, "kms-key", "alias/nothing")
    missing = wrong(rack, "kms")
    tag(rack, "kms-key", there)
    rack.faults.add("deny", "kms:DescribeKey")
    unseen = wrong(rack, "kms")
    rack.faults.clear()

    assert (missing.status, missing.message) == (
        "problem",
        "there is no KMS key alias/nothing in this account and region",
    )
    assert (unseen.status, unseen.remedy) == ("skipped", "the IAM permission that is missing: kms:DescribeKey")


def test_a_stored_key_that_cannot_be_opened_is_a_problem(rack: LocalRackProcess) -> None:
    s3, bucket, prefix = rack.client("s3"), fresh(rack)["bucket"], f"{fresh(rack)['prefix']}/keys/"
    (entry,) = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    whole = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
    altered = json.loads(whole)
    altered["private_key"] = altered.get("private_key", "")[:-8] + "AAAAAAA="
    s3.put_object(Bucket=bucket, Key=entry["Key"], Body=json.dumps(altered).encode())
    spoiled = wrong(rack, "keys")
    s3.delete_object(Bucket=bucket, Key=entry["Key"])
    gone = wrong(rack, "keys")
    s3.put_object(Bucket=bucket, Key=entry["Key"], Body=whole)

    assert spoiled.status == "problem"
    assert gone.status == "warning"
    assert gone.message.endswith(" of 3 instances is not stored")
    assert gone.remedy.startswith("`rackctl instances keys import --name local-keypair-")
    assert {f.status for f in found(rack, "keys")} == {"ok"}


def test_keys_that_may_not_be_opened_are_a_problem_that_names_the_action(rack: LocalRackProcess) -> None:
    rack.faults.add("deny", "kms:Decrypt")
    finding = wrong(rack, "keys")
    rack.faults.clear()

    assert finding.status == "problem"
    assert "kms:Decrypt" in finding.message + finding.remedy
