"""The ids that completion keeps: for a few minutes, for their rack, for their owner only."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import click
import pytest

from rackctl.cli.completers import complete_instance
from rackctl.cli.invocation import Invocation
from rackctl.cli.last_listed import KEPT
from rackctl.cli.main import cli
from rackctl.instances import Instances
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.clock import FakeClock
from tests.fakes.origin import GIVEN
from tests.test_instances import A, B, ec2, rack_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.aws import FakeAws


class Tab:
    """A Tab key behind a part of an id, each press in a process of its own."""

    def __init__(self, aws: FakeAws, state: Path) -> None:
        self.aws, self.state, self.clock = aws, state, FakeClock()

    def __call__(self, typed: str = "i-", *, options: dict[str, str] | None = None, **environment: str) -> list[str]:
        context = click.Context(cli, obj=self._invocation(options or {}, environment))
        return [item.value for item in complete_instance(context, click.Argument(["id"]), typed)]

    @property
    def _rack(self) -> Rack:
        return Rack(Value("prod", GIVEN), {"cluster": Value("prod", GIVEN)}, aws=self.aws)  # type: ignore[arg-type]

    def _invocation(self, options: dict[str, str], environment: dict[str, str]) -> Invocation:
        invocation = Invocation(environment={"RACKCTL_STATE_DIR": str(self.state), **environment}, options=options)
        invocation.clock = self.clock
        invocation.rack = self._rack
        invocation.instances = Instances(self._rack, self.clock)
        return invocation


@pytest.fixture
def tab(tmp_path: Path) -> Tab:
    return Tab(rack_of(ec2(A, Name="web")), tmp_path / "state")


def test_ids_are_kept_for_some_minutes_and_then_listed_again(tab: Tab) -> None:
    assert tab() == [A]
    tab.aws.instances[B] = ec2(B)

    tab.clock.at += timedelta(seconds=KEPT - 1)
    assert tab() == [A]
    tab.clock.at += timedelta(seconds=1)
    assert tab() == [A, B]


def test_a_start_that_no_kept_id_has_lists_the_instances(tab: Tab) -> None:
    assert tab() == [A]
    tab.aws.instances[B] = ec2(B)

    assert tab(B[:5]) == [B]


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda tab: tab(options={"rack": "other"}),
        lambda tab: tab(options={"region": "eu-west-1"}),
        lambda tab: tab(RACKCTL_RACK="other"),
        lambda tab: tab(AWS_PROFILE="other"),
        lambda tab: tab(AWS_REGION="eu-west-1"),
    ],
)
def test_another_rack_profile_or_region_has_ids_of_its_own(tab: Tab, elsewhere: Callable[[Tab], list[str]]) -> None:
    assert tab() == [A]
    tab.aws.instances = {B: ec2(B)}

    assert elsewhere(tab) == [B]
    assert tab() == [A]


def test_the_files_are_for_their_owner_only_and_hold_no_variable(tab: Tab) -> None:
    tab(AWS_ACCESS_KEY_ID="AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY="secret")

    kept = tab.state / "last_listed.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert "AKIAEXAMPLE" not in kept.read_text() + kept.name


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"x": 1}', '{"x": {"at": "x"}}', '{"x": {"at": 9e99}}'])
def test_a_file_that_is_not_what_was_written_is_replaced(tab: Tab, content: str) -> None:
    tab()
    kept = tab.state / "last_listed.json"
    kept.write_text(content)

    assert tab() == [A]
    assert [list(entry["ids"]) for entry in json.loads(kept.read_text()).values()] == [[A]]


def test_entries_that_are_too_old_are_removed(tab: Tab) -> None:
    tab(AWS_PROFILE="other")
    tab.clock.at += timedelta(seconds=KEPT)
    tab()

    assert len(json.loads((tab.state / "last_listed.json").read_text())) == 1


def test_a_file_that_other_users_can_write_is_ignored(tab: Tab) -> None:
    tab()
    kept = tab.state / "last_listed.json"
    kept.chmod(0o666)
    tab.aws.instances = {B: ec2(B)}

    assert tab() == [B]


def test_a_state_directory_that_cannot_be_written_costs_only_the_keeping(tab: Tab) -> None:
    tab.state.write_text("a file")

    assert tab() == [A]
