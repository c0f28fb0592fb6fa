"""CloudWatch's alarms and a roll by an instance refresh: Auto Scaling itself evaluates them."""

from __future__ import annotations

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene, name_version
from tests.roll.acts import (
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    refresh_of,
    refused,
    start,
    with_managed_draining,
)

WATCHED = RollOptions(engine="refresh", alarms=("errors",))


def quiet(instances: int = 3) -> Scene:
    scene = with_managed_draining(instances)
    scene.world.alarms = {"errors": ("OK", "")}
    return scene


def test_the_alarms_are_passed_on_and_rolled_back_for_where_that_can_be() -> None:
    scene = quiet()

    start(scene, WATCHED)

    asked = refresh_of(scene).preferences
    assert asked["AlarmSpecification"] == {"Alarms": ["errors"]}
    assert asked["AutoRollback"] is True
    assert_given_back(scene, 3)


@pytest.mark.parametrize("why", ["$Latest", "parameter"])
def test_auto_rollback_is_not_asked_for_where_auto_scaling_cannot_roll_back(why: str) -> None:
    """AutoRollback in Auto Scaling's model: "not supported" with $Latest, $Default or a parameter."""
    scene = quiet()
    if why == "parameter":
        scene.world.parameters.put("/ops/ami", "ami-0aaaaaaaaaaaaaaaa")
        scene.world.ec2.add_version(scene.template, {"ImageId": "resolve:ssm:/ops/ami"}, source="1")
    name_version(scene, "2" if why == "parameter" else why)
    assert "Auto Scaling cannot roll back an instance refresh" in str(scene.roll.plan(WATCHED).warnings)

    start(scene, WATCHED)

    assert refresh_of(scene).preferences["AutoRollback"] is False
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 3)


def test_an_alarm_rolls_back_the_refresh_and_with_it_the_roll() -> None:
    scene = quiet(4)
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.alarms.update(errors=("ALARM", "too many")))

    with pytest.raises(RackctlError, match=r"rolled back by Auto Scaling.*alarm errors is in state ALARM: too many"):
        start(scene, WATCHED)

    assert refresh_of(scene).status == "RollbackSuccessful"
    assert set(scene.key_names) == {OLD_KEY}
    assert_given_back(scene, 4)


def test_an_alarm_while_nobody_watches_is_told_by_status_and_ended_by_abort() -> None:
    scene = quiet(4)
    list(scene.roll.start(WATCHED, detach=True))
    scene.clock.sleep(150)
    scene.world.alarms["errors"] = ("ALARM", "too many")
    scene.clock.sleep(900)

    status = scene.roll.status()
    assert status
    assert status.groups[0].refresh
    assert status.groups[0].refresh.status == "RollbackSuccessful"
    assert "too many" in status.groups[0].refresh.status_reason
    assert set(scene.key_names) == {OLD_KEY}
    list(scene.roll.abort())
    assert_given_back(scene, 4)


def test_an_alarm_leaves_what_cannot_be_rolled_back() -> None:
    scene = quiet(4)
    name_version(scene, "$Latest")
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.alarms.update(errors=("ALARM", "too many")))

    with pytest.raises(RollIncomplete, match=r"failed: CloudWatch alarm errors is in state ALARM"):
        start(scene, WATCHED)

    assert JOURNAL in scene.aws.objects
    scene.world.alarms["errors"] = ("OK", "")
    list(scene.roll.resume())
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 4)


@pytest.mark.parametrize("state", ["ALARM", "INSUFFICIENT_DATA"])
def test_an_alarm_that_is_not_ok_refuses_the_roll(state: str) -> None:
    scene = quiet()
    scene.world.alarms["errors"] = (state, "")

    assert "alarm errors" in refused(scene, WATCHED)


def test_more_alarms_than_a_refresh_takes_are_refused() -> None:
    scene = quiet()
    scene.world.alarms |= {f"alarm-{n}": ("OK", "") for n in range(11)}

    said = refused(scene, RollOptions(engine="refresh", alarms=tuple(f"alarm-{n}" for n in range(11))))

    assert "takes 10 alarms at most, not 11" in said
