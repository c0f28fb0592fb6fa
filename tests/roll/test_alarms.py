"""An alarm that an operator names refuses a plan, and stops a roll without another task being moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import Login, Scene
from tests.roll.acts import assert_given_back, collect, refused, start, texts

if TYPE_CHECKING:
    from rackctl.model import Instance
    from rackctl.roll.report import Event

WATCHED = RollOptions(alarms=("errors", "latency"), surge=2)


def watched() -> Scene:
    scene = Scene(3)
    scene.world.alarms = {"errors": ("OK", ""), "latency": ("OK", "")}
    return scene


def test_an_alarm_refuses_a_plan() -> None:
    scene = watched()
    scene.world.alarms["latency"] = ("ALARM", "3 datapoints were greater than 2.0")

    said = refused(scene, WATCHED)

    assert "alarm latency is in state ALARM: 3 datapoints were greater than 2.0" in said
    assert "continue when the alarm is OK" in said


def test_an_alarm_that_does_not_exist_refuses_a_plan() -> None:
    scene = watched()
    del scene.world.alarms["errors"]

    assert "CloudWatch reports no metric or composite alarm errors" in refused(scene, WATCHED)


def test_an_alarm_without_data_is_named_and_stops_nothing() -> None:
    scene = watched()
    scene.world.alarms["errors"] = ("INSUFFICIENT_DATA", "Unchecked: Initial alarm creation")

    plan = scene.roll.plan(WATCHED)
    events = start(scene, WATCHED)

    assert plan.warnings == ("alarm errors has insufficient data, and so says nothing now",)
    assert [event.message for event in events if event.kind == "alarm"] == [
        "alarm errors is in state INSUFFICIENT_DATA: Unchecked: Initial alarm creation"
    ]
    assert_given_back(scene, 3)


def test_an_alarm_during_a_roll_stops_it_with_nothing_drained_and_resume_continues() -> None:
    scene = watched()
    events: list[Event] = []

    def alarm() -> None:
        scene.world.alarms["errors"] = ("ALARM", "too many")

    # Of two that are replaced by then, the second is still being drained.
    scene.world.set_condition("stuck-drain")
    scene.when(lambda: bool(scene.draining), alarm)
    with pytest.raises(RollIncomplete) as caught:
        collect(scene.roll.start(WATCHED), events)

    assert caught.value.exit_code == 6
    assert "alarm errors is in state ALARM: too many." in str(caught.value)
    assert "nothing is left draining" in str(caught.value)
    assert "keyroll resume --rack prod" in caught.value.hint
    assert "keeps desired capacity 5 (was 3)" in caught.value.hint
    assert sum(event.phase == "draining" and event.tasks_left is not None for event in events) >= 1
    assert scene.draining == []
    assert len(scene.old) == 3

    scene.world.clear_condition("stuck-drain")
    with pytest.raises(RollIncomplete, match="alarm errors is in state ALARM"):
        list(scene.roll.resume())
    assert scene.draining == []
    scene.world.alarms["errors"] = ("OK", "")
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_roll_that_an_alarm_has_stopped_can_be_resumed_without_it_and_aborted() -> None:
    for abort in (False, True):
        scene = watched()
        scene.when(lambda: len(scene.new) > 0, lambda: scene.world.alarms.update(errors=("ALARM", "")))  # noqa: B023
        with pytest.raises(RollIncomplete):
            start(scene, WATCHED)

        list(scene.roll.abort() if abort else scene.roll.resume(alarms=()))

        assert_given_back(scene, 3)


def test_an_alarm_that_is_deleted_during_a_roll_is_reported_and_stops_it_when_that_has_lasted() -> None:
    scene = watched()
    scene.world.set_condition("stuck-drain")
    scene.when(lambda: bool(scene.draining), lambda: scene.world.alarms.pop("errors"))
    events: list[Event] = []
    began = scene.clock.at

    with pytest.raises(RollIncomplete, match="CloudWatch reports no metric or composite alarm errors"):
        collect(scene.roll.start(WATCHED), events)

    reported = next(event for event in events if event.kind == "alarm")
    assert reported.message == "alarm errors is not reported by CloudWatch"
    assert scene.clock.at - reported.at.timestamp() >= 120
    assert scene.clock.at - began < 900


def test_a_call_for_the_alarms_that_gets_no_answer_is_repeated() -> None:
    scene = watched()
    failures = iter([True] * 5)

    def fail(_: int, call: str, when: str) -> None:
        if call == "alarms" and when == "before" and scene.draining and next(failures, False):
            raise AwsError("CloudWatch did not answer", code="InternalFailure")

    scene.aws.interfering.append(fail)

    start(scene, WATCHED)

    assert next(failures, None) is None
    assert_given_back(scene, 3)


def test_a_call_for_the_alarms_that_gets_no_answer_for_long_stops_the_roll() -> None:
    scene = watched()

    def fail(_: int, call: str, when: str) -> None:
        if call == "alarms" and when == "before" and len(scene.old) < 3:
            raise AwsError("CloudWatch did not answer", code="InternalFailure")

    scene.aws.interfering.append(fail)

    with pytest.raises(RollIncomplete, match="CloudWatch did not answer"):
        start(scene, WATCHED)

    assert scene.draining == []
    assert len(scene.old) >= 1


def test_alarms_are_asked_for_every_ten_seconds_at_most_and_never_if_none_is_named() -> None:
    scene, unwatched = watched(), Scene(3)
    began = scene.clock.at

    start(scene, WATCHED)
    start(unwatched)

    asked = scene.aws.reads.count("alarms")
    assert 5 < asked <= (scene.clock.at - began) / 10 + 2
    assert "alarms" not in unwatched.aws.reads


def test_an_alarm_that_comes_while_the_first_new_instance_is_proven_lets_nothing_be_drained() -> None:
    scene = watched()

    def login(_: Instance) -> Login:
        scene.clock.sleep(60)
        scene.world.alarms["errors"] = ("ALARM", "")
        return Login()

    scene.login = login

    with pytest.raises(RollIncomplete, match="alarm errors is in state ALARM"):
        start(scene, WATCHED)

    assert len(scene.logins) == 1
    assert "set_container_instances_state" not in scene.aws.mutations


def test_an_alarm_that_comes_and_goes_between_two_batches_is_reported() -> None:
    scene = watched()
    scene.when(lambda: len(scene.old) < 3, lambda: scene.world.alarms.update(errors=("INSUFFICIENT_DATA", "")))
    scene.when(lambda: len(scene.old) < 2, lambda: scene.world.alarms.update(errors=("OK", "")))

    said = texts([event for event in start(scene, WATCHED) if event.kind == "alarm"])

    assert said == "alarm errors is in state INSUFFICIENT_DATA\nalarm errors is in state OK"
