"""`racks adopt`: a cluster made a rack on the local rack, whose S3 and KMS are moto's; boto3 is the witness."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rackctl.adopt.adoption import Adopter, Adoption, default_alias, default_bucket
from rackctl.aws.session import Aws, Credentials
from rackctl.config import Config
from rackctl.errors import AccessDenied, NotFound, RackctlError, UsageError
from rackctl.keys import KeyStore, generate
from rackctl.model import EcsCluster
from rackctl.rack import Sources
from tests.fakes.clock import FakeClock
from tests.local.door import KEY_ID, SECRET

if TYPE_CHECKING:
    from rackctl.rack import Rack
    from tests.local.door import Door

ACCOUNT = "123456789012"
NOTHING = Sources({}, {}, Config(Path("/nowhere")), None)
ALL = (
    *("create key", "name key", "rotate key"),
    *("create bucket", "block public access", "require TLS", "version", "encrypt"),
    "tag",
)


class Account:
    """The account of a local rack with a cluster that is no rack yet."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.cluster = f"Prod_{uuid4().hex[:8]}"
        door.client("ecs").create_cluster(clusterName=self.cluster)
        url = door.client("s3").meta.endpoint_url
        self.aws = Aws(region="us-east-1", endpoint_url=url, credentials=Credentials(KEY_ID, SECRET))

    @property
    def rack(self) -> Rack:
        return NOTHING.rack_of(self.aws.ecs.cluster(self.cluster), self.aws)

    def plan(self, **asked: Any) -> Adoption:
        return Adopter(self.rack).plan(**asked)

    def adopt(self, **asked: Any) -> list[str]:
        adopter = Adopter(self.rack)
        return list(adopter.carry_out(adopter.plan(**asked)))

    def tags(self) -> dict[str, str]:
        arn = self.door.world.ecs.clusters[self.cluster].arn
        told = self.door.client("ecs").list_tags_for_resource(resourceArn=arn)["tags"]
        return {tag["key"]: tag["value"] for tag in told}

    def plain_bucket(self) -> str:
        """Make a bucket of the account's, with S3's defaults."""
        name = f"plain-{uuid4().hex[:12]}"
        self.door.client("s3").create_bucket(Bucket=name)
        return name

    def plain_key(self) -> tuple[str, str]:
        """Make a KMS key of the account's, with KMS's defaults and an alias: its ARN and that."""
        kms, alias = self.door.client("kms"), f"alias/plain-{uuid4().hex[:12]}"
        arn = str(kms.create_key()["KeyMetadata"]["Arn"])
        kms.create_alias(AliasName=alias, TargetKeyId=arn)
        return arn, alias

    def own_keys(self) -> list[str]:
        """The ARNs of the keys that were made for the cluster."""
        kms = self.door.client("kms")
        arns = [key["KeyArn"] for key in kms.list_keys(Limit=1000)["Keys"]]
        return [arn for arn in arns if self.cluster in kms.describe_key(KeyId=arn)["KeyMetadata"]["Description"]]


@pytest.fixture
def account(door: Door, monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return Account(door)


def test_a_cluster_gets_a_versioned_private_encrypted_bucket_that_takes_tls_only_and_a_rotated_key(
    account: Account,
) -> None:
    assert account.adopt(create=True) == list(ALL)

    s3, kms, tags = account.door.client("s3"), account.door.client("kms"), account.tags()
    bucket, key = tags["rackctl:bucket"], tags["rackctl:kms-key"]
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert set(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    (deny,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
    assert kms.describe_key(KeyId=default_alias(account.cluster))["KeyMetadata"]["Arn"] == key
    assert account.own_keys() == [key]


def test_an_adopted_cluster_stores_and_decrypts_ssh_keys(account: Account) -> None:
    account.adopt(create=True)
    key = generate("ops", created=FakeClock().now())

    KeyStore(account.rack).store(key)

    assert KeyStore(account.rack).fetch("ops", FakeClock().now()).private_key == key.private_key


def test_a_second_adoption_has_nothing_to_do_and_changes_nothing(account: Account) -> None:
    account.adopt(create=True)
    before = account.door.endpoint.calls.since(0)[-1]["number"]

    assert account.adopt(create=True) == []
    assert account.adopt() == []
    calls = account.door.endpoint.calls.since(before)
    assert [call["action"] for call in calls if call["mutating"]] == []


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
def test_an_adoption_that_is_cut_off_at_any_change_is_completed_by_the_next(account: Account, fault: str) -> None:
    """Over two seconds: an adoption for each of the changes."""
    for number in range(len(ALL)):
        account.cluster = f"Prod_{uuid4().hex[:8]}"
        account.door.client("ecs").create_cluster(clusterName=account.cluster)
        account.door.fault(fault, "*:*", mutating=True, skip=number, count=1)

        with pytest.raises(RackctlError):
            account.adopt(create=True)
        assert account.tags() == {} or ALL[number] == "tag", "a rack before its store was complete"
        account.adopt(create=True)

        assert account.plan(create=True).steps == ()
        assert account.own_keys() == [account.tags()["rackctl:kms-key"]], f"a key too many after {ALL[number]}"


def test_without_create_a_bucket_and_a_key_are_checked_and_named_by_tags(account: Account) -> None:
    bucket, (arn, alias) = account.plain_bucket(), account.plain_key()
    plan = account.plan(bucket=bucket, kms_key=alias)

    assert plan.steps == ("tag",)
    assert len(plan.warnings) == 5  # not private, not TLS only, not versioned, not encrypted, not rotated
    account.adopt(bucket=bucket, kms_key=alias)

    assert account.tags() == {"rackctl:bucket": bucket, "rackctl:kms-key": arn}
    assert account.door.client("s3").get_bucket_versioning(Bucket=bucket).get("Status") is None
    assert account.plan(bucket=bucket, kms_key=arn).steps == ()
    assert account.plan(bucket=bucket, kms_key=alias).steps == ()


def test_with_create_an_existing_bucket_is_completed(account: Account) -> None:
    bucket = account.plain_bucket()
    plan = account.plan(bucket=bucket, create=True)

    assert "create bucket" not in plan.steps
    assert {"version", "encrypt", "create key"} <= set(plan.steps)
    account.adopt(bucket=bucket, create=True)
    assert account.plan(create=True).steps == ()


def test_neither_bucket_nor_key_named_is_refused_without_create(account: Account) -> None:
    for asked, lacking in (({}, "--bucket and --kms-key"), ({"bucket": account.door.bucket}, "pass --kms-key,")):
        with pytest.raises(UsageError) as caught:
            account.plan(**asked)
        assert lacking in caught.value.hint


def test_a_bucket_or_key_that_does_not_exist_is_refused_without_create(account: Account) -> None:
    with pytest.raises(NotFound, match="no bucket none-"):
        account.plan(bucket=f"none-{uuid4().hex}", kms_key=account.door.alias)
    with pytest.raises(NotFound, match="no KMS key alias/none"):
        account.plan(bucket=account.door.bucket, kms_key="alias/none", create=True)


def test_another_account_s_bucket_and_key_are_refused(account: Account) -> None:
    door = account.door
    others_key = door.client("kms").list_keys(Limit=1000)["Keys"]
    arn = next(key["KeyArn"] for key in others_key if ACCOUNT not in key["KeyArn"])

    with pytest.raises(
        AccessDenied, match="belongs to another account than 123456789012, or the caller may not list it"
    ):
        account.plan(bucket=door.others, create=True)
    with pytest.raises(AccessDenied, match="belongs to account 210987654321"):
        account.plan(bucket=door.bucket, kms_key=arn)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        ("disable", "it is Disabled"),
        ("delete", "it is PendingDeletion"),
        ("sign", "is for SIGN_VERIFY with ECC_NIST_P256"),
    ],
)
def test_a_key_that_cannot_seal_is_refused(account: Account, act: str, says: str) -> None:
    """KMS's guide, key states; an SSH key is sealed by Encrypt, which a key for SIGN_VERIFY refuses."""
    kms = account.door.client("kms")
    spec = {"KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256"} if act == "sign" else {}
    arn = kms.create_key(**spec)["KeyMetadata"]["Arn"]
    if act == "disable":
        kms.disable_key(KeyId=arn)
    if act == "delete":
        kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)

    with pytest.raises(RackctlError, match=says):
        account.plan(bucket=account.door.bucket, kms_key=arn)


def test_a_key_of_aws_s_own_is_refused(account: Account) -> None:
    with pytest.raises(RackctlError, match="is managed by AWS"):
        account.plan(bucket=account.door.bucket, kms_key="alias/aws/s3")


def test_a_rack_is_not_given_another_store_than_the_one_that_its_keys_are_in(account: Account) -> None:
    door = account.door
    account.adopt(bucket=door.bucket, kms_key=door.alias)
    other = door.client("kms").create_key()["KeyMetadata"]["Arn"]

    with pytest.raises(UsageError, match=f"has bucket {door.bucket} already"):
        account.plan(bucket="another-bucket", create=True)
    with pytest.raises(UsageError, match="has kms_key arn:"):
        account.plan(kms_key=other)


def test_the_error_for_another_account_s_bucket_name_says_so(account: Account) -> None:
    """S3 reveals a bucket's owner only by a 403 for another's: HeadBucket, ExpectedBucketOwner."""
    with pytest.raises(AccessDenied):
        account.adopt(bucket=account.door.others, create=True)
    assert account.tags() == {}


def test_a_setting_that_may_not_be_read_is_a_warning_where_nothing_is_created(account: Account) -> None:
    door = account.door
    door.fault("deny", "s3:GetBucketVersioning")

    plan = account.plan(bucket=door.bucket, kms_key=door.alias)

    assert any("cannot check whether versioning is on" in warning for warning in plan.warnings)
    with pytest.raises(AccessDenied, match="s3:GetBucketVersioning"):
        account.plan(bucket=door.bucket, kms_key=door.alias, create=True)


def cluster(name: str, region: str = "us-east-1") -> EcsCluster:
    return EcsCluster(f"arn:aws:ecs:{region}:{ACCOUNT}:cluster/{name}")


@pytest.mark.parametrize(
    ("name", "region", "bucket"),
    [
        ("prod", "us-east-1", "rackctl-prod-123456789012-us-east-1"),
        ("prod", "eu-central-1", "rackctl-prod-123456789012-eu-central-1"),
        ("Prod", "us-east-1", r"rackctl-prod-[0-9a-f]{6}-123456789012-us-east-1"),
        ("prod_1", "us-east-1", r"rackctl-prod-1-[0-9a-f]{6}-123456789012-us-east-1"),
        ("a" * 255, "ap-northeast-1", r"rackctl-a+-[0-9a-f]{6}-123456789012-ap-northeast-1"),
        ("_", "us-east-1", r"rackctl--?[0-9a-f]{6}-123456789012-us-east-1"),
    ],
)
def test_a_bucket_is_named_for_cluster_account_and_region_by_s3_s_rules(name: str, region: str, bucket: str) -> None:
    """S3's guide, bucket naming rules: 3 to 63 lower-case letters, digits, hyphens; a letter or digit at the ends."""
    named = default_bucket(cluster(name, region))

    assert re.fullmatch(bucket, named)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", named)


def test_clusters_whose_names_differ_never_share_a_bucket_or_an_alias() -> None:
    names = ["prod", "Prod", "PROD", "p-rod", "p_rod", "a" * 255, "a" * 254, "a" * 254 + "b"]

    assert len({default_bucket(cluster(name)) for name in names}) == len(names)
    assert len({default_alias(name) for name in names}) == len(names)
    assert all(len(default_alias(name)) <= 256 for name in names)
