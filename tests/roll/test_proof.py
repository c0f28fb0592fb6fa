"""The proof: nothing is drained before a new instance has accepted the new key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Login, Scene
from tests.roll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    collect,
    start,
    stopped,
    texts,
    until,
)

if TYPE_CHECKING:
    from rackctl.model import Instance
    from rackctl.roll.report import Event


def test_a_new_instance_that_refuses_the_new_key_rolls_back_with_nothing_drained() -> None:
    scene = Scene(3)
    version = scene.template_in_use
    scene.login = lambda _: Login("refused", "Permission denied (publickey)")
    drained: list[str] = []
    scene.clock.watching.append(lambda: drained.extend(set(scene.draining) & set(scene.old)))

    with pytest.raises(
        RackctlError, match=r"refused the new key: Permission denied .* rolled back; nothing is changed"
    ):
        start(scene)

    assert drained == []
    assert scene.template_in_use == version
    assert scene.key_names == [OLD_KEY] * 3
    assert_given_back(scene, 3)


def test_a_login_that_works_only_after_a_while_is_enough() -> None:
    scene = Scene(2)
    answers = [Login("unreachable", "timed out"), Login("refused", "not yet"), Login()]
    scene.login = lambda _: answers.pop(0) if len(answers) > 1 else answers[0]

    start(scene)

    assert_given_back(scene, 2)


def test_a_login_that_takes_longer_than_two_seconds_is_reported_once_while_it_lasts() -> None:
    scene = Scene(2)
    began: list[float] = []

    def login(_: Instance) -> Login | None:
        began.append(scene.clock.monotonic())
        return Login() if began[-1] - began[0] >= 9 else None

    scene.login = login
    events = start(scene)

    (said,) = [event for event in events if "logging in with the new key" in event.message]
    assert (said.kind, said.waits_for) == ("waiting", f"the login to {said.ec2_instance_id}")
    assert said.ec2_instance_id in scene.new
    assert (said.at.timestamp() - began[0]) < 9
    assert_given_back(scene, 2)


def test_an_instance_that_cannot_be_reached_is_reported_and_the_roll_continues() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("unreachable", "no route to host")

    events = start(scene)

    assert "could not be reached from here (no route to host)" in texts(events)
    assert_given_back(scene, 2)


def test_an_instance_that_cannot_be_reached_stops_the_roll_if_ssh_is_required() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("unreachable", "no route to host")

    with pytest.raises(RackctlError, match=r"could not be reached: no route to host.* rolled back; nothing is changed"):
        start(scene, RollOptions(require_ssh=True))

    assert_given_back(scene, 2)


def test_each_login_that_fails_is_reported() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "Permission denied")
    events: list[Event] = []

    with pytest.raises(RackctlError):
        collect(scene.roll.start(DEFAULT), events)

    told = [event.message for event in events if "login refused" in event.message]
    assert told[0].endswith("(Permission denied), attempt 1 of 6")
    assert len(told) == 5


@pytest.mark.parametrize("options", [RollOptions(require_ssh=True), RollOptions(require_ssh=True, surge=0)])
def test_a_group_of_one_is_not_done_before_its_key_is_proven_and_abort_brings_the_old_key_back(
    options: RollOptions,
) -> None:
    scene = Scene(1, max_size=1 if options.extra else 3)
    for service in scene.seeded.services.values():
        service.desired = 0
    scene.clock.sleep(60)
    scene.login = lambda _: Login("refused", "Permission denied")

    with pytest.raises(RollIncomplete, match="refused the new key"):
        start(scene, options)

    assert OLD_KEY in scene.keys.names()
    list(scene.roll.abort())
    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.key_pairs
    assert JOURNAL not in scene.aws.objects


def test_a_refused_key_rolls_back_also_if_the_last_old_instance_vanishes() -> None:
    scene = Scene(1)
    scene.login = lambda _: Login("refused", "Permission denied")
    scene.when(lambda: bool(scene.logins), lambda: scene.later(20, lambda: scene.world.befall("vanish", scene.old[0])))

    with pytest.raises(RackctlError, match=r"refused the new key.* except for 1 of 1 instances"):
        start(scene)

    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.keys.names()


def test_an_abort_does_not_take_a_key_for_proven_because_its_group_was_scaled_to_nothing() -> None:
    scene = Scene(2)
    for service in scene.seeded.services.values():
        service.desired = 0
    events = until(scene, "instance", "new, ")
    stopped(scene, events)
    scene.world.autoscaling.set_desired(scene.group, 0)
    scene.clock.sleep(200)

    list(scene.roll.abort())

    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.keys.names()


def test_another_new_instance_is_proven_if_the_first_vanishes_meanwhile() -> None:
    scene = Scene(3)
    vanished: list[str] = []

    def login(instance: Instance) -> Login:
        if not vanished:
            vanished.append(instance.ec2_instance_id)
            scene.world.befall("vanish", instance.ec2_instance_id)
        gone = instance.ec2_instance_id in vanished
        return Login("unreachable", "no route") if gone else Login()

    scene.login = login

    start(scene, RollOptions(require_ssh=True))

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.desired == 3
