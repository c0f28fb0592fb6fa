"""`rackctl instances history`: the table, the JSON, and the notes on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rackctl.aws.s3 import StoredObject
from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.errors import RackctlError
from rackctl.roll.owner import Owner
from rackctl.roll.view import RollOptions
from tests.cli.test_instances import run
from tests.fakes.world import START, Login, Scene
from tests.roll.acts import JOURNAL, start
from tests.test_instances import rack_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "output.md"


def history(scene: Scene, *words: str) -> Result:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    invocation.clock, invocation.rack = scene.clock, scene.rack
    return CliRunner().invoke(cli, ["instances", "history", *words], obj=invocation)


def rolled(reason: str = "") -> Scene:
    scene = Scene(2)
    start(scene, RollOptions(reason=reason))
    return scene


def test_a_rack_that_was_never_rolled_has_a_header_and_an_empty_array() -> None:
    scene = Scene(2)

    assert history(scene).stdout == "STARTED  ROLL  RESULT  REPLACED  TOOK  BY  REASON  PROBLEM\n"
    assert (history(scene, "-o", "json").stdout, history(scene).stderr) == ("[]\n", "")


def test_the_table_has_a_line_for_each_roll_newest_first() -> None:
    scene = rolled("a laptop was lost")
    scene.clock.sleep(86400)
    scene.login = lambda _: Login("refused", "no such key")
    with pytest.raises(RackctlError):
        start(scene)

    header, second, first = history(scene).stdout.splitlines()

    who = Owner.this_process().who
    assert header.split() == ["STARTED", "ROLL", "RESULT", "REPLACED", "TOOK", "BY", "REASON", "PROBLEM"]
    assert re.fullmatch(rf"2026-01-02 03:04  keyroll  finished +2 of 2 +\d+:\d\d  {who}  a laptop was lost", first)
    assert re.match(rf"2026-01-03 \d\d:\d\d  keyroll  rolled back  0 of 2 +\d+:\d\d  {who}  .*no such key", second)


def test_the_reason_of_a_roll_and_its_problem_are_two_columns() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "no such key")
    with pytest.raises(RackctlError):
        start(scene, RollOptions(reason="a laptop was lost"))

    header, line = history(scene).stdout.splitlines()

    assert line[header.index("REASON") : header.index("PROBLEM")].strip() == "a laptop was lost"
    assert "refused the new key: no such key" in line[header.index("PROBLEM") :]


def test_texts_that_could_steer_a_terminal_are_escaped() -> None:
    scene = rolled("\x1b[2Jgone\nfake line")

    result = history(scene)

    assert r"\x1b[2Jgone\nfake line" in result.stdout
    assert len(result.stdout.splitlines()) == 2


def test_every_field_of_the_json_is_documented_in_its_order() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Rolls: `instances history`")[2]
    documented = re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)

    (entry,) = json.loads(history(rolled("because"), "-o", "json").stdout)

    assert list(entry) == documented
    assert (entry["roll"], entry["selection"], entry["result"], entry["reason"]) == (
        "keyroll",
        "all",
        "finished",
        "because",
    )
    assert entry["operators"] == [{"who": Owner.this_process().who, "caller_arn": "arn:aws:iam::123456789012:user/joe"}]


def test_older_rolls_and_objects_that_are_no_entries_are_counted_on_stderr() -> None:
    scene = rolled()
    scene.clock.sleep(60)
    start(scene)
    scene.aws.objects["b", "rackctl/prod/history/2026-01-01T00:00:00Z.json"] = StoredObject(b"x", '"x"', START)

    result = history(scene, "--limit", "1")

    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == "rackctl: 2 older rolls not shown: use --limit\n"
    assert history(scene).stderr == ("rackctl: left out 1 object that this rackctl cannot read as a roll\n")
    assert history(scene, "--limit", "0").exit_code == 2


def test_history_says_that_the_journal_cannot_be_read() -> None:
    scene = rolled()
    scene.aws.objects[JOURNAL] = StoredObject(b"{}", '"x"', START)

    result = history(scene)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert "could not check whether a roll is unfinished: " in result.stderr


def test_a_rack_without_a_bucket_is_refused_with_the_setting_that_is_missing() -> None:
    result = run(rack_of(), "instances", "history")

    assert result.exit_code != 0
    assert "bucket" in result.stderr
