"""`rackctl instances replace` as it is typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.fakes.world import outdate
from tests.roll.acts import fail_from

if TYPE_CHECKING:
    from tests.cli.prompt import Prompt


@pytest.fixture
def replace(typed: Prompt) -> Prompt:
    typed.command = "replace"
    return typed


def test_outdated_instances_are_replaced(replace: Prompt) -> None:
    outdate(replace.scene)

    result = replace()

    assert (result.exit_code, result.stdout) == (0, "Replacing instances...\n")
    assert "[3/3] replaced 3 instances" in result.stderr
    assert replace.scene.old == []


def test_replace_says_that_nothing_is_outdated_and_exits_with_0(replace: Prompt) -> None:
    result = replace()

    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to replace: no instance is outdated" in result.stderr


@pytest.mark.parametrize("command", ["keyroll", "replace"])
def test_a_roll_that_is_stopped_at_once_names_the_command_that_shows_where_it_stands(
    typed: Prompt, command: str
) -> None:
    typed.command = command
    outdate(typed.scene)
    fail_from(typed.scene, "set_container_instances_state", KeyboardInterrupt())

    result = typed()

    assert result.exit_code == 130
    assert "stopped at once: instances may still be DRAINING" in result.stderr
    assert f"`rackctl instances {command} status` shows where the roll stands" in result.stderr


def test_ids_stand_before_or_after_the_options(replace: Prompt) -> None:
    one, two, _ = replace.scene.first

    result = replace("--batch", "2", one, "--no-surge", two)

    assert result.exit_code == 0, result.stderr
    assert [id_ for id_ in (one, two) if replace.scene.world.ec2.instances[id_].exists] == []
    assert "[2/2] replaced 2 instances" in result.stderr


def test_the_plan_says_of_each_outdated_instance_what_it_was_launched_from(replace: Prompt) -> None:
    outdate(replace.scene)
    template = replace.scene.template.launch_template_id

    text = replace("plan").stdout
    plan = json.loads(replace("plan", "-o", "json").stdout)

    assert f"  current     version 2 of launch template {template}, image ami-0123456789abcdef0\n" in text
    assert f"{replace.scene.first[0]}  version 1 of launch template {template}, image ami-0c0ffee0c0ffee000\n" in text
    assert plan["selection"] == {"kind": "outdated", "older_than": 0.0, "ec2_instance_ids": [], "groups": []}
    assert plan["groups"][0]["launches"][0]["version_number"] == 2
    assert set(plan["groups"][0]["launched_from"]) == set(replace.scene.first)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("i-0a321c8b", "--all"), "ID and --all contradict each other"),
        (("--all", "--older-than", "30d"), "--all and --older-than contradict each other"),
        (("i-0a321c8b", "--group", "g"), "ID and --group contradict each other"),
        (("i-0a",), '"i-0a" is not an instance id'),
        (("",), "the instance id is empty"),
        (("--older-than", ""), "is a variable in your script unset?"),
        (("--group", ""), "--group is empty"),
        (("--older-than", "month"), '"month" is not a length of time'),
        (("plann",), '"plann" is not an instance id'),
        (("--all", "plan"), "put --all after `plan`"),
    ],
)
def test_a_command_line_that_contradicts_itself_or_is_empty_is_a_usage_error(
    replace: Prompt, words: tuple[str, ...], says: str
) -> None:
    result = replace(*words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert replace.scene.aws.mutations == []


def test_the_value_of_reason_is_not_taken_for_a_subcommand(replace: Prompt) -> None:
    assert replace("--all", "--reason", "plan").exit_code == 0
    assert not any(replace.scene.world.ec2.instances[id_].exists for id_ in replace.scene.first)


def test_status_and_abort_work_from_either_command(replace: Prompt) -> None:
    outdate(replace.scene)
    events = replace.scene.roll.start(RollOptions(), replace.scene.selection)
    next(events)
    del events
    replace.scene.clock.sleep(400)

    said = replace("status").stdout
    replace.command = "keyroll"
    assert replace("status").stdout == said
    assert "Replacement of rack" in said
    assert "rackctl instances replace resume --rack prod" in said
    assert replace("abort").exit_code == 0
