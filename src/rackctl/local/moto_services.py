"""S3, KMS, STS and CloudWatch by moto, with checks in front of it that moto lacks.

moto has one state for the whole process and no locks: the caller must hold a lock.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import pickle
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes
from uuid import uuid4
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from rackctl.local.alarms import Alarms
from rackctl.local.api import Answer
from rackctl.local.moto_repairs import kms_request, over_tls
from rackctl.local.s3_operations import s3_operation
from rackctl.local.world.base import USER, Refused
from rackctl.local.wsgi import environ_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.signature import Request

# moto reads this when it is imported; otherwise its servers would answer browsers.
os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "1"

ACCOUNT_ID: Final = "123456789012"
# moto does not know this user, and returns an ARN that has none of STS's forms.
_CALLER: Final = f"<Arn>arn:aws:iam::{ACCOUNT_ID}:user/{USER}</Arn>".encode()
# The account of a bucket and a key that are open to the rack's account.
OTHER_ACCOUNT_ID: Final = "210987654321"

# The operations for which a key must be enabled. https://docs.aws.amazon.com/kms/latest/developerguide/key-state.html
_CRYPTOGRAPHIC: Final = re.compile(r"Encrypt|Decrypt|ReEncrypt|GenerateDataKey\w*|GenerateMac|VerifyMac|Sign|Verify")
_PUBLIC_ACCESS_BLOCKS: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_READS: Final = re.compile(r"(Describe|List|Get|Head)\w*|Encrypt|Decrypt|ReEncrypt|Generate\w+|Sign|Verify\w*")


class MotoServices:
    """moto's services of one region."""

    SERVICES: Final = frozenset({"s3", "kms", "sts", "cloudwatch"})
    # Services whose name in signatures is not IAM's.
    SIGNED_AS: Final = {"monitoring": "cloudwatch"}

    def __init__(self, region: str) -> None:
        from moto.backends import get_backend
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self._kms = get_backend("kms")[ACCOUNT_ID][region]
        self._s3 = get_backend("s3")[ACCOUNT_ID]["aws"]
        self._cloudwatch = get_backend("cloudwatch")[ACCOUNT_ID][region]
        self._alarms = Alarms(self._cloudwatch)
        self._region = region
        # The accounts of buckets that do not belong to the rack's account.
        self._owners: dict[str, str] = {}
        self.version = 0

    @staticmethod
    def operations(service: str) -> frozenset[str]:
        """Return the names of a service's operations; moto may lack some."""
        return frozenset(Loader().load_service_model(service, "service-2")["operations"])

    @staticmethod
    def action_of(service: str, request: Request) -> str:
        """Return the name of a request's operation; empty if it is not known."""
        if service == "kms":
            return (request.header("x-amz-target") or "").removeprefix("TrentService.")
        if service == "cloudwatch":
            return Alarms.action_of(request)
        if service == "sts":
            form = dict(parse_qsl(request.body.decode("latin-1")) + parse_qsl(request.query))
            return form.get("Action", "")
        return s3_operation(request)

    @staticmethod
    def is_read(action: str) -> bool:
        return _READS.fullmatch(action) is not None

    def respond(self, service: str, request: Request) -> Answer:
        """Carry out a request; return the response, which may be an error response."""
        action = self.action_of(service, request)
        try:
            if service == "kms" and _CRYPTOGRAPHIC.fullmatch(action):
                self._check_key(action, request)
            if service == "s3":
                if elsewhere := self._region_elsewhere(action, request):
                    return _redirect(elsewhere)
                self._check_owner(request)
                self._check_name(action, request)
            if service == "s3" and action == "DeleteObject":
                self._check_delete_condition(request)
            if service == "kms":
                request = kms_request(self._kms, action, request)
            answer = self._carried_out(service, action, request)
        except Refused as refused:
            return self.refuse(service, refused)
        if answer.status < 300 and not self.is_read(action):
            self.version += 1
        return _named(answer) if action == "GetCallerIdentity" else answer

    def _carried_out(self, service: str, action: str, request: Request) -> Answer:
        if service == "cloudwatch":
            return self._alarms.respond(request, self._ask_moto)
        bucket = self._s3.buckets.get(request.path.lstrip("/").partition("/")[0]) if service == "s3" else None
        with over_tls(bucket if "BucketPolicy" not in action else None):
            return self._ask_moto(request)

    def refuse(self, service: str, refused: Refused) -> Answer:
        """Return an error response in the service's format."""
        return refusal(service, refused)

    def create_bucket_and_key(self, bucket: str, alias: str) -> None:
        """Create a rack's store: a bucket, and a KMS key with an alias, with the recommended settings."""
        self._s3.create_bucket(bucket, self._region)
        key = self._kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "SSH keys of a local rack", [])
        self._kms.create_alias(key.id, alias)
        self._kms.enable_key_rotation(key.id)
        self._s3.put_bucket_versioning(bucket, "Enabled")
        self._s3.put_public_access_block(bucket, dict.fromkeys(_PUBLIC_ACCESS_BLOCKS, "true"))
        by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key.arn}
        self._s3.put_bucket_encryption(bucket, {"Rule": {"ApplyServerSideEncryptionByDefault": by_default}})
        self._s3.put_bucket_policy(
            bucket, json.dumps({"Version": "2012-10-17", "Statement": [_tls_only(bucket)]}).encode()
        )
        self.version += 1

    def create_another_account_s(self, bucket: str, alias: str) -> None:
        """Create a bucket and a KMS key in another account, both open to the rack's account."""
        self._s3.create_bucket(bucket, self._region)
        self._owners[bucket] = OTHER_ACCOUNT_ID
        key = self._kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "Another account's", [])
        key.account_id, key.arn = OTHER_ACCOUNT_ID, key.arn.replace(ACCOUNT_ID, OTHER_ACCOUNT_ID)
        self._kms.create_alias(key.id, alias)
        self.version += 1

    # A call's resources, for permissions

    @staticmethod
    def parameters(service: str, request: Request) -> dict[str, Any]:
        """Return the parameters of a KMS call; none for other services, or if the body is not JSON."""
        try:
            found = json.loads(request.body or b"{}") if service == "kms" else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def owner_of(self, bucket: str) -> str:
        """Return the account of a bucket."""
        return self._owners.get(bucket, ACCOUNT_ID)

    def key_arn(self, asked: Mapping[str, Any]) -> str:
        """Return the ARN of a KMS call's key; ``*`` if there is none."""
        try:
            key = self._key_of_ciphertext(asked.get("CiphertextBlob")) or self._find_key(asked.get("KeyId"))
        except Refused:
            key = None
        return str(key.arn) if key else "*"

    def encryption_key(self, action: str, bucket: str, key: str, headers: Mapping[str, str]) -> str:
        """Return the ARN of the KMS key that encrypts, or will encrypt, an object; empty for none."""
        found = self._s3.buckets.get(bucket)
        if found is None:
            return ""
        if action == "GetObject":
            stored = _stored(found, unquote_to_bytes(key).decode("utf-8", "replace"))
            algorithm, key_id = (stored.encryption, stored.kms_key_id) if stored is not None else ("", "")
        elif action in {"PutObject", "CopyObject", "CreateMultipartUpload"}:
            given = {name.lower(): value for name, value in headers.items()}
            default = ((found.encryption or {}).get("Rule") or {}).get("ApplyServerSideEncryptionByDefault", {})
            algorithm = given.get("x-amz-server-side-encryption") or default.get("SSEAlgorithm", "")
            key_id = given.get("x-amz-server-side-encryption-aws-kms-key-id") or default.get("KMSMasterKeyID", "")
        else:
            return ""
        return self.key_arn({"KeyId": key_id}) if algorithm == "aws:kms" else ""

    def alarm_states(self) -> dict[str, tuple[str, str]]:
        return self._alarms.states()

    def dumped(self) -> bytes:
        """Return the state to save."""
        file = io.BytesIO()
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(
            {
                "kms": vars(self._kms),
                "s3": vars(self._s3),
                "owners": self._owners,
                "alarms": self._cloudwatch.alarms,
            }
        )
        return file.getvalue()

    def restore(self, dumped: bytes) -> None:
        state = pickle.loads(dumped)  # noqa: S301 - from our own snapshot
        vars(self._kms).update(state["kms"])
        vars(self._s3).update(state["s3"])
        self._owners = state["owners"]
        self._cloudwatch.alarms = state["alarms"]

    def _ask_moto(self, request: Request) -> Answer:
        from werkzeug.test import run_wsgi_app

        chunks, status, headers = run_wsgi_app(self._app, environ_of(request), buffered=True)
        return Answer(int(status.partition(" ")[0]), dict(headers), b"".join(chunks))

    # KMS: checks of a key's state, and that it is the right key

    def _check_key(self, action: str, request: Request) -> None:
        asked = json.loads(request.body or b"{}")
        named = self._find_key(asked.get("SourceKeyId") or asked.get("KeyId")) if action != "ReEncrypt" else None
        used = self._key_of_ciphertext(asked.get("CiphertextBlob")) if action in {"Decrypt", "ReEncrypt"} else named
        if action == "ReEncrypt":
            named = self._find_key(asked.get("SourceKeyId"))
            self._check_state(self._find_key(asked.get("DestinationKeyId")))
        if used is not None and named is not None and used is not named:
            raise Refused(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
        self._check_state(used)

    @staticmethod
    def _check_state(key: Any) -> None:
        if key is None:
            return  # moto refuses the request itself
        if key.key_state == "Disabled":
            raise Refused("DisabledException", f"{key.arn} is disabled.")
        if key.key_state != "Enabled":
            words = re.sub(r"(?<!^)(?=[A-Z])", " ", key.key_state).lower()
            raise Refused("KMSInvalidStateException", f"{key.arn} is {words}.")

    def _find_key(self, key_id: str | None) -> Any:
        if not key_id:
            return None
        name = self._kms.get_alias_name(key_id)
        if name.startswith("alias/") and not name.startswith("alias/aws/") and not self._kms.alias_exists(name):
            raise Refused("NotFoundException", f"Alias arn:aws:kms:{self._region}:{ACCOUNT_ID}:{name} is not found.")
        key = self._kms.keys.get(self._kms.any_id_to_key_id(key_id))
        if key is not None and key.account_id != ACCOUNT_ID and not key_id.startswith("arn:"):
            raise Refused("NotFoundException", f"Key '{key.arn.replace(key.account_id, ACCOUNT_ID)}' does not exist")
        return key

    def _key_of_ciphertext(self, text: str | None) -> Any:
        # A ciphertext of moto begins with the id of its key.
        try:
            return self._kms.keys.get(base64.b64decode(text or "")[:36].decode("ascii"))
        except (binascii.Error, UnicodeDecodeError):
            return None

    # S3: a bucket's owner, which moto does not check

    def _region_elsewhere(self, action: str, request: Request) -> str:
        """Return the region of a request's bucket if it is not this rack's; else empty."""
        bucket = self._s3.buckets.get(request.path.lstrip("/").partition("/")[0])
        region = str(bucket.region_name) if bucket is not None else self._region
        return "" if region == self._region or action in {"CreateBucket", "GetBucketLocation"} else region

    def _check_owner(self, request: Request) -> None:
        """Refuse a call whose expected bucket owner is not the owner."""
        bucket = request.path.lstrip("/").partition("/")[0]
        for header, name in (
            ("x-amz-expected-bucket-owner", bucket),
            ("x-amz-source-expected-bucket-owner", (request.header("x-amz-copy-source") or "").lstrip("/")),
        ):
            expected = request.header(header)
            owner = self.owner_of(name.partition("/")[0])
            if expected is not None and expected != owner and bucket in self._s3.buckets:
                raise Refused("AccessDenied", "Access Denied", 403)

    def _check_name(self, action: str, request: Request) -> None:
        """Refuse to create a bucket whose name another account uses.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
        """
        if action == "CreateBucket" and request.path.strip("/") in self._owners:
            message = (
                "The requested bucket name is not available. The bucket namespace is shared by all users of the "
                "system. Please select a different name and try again."
            )
            raise Refused("BucketAlreadyExists", message, 409)

    # S3: conditional deletes, which moto does unconditionally
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html

    def _check_delete_condition(self, request: Request) -> None:
        wanted = request.header("if-match")
        if wanted is None:
            return
        bucket, _, key = unquote_to_bytes(request.path).decode("utf-8", "replace").lstrip("/").partition("/")
        found = self._s3.buckets.get(bucket)
        stored = _stored(found, key) if found is not None else None
        if stored is None or (wanted != "*" and wanted.strip('"') != stored.etag.strip('"')):
            raise Refused("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)


def _tls_only(bucket: str) -> dict[str, Any]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html#transit."""
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _named(answer: Answer) -> Answer:
    """Return STS's answer with a user's ARN: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html."""
    return replace(answer, body=re.sub(rb"<Arn>.*?</Arn>", _CALLER, answer.body))


def _stored(bucket: Any, key: str) -> Any:
    """Return an object of a bucket; None if it does not exist, or if its newest version is a delete marker."""
    found = bucket.keys.get(key)
    return found if hasattr(found, "etag") else None


def _redirect(region: str) -> Answer:
    """Return S3's redirect of a request for a bucket of another region."""
    answer = refusal(
        "s3",
        Refused(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all "
            "future requests to this endpoint.",
            301,
        ),
    )
    return Answer(answer.status, {**answer.headers, "x-amz-bucket-region": region}, answer.body)


class _Pickler(pickle.Pickler):
    """Pickles the private keys of cryptography, too, which moto's KMS has in its state."""

    def reducer_override(self, value: Any) -> Any:
        if not hasattr(value, "private_bytes"):
            return NotImplemented
        return _load_key, (value.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),)


def _load_key(der: bytes) -> Any:
    return load_der_private_key(der, None)


def refusal(service: str, refused: Refused) -> Answer:
    """Return an error response of S3 or STS, or, for any other name, of a JSON service."""
    request_id = str(uuid4())
    code, message = escape(refused.code), escape(refused.message)
    if service == "s3":
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
            f"<RequestId>{request_id}</RequestId></Error>"
        )
        headers = {"Content-Type": "application/xml", "x-amz-request-id": request_id}
        return Answer(refused.status, headers, body.encode())
    if service in {"sts", "query"}:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return Answer(refused.status, {"Content-Type": "text/xml"}, body.encode())
    headers = {
        "Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": request_id, "x-amzn-ErrorType": refused.code,
    }  # fmt: skip
    return Answer(refused.status, headers, json.dumps({"__type": refused.code, "message": refused.message}).encode())
