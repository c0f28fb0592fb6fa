"""KMS: encrypt and decrypt a few kilobytes; keys and aliases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, NotFound, RackctlError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.aws.client import Client, Document


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A KMS key. ``state``, ``usage``, ``spec`` and ``manager`` are AWS's own words, such as ``Enabled``."""

    arn: str
    state: str
    usage: str
    spec: str
    manager: str
    description: str = ""

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]


class Kms:
    def __init__(self, call: Client) -> None:
        self._call = call

    def encrypt(self, kms_key: str, plaintext: bytes, context: Mapping[str, str], *, what: str) -> bytes:
        """Encrypt up to 4,096 bytes under a key (id, ARN or alias), bound to an encryption context.

        ``what`` names the plaintext in error messages.
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
        """Decrypt a ciphertext of `encrypt`. With ``kms_key``, only if it was encrypted under that key."""
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

    def key(self, kms_key: str) -> KmsKey | None:
        """Describe a key by its id, ARN or alias; None if there is none."""
        try:
            return self._call("describe_key", _key, resource=f"KMS key {kms_key}", KeyId=kms_key)
        except AwsError as error:
            if error.code == "NotFoundException":
                return None
            raise

    def key_arns(self) -> list[str]:
        """List the keys of the account and region, in any state."""
        pages = self._call.pages("list_keys", lambda page: [str(entry["KeyArn"]) for entry in page["Keys"]], Limit=1000)
        return [arn for page in pages for arn in page]

    def aliases(self) -> dict[str, str]:
        """Map each alias of the account and region to the id of its key; empty for an alias of AWS's without a key."""
        pages = self._call.pages(
            "list_aliases",
            lambda page: {str(entry["AliasName"]): str(entry.get("TargetKeyId", "")) for entry in page["Aliases"]},
            Limit=100,
        )
        return {alias: key_id for page in pages for alias, key_id in page.items()}

    def create_key(self, description: str) -> KmsKey:
        """Create a symmetric key whose access the account's IAM policies control."""
        return self._call("create_key", _key, resource="a new KMS key", Description=description)

    def create_alias(self, alias: str, kms_key: str) -> None:
        """Create an alias (``alias/NAME``) of a key. If it is an alias of this key already, that is no error."""
        try:
            self._call("create_alias", resource=alias, AliasName=alias, TargetKeyId=kms_key)
        except AwsError as error:
            there = self.key(alias) if error.code == "AlreadyExistsException" else None
            if there is None or there.arn != kms_key:
                raise

    def rotates(self, kms_key: str) -> bool:
        """Return whether KMS rotates the key, yearly or at the period that was set."""
        return self._call(
            "get_key_rotation_status",
            lambda answer: answer.get("KeyRotationEnabled") is True,
            resource=f"KMS key {kms_key}",
            KeyId=kms_key,
        )

    def enable_rotation(self, kms_key: str) -> None:
        """Have KMS rotate the key every year; earlier ciphertexts can still be decrypted."""
        self._call("enable_key_rotation", resource=f"KMS key {kms_key}", KeyId=kms_key)


def _key(answer: Document) -> KmsKey:
    found = answer["KeyMetadata"]
    arn = str(found["Arn"])
    if arn.count(":") != 5:
        raise ValueError(f"{arn!r} is not the ARN of a key")
    return KmsKey(
        arn,
        str(found.get("KeyState", "")),
        str(found.get("KeyUsage", "")),
        str(found.get("KeySpec", "")),
        str(found.get("KeyManager", "")),
        str(found.get("Description", "")),
    )


def _explained(error: AwsError, kms_key: str, what: str) -> RackctlError:
    """Return the error of a KMS call, naming the plaintext that was to be sealed or opened."""
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
