"""Corrections of requests of KMS and S3 that moto treats otherwise than AWS."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.local.signature import Request

# KeyId is "the key ID or key ARN of the KMS key"; moto accepts the id only.
# https://docs.aws.amazon.com/kms/latest/APIReference/API_DisableKey.html
_BY_ID: Final = frozenset({"EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"})


def kms_request(kms: Any, action: str, request: Request) -> Request:
    """Return a request of KMS in a form that moto understands. ``kms`` is moto's backend."""
    try:
        asked = json.loads(request.body or b"{}")
    except ValueError:
        return request
    key_id = str(asked.get("KeyId", "")) if isinstance(asked, dict) else ""
    if action == "CreateKey" and isinstance(asked, dict):
        # https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html: the default, which moto leaves out
        asked = {"KeyUsage": "ENCRYPT_DECRYPT", **asked}
    elif action in _BY_ID and key_id.startswith("arn:"):
        asked["KeyId"] = key_id.rpartition("/")[2]
    elif key_id.startswith("alias/aws/"):
        # https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#aws-managed-key
        if key := kms.keys.get(kms.get_key_id_from_alias(key_id)):
            key.key_manager = "AWS"
        return request
    else:
        return request
    return replace(request, body=json.dumps(asked).encode())


@contextmanager
def over_tls(bucket: Any) -> Iterator[None]:
    """Have moto apply a bucket's policy as if the request came over TLS, as requests to AWS's endpoints do.

    moto ignores conditions, so it would deny every request.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-securetransport
    """
    policy = bucket.policy if bucket is not None else None
    if not policy:
        yield
        return
    document = json.loads(policy)
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    document["Statement"] = [s for s in statements if not _is_about_plain_http(s.get("Condition", {}))]
    bucket.policy = json.dumps(document).encode()
    try:
        yield
    finally:
        bucket.policy = policy


def _is_about_plain_http(condition: Any) -> bool:
    wanted = condition.get("Bool", condition.get("BoolIfExists", {})).get("aws:SecureTransport")
    return str(wanted[0] if isinstance(wanted, list) else wanted).lower() == "false"
