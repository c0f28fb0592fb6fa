"""`rackctl instances keyroll` as it is typed: what it prints where, and how it exits."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation
from rackctl.cli.keyroll_view import LiveView
from rackctl.cli.main import cli
from rackctl.cluster import Cluster
from rackctl.keyroll.journal import RollOptions
from rackctl.keyroll.run import Event
from tests.fakes.world import OLD_KEY, START, Login, Scene
from tests.keyroll.acts import JOURNAL, run_until_killed

if TYPE_CHECKING:
    from pathlib import Path


NEW_KEY = "prod-keypair-20260102T030435Z"


def invocation_of(scene: Scene, directory: Path) -> Invocation:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": str(directory)})
    invocation.clock = scene.clock
    invocation.rack = scene.rack
    invocation.cluster = Cluster(scene.rack, scene.clock)
    invocation.keys = scene.keys
    return invocation


class Prompt:
    """Where commands are typed at a rack in memory, from which every instance can be reached."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self.scene = scene
        self._directory = directory

    def __call__(self, *words: str) -> Result:
        invocation = invocation_of(self.scene, self._directory)
        invocation.prove = self.scene.login
        return CliRunner().invoke(cli, ["instances", "keyroll", *words], obj=invocation)


@pytest.fixture
def typed(tmp_path: Path) -> Prompt:
    return Prompt(Scene(3), tmp_path)


def test_a_roll_prints_what_the_mirrored_document_shows_and_its_progress_on_stderr(typed: Prompt) -> None:
    result = typed()

    assert (result.exit_code, result.stdout) == (0, "Rebooting instances...\n")
    lines = result.stderr.splitlines()
    assert all(re.match(r"2026-01-02T\d\d:\d\d:\d\dZ \[[0-3]/3\] ", line) for line in lines)
    assert lines[-1].endswith(f"[3/3] every instance has the key {NEW_KEY}")


def test_the_options_are_those_of_the_roll(typed: Prompt) -> None:
    typed("--batch", "2", "--no-surge", "--drain-timeout", "1h30m", "--boot-timeout", "90s", "--key-type", "rsa",
          "--force", "--stop-standalone", "--keep-old-keys", "--reason", "why not", "--require-ssh")  # fmt: skip

    assert typed.scene.key_pairs == {OLD_KEY, NEW_KEY}
    assert typed.scene.world.ec2.key_pairs[NEW_KEY].key_type == "rsa"
    assert typed.scene.keys.fetch(NEW_KEY).reason == "why not"
    assert "set_desired_capacity" not in typed.scene.aws.mutations


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


def test_a_roll_that_stops_says_what_is_done_what_is_left_and_what_goes_on(typed: Prompt) -> None:
    typed.scene.world.set_condition("stuck-drain")

    result = typed("--drain-timeout", "1m")

    assert result.exit_code == 6
    assert "0 of 3 instances have been replaced, 3 are left; nothing is left draining" in result.stderr
    assert "go on with `rackctl instances keyroll resume --rack prod`" in result.stderr
    typed.scene.world.clear_condition("stuck-drain")
    assert typed("resume", "--drain-timeout", "10m").exit_code == 0
    assert typed.scene.old == []


def test_a_refused_roll_prints_nothing_on_stdout(typed: Prompt) -> None:
    typed.scene.group.suspended["Launch"] = "by hand"

    result = typed()

    assert (result.exit_code, result.stdout) == (1, "")
    assert "no keyroll was begun and nothing was changed: the Launch process of group prod-instances" in result.stderr


def test_a_key_that_is_refused_gives_the_rack_back(typed: Prompt) -> None:
    typed.scene.login = lambda _: Login("refused", "Permission denied")

    result = typed()

    assert result.exit_code == 1
    assert "Nothing was drained, and the rack is as it was" in result.stderr
    assert "--key-type rsa" in result.stderr


def test_abort_gives_the_rack_back(typed: Prompt) -> None:
    run_until_killed(typed.scene, lambda: list(typed.scene.roll.start(_default())), 18, "after")
    typed.scene.clock.sleep(400)

    result = typed("abort")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "the rack is as it was" in result.stderr
    assert JOURNAL not in typed.scene.aws.objects


def _default() -> Any:
    from rackctl.keyroll.journal import RollOptions

    return RollOptions()


# Bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch", "0"), "--batch"),
        (("--drain-timeout", "soon"), "not a length of time"),
        (("--key-type", "dsa"), "dsa"),
        (("resume", "--key-type", "rsa"), "No such option"),
        (("abort", "--batch", "2"), "No such option"),
        (("--batch", "2", "plan"), "--batch stands before `plan`"),
        (("--reason", ""), "--reason is empty"),
        (("resmue",), 'Did you mean "resume"?'),
    ],
)
def test_bad_input_exits_with_two_and_changes_nothing(typed: Prompt, words: tuple[str, ...], says: str) -> None:
    result = typed(*words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert typed.scene.aws.mutations == []


@pytest.mark.parametrize("word", ["resume", "abort", "unlock"])
def test_what_needs_a_roll_says_that_there_is_none(typed: Prompt, word: str) -> None:
    result = typed(word)

    assert result.exit_code == 3
    assert 'no keyroll is under way on rack "prod"' in result.stderr


# The plan


def test_the_plan_is_text_a_person_can_read(typed: Prompt) -> None:
    scene = typed.scene
    scene.world.seed_service(scene.seeded, "single", "i", "c", desired=1, minimum_percent=0)
    scene.world.seed_service(scene.seeded, "rigid", "i", "c", desired=2, minimum_percent=100, maximum_percent=100)

    result = typed("plan")

    assert result.exit_code == 0
    text = result.stdout
    assert 'A keyroll of rack "prod" would replace 3 instances, in about 14 minutes, with 1 instance more' in text
    assert f"  launches    prod-instances version 1, with key {OLD_KEY}" in text
    assert "  single: 1 task, 0 at the least (minimum 0 %, maximum 200 %" in text
    assert "  rigid: 2 tasks, 2 at the least (minimum 100 %, maximum 100 %" in text
    assert all(id_ in text for id_ in scene.old)
    assert scene.aws.mutations == []


def test_a_refused_plan_says_why_and_how_to_lift_it_and_exits_with_one(typed: Prompt) -> None:
    typed.scene.template.tags["aws:cloudformation:stack-name"] = "prod-stack"

    result = typed("plan")

    assert result.exit_code == 1
    assert "It would be refused:\n  launch template prod-instances belongs to the CloudFormation stack" in result.stdout
    assert "    → change the key in the stack, or go around it with --out-of-band" in result.stdout
    assert typed("plan", "--out-of-band").exit_code == 0


PLAN_FIELDS = {
    "rack", "refused", "refusals", "groups", "services", "standalone_tasks", "left_alone", "warnings", "total",
    "seconds", "instance_hours",
}  # fmt: skip
GROUP_FIELDS = {
    "group", "desired_capacity", "max_size", "launch_templates", "replace", "surge", "surge_reason", "at_once",
    "seconds",
}  # fmt: skip


def test_the_plan_as_json_has_the_documented_fields(typed: Prompt) -> None:
    plan = json.loads(typed("plan", "-o", "json", "--batch", "5").stdout)

    assert set(plan) == PLAN_FIELDS
    (group,) = plan["groups"]
    assert set(group) == GROUP_FIELDS
    assert sorted(group["replace"]) == sorted(typed.scene.old)
    assert (group["surge"], group["surge_reason"]) == (2, "the group's maximum size of 5 allows no more")
    assert group["launch_templates"] == [
        {
            "launch_template_id": typed.scene.template.launch_template_id,
            "launch_template_name": "prod-instances",
            "version": "1",
            "version_number": 1,
            "key_name": OLD_KEY,
        }
    ]


def test_the_plan_of_a_rack_under_way_is_refused_and_names_the_holder(typed: Prompt) -> None:
    run_until_killed(typed.scene, lambda: list(typed.scene.roll.start(_default())), 12, "after")

    result = typed("plan")

    assert result.exit_code == 1
    assert 'holds the keyroll of rack "prod", begun at 2026-01-02T03:04:35Z' in result.stdout


# The status


STATUS_FIELDS = {
    "state", "phase", "rack", "key_name", "reason", "started", "owner", "heartbeat", "problem", "total", "left",
    "groups", "instances",
}  # fmt: skip


def test_status_says_when_there_is_none(typed: Prompt) -> None:
    assert typed("status").stdout == 'No keyroll is under way on rack "prod".\n'
    assert json.loads(typed("status", "-o", "json").stdout) == {"state": "none"}


def test_status_shows_who_is_at_work_and_how_far_each_group_is(typed: Prompt) -> None:
    run_until_killed(typed.scene, lambda: list(typed.scene.roll.start(_default())), 20, "after")

    text = typed("status").stdout
    found = json.loads(typed("status", "-o", "json").stdout)

    assert "is at work on it, last heard of" in text
    assert "  capacity    4, 1 of it surge (was 3)" in text
    assert set(found) == STATUS_FIELDS
    assert (found["state"], found["phase"], found["key_name"]) == ("running", "replacing", NEW_KEY)
    assert {i["phase"] for i in found["instances"]} >= {"waiting", "terminating"}


def test_status_names_the_ways_on_of_a_dead_roll(typed: Prompt) -> None:
    run_until_killed(typed.scene, lambda: list(typed.scene.roll.start(_default())), 20, "after")
    typed.scene.clock.sleep(400)

    text = typed("status").stdout

    assert "has ended without giving it up, last heard of 7 minutes ago" in text
    assert "keyroll resume --rack prod` or `rackctl instances keyroll abort --rack prod`" in text


def test_unlock_needs_force_for_a_live_roll(typed: Prompt) -> None:
    run_until_killed(typed.scene, lambda: list(typed.scene.roll.start(_default())), 20, "after")

    assert typed("unlock").exit_code == 1
    assert typed("unlock", "--force").exit_code == 0
    assert "it has stopped" in typed("status").stdout
    assert typed("resume").exit_code == 0


# The live view


def render(view: LiveView, width: int = 100) -> str:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=width, height=30)
    with console.capture() as capture:
        console.print(view._render())
    return capture.get()


def test_the_live_view_shows_each_instance_what_it_waits_for_and_how_far_all_is() -> None:
    from rich.console import Console

    scene = Scene(1)
    begun: list[bool] = []
    view = LiveView(Console(quiet=True), scene.clock, "prod", lambda: begun.append(True), lambda: False)

    def event(message: str, **more: Any) -> Event:
        return Event(START, "instance", message, "g", done=1, total=4, seconds_left=150, waiting=3, **more)

    with view:
        view.show(Event(START, "surge", "group g: desired capacity 4 → 5", "g", total=4))
        view.show(event("i-2: new, Pending, not registered", ec2_instance_id="i-2", phase="launching", is_new=True))
        scene.clock.sleep(5)
        view.show(event("", ec2_instance_id="i-1", phase="draining", tasks_left=2, service_event="no room for web"))
        scene.clock.sleep(65)
        text = render(view)

    assert begun == [True]
    assert re.search(r"i-1 +old +draining +1:05 +2 tasks left: no room for web", text)
    assert re.search(r"i-2 +new +launching +1:10 +Pending, not registered", text)
    assert "and 3 waiting" in text
    assert "prod: replacing  1 of 4 replaced  1:10  about 1 minute left" in text


@pytest.mark.parametrize("width", [64, 80, 120])
def test_only_what_an_instance_waits_for_is_cut_when_the_terminal_is_narrow(width: int) -> None:
    from rich.console import Console

    clock = Scene(1).clock
    view = LiveView(Console(quiet=True, width=width), clock, "prod", lambda: None, lambda: False)
    long = "(service worker) was unable to place a task because no container instance met all of its requirements."
    with view:
        for id_, more in (
            ("i-0a19bcc46de2f00d1", {"phase": "draining", "tasks_left": 1, "service_event": long}),
            ("i-0cb84185aa11bb22c", {"phase": "terminating"}),
        ):
            details: Any = more
            view.show(Event(START, "instance", "", "g", id_, total=3, **details))
        lines = render(view, width).splitlines()

    assert re.match(r"INSTANCE +KEY +PHASE +TIME +WAITS FOR", lines[0])
    assert re.match(r"i-0a19bcc46de2f00d1 +old +draining +0:00 +1 task.*…", lines[1])
    assert re.match(r"i-0cb84185aa11bb22c +old +terminating +0:00 +EC2 to end it", lines[2])
    assert max(map(len, lines)) <= width


def test_an_abort_counts_nothing_as_replaced_and_calls_new_instances_new() -> None:
    from rich.console import Console

    view = LiveView(Console(quiet=True), Scene(1).clock, "prod", lambda: None, lambda: False)
    with view:
        view.show(
            Event(START, "instance", "", "g", "i-3", "draining", 1, done=1, total=3, is_new=True, doing="aborting")
        )
        text = render(view)

    assert re.search(r"i-3 +new +draining", text)
    assert "prod: giving back  0:00" in text
    assert "replaced" not in text
    assert "waiting" not in text


def test_the_live_view_of_many_instances_fits_the_terminal_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("LINES", "20")
    view = LiveView(Console(quiet=True), Scene(1).clock, "prod", lambda: None, lambda: True)
    with view:
        for number in range(60):
            phase: Any = "gone" if number < 50 else "draining"
            view.show(Event(START, "instance", "", "g", f"i-{number}", phase, 1, done=50, total=100, waiting=40))
        text = render(view)

    assert len(text.splitlines()) <= 20
    assert "and 40 waiting, 50 gone" in text
    assert "stopping; once more to stop at once" in text


def test_what_aws_says_cannot_steer_the_terminal(typed: Prompt) -> None:
    typed.scene.world.set_condition("registration-failed", "\x1b[2Jno\nroom")

    result = typed("--boot-timeout", "5m")

    assert "\x1b" not in result.stderr
    assert "\\x1b[2Jno" in result.stderr
    typed.scene.world.clear_condition("registration-failed")
    assert "\x1b" not in typed("status").stdout


def test_unlock_says_from_whom_or_that_there_was_nothing_to_unlock(typed: Prompt) -> None:
    next(typed.scene.roll.start(RollOptions()))

    assert re.search(r"taken from \S+@\S+ \(process \d+\)", typed("unlock", "--force").stderr)
    assert "held by nobody" in typed("unlock").stderr


def test_what_was_asked_for_at_the_beginning_can_be_taken_back(typed: Prompt) -> None:
    typed.scene.world.set_condition("stuck-drain")
    assert typed("--drain-timeout", "1m", "--force", "--batch", "1").exit_code == 0
    assert typed("--drain-timeout", "1m").exit_code == 6
    assert typed("resume", "--force", "--no-require-ssh").exit_code == 0
    assert typed("--drain-timeout", "1m").exit_code == 6

    assert typed("resume", "--no-force").exit_code == 6


@pytest.mark.parametrize("option", ["--batch", "--drain-timeout", "--boot-timeout"])
def test_an_empty_value_is_said_to_be_one(typed: Prompt, option: str) -> None:
    result = typed("plan", option, "")

    assert result.exit_code == 2
    assert "is a variable in your script unset?" in result.stderr


def test_help_of_resume_promises_no_other_defaults_than_the_rolls_own(typed: Prompt) -> None:
    said, first = (" ".join(typed(*words, "--help").stdout.split()) for words in (["resume"], []))

    assert "[default: as started]" in said
    assert "[default: 15m]" not in said
    assert "[default: 15m]" in first


def test_a_plan_that_would_be_refused_says_so_at_once(typed: Prompt) -> None:
    typed.scene.group.suspended["Launch"] = "by hand"

    said = typed("plan").stdout

    assert "; but it would be refused, as said at the end." in said.splitlines()[0]


def test_status_shows_what_is_on_its_way_and_what_is_suspended(typed: Prompt) -> None:
    events = typed.scene.roll.start(RollOptions())
    id_ = next(event.ec2_instance_id for event in events if event.phase == "draining")

    said = typed("status").stdout

    assert re.search(rf"{id_}  draining since 2026-\S+Z", said)
    assert "suspended   AZRebalance" in said


def test_a_word_on_stderr_meanwhile_stays_above_the_live_view() -> None:
    from io import StringIO

    from rich.console import Console

    screen = StringIO()
    view = LiveView(
        Console(file=screen, force_terminal=True, width=80), Scene(1).clock, "prod", lambda: None, lambda: False
    )
    with view:
        view.show(Event(START, "instance", "", "g", "i-1", "draining", 1, total=3))
        note("i-2: trusting its host key")

    # Whole, on a line of its own.
    assert re.search(
        r"\nrackctl: i-2: trusting its host key *\r?\n|^.*rackctl: i-2: trusting its host key\n", screen.getvalue()
    )


def test_status_is_watched_until_nobody_is_at_work_any_more(typed: Prompt) -> None:
    scene = typed.scene
    events = scene.roll.start(RollOptions())
    next(event for event in events if event.phase == "draining")
    scene.later(15, lambda: scene.roll.unlock(force=True))

    said = typed("status", "--watch", "5").stdout

    assert said.count("is at work on it") >= 2
    assert "it has stopped" in said
    assert said.rstrip().endswith("keyroll abort --rack prod`")
    assert typed("status", "--watch", "0").exit_code == 2
