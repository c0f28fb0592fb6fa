"""No exception of botocore's leaves aws/ untranslated, and each translation has a remedy."""

from __future__ import annotations

import inspect
import re
import string
from typing import TYPE_CHECKING

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from rackctl.aws.errors import AwsError, Unanswered, Where, translated
from rackctl.aws.session import Aws
from rackctl.errors import AccessDenied, NotFound, RackctlError, Timeout

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT = "https://ecs.us-east-1.amazonaws.com"
WHERE = Where("ecs", ENDPOINT, action="ListContainerInstances", resource="cluster prod")
BOTOCORE = sorted(
    {
        found
        for _, found in inspect.getmembers(botocore.exceptions, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == "botocore.exceptions" and not issubclass(found, Warning)
    },
    key=lambda found: found.__name__,
)


def make(kind: type[Exception]) -> Exception:
    if issubclass(kind, ClientError):
        return kind({"Error": {"Code": "Oops", "Message": "no"}}, "ListContainerInstances")
    template = getattr(kind, "fmt", "")
    names = {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(template) if name}
    demanded = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if name != "self" and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty
    ]
    return kind(**dict.fromkeys([*names, *demanded], "x"))


@pytest.mark.parametrize("kind", BOTOCORE, ids=lambda kind: kind.__name__)
def test_every_exception_botocore_defines_becomes_ours(kind: type[Exception]) -> None:
    with pytest.raises(RackctlError) as caught, translated(WHERE):
        raise make(kind)

    assert "{" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_response_that_is_not_awss_names_endpoint_and_operation() -> None:
    with pytest.raises(Unanswered) as caught, translated(WHERE):
        raise ResponseParserError("<html>")

    assert str(caught.value) == (
        f"{ENDPOINT} returned an unexpected (non-AWS) response to ecs:ListContainerInstances on cluster prod"
    )
    assert not caught.value.refused


def test_an_exception_of_nobodys_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), translated(WHERE):
        raise ZeroDivisionError


def answered(code: str, message: str = "", where: Where = WHERE, status: int = 400) -> RackctlError:
    metadata = {"HTTPStatusCode": status, "RequestId": "1"}
    with pytest.raises(RackctlError) as caught, translated(where):
        raise ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "X")
    return caught.value


UPDATE_GROUP = Where("autoscaling", "", action="UpdateAutoScalingGroup", resource="web")
USER = "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: "


@pytest.mark.parametrize(
    ("where", "code", "message", "missing"),
    [
        (
            WHERE,
            "AccessDeniedException",
            f"{USER}ecs:ListContainerInstances on resource: arn:aws:ecs:us-east-1:123456789012:cluster/prod because",
            ": ecs:ListContainerInstances",
        ),
        # The missing action need not be the called one.
        (
            UPDATE_GROUP,
            "AccessDenied",
            f"{USER}iam:PassRole on resource: arn:aws:iam::123456789012:role/ecs because no policy allows it",
            ": iam:PassRole",
        ),
        (
            Where("s3", "", action="PutObject", resource="s3://b/k"),
            "AccessDenied",
            f"{USER}kms:GenerateDataKey on resource: arn:aws:kms:us-east-1:123456789012:key/1",
            ": kms:GenerateDataKey",
        ),
        (
            Where("ec2", "", action="ImportKeyPair", resource="key pair k"),
            "UnauthorizedOperation",
            f"You are not authorized to perform this operation. {USER}ec2:CreateTags on resource: arn:aws:ec2:x",
            ": ec2:CreateTags",
        ),
        # Messages that name no action; this one in ansible-collections/community.aws#831.
        (
            UPDATE_GROUP,
            "AccessDenied",
            "You are not authorized to use launch template: lt-0123456789abcdef0",
            " is one of autoscaling:UpdateAutoScalingGroup, ec2:RunInstances, iam:PassRole, ec2:CreateTags",
        ),
        (
            Where("s3", "", action="GetObject", resource="s3://b/k"),
            "AccessDenied",
            "Access Denied",
            " is one of s3:GetObject, s3:ListBucket, kms:Decrypt",
        ),
    ],
)
def test_a_denial_shows_awss_message_and_names_the_action_that_it_names(
    where: Where, code: str, message: str, missing: str
) -> None:
    error = answered(code, message, where)

    assert isinstance(error, AccessDenied)
    assert str(error) == f"AWS denied {where}: {message}"
    assert error.hint == f"the IAM permission that is missing{missing}"


def test_a_denial_without_a_message_names_action_and_resource() -> None:
    error = answered("UnauthorizedOperation")

    assert str(error) == "AWS denied ecs:ListContainerInstances on cluster prod"
    assert error.hint == "the IAM permission that is missing: ecs:ListContainerInstances"


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("ExpiredToken", AccessDenied, "expired"),
        ("UnrecognizedClientException", AccessDenied, "does not accept the credentials"),
        ("InvalidToken", AccessDenied, "does not accept the credentials"),
        ("RequestTimeTooSkewed", AccessDenied, "does not accept the time"),
        ("RequestExpired", AccessDenied, "does not accept the time"),
        ("ThrottlingException", RackctlError, "kept throttling"),
        ("ClusterNotFoundException", NotFound, "ecs:ListContainerInstances"),
    ],
)
def test_error_codes_are_translated(code: str, kind: type[RackctlError], says: str) -> None:
    error = answered(code)

    assert isinstance(error, kind)
    assert says in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "Signature expired: 20260102T030405Z is now earlier than 20260102T031000Z (20260102T031500Z - 5 min.)",
        "Signature not yet current: 20260102T033005Z is still later than 20260102T031000Z",
    ],
)
def test_a_signature_of_another_time_and_a_wrong_secret_have_different_errors(message: str) -> None:
    assert "does not accept the time" in str(answered("InvalidSignatureException", message))
    assert "does not accept the credentials" in str(answered("InvalidSignatureException", "does not match"))


@pytest.mark.parametrize("code", ["ResourceContention", "ScalingActivityInProgress"])
def test_a_group_that_is_busy_is_no_refusal(code: str) -> None:
    """``botocore``'s model of Auto Scaling names both among the errors of most calls that change a group."""
    error = answered(code, "You already have a pending update to an Auto Scaling resource")

    assert isinstance(error, AwsError)
    assert (error.busy, error.refused) == (True, False)


@pytest.mark.parametrize("code", ["403", "404", "503"])
def test_an_error_without_code_or_request_id_is_not_awss(code: str) -> None:
    with pytest.raises(Unanswered, match=f"non-AWS.*HTTP status {code}"), translated(WHERE):
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": int(code)}}, "X")


@pytest.mark.parametrize(
    ("operation", "permission"),
    [("ListObjectsV2", "s3:ListBucket"), ("HeadObject", "s3:GetObject"), ("PutObject", "s3:PutObject")],
)
def test_s3s_operations_are_named_by_their_permission(operation: str, permission: str) -> None:
    error = answered("AccessDenied", where=Where("s3", "", action=operation, resource="s3://b/k"))

    assert permission in error.hint


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (botocore.exceptions.NoCredentialsError(), AccessDenied, "no AWS credentials"),
        (botocore.exceptions.NoRegionError(), AccessDenied, "no AWS region"),
        (botocore.exceptions.ProfileNotFound(profile="gone"), AccessDenied, "gone"),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://x"), Timeout, "does not answer"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), RackctlError, "cannot be reached"),
    ],
)
def test_an_error_before_a_call_has_a_remedy(error: Exception, kind: type[RackctlError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught, translated(WHERE):
        raise error

    assert caught.value.hint


def test_a_profile_that_does_not_exist_is_reported_even_if_only_the_region_is_read(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
            environment.delenv(name, raising=False)
        with pytest.raises(AccessDenied, match="nosuch"):
            _ = Aws(profile="nosuch").region


@pytest.mark.parametrize(("status", "says"), [(500, "AWS failed at"), (400, "AWS refused")])
def test_a_failure_of_aws_is_distinguished_from_a_refusal(status: int, says: str) -> None:
    error = answered("Odd", status=status)

    assert isinstance(error, AwsError)
    assert says in str(error)
    assert error.refused is (status == 400)
