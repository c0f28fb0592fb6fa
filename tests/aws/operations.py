"""Every method by which the product calls AWS, and arguments for each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.autoscaling import AutoScaling
from rackctl.aws.cloudformation import CloudFormation
from rackctl.aws.cloudwatch import CloudWatch
from rackctl.aws.ec2 import Ec2
from rackctl.aws.ecs import Ecs
from rackctl.aws.iam import Iam
from rackctl.aws.kms import Kms
from rackctl.aws.s3 import S3
from rackctl.aws.sts import Sts
from rackctl.model import AutoScalingGroup, LaunchTemplateRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.aws.client import Client
    from rackctl.aws.session import Aws

# By a module of aws/, what makes of its service's client the object whose public methods are its calls.
SERVICES: dict[str, Callable[[Client], Any]] = {
    "autoscaling": AutoScaling,
    "bucket_settings": lambda call: S3(call).bucket_settings("bucket", owner="123456789012"),
    "cloudformation": CloudFormation,
    "cloudwatch": CloudWatch,
    "ec2": Ec2,
    "ecs": Ecs,
    "iam": Iam,
    "kms": Kms,
    "s3": lambda call: S3(call).bucket("bucket", owner="123456789012"),
    "sts": Sts,
}

_REF = LaunchTemplateRef("lt-0", "", "1")
ARGUMENTS: dict[str, Any] = {
    # As long as the ARNs that IAM asks for.
    "str": "i-0123456789abcdef01",
    "int": 1,
    "bool": True,
    "bytes": b"x",
    "Sequence[str]": ["x:y"],
    "Sequence[int]": [1],
    "Mapping[str, str]": {"aws:k": "v"},
    "Mapping[str, Any]": {"KeyName": "k"},
    "LaunchTemplateRef": _REF,
    "RefreshPreferences": {"MinHealthyPercentage": 100},
    "DesiredConfiguration": {"LaunchTemplate": {"LaunchTemplateId": "lt-0", "Version": "2"}},
    "AutoScalingGroup": AutoScalingGroup("g", 0, 1, 1, launch_template=_REF),
    "Mapping[LaunchTemplateRef, str]": {_REF: "2"},
    "Literal['ACTIVE', 'DRAINING']": "ACTIVE",
    "Literal['RUNNING', 'STOPPED']": "RUNNING",
}


# The services of modules that are not named for theirs.
_SERVICE_OF = {"bucket_settings": "s3"}


def service_of(module: str) -> str:
    """Name the service that a module calls."""
    return _SERVICE_OF.get(module, module)


def methods() -> list[tuple[str, str]]:
    """Each module and method that asks AWS something."""

    def nothing(*_: object) -> None: ...

    return [
        (module, name)
        for module, make in SERVICES.items()
        for name, _ in inspect.getmembers(make(nothing), inspect.ismethod)  # type: ignore[arg-type]
        if not name.startswith("_") and (module, name) != ("s3", "url")
    ]


def calls_of(aws: Aws, module: str) -> Any:
    """Return the object of a real `Aws` whose public methods are a module's calls."""
    match module:
        case "s3":
            return aws.s3.bucket("bucket", owner="123456789012")
        case "bucket_settings":
            return aws.s3.bucket_settings("bucket", owner="123456789012")
        case _:
            return getattr(aws, module)


def ask(service: Any, method: str) -> Any:
    """Call a method with arguments that its signature asks for, and return its whole result."""
    bound = getattr(service, method)
    parameters = inspect.signature(bound).parameters.values()
    for parameter in parameters:
        if parameter.annotation not in ARGUMENTS:
            pytest.fail(f"give ARGUMENTS a value for {parameter.annotation}")
    by_position = [ARGUMENTS[p.annotation] for p in parameters if p.kind is not p.KEYWORD_ONLY]
    by_name = {p.name: ARGUMENTS[p.annotation] for p in parameters if p.kind is p.KEYWORD_ONLY}
    result = bound(*by_position, **by_name)
    return list(result) if inspect.isgenerator(result) else result
