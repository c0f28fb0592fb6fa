"""The one seam at which botocore's exceptions become ours.

Service modules handle the few codes that mean something to them by catching `AwsError` and reading ``code``;
nothing above aws/ needs to.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.errors import AccessDenied, NotFound, RackctlError, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class AwsError(RackctlError):
    """An answer of AWS that has no more special meaning here, or none.

    ``code`` is AWS's own error code; ``refused`` says that the answer would be the same if it were asked again.
    """

    def __init__(self, message: str, *, code: str, hint: str = "", refused: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Where:
    """What was being asked when something went wrong."""

    service: str
    region: Callable[[], str]
    endpoint_url: str = ""
    action: str = ""
    resource: str = ""

    def __str__(self) -> str:
        """Name the call as an IAM policy would, and what it was made on."""
        named = f"{self.service}:{self.iam_action}" if self.action else self.service
        return f"{named} on {self.resource}" if self.resource else named

    @property
    def iam_action(self) -> str:
        return _IAM_ACTION.get((self.service, self.action), self.action)


# S3's permissions are named for objects where its operations are not.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
_IAM_ACTION = {
    ("s3", "HeadObject"): "GetObject",
    ("s3", "ListObjectsV2"): "ListBucket",
    ("s3", "HeadBucket"): "ListBucket",
}

_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "UnauthorizedOperation",
    "UnauthorizedAccess",
    "403",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_BAD_CREDENTIALS = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "UnrecognizedClientException",
    "OptInRequired",
}
_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "SlowDown",
}
_NOT_FOUND = {"ClusterNotFoundException", "NoSuchBucket", "NoSuchKey", "NotFoundException", "404"}


@contextmanager
def translated(where: Where) -> Iterator[None]:
    """Turn whatever botocore raises inside into a RackctlError that says what to do."""
    from botocore.exceptions import BotoCoreError, ClientError, UndefinedModelAttributeError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _from_answer(error, where) from error
    except ResponseParserError as error:
        raise RackctlError(
            f"{where.endpoint_url or 'AWS'} gave an answer to {where} that is not AWS's",
            hint="check AWS_ENDPOINT_URL and any proxy in between",
        ) from error
    except (BotoCoreError, UndefinedModelAttributeError) as error:
        raise _from_client(error, where) from error


def _from_answer(error: Any, where: Where) -> RackctlError:
    body = error.response.get("Error", {})
    code, message = str(body.get("Code", "")), str(body.get("Message", "")).strip()
    if code in _EXPIRED:
        return AccessDenied("the AWS credentials have expired", hint="log in again (for example `aws sso login`)")
    if code in _BAD_CREDENTIALS:
        clock = ", or this machine's clock is wrong" if "ignature" in code or "xpired" in code else ""
        return AccessDenied(
            f"AWS does not accept the credentials ({code}): an unknown access key, a wrong secret{clock}",
            hint="check them with `aws sts get-caller-identity`",
        )
    if code in _DENIED:
        return AccessDenied(
            f"AWS denied {where}{_denied_to(message)}",
            hint=f"the IAM permission that is missing: {str(where).partition(' ')[0]}",
        )
    if code in _THROTTLED:
        return Throttled(
            f"AWS kept throttling {where} ({code})",
            code=code,
            hint="wait a moment and run the same command again",
        )
    if code in _NOT_FOUND:
        return _NotThere(f"{where}: {message or 'not found'} ({code})", code=code, refused=True)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
    refused = status < 500
    did = "refused" if refused else "failed at"
    return AwsError(
        f"AWS {did} {where}: {message.rstrip('.') or 'no reason given'} ({code})", code=code, refused=refused
    )


class Throttled(AwsError):
    """AWS has refused a call again and again because there were too many."""


class _NotThere(AwsError, NotFound):
    exit_code = NotFound.exit_code


class _Silent(AwsError, Timeout):
    """AWS does not answer."""

    exit_code = Timeout.exit_code


def _denied_to(message: str) -> str:
    """Find in an answer who was denied and on which resource, as the services' usual sentence says it."""
    match = re.search(r"User: (?P<who>\S+) is not authorized to perform: \S+(?: on resource: (?P<what>\S+))?", message)
    if not match:
        return ""
    return f" to {match['who']}" + (f" on {match['what'].rstrip('.,')}" if match["what"] else "")


def _from_client(error: Any, where: Where) -> RackctlError:
    from botocore import exceptions as b

    def endpoint() -> str:
        # Not before it is needed: with a profile that does not exist there is no asking for the region either.
        return where.endpoint_url or f"AWS in region {where.region() or '?'}"

    asked = f"; it was asked for {where}" if where.action else ""
    match error:
        case b.NoCredentialsError() | b.PartialCredentialsError() | b.CredentialRetrievalError():
            return AccessDenied(
                f"no AWS credentials: {_sentence(error)}",
                hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with `aws sso login`",
            )
        case b.ProfileNotFound():
            return AccessDenied(
                f"{_sentence(error)}", hint="see the profiles there are with `aws configure list-profiles`"
            )
        case b.NoRegionError():
            return AccessDenied(
                "no AWS region is set",
                hint="give --region, set AWS_REGION, or put `region` under the rack in the config file",
            )
        case b.InvalidRegionError():
            return AccessDenied(f"{_sentence(error)}", hint="region names look like us-east-1")
        case b.SSOError() | b.TokenRetrievalError():
            return AccessDenied(f"the AWS login cannot be used: {_sentence(error)}", hint="log in with `aws sso login`")
        case b.ConnectTimeoutError() | b.ReadTimeoutError():
            return _Silent(
                f"{endpoint()} does not answer{asked}",
                code="",
                hint="check the network, the region and AWS_ENDPOINT_URL",
            )
        case b.EndpointConnectionError() | b.ConnectionError() | b.HTTPClientError():
            return AwsError(
                f"{endpoint()} cannot be reached{asked}",
                code="",
                hint="check the network, the region and AWS_ENDPOINT_URL",
            )
        case b.ParamValidationError():
            return RackctlError(f"{where}: {_sentence(error)}")
        case _:
            return RackctlError(f"AWS could not be asked ({where}): {_sentence(error)}")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
