"""Each service's denial of a call, which names the missing action."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from rackctl.local.denials import CALLER
from rackctl.local.world.base import Refused
from tests.local.api.clients import ED25519
from tests.local.door import CLUSTER, GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.door import Door

BECAUSE = "because no identity-based policy allows the"


def refused(act: Callable[[], Any]) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        act()
    response = caught.value.response
    error = response["Error"]
    return error["Code"], response["ResponseMetadata"]["HTTPStatusCode"], error["Message"]


def says(action: str, resource: str) -> str:
    return f"User: {CALLER} is not authorized to perform: {action} on resource: {resource} {BECAUSE} {action} action"


def test_the_caller_is_the_one_that_sts_names(door: Door) -> None:
    assert door.client("sts").get_caller_identity()["Arn"] == CALLER


def test_ecs_names_action_and_resource(door: Door) -> None:
    """IAM's guide, access denied error messages: "User: … is not authorized to perform: … on resource: … because …"."""
    ecs, arn = door.client("ecs"), door.arns()[0]
    door.fault("deny", "ecs:UpdateContainerInstancesState")

    def drain() -> Any:
        return ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[arn], status="DRAINING")

    assert refused(drain) == ("AccessDeniedException", 400, says("ecs:UpdateContainerInstancesState", arn))
    assert door.world.ecs.clusters[CLUSTER].registrations[arn].status == "ACTIVE"
    ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[arn])


def test_ecs_lists_services_of_no_resource(door: Door) -> None:
    """ECS's service authorization reference: ListServices has no resource type; ListTasks is on container instances."""
    ecs = door.client("ecs")
    door.fault("deny", "ecs:List*")

    assert refused(lambda: ecs.list_services(cluster=CLUSTER))[2] == says("ecs:ListServices", "*")
    tasks = f"arn:aws:ecs:us-east-1:123456789012:container-instance/{CLUSTER}/*"
    assert refused(lambda: ecs.list_tasks(cluster=CLUSTER))[2] == says("ecs:ListTasks", tasks)


def test_ec2_adds_an_encoded_message(door: Door) -> None:
    """EC2's guide, error codes: UnauthorizedOperation, with an encoded message for DecodeAuthorizationMessage."""
    door.fault("deny", "ec2:DescribeInstances")

    code, status, message = refused(door.client("ec2").describe_instances)

    assert (code, status) == ("UnauthorizedOperation", 403)
    before, text, encoded = message.partition(says("ec2:DescribeInstances", "*"))
    assert before == "You are not authorized to perform this operation. "
    assert text
    assert encoded.startswith(". Encoded authorization failure message: ")
    assert len(encoded) > 200


def test_importing_a_key_with_tags_needs_to_create_tags_too(door: Door) -> None:
    """EC2's guide, tag on creation: users "must also have permission to use the ec2:CreateTags action"."""
    ec2 = door.client("ec2")
    door.fault("deny", "ec2:CreateTags")
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}]

    code, _, message = refused(
        lambda: ec2.import_key_pair(KeyName="k", PublicKeyMaterial=ED25519, TagSpecifications=tags)
    )

    assert code == "UnauthorizedOperation"
    assert says("ec2:CreateTags", "arn:aws:ec2:us-east-1:123456789012:key-pair/k") in message
    ec2.import_key_pair(KeyName="k", PublicKeyMaterial=ED25519)


@pytest.mark.parametrize("missing", ["ec2:RunInstances", "iam:PassRole", "ec2:CreateTags"])
def test_auto_scaling_names_the_template_for_any_permission_that_a_launch_lacks(door: Door, missing: str) -> None:
    """Auto Scaling's guide, launch template permissions: the caller must be able to launch from the template."""
    autoscaling = door.client("autoscaling")
    template = next(iter(door.world.ec2.templates.values()))
    tagged = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]
    door.world.ec2.add_version(template, {"TagSpecifications": tagged}, source="1")
    specification = {"LaunchTemplateId": template.launch_template_id, "Version": "2"}
    door.fault("deny", missing)

    def update(**changes: Any) -> Any:
        return autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, **changes)

    update(MaxSize=6)
    assert refused(lambda: update(LaunchTemplate=specification)) == (
        "AccessDenied",
        403,
        f"You are not authorized to use launch template: {template.launch_template_id}",
    )


def test_auto_scaling_names_its_own_actions(door: Door) -> None:
    door.fault("deny", "autoscaling:SetDesiredCapacity")

    code, status, message = refused(
        lambda: door.client("autoscaling").set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=4)
    )

    arn = door.world.autoscaling.groups[GROUP].arn
    assert (code, status, message) == ("AccessDenied", 403, says("autoscaling:SetDesiredCapacity", arn))


def test_kms_names_the_key(door: Door) -> None:
    kms = door.client("kms")
    arn = kms.describe_key(KeyId=door.alias)["KeyMetadata"]["Arn"]
    sealed = kms.encrypt(KeyId=door.alias, Plaintext=b"x")["CiphertextBlob"]
    door.fault("deny", "kms:Encrypt")
    door.fault("deny", "kms:Decrypt")

    encrypt = refused(lambda: kms.encrypt(KeyId=door.alias, Plaintext=b"x"))

    assert encrypt == ("AccessDeniedException", 400, says("kms:Encrypt", arn))
    assert refused(lambda: kms.decrypt(CiphertextBlob=sealed))[2] == says("kms:Decrypt", arn)


def test_s3_quotes_the_object(door: Door) -> None:
    """S3's guide, troubleshoot access denied: on resource: "arn:aws:s3:::amzn-s3-demo-bucket1/object-name"."""
    s3 = door.client("s3")
    door.fault("deny", "s3:PutObject")

    put = refused(lambda: s3.put_object(Bucket=door.bucket, Key="a/b", Body=b""))

    assert put == ("AccessDenied", 403, says("s3:PutObject", f'"arn:aws:s3:::{door.bucket}/a/b"'))


def test_a_conditional_write_needs_to_read_as_well(door: Door) -> None:
    """S3's guide, conditional writes: If-Match needs s3:GetObject beside s3:PutObject; so do conditional deletes."""
    s3 = door.client("s3")
    etag = s3.put_object(Bucket=door.bucket, Key="x", Body=b"")["ETag"]
    door.fault("deny", "s3:GetObject")

    s3.put_object(Bucket=door.bucket, Key="y", Body=b"", IfNoneMatch="*")
    for act in (
        lambda: s3.put_object(Bucket=door.bucket, Key="x", Body=b"", IfMatch=etag),
        lambda: s3.delete_object(Bucket=door.bucket, Key="x", IfMatch=etag),
    ):
        assert "s3:GetObject" in refused(act)[2]


@pytest.mark.parametrize("by", ["header", "default"])
def test_a_bucket_with_sse_kms_needs_its_key_too(door: Door, by: str) -> None:
    """S3's guide, SSE-KMS: "kms:GenerateDataKey" to upload, "kms:Decrypt" to download."""
    s3, kms = door.client("s3"), door.client("kms")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    given: dict[str, Any] = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": arn} if by == "header" else {}
    if by == "default":
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": arn}}
        s3.put_bucket_encryption(Bucket=door.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket=door.bucket, Key="x", Body=b"", **given)
    door.fault("deny", "kms:GenerateDataKey")
    door.fault("deny", "kms:Decrypt")

    put = refused(lambda: s3.put_object(Bucket=door.bucket, Key="x", Body=b"", **given))
    got = refused(lambda: s3.get_object(Bucket=door.bucket, Key="x"))

    assert put == ("AccessDenied", 403, says("kms:GenerateDataKey", f'"{arn}"'))
    assert got[2] == says("kms:Decrypt", f'"{arn}"')


def test_without_the_right_to_list_a_missing_object_is_forbidden(door: Door) -> None:
    """GetObject: "If you don't have the s3:ListBucket permission, Amazon S3 returns an HTTP status code 403"."""
    s3 = door.client("s3")
    s3.put_object(Bucket=door.bucket, Key="here", Body=b"")
    assert refused(lambda: s3.get_object(Bucket=door.bucket, Key="gone"))[:2] == ("NoSuchKey", 404)
    door.fault("deny", "s3:ListBucket")

    s3.get_object(Bucket=door.bucket, Key="here")
    assert refused(lambda: s3.get_object(Bucket=door.bucket, Key="gone")) == (
        "AccessDenied",
        403,
        says("s3:ListBucket", f'"arn:aws:s3:::{door.bucket}"'),
    )
    assert refused(lambda: s3.head_object(Bucket=door.bucket, Key="gone"))[:2] == ("403", 403)
    assert "s3:ListBucket" in refused(lambda: s3.list_objects_v2(Bucket=door.bucket))[2]


def test_a_denial_may_have_a_count_and_be_for_changes_only(door: Door) -> None:
    ecs = door.client("ecs")
    door.fault("deny", "ecs:*", count=1, mutating=True)
    ecs.list_clusters()

    assert refused(lambda: ecs.create_cluster(clusterName="x"))[0] == "AccessDeniedException"
    ecs.create_cluster(clusterName="x")


def test_an_unknown_action_cannot_be_denied(door: Door) -> None:
    with pytest.raises(Refused, match='no call "ec2:Fly"'):
        door.fault("deny", "ec2:Fly")


def test_a_denied_call_is_in_the_log(door: Door) -> None:
    door.fault("deny", "ecs:ListClusters")
    refused(door.client("ecs").list_clusters)

    (call,) = door.endpoint.calls.since(0)

    assert (call["status"], call["error"], call["carried_out"]) == (400, "AccessDeniedException", False)
    assert json.dumps(call)


def test_a_deleted_object_of_a_versioned_bucket_is_not_found_even_without_s3_list_bucket(door: Door) -> None:
    """S3's guide, delete markers: a GET of an object whose current version is one answers 404."""
    s3 = door.client("s3")
    s3.put_bucket_versioning(Bucket=door.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=door.bucket, Key="x", Body=b"")
    s3.delete_object(Bucket=door.bucket, Key="x")
    door.fault("deny", "ecs:ListClusters")

    assert refused(lambda: s3.get_object(Bucket=door.bucket, Key="x"))[:2] == ("NoSuchKey", 404)
    assert refused(lambda: s3.delete_object(Bucket=door.bucket, Key="x", IfMatch="*"))[1] == 412
