"""No exception of botocore's reaches what is above aws/, and each says what to do."""

from __future__ import annotations

import inspect
import re
import string
from typing import TYPE_CHECKING

import botocore.exceptions
import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from rackctl.aws.errors import Where, translated
from rackctl.aws.session import Aws
from rackctl.errors import AccessDenied, NotFound, RackctlError, Timeout

if TYPE_CHECKING:
    from pathlib import Path

WHERE = Where("ecs", lambda: "us-east-1", action="ListContainerInstances", resource="cluster prod")
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


def test_an_answer_that_is_not_awss_becomes_ours() -> None:
    with pytest.raises(RackctlError, match="that is not AWS's"), translated(WHERE):
        raise ResponseParserError("<html>")


def test_an_exception_of_nobodys_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), translated(WHERE):
        raise ZeroDivisionError


def answered(code: str, message: str = "") -> RackctlError:
    with pytest.raises(RackctlError) as caught, translated(WHERE):
        raise ClientError({"Error": {"Code": code, "Message": message}}, "ListContainerInstances")
    return caught.value


def test_a_denial_names_who_the_resource_and_the_missing_action() -> None:
    error = answered(
        "AccessDeniedException",
        "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: ecs:ListContainerInstances "
        "on resource: arn:aws:ecs:us-east-1:123456789012:cluster/prod because no policy allows it",
    )

    assert isinstance(error, AccessDenied)
    assert "user/ann" in str(error)
    assert "arn:aws:ecs:us-east-1:123456789012:cluster/prod" in str(error)
    assert error.hint == "the IAM permission that is missing: ecs:ListContainerInstances"


def test_a_denial_without_a_sentence_still_names_the_action_and_what_it_was_asked_of() -> None:
    error = answered("UnauthorizedOperation")

    assert "ecs:ListContainerInstances on cluster prod" in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("ExpiredToken", AccessDenied, "expired"),
        ("UnrecognizedClientException", AccessDenied, "does not accept the credentials"),
        ("SignatureDoesNotMatch", AccessDenied, "clock"),
        ("ThrottlingException", RackctlError, "kept throttling"),
        ("ClusterNotFoundException", NotFound, "ecs:ListContainerInstances"),
    ],
)
def test_codes_that_have_a_meaning_say_it(code: str, kind: type[RackctlError], says: str) -> None:
    error = answered(code)

    assert isinstance(error, kind)
    assert says in str(error)


@pytest.mark.parametrize(
    ("operation", "permission"),
    [("ListObjectsV2", "s3:ListBucket"), ("HeadObject", "s3:GetObject"), ("PutObject", "s3:PutObject")],
)
def test_s3s_operations_are_named_by_their_permission(operation: str, permission: str) -> None:
    where = Where("s3", lambda: "", action=operation, resource="s3://b/k")

    with pytest.raises(AccessDenied) as caught, translated(where):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)

    assert caught.value.hint.endswith(permission)


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
def test_what_keeps_a_call_from_being_made_says_what_to_do(
    error: Exception, kind: type[RackctlError], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught, translated(WHERE):
        raise error

    assert caught.value.hint


def test_a_profile_that_does_not_exist_is_said_also_when_all_that_is_wanted_is_the_region(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
            environment.delenv(name, raising=False)
        with pytest.raises(AccessDenied, match="nosuch"):
            _ = Aws(profile="nosuch").region


@pytest.mark.parametrize(("status", "says"), [(500, "AWS failed at"), (400, "AWS refused")])
def test_a_failure_of_awss_is_told_from_a_refusal(status: int, says: str) -> None:
    with pytest.raises(RackctlError, match=says), translated(WHERE):
        raise ClientError(
            {"Error": {"Code": "Odd"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "ListContainerInstances"
        )
