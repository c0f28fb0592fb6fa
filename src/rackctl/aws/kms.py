"""KMS: seal and open a few kilobytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, NotFound, RackctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.aws.client import Client


class Kms:
    def __init__(self, call: Client) -> None:
        self._call = call

    def encrypt(self, kms_key: str, plaintext: bytes, context: Mapping[str, str], *, what: str) -> bytes:
        """Encrypt up to 4,096 bytes under a key (id, ARN or alias), bound to an encryption context.

        ``what`` names for an error message what is sealed.
        """
        try:
            return self._call(
                "encrypt",
                lambda answer: bytes(answer["CiphertextBlob"]),
                resource=f"KMS key {kms_key}",
                KeyId=kms_key,
                Plaintext=plaintext,
                EncryptionContext=dict(context),
            )
        except AwsError as error:
            raise _explained(error, kms_key, what) from error

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], *, what: str, kms_key: str = "") -> bytes:
        """Decrypt what `encrypt` gave. With ``kms_key``, only if it was encrypted under that key."""
        parameters = {"KeyId": kms_key} if kms_key else {}
        try:
            return self._call(
                "decrypt",
                lambda answer: bytes(answer["Plaintext"]),
                resource=f"KMS key {kms_key}" if kms_key else "",
                CiphertextBlob=ciphertext,
                EncryptionContext=dict(context),
                **parameters,
            )
        except AwsError as error:
            raise _explained(error, kms_key, what) from error


def _explained(error: AwsError, kms_key: str, what: str) -> RackctlError:
    """Turn a KMS error into one that names what was to be sealed or opened."""
    named = f"KMS key {kms_key}" if kms_key else "the KMS key"
    match error.code:
        case "NotFoundException":
            return NotFound(
                f"cannot use {what}: {named} does not exist in this account and region",
                hint="check the rack's kms_key setting",
            )
        case "DisabledException":
            return AccessDenied(f"cannot use {what}: {named} is disabled", hint="enable it with `aws kms enable-key`")
        case "KMSInvalidStateException":
            return AccessDenied(
                f"cannot use {what}: {named} is pending deletion, or not ready",
                hint="if it is pending deletion: `aws kms cancel-key-deletion`, then `aws kms enable-key`",
            )
        case "IncorrectKeyException":
            return AccessDenied(
                f"cannot open {what}: it was sealed under another key than {named}",
                hint="check the rack's kms_key setting",
            )
        case "InvalidCiphertextException":
            return AccessDenied(
                f"cannot open {what}: it was sealed for another rack or by another name, or has been altered",
                hint="check that the rack's name and prefix are those it was stored with",
            )
        case "KeyUnavailableException" | "DependencyTimeoutException" | "KMSInternalException":
            return AwsError(
                f"cannot use {what}: KMS could not use {named} ({error.code})",
                code=error.code,
                hint="try again in a moment",
            )
    return error
