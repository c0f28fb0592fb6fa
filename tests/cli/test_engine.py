"""`--engine refresh` as it is typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.fakes.world import drained
from tests.roll.acts import JOURNAL, refresh_of, run_until_killed

if TYPE_CHECKING:
    from tests.cli.prompt import Prompt


@pytest.fixture
def drains(typed: Prompt) -> Prompt:
    drained(typed.scene)
    return typed


def test_a_detached_roll_says_how_it_goes_on_and_status_shows_the_refresh(drains: Prompt) -> None:
    result = drains("--engine", "refresh", "--detach")

    assert (result.exit_code, result.stdout) == (0, "Rebooting instances...\n")
    assert "detached: Auto Scaling goes on; `rackctl instances keyroll resume --rack prod` watches it" in result.stderr
    drains.scene.clock.sleep(100)
    id_ = refresh_of(drains.scene).refresh_id
    text = drains("status").stdout
    assert f"  refresh     {id_}: InProgress, 33 % complete, 2 instances left\n" in text
    assert "Auto Scaling goes on by itself; `resume` watches it and finishes the roll, `abort` stops it.\n" in text
    status = json.loads(drains("status", "-o", "json").stdout)
    assert (status["engine"], status["state"]) == ("refresh", "stopped")
    assert status["groups"][0]["refresh"] == {
        "id": id_,
        "status": "InProgress",
        "status_reason": None,
        "percentage_complete": 33,
        "instances_to_update": 2,
    }


def test_resume_finishes_a_detached_roll(drains: Prompt) -> None:
    drains("--engine", "refresh", "--detach")

    result = drains("resume")

    assert result.exit_code == 0
    assert JOURNAL not in drains.scene.aws.objects


def test_only_a_refresh_can_be_detached(drains: Prompt) -> None:
    result = drains("--detach")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--detach needs --engine refresh" in result.stderr
    assert "or use --engine refresh" in result.stderr
    assert drains.scene.aws.mutations == []


def test_resume_of_a_roll_by_rackctl_cannot_be_detached_and_names_no_option_that_it_lacks(drains: Prompt) -> None:
    assert run_until_killed(drains.scene, lambda: list(drains.scene.roll.start(RollOptions())), 20, "after")
    drains.scene.clock.sleep(400)
    before = list(drains.scene.aws.mutations)

    result = drains("resume", "--detach")

    assert result.exit_code == 2
    assert result.stderr.endswith("  leave out --detach\n")
    assert drains.scene.aws.mutations == before


def test_the_plan_names_the_engine(drains: Prompt) -> None:
    assert "carried out by Auto Scaling's instance refresh" in drains("plan", "--engine", "refresh").stdout
    assert json.loads(drains("plan", "--engine", "refresh", "-o", "json").stdout)["engine"] == "refresh"
    assert "carried out by" not in drains("plan").stdout


def test_what_does_not_drain_is_blocked_with_the_way_out(typed: Prompt) -> None:
    result = typed("plan", "--engine", "refresh")

    assert result.exit_code == 1
    assert "group prod-instances is behind no capacity provider of cluster prod" in result.stdout
    assert "managedDraining=ENABLED" in result.stdout
    assert "use --engine rackctl" in result.stdout


def test_an_empty_drain_hook_is_a_script_s_mistake(typed: Prompt) -> None:
    result = typed("plan", "--engine", "refresh", "--drain-hook", "")

    assert result.exit_code == 2
    assert "--drain-hook is empty" in result.stderr


def test_what_a_refresh_has_left_is_replaced_by_rackctl_itself(drains: Prompt) -> None:
    drains.command = "replace"
    drains("--all", "--engine", "refresh", "--detach")
    drains.scene.clock.sleep(100)
    drains.scene.world.refreshes.cancel(drains.scene.group)
    drains.scene.clock.sleep(60)

    result = drains("resume", "--engine", "rackctl")

    assert result.exit_code == 0
    assert "terminate_instance" in drains.scene.aws.mutations
    assert JOURNAL not in drains.scene.aws.objects
