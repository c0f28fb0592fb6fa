"""The calls by which a rack's bucket and KMS key are made and read, on the local rack; boto3 is the witness.

S3 and KMS behind it are moto's. https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
and https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.session import Aws, Credentials
from rackctl.errors import AccessDenied, RackctlError
from tests.local.door import CLUSTER, KEY_ID, SECRET

if TYPE_CHECKING:
    from rackctl.aws.bucket_settings import BucketSettings
    from tests.local.door import Door

ACCOUNT = "123456789012"


@pytest.fixture
def aws(door: Door) -> Aws:
    url = door.client("s3").meta.endpoint_url
    return Aws(region="us-east-1", endpoint_url=url, credentials=Credentials(KEY_ID, SECRET))


@pytest.fixture
def made(aws: Aws) -> BucketSettings:
    """A new bucket, as S3 makes one."""
    bucket = aws.s3.bucket_settings(f"made-{uuid4().hex[:12]}", owner=ACCOUNT)
    bucket.create("us-east-1")
    return bucket


def test_a_bucket_that_does_not_exist_has_no_region(aws: Aws) -> None:
    assert aws.s3.bucket_settings(f"none-{uuid4().hex[:12]}", owner=ACCOUNT).region() is None


def test_creating_a_bucket_again_is_no_error(made: BucketSettings, door: Door) -> None:
    made.create("us-east-1")

    assert made.region() == "us-east-1"
    assert door.client("s3").head_bucket(Bucket=made.name)["BucketRegion"] == "us-east-1"


def test_a_bucket_of_another_account_is_refused(aws: Aws, door: Door) -> None:
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        aws.s3.bucket_settings(door.others, owner=ACCOUNT).region()


def test_a_bucket_name_in_use_by_another_account_is_named_in_the_error(aws: Aws, door: Door) -> None:
    """CreateBucket: BucketAlreadyExists, "The requested bucket name is not available"."""
    with pytest.raises(RackctlError, match="exists already in another account"):
        aws.s3.bucket_settings(door.others, owner=ACCOUNT).create("us-east-1")


def test_each_setting_is_read_as_boto3_reads_it_before_and_after(made: BucketSettings, door: Door) -> None:
    s3, key = door.client("s3"), door.client("kms").create_key()["KeyMetadata"]["Arn"]

    assert (made.versioning(), made.public_access_is_blocked(), made.requires_tls()) == ("", False, False)
    assert made.encryption()[0] != "aws:kms"
    made.enable_versioning()
    made.block_public_access()
    made.encrypt_with(key)
    made.require_tls("aws")

    assert (made.versioning(), made.public_access_is_blocked(), made.requires_tls()) == ("Enabled", True, True)
    assert made.encryption() == ("aws:kms", key)
    assert s3.get_bucket_versioning(Bucket=made.name)["Status"] == "Enabled"
    blocked = s3.get_public_access_block(Bucket=made.name)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True}
    assert len(blocked) == 4
    (rule,) = s3.get_bucket_encryption(Bucket=made.name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    assert rule["BucketKeyEnabled"] is True


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("region", "s3:ListBucket"),
        ("versioning", "s3:GetBucketVersioning"),
        ("encryption", "s3:GetEncryptionConfiguration"),
        ("public_access_is_blocked", "s3:GetBucketPublicAccessBlock"),
        ("requires_tls", "s3:GetBucketPolicy"),
    ],
)
def test_a_setting_that_may_not_be_read_names_its_action(
    made: BucketSettings, door: Door, method: str, action: str
) -> None:
    door.fault("deny", action)

    with pytest.raises(AccessDenied) as caught:
        getattr(made, method)()

    assert action in f"{caught.value} {caught.value.hint}"


def test_a_key_is_created_named_and_rotated(aws: Aws, door: Door) -> None:
    alias = f"alias/made-{uuid4().hex[:12]}"
    assert aws.kms.key(alias) is None
    key = aws.kms.create_key("A test's key")
    aws.kms.create_alias(alias, key.arn)
    aws.kms.create_alias(alias, key.arn)
    assert not aws.kms.rotates(key.arn)
    aws.kms.enable_rotation(key.arn)

    found = aws.kms.key(alias)
    assert found == key
    assert (key.account, key.region, key.state, key.manager) == (ACCOUNT, "us-east-1", "Enabled", "CUSTOMER")
    assert (key.usage, key.spec, key.description) == ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "A test's key")
    assert aws.kms.rotates(key.arn)
    assert door.client("kms").describe_key(KeyId=alias)["KeyMetadata"]["Arn"] == key.arn
    assert key.arn in aws.kms.key_arns()
    assert aws.kms.aliases()[alias] == key.arn.rpartition("/")[2]


def test_an_alias_of_another_key_is_not_changed(aws: Aws, door: Door) -> None:
    there = aws.kms.key(door.alias)
    other = aws.kms.create_key("Another")

    with pytest.raises(AwsError, match="AlreadyExistsException"):
        aws.kms.create_alias(door.alias, other.arn)
    assert aws.kms.key(door.alias) == there


def test_clusters_are_described_a_hundred_at_a_time_with_their_tags(aws: Aws, door: Door) -> None:
    """DescribeClusters: "A list of up to 100 cluster names or full cluster ARN entries"."""
    ecs = door.client("ecs")
    for number in range(120):
        ecs.create_cluster(clusterName=f"c{number}", tags=[{"key": "n", "value": str(number)}])
    before = door.endpoint.calls.since(0)[-1]["number"]

    arns = aws.ecs.cluster_arns()
    found = {cluster.name: cluster for cluster in aws.ecs.clusters([*arns, "none"])}

    assert set(found) == {CLUSTER, *(f"c{number}" for number in range(120))}
    assert found["c7"].tags == {"n": "7"}
    assert found[CLUSTER].registered == 3
    calls = [call["action"] for call in door.endpoint.calls.since(before)]
    assert calls == ["ListClusters", "ListClusters", "DescribeClusters", "DescribeClusters"]


def test_tags_are_added_to_a_cluster_and_others_stay(aws: Aws, door: Door) -> None:
    arn = aws.ecs.cluster(CLUSTER).cluster_arn
    aws.ecs.tag(arn, {"a": "1", "b": "2"})
    aws.ecs.tag(arn, {"b": "3"})

    assert aws.ecs.cluster(CLUSTER).tags == {"a": "1", "b": "3"}
    told = door.client("ecs").list_tags_for_resource(resourceArn=arn)["tags"]
    assert {tag["key"]: tag["value"] for tag in told} == {"a": "1", "b": "3"}


OTHERS = {"Sid": "Ours", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "s3:Get*"}
DENY = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}


def test_a_bucket_keeps_its_own_policy_when_tls_is_required(made: BucketSettings, door: Door) -> None:
    s3, arn = door.client("s3"), f"arn:aws:s3:::{made.name}"
    own = {**OTHERS, "Resource": f"{arn}/*"}
    s3.put_bucket_policy(Bucket=made.name, Policy=json.dumps({"Version": "2012-10-17", "Id": "x", "Statement": own}))

    made.require_tls("aws")

    policy = json.loads(s3.get_bucket_policy(Bucket=made.name)["Policy"])
    assert policy["Id"] == "x"
    assert policy["Statement"][0] == own
    assert policy["Statement"][1]["Resource"] == [arn, f"{arn}/*"]


@pytest.mark.parametrize(
    ("changes", "requires"),
    [
        ({}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Action": ["s3:*"]}, True),
        ({"Condition": {"Bool": {"aws:SecureTransport": False}}}, True),
        ({"Condition": {"Bool": {"aws:secureTransport": ["false"]}}}, True),
        ({"Effect": "Allow"}, False),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}, False),
        ({"Action": "s3:PutObject"}, False),
        ({"Resource": "arn:aws:s3:::another/*"}, False),
        ({"Condition": {"Bool": {"aws:SecureTransport": "true"}}}, False),
        ({"Condition": {}}, False),
        (
            {"Condition": {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:SourceVpc": "vpc-1"}}},
            False,
        ),
    ],
)
def test_only_a_policy_that_denies_all_principals_all_requests_without_tls_requires_tls(
    made: BucketSettings, door: Door, changes: dict[str, object], requires: bool
) -> None:
    """S3's guide, security best practices: "Enforce encryption of data in transit"."""
    statement = {**DENY, "Resource": [f"arn:aws:s3:::{made.name}", f"arn:aws:s3:::{made.name}/*"], **changes}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    door.client("s3").put_bucket_policy(Bucket=made.name, Policy=json.dumps(policy))

    assert made.requires_tls() is requires


def test_a_bucket_that_requires_tls_accepts_the_local_rack_s_requests(made: BucketSettings, door: Door) -> None:
    """The endpoint stands for AWS's, to which clients talk by TLS: aws:SecureTransport is true."""
    s3 = door.client("s3")
    made.require_tls("aws")

    s3.put_object(Bucket=made.name, Key="x", Body=b"1")

    assert s3.get_object(Bucket=made.name, Key="x")["Body"].read() == b"1"
    assert made.requires_tls()


def test_a_key_is_disabled_and_enabled_by_its_arn(aws: Aws, door: Door) -> None:
    """KMS, DisableKey: "To specify a KMS key, use its key ID or key ARN"."""
    kms, arn = door.client("kms"), aws.kms.create_key("One").arn

    kms.disable_key(KeyId=arn)
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=arn)
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Enabled"


def test_a_key_with_an_alias_of_aws_is_managed_by_aws(door: Door) -> None:
    """KMS's guide, AWS managed keys: their aliases begin with alias/aws/."""
    assert door.client("kms").describe_key(KeyId="alias/aws/s3")["KeyMetadata"]["KeyManager"] == "AWS"
