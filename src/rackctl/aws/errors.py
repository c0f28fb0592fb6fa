"""The translation of botocore's exceptions into rackctl's; there is no other.

Service modules that handle an error code catch `AwsError` and read its ``code``; the layers above aws/ need not.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.errors import AccessDenied, NotFound, RackctlError, Timeout, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class AwsError(RackctlError):
    """An error answer of AWS for which there is no more specific class, or no answer (`Unanswered`).

    ``code`` is AWS's own error code; ``refused`` means that a retry would get the same answer.
    """

    def __init__(self, message: str, *, code: str, hint: str = "", refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.refused = refused

    @property
    def busy(self) -> bool:
        """Whether Auto Scaling refused the call because of an activity in progress; it accepts the call later."""
        return self.code in _BUSY


class Throttled(AwsError):
    """AWS has throttled every attempt of a call."""


class Unanswered(AwsError):
    """A call without an answer of AWS: not reached, timed out, or a response that is not AWS's.

    AWS may have carried the call out.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, code="", hint=hint or "check the network, the region, AWS_ENDPOINT_URL and any proxy")


class Silent(Unanswered, Timeout):
    """AWS did not answer in time."""

    exit_code = Timeout.exit_code


class _NotThere(AwsError, NotFound):
    exit_code = NotFound.exit_code


@dataclass(frozen=True, slots=True)
class Where:
    """A failed call, and the endpoint that it was sent to."""

    service: str
    endpoint: str = ""
    action: str = ""
    resource: str = ""

    def __str__(self) -> str:
        """Name the call as an IAM policy does, and its resource."""
        named = f"{self.service}:{self.iam_action}" if self.action else self.service
        return f"{named} on {self.resource}" if self.resource else named

    @property
    def iam_action(self) -> str:
        return _IAM_ACTION.get((self.service, self.action), self.action)


# S3's permissions name objects and buckets where the operations do not.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_IAM_ACTION = {
    ("s3", "HeadObject"): "GetObject",
    ("s3", "ListObjectsV2"): "ListBucket",
    ("s3", "HeadBucket"): "ListBucket",
    ("s3", "GetBucketEncryption"): "GetEncryptionConfiguration",
    ("s3", "PutBucketEncryption"): "PutEncryptionConfiguration",
    ("s3", "GetPublicAccessBlock"): "GetBucketPublicAccessBlock",
    ("s3", "PutPublicAccessBlock"): "PutBucketPublicAccessBlock",
}
# Further actions that AWS checks for a call, and that its answer may not name: for a group's launch template, the tags
# of a key pair, an object that does not exist, the KMS key of a bucket.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html
_BEHIND = {
    "autoscaling:UpdateAutoScalingGroup": ("ec2:RunInstances", "iam:PassRole", "ec2:CreateTags"),
    "ec2:CreateLaunchTemplateVersion": ("iam:PassRole",),
    "ec2:ImportKeyPair": ("ec2:CreateTags",),
    "s3:GetObject": ("s3:ListBucket", "kms:Decrypt"),
    "s3:PutObject": ("s3:GetObject", "kms:GenerateDataKey", "kms:Decrypt"),
    "s3:DeleteObject": ("s3:GetObject",),
}

_BUSY = {"ResourceContention", "ScalingActivityInProgress"}
# Transient refusals: two concurrent conditional writes, a request that did not arrive in time.
_OF_THE_MOMENT = {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "RequestTimeoutException"} | _BUSY
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "UnauthorizedOperation",
    "UnauthorizedAccess",
    "403",
}
# If the caller may not use a launch template, Auto Scaling answers with ValidationError.
_DENIED_IN_WORDS = {"ValidationError", "ValidationException", "InvalidParameterValue"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_CLOCK = {"RequestTimeTooSkewed", "RequestInTheFuture", "RequestExpired"}
_BAD_CREDENTIALS = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "UnrecognizedClientException",
    "OptInRequired",
}
_THROTTLED = {
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_NOT_FOUND = {"ClusterNotFoundException", "NoSuchBucket", "NoSuchKey", "NotFoundException", "404"}


@contextmanager
def translated(where: Where) -> Iterator[None]:
    """Translate botocore's exceptions that are raised inside into RackctlErrors, with a remedy."""
    from botocore.exceptions import BotoCoreError, ClientError, UndefinedModelAttributeError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, where) from error
    except ResponseParserError as error:
        raise not_awss(where) from error
    except HTTPError as error:  # while reading a body that botocore returns as a stream
        raise Unanswered(f"{where.endpoint} did not complete its response to {where}: {_sentence(error)}") from error
    except (BotoCoreError, UndefinedModelAttributeError) as error:
        raise _from_client(error, where) from error
    except ValueError as error:  # of an invalid endpoint, before a call
        if where.action:
            raise
        raise bad_settings(error) from error


def not_awss(where: Where, detail: str = "") -> Unanswered:
    """Return the error of a response that cannot be AWS's."""
    return Unanswered(
        f"{where.endpoint} returned an unexpected (non-AWS) response to {where}" + (f": {detail}" if detail else ""),
        hint="check AWS_ENDPOINT_URL and any proxy in between, then try again",
    )


def _from_answer(error: Any, where: Where) -> RackctlError:
    body, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, message = str(body.get("Code", "")), " ".join(str(body.get("Message") or "").split()).rstrip(".")
    status = metadata.get("HTTPStatusCode", 400)
    if code in {"", "Unknown", str(status)} and not has_request_id(metadata):
        return not_awss(where, f"HTTP status {status}")
    said = f": {message}" if message else ""
    if code in _EXPIRED:
        return AccessDenied(
            f"the AWS credentials have expired{said}", hint="log in again (for example `aws sso login`)"
        )
    if code in _CLOCK or (code in _BAD_CREDENTIALS and re.search(r"Signature (expired|not yet current)", message)):
        return AccessDenied(
            f"AWS does not accept the time of this request ({code}){said}",
            hint="set this machine's clock (`timedatectl` shows it); if it is right, log in again",
        )
    if code in _BAD_CREDENTIALS:
        return AccessDenied(
            f"AWS does not accept the credentials ({code}){said}",
            hint="check them with `aws sts get-caller-identity`, and this machine's clock with `timedatectl`",
        )
    if code in _DENIED or (code in _DENIED_IN_WORDS and "not authorized to" in message):
        return AccessDenied(f"AWS denied {where}{said}", hint=_missing_permission(where, message))
    if code in _THROTTLED:
        return Throttled(
            f"AWS kept throttling {where} ({code})",
            code=code,
            hint="wait a moment and run the same command again",
        )
    if code in _NOT_FOUND:
        return _NotThere(f"{where}: {message or 'not found'} ({code})", code=code, refused=True)
    refused = status < 500 and code not in _OF_THE_MOMENT
    did = "refused" if status < 500 else "failed at"
    return AwsError(f"AWS {did} {where}: {message or 'no reason given'} ({code})", code=code, refused=refused)


def has_request_id(metadata: dict[str, Any]) -> bool:
    """Return whether an answer has a request id, as all answers of AWS's services have."""
    headers = metadata.get("HTTPHeaders", {})
    return bool(metadata.get("RequestId") or headers.get("x-amzn-requestid") or headers.get("x-amz-request-id"))


def _missing_permission(where: Where, message: str) -> str:
    """Name the missing IAM action: the one in AWS's message, which may differ from the call, else the candidates."""
    if named := re.search(r"not authorized to perform: ([\w-]+:\w+)", message):
        return f"the IAM permission that is missing: {named[1]}"
    called = f"{where.service}:{where.iam_action}"
    if candidates := _BEHIND.get(called):
        return f"the IAM permission that is missing is one of {', '.join((called, *candidates))}"
    return f"the IAM permission that is missing: {called}"


def _from_client(error: Any, where: Where) -> RackctlError:
    from botocore import exceptions as b

    match error:
        case b.NoCredentialsError() | b.PartialCredentialsError() | b.CredentialRetrievalError():
            return AccessDenied(
                f"no AWS credentials: {_sentence(error)}",
                hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with `aws sso login`",
            )
        case b.ProfileNotFound():
            return AccessDenied(f"{_sentence(error)}", hint="`aws configure list-profiles` lists the profiles")
        case b.NoRegionError():
            return AccessDenied(
                "no AWS region is set",
                hint="pass --region, set AWS_REGION, or put `region` under the rack in the config file",
            )
        case b.InvalidRegionError():
            return AccessDenied(f"{_sentence(error)}", hint="region names look like us-east-1")
        case b.SSOError() | b.TokenRetrievalError():
            return AccessDenied(f"the AWS login cannot be used: {_sentence(error)}", hint="log in with `aws sso login`")
        case b.SSLError():
            return Unanswered(
                f"cannot verify the TLS certificate of {where.endpoint}: {_sentence(error.kwargs['error'])}",
                hint="check AWS_CA_BUNDLE, AWS_ENDPOINT_URL and any proxy in between",
            )
        case b.ConnectTimeoutError() | b.ReadTimeoutError():
            return Silent(f"{where.endpoint} does not answer {where}")
        case (
            b.IncompleteReadError() | b.ResponseStreamingError() | b.ConnectionClosedError() | b.FlexibleChecksumError()
        ):
            return Unanswered(f"{where.endpoint} did not complete its response to {where}: {_sentence(error)}")
        case b.EndpointConnectionError() | b.ConnectionError() | b.HTTPClientError():
            return Unanswered(f"{where.endpoint} cannot be reached for {where}: {_sentence(error)}")
        case b.ParamValidationError():
            return RackctlError(f"{where}: {_sentence(error)}")
        case _ if not where.action:
            return bad_settings(error)
        case _:
            return RackctlError(f"cannot call {where}: {_sentence(error)}")


def bad_settings(error: Exception) -> UsageError:
    """Return the error of AWS settings that botocore rejects, naming those that environment variables set."""
    credentials = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    variables = sorted({name for name in os.environ if name.startswith("AWS_")} - credentials)
    return UsageError(
        f"cannot use the AWS settings: {_sentence(error)}",
        hint=f"check {', '.join((*variables, 'the AWS config file'))}",
    )


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
