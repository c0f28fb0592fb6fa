"""`rackctl instances keyroll` as it is typed: its output on stdout and stderr, and its exit status."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, START, Login, Scene
from tests.roll.acts import JOURNAL, NEW_KEY, run_until_killed

if TYPE_CHECKING:
    from tests.cli.prompt import Prompt


def killed(scene: Scene, at: int) -> None:
    """Have a roll be killed at its call of this number."""
    assert run_until_killed(scene, lambda: list(scene.roll.start(RollOptions())), at, "after")


def test_a_roll_prints_what_the_mirrored_document_shows_and_its_progress_on_stderr(typed: Prompt) -> None:
    result = typed()

    assert (result.exit_code, result.stdout) == (0, "Rebooting instances...\n")
    lines = result.stderr.splitlines()
    assert all(re.match(r"2026-01-02T\d\d:\d\d:\d\dZ \[[0-3]/3\] ", line) for line in lines)
    assert lines[-1].endswith(f"[3/3] every instance has key {NEW_KEY}")


def test_the_options_are_passed_to_the_roll(typed: Prompt) -> None:
    typed("--batch", "2", "--no-surge", "--drain-timeout", "1h30m", "--boot-timeout", "90s", "--key-type", "rsa",
          "--force", "--stop-standalone", "--keep-old-keys", "--reason", "why not", "--require-ssh",
          "--include-unregistered")  # fmt: skip

    assert typed.scene.key_pairs == {OLD_KEY, NEW_KEY}
    assert typed.scene.world.ec2.key_pairs[NEW_KEY].key_type == "rsa"
    assert typed.scene.keys.fetch(NEW_KEY, START).reason == "why not"
    assert "set_desired_capacity" not in typed.scene.aws.mutations


@pytest.mark.parametrize(
    ("options", "surge"), [((), 1), (("--batch", "2"), 2), (("--surge", "3"), 3), (("--surge", "0"), 0)]
)
def test_the_surge_is_the_batch_unless_it_is_given(typed: Prompt, options: tuple[str, ...], surge: int) -> None:
    typed.scene.group.max_size = 9

    (group,) = json.loads(typed("plan", *options, "-o", "json").stdout)["groups"]

    assert group["surge"] == surge


def test_a_surge_and_none_exclude_each_other(typed: Prompt) -> None:
    result = typed("plan", "--surge", "2", "--no-surge")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--surge and --no-surge exclude each other" in result.stderr
    assert typed("plan", "--surge", "0", "--no-surge").exit_code == 0


@pytest.mark.parametrize(("surge", "says"), [("", "is empty"), ("-1", "-1"), ("two", "two")])
def test_a_surge_that_is_no_number_is_refused(typed: Prompt, surge: str, says: str) -> None:
    result = typed("plan", "--surge", surge)

    assert result.exit_code == 2
    assert says in result.stderr


def test_the_plan_says_what_comes_between_two_batches(typed: Prompt) -> None:
    typed.scene.world.alarms = {"errors": ("OK", ""), "latency": ("INSUFFICIENT_DATA", "")}

    said = typed("plan", "--pause", "5m", "--check", "true", "--alarm", "errors", "--alarm", "latency").stdout

    assert "\n  after each batch pauses for 5 minutes and runs the check\n" in said
    assert "\n  stops if one of these alarms is in state ALARM: errors, latency\n" in said
    assert "\n  alarm latency has insufficient data" in said


@pytest.mark.parametrize("option", ["--check", "--alarm", "--pause"])
def test_an_option_that_an_unset_variable_has_left_empty_is_named(typed: Prompt, option: str) -> None:
    result = typed("plan", option, "")

    assert result.exit_code == 2
    assert option in result.stderr
    assert "is a variable in your script unset?" in result.stderr


def test_what_a_check_writes_is_shown_and_cannot_steer_the_terminal(typed: Prompt) -> None:
    shown = typed("--check", r"printf 'a\033[2Jb\rc\n'; echo d >&2", "--check-timeout", "300d")
    lines = [line.partition("] ")[2] for line in shown.stderr.splitlines()]

    assert shown.exit_code == 0
    assert [line for line in lines if line.startswith("check: ")] == [r"check: a\x1b[2Jb\rc", "check: d"] * 3
    assert shown.stdout == "Rebooting instances...\n"


def test_alarms_and_a_check_are_taken_back_by_a_resume(typed: Prompt) -> None:
    typed.scene.world.alarms = {"errors": ("OK", "")}
    assert typed("--check", "false", "--check-timeout", "300d", "--alarm", "errors").exit_code == 6
    typed.scene.world.alarms = {"errors": ("ALARM", "")}

    refused = typed("resume")
    both = typed("resume", "--check", "true", "--no-check")
    resumed = typed("resume", "--no-check", "--no-alarm")

    assert refused.exit_code == 1
    assert "`rackctl instances keyroll resume --rack prod --check COMMAND`" in refused.stderr
    assert (both.exit_code, "--check and --no-check exclude each other" in both.stderr) == (2, True)
    assert resumed.exit_code == 0, resumed.stderr


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_dry_run_shows_the_plan_of_the_same_options_and_changes_nothing(typed: Prompt, output: str) -> None:
    planned = typed("plan", "--batch", "2", "-o", output)
    before = len(typed.scene.aws.mutations)

    shown = typed("--dry-run", "--batch", "2", "-o", output)

    assert (shown.exit_code, shown.stdout) == (0, planned.stdout)
    assert len(typed.scene.aws.mutations) == before == 0
    assert JOURNAL not in typed.scene.aws.objects


EVENT_FIELDS = {
    "at", "event", "message", "group", "instance", "key", "phase", "tasks_left", "service_event", "done", "total",
    "seconds_left",
}  # fmt: skip


def test_events_as_json_are_one_a_line_and_nothing_else_is_on_stdout(typed: Prompt) -> None:
    result = typed("-o", "json")

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(set(event) == EVENT_FIELDS for event in events)
    assert [event["event"] for event in events][:5] == ["lock", "key", "key", "template", "processes"]
    assert events[-1]["event"] == "finished"
    phases = [e["phase"] for e in events if e["instance"] == typed.scene.new[0] and e["phase"]]
    assert phases == ["launching", "booting", "booting", "ready"]
    assert {e["phase"] for e in events} >= {"draining", "drained", "terminating", "gone"}


def test_a_roll_that_fails_as_json_ends_with_the_failure(typed: Prompt) -> None:
    typed.scene.world.set_condition("stuck-drain")

    result = typed("-o", "json", "--drain-timeout", "1m")

    last = json.loads(result.stdout.splitlines()[-1])
    assert set(last) == {"at", "event", "message", "hint", "exit_status"}
    assert (last["event"], last["exit_status"]) == ("failed", 6)
    assert result.exit_code == 6


def test_a_roll_that_stops_says_what_is_done_what_is_left_and_how_to_continue(typed: Prompt) -> None:
    typed.scene.world.set_condition("stuck-drain")

    result = typed("--drain-timeout", "1m")

    assert result.exit_code == 6
    assert "Replaced 0 of 3 instances, 3 are left; nothing is left draining" in result.stderr
    assert "continue with `rackctl instances keyroll resume --rack prod`" in result.stderr
    typed.scene.world.clear_condition("stuck-drain")
    assert typed("resume", "--drain-timeout", "10m").exit_code == 0
    assert typed.scene.old == []


def test_a_blocked_roll_prints_nothing_on_stdout(typed: Prompt) -> None:
    typed.scene.group.suspended["Launch"] = "by hand"

    result = typed()

    assert (result.exit_code, result.stdout) == (1, "")
    assert "no keyroll was started and nothing was changed: the Launch process of group prod-instances" in result.stderr


def test_a_key_that_is_refused_rolls_back(typed: Prompt) -> None:
    typed.scene.login = lambda _: Login("refused", "Permission denied")

    result = typed()

    assert result.exit_code == 1
    assert "Nothing was drained; rolled back; nothing is changed" in result.stderr
    assert "--key-type rsa" in result.stderr
    assert JOURNAL not in typed.scene.aws.objects


def test_abort_rolls_back(typed: Prompt) -> None:
    killed(typed.scene, 18)
    typed.scene.clock.sleep(400)

    result = typed("abort")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "rolled back; nothing is changed" in result.stderr
    assert JOURNAL not in typed.scene.aws.objects


# Instances that are not registered


def unregister_one(scene: Scene) -> str:
    """Take the registration of an instance away, as of one whose agent never started, and return its id."""
    arn, registration = next(iter(scene.seeded.registrations.items()))
    del scene.seeded.registrations[arn]
    return str(registration.instance_id)


def test_an_instance_that_is_not_registered_blocks_the_roll_and_the_option_that_lifts_it_is_named(
    typed: Prompt,
) -> None:
    id_ = unregister_one(typed.scene)

    result = typed()

    assert result.exit_code == 1
    assert f"{id_} of group prod-instances is in service and not registered with this cluster" in result.stderr
    assert "use --include-unregistered to terminate it undrained" in result.stderr
    assert typed.scene.aws.mutations == []


def test_include_unregistered_terminates_what_is_not_registered_and_says_that_it_gives_up_what_runs_there(
    typed: Prompt,
) -> None:
    id_ = unregister_one(typed.scene)

    result = typed("--include-unregistered")

    assert result.exit_code == 0
    assert f"{id_}: terminating it with whatever runs on it (--include-unregistered)" in result.stderr
    assert typed.scene.old == []


def test_a_roll_that_an_unregistered_instance_stops_is_resumed_with_the_option(typed: Prompt) -> None:
    scene = typed.scene
    scene.later(20, lambda: unregister_one(scene))

    stopped = typed("--boot-timeout", "3m")

    assert stopped.exit_code == 6
    assert "use --include-unregistered to terminate it undrained" in stopped.stderr
    assert typed("resume", "--include-unregistered").exit_code == 0
    assert scene.old == []


# Bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch", "0"), "--batch"),
        (("--drain-timeout", "soon"), "not a length of time"),
        (("--key-type", "dsa"), "dsa"),
        (("resume", "--key-type", "rsa"), "no such option"),
        (("abort", "--batch", "2"), "no such option"),
        (("--batch", "2", "plan"), "put --batch after `plan`"),
        (("--reason", ""), "--reason is empty"),
        (("resmue",), "keyroll resume`?"),
    ],
)
def test_bad_input_exits_with_two_and_changes_nothing(typed: Prompt, words: tuple[str, ...], says: str) -> None:
    result = typed(*words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert typed.scene.aws.mutations == []


@pytest.mark.parametrize("option", ["--batch", "--drain-timeout", "--boot-timeout"])
def test_an_empty_value_is_reported_as_empty(typed: Prompt, option: str) -> None:
    result = typed("plan", option, "")

    assert result.exit_code == 2
    assert "is a variable in your script unset?" in result.stderr


@pytest.mark.parametrize("word", ["resume", "abort", "unlock"])
def test_what_needs_a_roll_is_not_found_where_there_is_none(typed: Prompt, word: str) -> None:
    result = typed(word)

    assert result.exit_code == 3
    assert 'there is no roll on rack "prod"' in result.stderr


# Unlock, and options of resume


def test_unlock_needs_force_for_a_live_roll(typed: Prompt) -> None:
    killed(typed.scene, 20)

    refused = typed("unlock")
    assert refused.exit_code == 1
    assert "still running" in refused.stderr
    assert "use --force to take it anyway" in refused.stderr
    assert typed("unlock", "--force").exit_code == 0
    assert "stopped; last heartbeat" in typed("status").stdout
    assert typed("resume").exit_code == 0


def test_unlock_names_the_holder_it_took_the_lock_from_or_says_that_it_was_not_locked(typed: Prompt) -> None:
    next(typed.scene.roll.start(RollOptions()))

    assert re.search(r"taken from \S+@\S+ \(process \d+\)", typed("unlock", "--force").stderr)
    free = typed("unlock").stderr
    assert "not locked" in free
    assert (
        "continue with `rackctl instances keyroll resume --rack prod` or `rackctl instances keyroll abort --rack prod`"
        in free
    )


def test_an_option_given_at_the_start_can_be_taken_back_by_resume(typed: Prompt) -> None:
    typed.scene.world.set_condition("stuck-drain")
    assert typed("--drain-timeout", "1m", "--force", "--batch", "1").exit_code == 0
    assert typed("--drain-timeout", "1m").exit_code == 6
    assert typed("resume", "--force", "--no-require-ssh").exit_code == 0
    assert typed("--drain-timeout", "1m").exit_code == 6

    assert typed("resume", "--no-force").exit_code == 6


def test_help_of_resume_names_the_values_of_the_start_as_its_defaults(typed: Prompt) -> None:
    resume, first = (" ".join(typed(*words, "--help").stdout.split()) for words in (["resume"], []))

    assert "[default: as started]" in resume
    assert "[default: 15m]" not in resume
    assert "[default: 15m]" in first


@pytest.mark.parametrize("word", ["plan", "resume", "abort"])
def test_include_unregistered_is_an_option_of_every_command_that_may_terminate(typed: Prompt, word: str) -> None:
    assert "--include-unregistered" in typed(word, "--help").stdout


# Texts of others


def test_what_aws_says_cannot_steer_the_terminal(typed: Prompt) -> None:
    typed.scene.world.set_condition("registration-failed", "\x1b[2Jno\nroom")

    result = typed("--boot-timeout", "5m")

    assert "\x1b" not in result.stderr
    assert "\\x1b[2Jno" in result.stderr
    typed.scene.world.clear_condition("registration-failed")
    assert "\x1b" not in typed("status").stdout
