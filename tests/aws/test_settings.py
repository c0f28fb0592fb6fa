"""Invalid settings of AWS's own are named, and are never an error in rackctl itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

from rackctl.aws.session import Aws, Credentials
from rackctl.errors import AccessDenied, UsageError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLES = sorted(
    {
        variable
        for _, named, _, _ in BOTOCORE_DEFAUT_SESSION_VARIABLES.values()
        for variable in ([named] if isinstance(named, str) else named or [])
    }
    | {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_AUTO_SCALING", "AWS_REGION"}
)


NUMBERS = {"AWS_CSM_PORT", "AWS_MAX_ATTEMPTS", "AWS_METADATA_SERVICE_NUM_ATTEMPTS", "AWS_METADATA_SERVICE_TIMEOUT"}


# Each has a setting of its own: of its endpoint, or of how its requests are made. The other clients are made alike.
SERVICES = ("autoscaling", "ec2", "s3")


@pytest.mark.parametrize("value", ["x", "-1", "", "http://", "१"])
@pytest.mark.parametrize("variable", VARIABLES)
def test_an_invalid_variable_is_named_and_never_an_error_in_rackctl_itself(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for unset in VARIABLES:
        monkeypatch.delenv(unset, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv(variable, value)
    region = None if "REGION" in variable else "us-east-1"
    endpoint_url = None if "ENDPOINT_URL" in variable else "http://127.0.0.1:1"
    for service in SERVICES:
        aws = Aws(region=region, credentials=Credentials("x", "x"), endpoint_url=endpoint_url)
        try:
            aws.client(service)
        except (AccessDenied, UsageError) as error:
            said = error
        else:
            continue
        if isinstance(said, UsageError):
            assert variable in f"{said} {said.hint}"
        else:
            assert "profile" in str(said) or "region" in str(said)


@pytest.mark.parametrize("variable", sorted(NUMBERS))
def test_a_setting_that_must_be_a_number_is_checked_before_any_call(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "x")

    with pytest.raises(UsageError, match=f"{variable} is not a whole number"):
        Aws(region="us-east-1", credentials=Credentials("x", "x")).client("ecs")
