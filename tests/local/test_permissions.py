"""No command calls what its role does not allow, and no role allows what no command calls."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from rackctl.aws.errors import Where
from rackctl.aws.models import KEPT
from rackctl.policies import ROLES, grants
from tests.local.rolls import put_alarm

if TYPE_CHECKING:
    from tests.local_rack import LocalRackProcess

# Further checks of AWS for a call: tags of a key pair, a group's launch template, a bucket's own key.
NO_CALL = {"ec2:CreateTags", "ec2:RunInstances", "iam:PassRole", "kms:GenerateDataKey", "ssm:GetParameters"}
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: "No permissions are required to
# perform this operation."
NEEDS_NO_PERMISSION = {"sts:GetCallerIdentity"}
# botocore's own call, for a bucket of another kind.
BOTOCORES = {"s3:CreateSession"}


def allowed(*roles: str) -> set[str]:
    return {action for role in roles for grant in grants(role) for action in grant.actions}


def called(rack: LocalRackProcess, *words: str) -> set[str]:
    """Type a command, and give the actions of the calls that it makes."""
    before = (rack.calls() or [{"number": 0}])[-1]["number"]
    typed = subprocess.run(
        [sys.executable, "-m", "tests.local.fast", f"{rack.options.speed}", "--rack", "local", *words],
        env=rack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert typed.returncode == 0, typed.stderr
    return {permission(call["service"], call["action"]) for call in rack.calls(since=before)} - NEEDS_NO_PERMISSION


def permission(service: str, operation: str) -> str:
    """Name the IAM action of an operation."""
    return f"{service}:{Where(service, action=operation).iam_action}"


def test_each_command_calls_only_what_its_role_allows(own_local_rack: LocalRackProcess) -> None:
    # Over two seconds: a drain, a termination and a roll.
    id_, other, *_ = own_local_rack.ids()

    assert called(own_local_rack, "instances") <= allowed("list")
    assert called(own_local_rack, "instances", "-o", "json") <= allowed("list")
    assert called(own_local_rack, "instances", "show", id_) <= allowed("show")
    assert called(own_local_rack, "instances", "ssh", id_, "true") <= allowed("ssh")
    assert called(own_local_rack, "instances", "keys", "list") <= allowed("keys")
    assert called(own_local_rack, "instances", "keys", "prune", "--yes") <= allowed("keys")
    assert called(own_local_rack, "instances", "drain", "--wait", id_) <= allowed("drain")
    assert called(own_local_rack, "instances", "undrain", id_) <= allowed("drain")
    assert called(own_local_rack, "instances", "terminate", "--drain", "--wait", other) <= allowed("terminate")
    assert called(own_local_rack, "instances", "history") <= allowed("history")
    assert called(own_local_rack, "instances", "keyroll", "plan") <= allowed("keyroll")
    assert called(own_local_rack, "instances", "keyroll") <= allowed("keyroll")
    assert called(own_local_rack, "doctor", "--as", "keyroll") <= allowed("doctor")
    put_alarm(own_local_rack, "errors")
    plan = called(own_local_rack, "instances", "keyroll", "plan", "--alarm", "errors")
    assert plan <= allowed("keyroll", "alarm")


def test_every_call_that_rackctl_can_make_is_allowed_by_a_role_and_no_other() -> None:
    made = {permission(service, name) for service, names in KEPT.items() for name in names}

    assert allowed(*ROLES) - NO_CALL == made - BOTOCORES
