"""Drains and undrains by hand beside an unfinished roll."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from rackctl.aws.errors import AwsError
from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.instances import Instances
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene, add_group
from tests.roll.acts import REFRESH, with_managed_draining

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.roll.report import Event


def typed(scene: Scene, *words: str) -> Result:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    invocation.clock, invocation.rack = scene.clock, scene.rack
    invocation.instances = Instances(scene.rack, scene.clock)
    return CliRunner().invoke(cli, ["instances", *words], obj=invocation)


def until_draining(scene: Scene) -> tuple[str, Iterator[Event]]:
    """Begin a roll, and return the instance that it has begun to drain, with what is left of the roll."""
    events = scene.roll.start(RollOptions())
    return next(event.ec2_instance_id for event in events if event.phase == "draining"), events


@pytest.mark.parametrize("word", ["drain", "undrain"])
def test_what_a_running_roll_works_on_is_refused(word: str) -> None:
    scene = Scene(3)
    held, events = until_draining(scene)
    scene.aws.mutations.clear()

    result = typed(scene, word, held)

    assert result.exit_code == 1
    assert f"is replacing {held}" in result.stderr
    assert "`rackctl instances keyroll status --rack prod`" in result.stderr
    assert scene.aws.mutations == []
    assert list(events)[-1].kind == "finished"


def test_a_drain_of_an_instance_that_waits_for_its_turn_is_warned_of_and_harms_the_roll_in_no_way() -> None:
    scene = Scene(3)
    held, events = until_draining(scene)
    waiting = next(id_ for id_ in scene.old if id_ != held)

    result = typed(scene, "drain", waiting)

    assert result.exit_code == 0, result.stderr
    assert f"works in group {scene.group.name}, and waits for instances that cannot take tasks" in result.stderr
    assert list(events)[-1].kind == "finished"
    assert scene.old == []
    assert scene.broken_promises == []


def test_instances_that_the_roll_has_nothing_to_do_with_are_drained_without_a_word() -> None:
    scene = Scene(3)
    held, _ = until_draining(scene)
    add_group(scene, Rack="")
    other = next(id_ for id_ in scene.world.autoscaling.groups["prod-spot"].members if id_ != held)

    result = typed(scene, "drain", other)

    assert (result.exit_code, result.stderr) == (0, "")


def test_what_a_roll_that_stopped_had_drained_may_be_set_to_active_and_a_drain_of_it_is_warned_of() -> None:
    scene = Scene(3)
    held, events = until_draining(scene)
    scene.aws.interfering.append(lambda *_: denied())
    with pytest.raises(Exception, match="no"):
        list(events)
    scene.aws.interfering.clear()
    scene.clock.sleep(400)
    assert scene.draining == [held]

    warned = typed(scene, "drain", held)
    assert warned.exit_code == 0
    assert f"had drained {held}: `resume` and `abort` will set it" in warned.stderr
    undrained = typed(scene, "undrain", held)

    assert (undrained.exit_code, undrained.stdout) == (0, f'Set instance "{held}" to ACTIVE\n')
    assert undrained.stderr == ""
    assert list(scene.roll.resume())[-1].kind == "finished"


def denied() -> None:
    raise AwsError("no", code="AccessDenied", refused=True)


def test_a_drain_beside_a_detached_instance_refresh_is_warned_of() -> None:
    scene = with_managed_draining(3)
    list(scene.roll.start(REFRESH, detach=True))

    result = typed(scene, "drain", scene.old[-1])

    assert result.exit_code == 0, result.stderr
    assert f"works in group {scene.group.name}" in result.stderr


def test_a_roll_that_was_stopped_has_left_nothing_draining_and_says_nothing() -> None:
    scene = Scene(3)
    _, events = until_draining(scene)
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)

    assert typed(scene, "drain", scene.old[0]).stderr == ""


def test_a_journal_that_cannot_be_read_is_said_and_does_not_keep_an_instance_from_being_drained() -> None:
    scene = Scene(3)
    scene.aws.misreading.append(lambda name, answer: denied() if name == "get" else answer)

    result = typed(scene, "drain", scene.old[0])

    assert result.exit_code == 0
    assert "could not see whether a roll works on the same instances: no" in result.stderr
    assert scene.draining == [scene.old[0]]
