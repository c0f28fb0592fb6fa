"""S3 and KMS of the local rack: moto's, made strict."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from rackctl.local.moto_services import ACCOUNT_ID, OTHER_ACCOUNT_ID
from tests.local.signing import send, signed
from tests.local.test_server import ALIAS, BUCKET, code

if TYPE_CHECKING:
    from tests.local.door import Door
    from tests.local_rack import LocalRackProcess


@pytest.mark.parametrize("key", ["plain", "a b/ü+%2F~=&?.json", "/leading", "a//b"])
def test_s3_keys_of_any_characters_come_back(local_rack: LocalRackProcess, key: str) -> None:
    s3 = local_rack.client("s3")
    s3.put_object(Bucket=BUCKET, Key=f"names/{key}", Body=bytes(range(256)), Metadata={"some": "thing"})

    answer = s3.get_object(Bucket=BUCKET, Key=f"names/{key}")

    assert answer["Body"].read() == bytes(range(256))
    assert answer["Metadata"] == {"some": "thing"}


def test_a_presigned_url_is_answered_until_it_is_altered(local_rack: LocalRackProcess) -> None:
    s3 = local_rack.client("s3", signature_version="s3v4")
    s3.put_object(Bucket=BUCKET, Key="presigned", Body=b"here")
    url: str = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "presigned"})
    target = url.removeprefix(local_rack.description.endpoint_url)

    assert send(local_rack, "GET", target, {}).body == b"here"
    assert send(local_rack, "GET", target.replace("presigned", "other"), {}).says("SignatureDoesNotMatch")


def test_an_upload_with_its_checksum_at_the_end_is_unwrapped(local_rack: LocalRackProcess) -> None:
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "X-Amz-Decoded-Content-Length": "5",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    target = f"/{BUCKET}/trailer"
    given = signed(local_rack, "s3", "PUT", target, headers, b"")
    # botocore's signer has replaced it by the hash of an empty body: sign what is sent.
    assert given["X-Amz-Content-SHA256"] != headers["X-Amz-Content-SHA256"]
    s3 = local_rack.client("s3")

    s3.put_object(Bucket=BUCKET, Key="trailer", Body=b"hello", ChecksumAlgorithm="CRC32")

    assert s3.get_object(Bucket=BUCKET, Key="trailer")["Body"].read() == b"hello"
    assert send(local_rack, "PUT", target, given, body).says("XAmzContentSHA256Mismatch")


def test_of_many_conditional_writers_one_wins(local_rack: LocalRackProcess) -> None:
    clients = [local_rack.client("s3") for _ in range(8)]

    def create(number: int) -> bool:
        try:
            clients[number].put_object(Bucket=BUCKET, Key="lock", Body=str(number).encode(), IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert won.count(True) == 1
    assert clients[0].get_object(Bucket=BUCKET, Key="lock")["Body"].read() == str(won.index(True)).encode()


def test_s3_replaces_and_deletes_only_the_version_that_is_named(local_rack: LocalRackProcess) -> None:
    s3 = local_rack.client("s3")
    first = s3.put_object(Bucket=BUCKET, Key="journal", Body=b"1")["ETag"]
    second = s3.put_object(Bucket=BUCKET, Key="journal", Body=b"2", IfMatch=first)["ETag"]

    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="journal", Body=b"3", IfMatch=first)) == "PreconditionFailed"
    assert code(lambda: s3.delete_object(Bucket=BUCKET, Key="journal", IfMatch=first)) == "PreconditionFailed"
    assert s3.get_object(Bucket=BUCKET, Key="journal")["Body"].read() == b"2"
    s3.delete_object(Bucket=BUCKET, Key="journal", IfMatch=second)
    assert code(lambda: s3.get_object(Bucket=BUCKET, Key="journal")) == "NoSuchKey"
    assert code(lambda: s3.put_object(Bucket=BUCKET, Key="journal", Body=b"4", IfMatch=second)) == "NoSuchKey"


# Whose a bucket is

CALLS_OF_A_BUCKET: dict[str, dict[str, Any]] = {
    "get_object": {"Key": "x"},
    "put_object": {"Key": "x", "Body": b""},
    "delete_object": {"Key": "x"},
    "head_object": {"Key": "x"},
    "head_bucket": {},
    "list_objects_v2": {},
}


@pytest.mark.parametrize("operation", CALLS_OF_A_BUCKET)
def test_a_call_that_expects_another_owner_of_the_bucket_is_denied(door: Door, operation: str) -> None:
    """ExpectedBucketOwner: "does not match the actual owner …, the request fails with … 403 Forbidden"."""
    s3 = door.client("s3")
    s3.put_object(Bucket=door.bucket, Key="x", Body=b"")
    s3.put_object(Bucket=door.others, Key="x", Body=b"")

    def call(bucket: str, owner: str) -> Any:
        return getattr(s3, operation)(Bucket=bucket, ExpectedBucketOwner=owner, **CALLS_OF_A_BUCKET[operation])

    # A HEAD's error has no body, and so no code but its status.
    denied = "403" if operation.startswith("head") else "AccessDenied"
    assert code(lambda: call(door.bucket, OTHER_ACCOUNT_ID)) == denied
    assert code(lambda: call(door.others, ACCOUNT_ID)) == denied
    call(door.bucket, ACCOUNT_ID)
    if operation != "delete_object":
        call(door.others, OTHER_ACCOUNT_ID)


def test_another_account_s_bucket_accepts_writes_unless_the_call_names_its_owner(door: Door) -> None:
    s3 = door.client("s3")

    s3.put_object(Bucket=door.others, Key="secret", Body=b"sealed")

    assert s3.get_object(Bucket=door.others, Key="secret")["Body"].read() == b"sealed"


def test_every_local_rack_has_a_bucket_and_a_key_of_another_account(local_rack: LocalRackProcess) -> None:
    others = f"rackctl-local-{OTHER_ACCOUNT_ID}"
    kms = local_rack.client("kms")
    local_rack.client("s3").head_bucket(Bucket=others, ExpectedBucketOwner=OTHER_ACCOUNT_ID)

    alias = f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:alias/{others}"
    key = kms.describe_key(KeyId=alias)["KeyMetadata"]

    assert key["AWSAccountId"] == OTHER_ACCOUNT_ID
    assert f":{OTHER_ACCOUNT_ID}:key/" in key["Arn"]
    assert kms.encrypt(KeyId=key["Arn"], Plaintext=b"x")["KeyId"] == key["Arn"]


def test_another_account_s_key_is_used_by_its_arn_alone(door: Door) -> None:
    """KMS's guide, KeyId: "To specify a KMS key in a different account, you must use the key ARN or alias ARN"."""
    kms = door.client("kms")
    arn = kms.describe_key(KeyId=f"arn:aws:kms:us-east-1:{ACCOUNT_ID}:{door.others_alias}")["KeyMetadata"]["Arn"]

    sealed = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]

    assert kms.decrypt(CiphertextBlob=sealed, KeyId=arn)["Plaintext"] == b"x"
    for name in (arn.rpartition("/")[2], door.others_alias):
        assert code(lambda name=name: kms.encrypt(KeyId=name, Plaintext=b"x")) == "NotFoundException"  # type: ignore[misc]


# Where a bucket is


@pytest.mark.parametrize(("method", "target"), [("HEAD", ""), ("GET", "/key"), ("PUT", "/key")])
def test_a_bucket_of_another_region_is_redirected_to(local_rack: LocalRackProcess, method: str, target: str) -> None:
    """S3's guide, redirects: 301 PermanentRedirect, with the bucket's region in x-amz-bucket-region."""
    s3, name = local_rack.client("s3"), f"elsewhere-{uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    path = f"/{name}{target}"

    response = send(local_rack, method, path, signed(local_rack, "s3", method, path, {}, b""))

    assert response.status == 301
    assert response.headers["x-amz-bucket-region"] == "eu-west-1"
    assert method == "HEAD" or b"<Code>PermanentRedirect</Code>" in response.body
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"


# Names


@pytest.mark.parametrize("prefix", ["a=b/", "a:b/", "a@b/", "a+b/", "a b/", "ü/"])
def test_listed_keys_are_encoded_when_asked_for(door: Door, prefix: str) -> None:
    """ListObjectsV2, EncodingType: "test_file(3).png will appear as test_file%283%29.png"."""
    s3 = door.client("s3")
    s3.put_object(Bucket=door.bucket, Key=f"{prefix}k", Body=b"")

    # boto3 asks for the encoding itself, and decodes: what is asked for by hand it leaves as it is.
    own = s3.list_objects_v2(Bucket=door.bucket, Prefix=prefix)["Contents"]
    asked = s3.list_objects_v2(Bucket=door.bucket, Prefix=prefix, EncodingType="url")

    assert [found["Key"] for found in own] == [f"{prefix}k"]
    assert [found["Key"] for found in asked["Contents"]] == [f"{quote(prefix)}k"]
    assert asked["EncodingType"] == "url"


# KMS


def new_key(kms: Any) -> str:
    key_id: str = kms.create_key()["KeyMetadata"]["KeyId"]
    return key_id


def test_a_disabled_key_neither_encrypts_nor_decrypts(local_rack: LocalRackProcess) -> None:
    kms = local_rack.client("kms")
    key = new_key(kms)
    sealed = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
    kms.disable_key(KeyId=key)

    assert code(lambda: kms.encrypt(KeyId=key, Plaintext=b"secret")) == "DisabledException"
    assert code(lambda: kms.generate_data_key(KeyId=key, KeySpec="AES_256")) == "DisabledException"
    assert code(lambda: kms.decrypt(CiphertextBlob=sealed)) == "DisabledException"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"


def test_a_key_pending_deletion_neither_encrypts_nor_decrypts(local_rack: LocalRackProcess) -> None:
    kms = local_rack.client("kms")
    key = new_key(kms)
    sealed = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)

    assert code(lambda: kms.encrypt(KeyId=key, Plaintext=b"secret")) == "KMSInvalidStateException"
    assert code(lambda: kms.decrypt(CiphertextBlob=sealed, KeyId=key)) == "KMSInvalidStateException"


def test_a_ciphertext_is_decrypted_by_its_own_key_only(local_rack: LocalRackProcess) -> None:
    kms = local_rack.client("kms")
    right, wrong = new_key(kms), new_key(kms)
    sealed = kms.encrypt(KeyId=right, Plaintext=b"secret", EncryptionContext={"rack": "a"})["CiphertextBlob"]

    def decrypt(**parameters: Any) -> Any:
        return kms.decrypt(CiphertextBlob=sealed, **parameters)

    assert code(lambda: decrypt(KeyId=wrong, EncryptionContext={"rack": "a"})) == "IncorrectKeyException"
    assert code(lambda: decrypt(KeyId=ALIAS, EncryptionContext={"rack": "a"})) == "IncorrectKeyException"
    assert code(lambda: decrypt(KeyId=right, EncryptionContext={"rack": "b"})) == "InvalidCiphertextException"
    assert code(lambda: kms.decrypt(CiphertextBlob=b"x" * 90)) in {
        "InvalidCiphertextException",
        "AccessDeniedException",
    }
    assert decrypt(KeyId=right, EncryptionContext={"rack": "a"})["Plaintext"] == b"secret"


def test_a_key_that_does_not_exist_is_not_found(local_rack: LocalRackProcess) -> None:
    kms = local_rack.client("kms")

    assert code(lambda: kms.encrypt(KeyId="alias/nothing", Plaintext=b"x")) == "NotFoundException"
