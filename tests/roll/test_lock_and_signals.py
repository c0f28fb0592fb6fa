"""One roll at a time, and its way out: a stop, a lost lock, and the commands that continue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound, RackctlError, RollIncomplete
from rackctl.roll.hold import RollStopped
from rackctl.roll.lock import JournalLost, Lock
from rackctl.roll.plan import PlanRefused
from rackctl.roll.view import RollOptions
from tests.fakes.world import Login, Scene
from tests.roll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    fail_from,
    run_until_killed,
    start,
    stopped,
    until,
)


def test_of_two_rolls_begun_in_the_same_second_one_continues_and_the_other_names_the_holder() -> None:
    scene = Scene(2)
    first, second = scene.roll.start(DEFAULT), scene.roll.start(DEFAULT)
    next(first)

    with pytest.raises(PlanRefused, match=r"holds the keyroll of rack \"prod\", started at 2026-01-02T03:04:35Z"):
        next(second)

    list(first)
    assert_given_back(scene, 2)


def test_of_two_rolls_that_both_saw_no_journal_only_one_writes_it() -> None:
    scene = Scene(2)
    real, winner = scene.aws.create, scene.roll.start(DEFAULT)

    def create(bucket: str, key: str, body: bytes) -> str | None:
        # The other one gets in between the look and the write.
        scene.aws.create = real  # type: ignore[method-assign]
        next(winner)
        return real(bucket, key, body)  # type: ignore[no-any-return]

    scene.aws.create = create  # type: ignore[method-assign]

    with pytest.raises(PlanRefused, match="holds the keyroll"):
        start(scene)

    list(winner)


def test_a_dead_roll_is_taken_over_by_resume_only() -> None:
    scene = Scene(2)
    run_until_killed(scene, lambda: start(scene), 8, "after")

    with pytest.raises(RackctlError, match=r"holds the keyroll .* last heartbeat 0 s ago"):
        list(scene.roll.resume())
    scene.clock.sleep(301)
    with pytest.raises(PlanRefused, match="has not been finished") as caught:
        start(scene)

    assert "keyroll resume" in caught.value.hint
    list(scene.roll.resume())
    assert_given_back(scene, 2)


def test_a_roll_that_has_lost_its_journal_does_nothing_more() -> None:
    scene = Scene(2)
    events = scene.roll.start(DEFAULT)
    for event in events:
        if event.kind == "surge":
            break
    scene.roll.unlock(force=True)
    before = list(scene.aws.mutations)

    with pytest.raises(JournalLost, match="it was unlocked"):
        list(events)

    assert set(scene.aws.mutations[len(before) :]) <= {"replace"}
    list(scene.roll.resume())
    assert_given_back(scene, 2)


def test_unlock_leaves_a_live_roll_alone_unless_forced() -> None:
    scene = Scene(2)
    with pytest.raises(NotFound):
        scene.roll.unlock()
    next(scene.roll.start(DEFAULT))

    with pytest.raises(RackctlError, match="last heartbeat"):
        scene.roll.unlock()
    scene.roll.unlock(force=True)

    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]


def test_a_heartbeat_shows_that_a_waiting_roll_is_running() -> None:
    scene = Scene(2)
    silent: list[float] = []

    def watch() -> None:
        if JOURNAL in scene.aws.objects:
            found = Lock(scene.rack, scene.clock).read()
            assert found
            silent.append(found.silent_for)

    scene.clock.watching.append(watch)
    scene.world.set_condition("slow-boot", "5")

    start(scene)

    assert max(silent) < 40


def test_a_roll_that_was_unlocked_names_who_unlocked_it() -> None:
    scene = Scene(2)
    next(scene.roll.start(DEFAULT))

    found = scene.roll.unlock(force=True)

    assert found.journal.owner
    status = scene.roll.status()
    assert status
    assert status.journal.problem.startswith("it was unlocked by ")


def test_unlocking_a_roll_that_no_process_holds_keeps_the_reason_why_it_stopped() -> None:
    scene = Scene(2)
    events = scene.roll.start(DEFAULT)
    next(events)
    stopped(scene, events)

    assert scene.roll.unlock().journal.owner is None
    status = scene.roll.status()
    assert status
    assert status.journal.problem == "stopped by SIGINT (Ctrl-C)"


def test_a_stop_leaves_everything_running_and_names_the_commands_that_continue() -> None:
    scene = Scene(3)
    scene.when(lambda: bool(scene.draining), lambda: setattr(scene.stop, "signal", 15))

    with pytest.raises(RollStopped, match=r"stopped by SIGTERM. Replaced 0 of 3 instances") as caught:
        start(scene)

    assert caught.value.exit_code == 143
    assert "keyroll resume --rack prod" in caught.value.hint
    assert scene.draining == []
    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]
    scene.stop.signal = 0
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_stop_before_the_roll_has_begun_changes_nothing() -> None:
    scene = Scene(2)
    scene.stop.signal = 2

    with pytest.raises(RollStopped, match="before anything was changed"):
        start(scene)

    assert scene.aws.mutations == []


def test_resume_takes_other_options() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    with pytest.raises(RollIncomplete):
        start(scene, RollOptions(drain_timeout=60))

    list(scene.roll.resume(force=True, drain_timeout=30.0))

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 3


def test_a_roll_that_is_being_aborted_cannot_be_resumed() -> None:
    scene = Scene(3)
    run_until_killed(scene, lambda: start(scene), 20, "before")
    scene.clock.sleep(400)
    assert run_until_killed(scene, lambda: list(scene.roll.abort()), 2, "after")
    scene.clock.sleep(400)

    with pytest.raises(RackctlError, match="being aborted"):
        list(scene.roll.resume())
    assert scene.roll.status().journal.phase == "aborting"  # type: ignore[union-attr]
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_resume_abort_and_unlock_say_when_there_is_nothing_to_do() -> None:
    scene = Scene(1)

    for act in (scene.roll.resume, scene.roll.abort):
        with pytest.raises(NotFound, match="there is no roll"):
            list(act())
    assert scene.roll.status() is None


def test_a_process_that_lost_the_roll_and_is_stopped_leaves_draining_what_the_new_holder_drains() -> None:
    scene = Scene(3)
    lost = until(scene, "instance", "draining")
    scene.roll.unlock(force=True)
    holder = scene.roll.resume()
    next(event for event in holder if "draining" in event.message)
    drained = scene.draining
    assert drained

    scene.stop.signal = 2
    with pytest.raises(JournalLost, match="was taken from this process"):
        list(lost)
    scene.stop.signal = 0

    assert scene.draining == drained
    list(holder)
    assert_given_back(scene, 3)


def test_a_roll_that_waits_for_a_scaling_activity_changes_nothing_once_another_process_holds_it() -> None:
    scene = Scene(3)
    busy = [True]

    def interfere(_: int, call: str, when: str) -> None:
        if (call, when) == ("set_desired_capacity", "before") and busy:
            raise AwsError("busy", code="ScalingActivityInProgress")

    def another() -> None:
        busy.clear()
        scene.roll.unlock(force=True)
        list(scene.roll.abort())

    scene.aws.interfering.append(interfere)
    scene.when(lambda: "suspend_processes" in scene.aws.mutations, another)

    with pytest.raises(JournalLost, match="the roll has stopped"):
        start(scene)

    assert_given_back(scene, 3)


@pytest.mark.parametrize("at", range(3, 24, 3))
def test_a_journal_whose_writes_are_done_but_not_answered_for_half_a_minute_stays_with_the_roll(at: int) -> None:
    scene = Scene(3)
    writes, began = [0], [0.0]

    def interfere(_: int, call: str, when: str) -> None:
        if (call, when) != ("replace", "after"):
            return
        writes[0] += 1
        began[0] = began[0] or (scene.clock.at if writes[0] == at else 0.0)
        if began[0] and scene.clock.at < began[0] + 30:
            raise AwsError("S3 does not answer", code="")

    scene.aws.interfering.append(interfere)

    start(scene)

    assert_given_back(scene, 3)


def test_a_roll_that_is_stopped_while_it_waits_for_aws_knows_what_was_done_before() -> None:
    scene = Scene(3)
    stopped(scene, until(scene, "instance", "terminating"))
    scene.clock.sleep(90)
    scene.aws.objects[JOURNAL] = replace(scene.aws.objects[JOURNAL], last_modified=scene.clock.now())
    events = scene.roll.resume()
    next(event for event in events if "waiting" in event.message)
    scene.stop.signal = 15

    with pytest.raises(RollStopped, match="Replaced 1 of 3 instances"):
        list(events)


def test_a_stop_says_what_of_the_rack_is_changed_until_it_continues() -> None:
    scene = Scene(3)
    scene.when(lambda: bool(scene.draining), lambda: setattr(scene.stop, "signal", 2))

    with pytest.raises(RollStopped, match=r"stopped by SIGINT \(Ctrl-C\)") as caught:
        start(scene)

    assert (
        "until you resume or abort, group prod-instances keeps desired capacity 4 (was 3), keeps AZRebalance "
        "suspended, launches with the new key"
    ) in caught.value.hint


def test_an_error_in_rackctl_itself_leaves_everything_running() -> None:
    scene = Scene(3)

    def broken(_: object) -> Login:
        raise ZeroDivisionError

    scene.login = broken
    with pytest.raises(ZeroDivisionError):
        start(scene)

    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]


def test_an_error_in_rackctl_itself_while_rolling_back_leaves_the_roll_to_resume_or_abort() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "no")
    fail_from(scene, "delete_launch_template_versions", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        start(scene)

    scene.aws.interfering.clear()
    list(scene.roll.abort())
    assert_given_back(scene, 2)
