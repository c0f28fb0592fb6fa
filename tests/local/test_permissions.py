"""No command calls what docs/permissions.md does not say that it needs, and nothing stands there that none calls."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rackctl.aws.models import KEPT

if TYPE_CHECKING:
    from tests.local_rack import LocalRackProcess

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"
# S3's permissions are named for objects where its operations are not.
NAMED = {"s3:ListObjectsV2": "s3:ListBucket"}
# What AWS checks behind a call: tags of a key pair, a template that a group is to launch from, a bucket's own key.
NO_CALL = {"ec2:CreateTags", "ec2:RunInstances", "iam:PassRole", "kms:GenerateDataKey", "ssm:GetParameters"}
# botocore's own calls, for a bucket of another region or of another kind.
BOTOCORES = {"s3:HeadBucket", "s3:CreateSession"}


def sections() -> dict[str, set[str]]:
    """Map each section's first command to the actions that stand in it or above it."""
    allowed: set[str] = set()
    found = {}
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]:
        words = re.findall(r"`instances(?: (\w+))?`", section.splitlines()[0])
        allowed |= set(re.findall(r"^\| `(\w+:\w+)`", section, re.MULTILINE))
        found[words[0]] = set(allowed)
    return found


def called(rack: LocalRackProcess, *words: str) -> set[str]:
    """Type a command, and give the actions of the calls that it makes."""
    before = (rack.calls() or [{"number": 0}])[-1]["number"]
    typed = subprocess.run(
        ["rackctl", "--rack", "local", "instances", *words],
        env=rack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert typed.returncode == 0, typed.stderr
    actions = {f"{call['service']}:{call['action']}" for call in rack.calls(since=before)}
    return {NAMED.get(action, action) for action in actions}


def test_each_command_calls_only_what_its_section_names(own_local_rack: LocalRackProcess) -> None:
    # Over two seconds: a drain, a termination and a roll.
    allowed, (id_, other, *_) = sections(), own_local_rack.ids()

    assert called(own_local_rack) <= allowed[""]
    assert called(own_local_rack, "show", id_) <= allowed["show"]
    assert called(own_local_rack, "ssh", id_, "true") <= allowed["ssh"]
    assert called(own_local_rack, "drain", "--wait", id_) <= allowed["drain"]
    assert called(own_local_rack, "undrain", id_) <= allowed["drain"]
    assert called(own_local_rack, "terminate", "--drain", "--wait", other) <= allowed["terminate"]
    assert called(own_local_rack, "keyroll", "plan") <= allowed["keyroll"]
    assert called(own_local_rack, "keyroll") <= allowed["keyroll"]


def test_every_call_that_rackctl_can_make_is_named_and_no_other() -> None:
    made = {NAMED.get(f"{service}:{name}", f"{service}:{name}") for service, names in KEPT.items() for name in names}

    assert sections()["keyroll"] - NO_CALL == made - BOTOCORES
