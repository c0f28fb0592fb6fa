"""`rackctl doctor` as it is typed: its output on a terminal and in a pipe, and remedies that are typed as printed."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.doctor.rolling import TOPICS
from tests.e2e.conftest import with_rack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import Shell

GREEN_OK = "\x1b[32mok"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Shell]:
    yield from with_rack(tmp_path, "--foreign")


def problems(shell: Shell, words: str = "") -> dict[str, list[dict[str, Any]]]:
    """Return what is a problem or was skipped, by checks."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in shell.json(f"rackctl doctor {words} -o json 2>/dev/null; true"):
        if finding["status"] in {"problem", "skipped"}:
            found.setdefault(finding["check"], []).append(finding)
    return found


def command_of(finding: dict[str, Any]) -> str:
    """Return the first command of a remedy."""
    (first, *_) = re.findall(r"`(rackctl .+?)`", finding["remedy"])
    return str(first)


def test_a_rack_without_problems_has_an_ok_line_for_each_check(shell: Shell) -> None:
    ran = shell("rackctl doctor -r local")

    lines = ran.stdout.splitlines()
    assert ran.status == 0, ran.stdout
    assert all(re.match(r"ok       [a-z]+ +\S", line) for line in lines[:-2]), ran.stdout
    assert lines[-2:] == ["", "all checks are ok"]
    assert ran.stderr == ""


def test_a_terminal_has_colours_unless_no_color_is_set(shell: Shell) -> None:
    _, drawn = shell.on_terminal("rackctl doctor -r local", columns=200)
    _, plain = shell.on_terminal("NO_COLOR=1 rackctl doctor -r local", columns=200)
    piped = shell("rackctl doctor -r local")

    assert GREEN_OK in drawn
    assert "\x1b" not in plain + piped.stdout


def test_a_problem_is_red_and_its_remedy_is_below_it(changing: Shell) -> None:
    """Over two seconds: a rack of its own."""
    changing("rackctl local faults add deny autoscaling:DescribeLifecycleHooks")

    status, drawn = changing.on_terminal("rackctl doctor -r local", columns=200)

    assert status == 1
    assert "\x1b[31mproblem" in drawn
    assert "→ the IAM permission that is missing: autoscaling:DescribeLifecycleHooks" in drawn
    assert f"1 problem, {len(TOPICS) - 1} skipped" in drawn


def test_an_interrupt_does_not_wait_for_a_login(shell: Shell) -> None:
    """Over two seconds: the login would take twenty."""
    begun = time.monotonic()

    # The proxy command, which keeps running, must not keep the pipe open.
    interrupted = "timeout --foreground --preserve-status -s INT 4 rackctl doctor -r local --proxy-command 'sleep 60'"
    ran = shell(f"{interrupted} 2>/dev/null")

    assert (ran.status, ran.stdout) == (130, "")
    assert time.monotonic() - begun < 15


def test_the_remedies_for_a_cluster_that_is_no_rack_yet_make_it_one(foreign: Shell) -> None:
    """Each remedy is typed as it is printed, with the user's input added: yes, and the path of the key.

    Over two seconds: a rack of its own.
    """
    key_file = foreign.json("rackctl local status -o json")["key_file"]
    before = problems(foreign)
    assert before.keys() >= {"store", "bucket", "kms", "keys", "ssh"}

    with_key = problems(foreign, f"-i {key_file}")
    assert "ssh" not in with_key

    adopted = foreign(f"{command_of(before['store'][0])} --yes")
    assert adopted.status == 0, adopted.stderr
    adopted_only = problems(foreign)
    assert not {"store", "bucket", "kms"} & adopted_only.keys()

    keys = foreign.json("rackctl doctor -o json; true")
    (lost,) = [finding for finding in keys if finding["check"] == "keys"]
    assert lost["status"] == "warning"
    imported = foreign(command_of(lost).replace("FILE", key_file))
    assert imported.status == 0, imported.stderr
    assert not {"store", "bucket", "kms", "keys", "ssh"} & problems(foreign).keys()
