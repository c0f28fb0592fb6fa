"""The operator's check after each batch: its environment, its output, and that it stops a roll."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.check import ShellCommand
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene
from tests.roll.acts import JOURNAL, assert_given_back, start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rackctl.roll.check import Running

DEADLINE = 20.0


@dataclass
class FakeCheck:
    """A check in whose place nothing runs: each run takes so long, writes lines, and exits with a status."""

    scene: Scene
    lasts: float = 30.0
    statuses: list[int] = field(default_factory=list)
    runs: list[Mapping[str, str]] = field(default_factory=list)
    stopped: int = 0
    ends_at: float = 0.0
    unread: list[str] = field(default_factory=list)

    def __call__(self, variables: Mapping[str, str]) -> Running:
        self.runs.append(variables)
        self.ends_at = self.scene.clock.at + self.lasts
        self.unread = [f"line {len(self.runs)}"]
        return self

    def status(self) -> int | None:
        if self.scene.clock.at < self.ends_at:
            return None
        return self.statuses[len(self.runs) - 1] if len(self.runs) <= len(self.statuses) else 0

    def lines(self) -> list[str]:
        unread, self.unread = self.unread, []
        return unread

    def stop(self) -> None:
        self.stopped += 1


def checked(instances: int = 3, **more: object) -> tuple[Scene, FakeCheck]:
    scene = Scene(instances)
    scene.group.max_size = 9
    scene.check = check = FakeCheck(scene, **more)  # type: ignore[arg-type]
    return scene, check


def test_the_check_runs_after_each_batch_the_last_one_too_with_what_was_replaced() -> None:
    scene, check = checked(3)
    old = set(scene.old)

    events = start(scene, RollOptions(batch=2))

    replaced = [set(run["RACKCTL_ROLL_INSTANCES"].split()) for run in check.runs]
    assert [len(ids) for ids in replaced] == [2, 1]
    assert replaced[0] | replaced[1] == old
    assert [run["RACKCTL_ROLL_TOTAL"] for run in check.runs] == ["3", "3"]
    assert {run["RACKCTL_RACK"] for run in check.runs} == {"prod"}
    assert {run["RACKCTL_ROLL_GROUP"] for run in check.runs} == {scene.group.name}
    assert [event.message for event in events if event.kind == "check"] == [
        "running the check", "check: line 1", "the check succeeded",
        "running the check", "check: line 2", "the check succeeded",
    ]  # fmt: skip
    assert_given_back(scene, 3)


def test_nothing_is_drained_while_the_check_runs() -> None:
    scene, check = checked(3, lasts=400.0)
    drained = scene.world.ecs.set_status

    def set_status(registration: object, status: str) -> None:
        assert status != "DRAINING" or scene.clock.at >= check.ends_at
        drained(registration, status)  # type: ignore[arg-type]

    scene.world.ecs.set_status = set_status  # type: ignore[method-assign]

    start(scene, RollOptions(surge=3))

    assert len(check.runs) == 3


def test_a_check_that_fails_stops_the_roll() -> None:
    scene, check = checked(statuses=[0, 7])

    with pytest.raises(RollIncomplete) as caught:
        start(scene)

    assert caught.value.exit_code == 6
    assert "the check after a batch failed with exit status 7." in str(caught.value)
    assert "Replaced 2 of 3 instances" in str(caught.value)
    assert "keyroll resume --rack prod --check COMMAND" in caught.value.hint
    assert len(check.runs) == 2
    assert scene.draining == []


def test_a_resume_runs_the_check_that_failed_again_before_anything_is_drained() -> None:
    scene, check = checked(statuses=[7, 0, 0, 0])
    with pytest.raises(RollIncomplete):
        start(scene)
    failed = check.runs[0]["RACKCTL_ROLL_INSTANCES"]

    list(scene.roll.resume())

    assert [run["RACKCTL_ROLL_INSTANCES"] for run in check.runs[:2]] == [failed, failed]
    assert len(check.runs) == 4
    assert_given_back(scene, 3)


def test_a_check_that_takes_too_long_is_ended_and_stops_the_roll() -> None:
    scene, check = checked(lasts=9e9)

    with pytest.raises(RollIncomplete, match="the check after a batch did not end within 120 s"):
        start(scene, RollOptions(check_timeout=120))

    assert check.stopped == 1


def test_a_check_is_ended_when_the_roll_is_stopped_and_the_roll_shows_until_then_that_it_runs() -> None:
    scene, check = checked(lasts=9e9)
    scene.when(lambda: bool(check.runs), lambda: scene.later(500, lambda: setattr(scene.stop, "signal", 2)))

    with pytest.raises(RollStopped):
        start(scene)

    assert check.stopped == 1
    status = scene.roll.status()
    assert status
    assert status.found.silent_for < 60


def test_no_journal_makes_a_machine_run_a_command() -> None:
    scene = Scene(3)
    scene.check = ShellCommand("echo a-secret-command; exit 1", {"PATH": os.environ["PATH"]})
    with pytest.raises(RollIncomplete, match="exit status 1"):
        start(scene, RollOptions(check_timeout=9e8))
    journal = scene.aws.objects[JOURNAL].body

    scene.check = None
    before = len(scene.aws.mutations)
    with pytest.raises(RackctlError) as caught:
        list(scene.roll.resume())

    assert b"a-secret-command" not in journal
    assert "was started with --check, and the journal does not keep the command" in str(caught.value)
    assert "--check COMMAND" in caught.value.hint
    assert len(scene.aws.mutations) == before
    list(scene.roll.resume(checked=False))
    assert_given_back(scene, 3)


def test_an_abort_needs_no_check() -> None:
    scene, check = checked(statuses=[7])
    with pytest.raises(RollIncomplete):
        start(scene)
    scene.check = None

    list(scene.roll.abort())

    assert len(check.runs) == 1
    assert_given_back(scene, 3)


# The command itself


def run(command: str, variables: Mapping[str, str] | None = None, **environment: str) -> tuple[int, list[str]]:
    """Run a command to its end; return its status and its lines."""
    running = ShellCommand(command, {"PATH": os.environ["PATH"], **environment})(variables or {})
    lines: list[str] = []
    try:
        return ended(running, lines), lines
    finally:
        running.stop()


def ended(running: Running, lines: list[str]) -> int:
    deadline = time.monotonic() + DEADLINE
    while (status := running.status()) is None:
        lines += running.lines()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lines += running.lines()
    return status


def waited_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds


@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        ("true", 0, []),
        ("echo a; echo b >&2; printf c; exit 3", 3, ["a", "b", "c"]),
        ('echo "$HOME $RACKCTL_RACK"', 0, ["/home/me prod"]),
        ("cat", 0, []),
        ("kill -9 $$", 137, []),
        (r"printf 'a\377b\n'", 0, ["a\N{REPLACEMENT CHARACTER}b"]),
        ("no-such-command-anywhere", 127, None),
        ("sleep 2 & exit 2", 2, []),
    ],
)
def test_a_command_is_the_shells(command: str, status: int, lines: list[str] | None) -> None:
    found, said = run(command, {"RACKCTL_RACK": "prod"}, HOME="/home/me")

    assert found == status
    assert said == lines if lines is not None else said


def test_a_command_that_writes_without_end_waits_and_takes_no_memory() -> None:
    running = ShellCommand("yes", {"PATH": os.environ["PATH"]})({})
    try:
        assert waited_for(lambda: len(running.lines()) == 1000)
        assert running.status() is None
    finally:
        running.stop()


def test_a_line_without_an_end_is_cut() -> None:
    status, lines = run("head -c 10000 /dev/zero | tr '\\0' x")

    assert status == 0
    assert max(map(len, lines)) == 4096
    assert sum(map(len, lines)) == 10000


def test_a_command_that_is_stopped_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    running = ShellCommand(f"sleep 1000 & echo $! > {tmp_path}/pid; wait", {"PATH": os.environ["PATH"]})({})
    assert waited_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text().strip()))
    child = int((tmp_path / "pid").read_text())

    running.stop()

    assert waited_for(lambda: not is_alive(child))


# Five seconds: as long as a command may take to end.
def test_a_command_that_ignores_the_request_to_end_is_killed() -> None:
    running = ShellCommand("trap '' TERM; echo ready; while :; do sleep 0.1; done", {"PATH": os.environ["PATH"]})({})
    assert waited_for(lambda: running.lines() == ["ready"])

    running.stop()

    assert running.status() == 137


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - as short as it gets
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
