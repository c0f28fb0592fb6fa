"""Attempts to make a roll do harm: each is a race, or an answer at the worst moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.kms import Kms
from rackctl.errors import RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene
from tests.fakes.world_aws import RACK
from tests.roll.acts import JOURNAL, assert_given_back, draining_one, refused, start, statuses, stopped, texts
from tests.roll.test_evidence import move_to_cluster

if TYPE_CHECKING:
    from rackctl.model import ContainerInstance


@pytest.mark.parametrize("options", [RollOptions(), RollOptions(surge=0)], ids=["surge", "no surge"])
@pytest.mark.parametrize("number", range(30))
def test_an_answer_with_the_dead_one_of_two_registrations_alone_is_no_evidence(
    number: int, options: RollOptions
) -> None:
    """ECS reports what it could not describe as MISSING: here the registration that lives, once."""
    scene = Scene(2)
    for id_ in scene.old:
        scene.world.befall("registration-failed-twice", id_)
    events = scene.roll.start(options)
    next(events)
    answers = 0

    def without_the_living(name: str, answer: Any) -> Any:
        nonlocal answers
        if name != "describe_container_instances":
            return answer
        answers += 1
        described: list[ContainerInstance] = answer
        return [r for r in described if r.status == "REGISTRATION_FAILED"] if answers == number + 1 else answer

    scene.aws.misreading.append(without_the_living)

    list(events)

    assert answers > number
    assert scene.aws.terminated_busy == []
    assert OLD_KEY not in scene.key_names


def test_tasks_that_were_followed_are_followed_on_when_the_agent_registers_anew_while_it_is_drained() -> None:
    """An agent that has lost its state leaves its tasks behind on a registration that nothing can move them from."""
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    id_, events = draining_one(scene)
    scene.world.befall("re-registered", id_)

    with pytest.raises(RollIncomplete, match=r"a dead registration of .* has tasks"):
        list(events)

    assert scene.aws.terminated_busy == []
    assert scene.draining == []


def test_the_second_of_two_terminations_is_not_decided_by_what_ecs_said_before_a_slow_first_one() -> None:
    """A call and its retries take up to a minute. Meanwhile the other instance returns from standby."""
    scene = Scene(4)
    drained: list[str] = []

    def slow(_: int, name: str, when: str) -> None:
        if (name, when) != ("terminate_instance", "after") or drained:
            return
        [registration] = [r for r in scene.seeded.registrations.values() if r.instance_id in waiting_to_go(scene)]
        drained.append(registration.instance_id)
        scene.world.ecs.set_status(registration, "ACTIVE")
        definition = scene.world.ecs.register_definition(
            {"family": "once", "containerDefinitions": [{"name": "once", "image": "once", "memory": 64}]}
        )
        task = scene.world.ecs.start_task(scene.seeded, definition, registration)
        scene.later(120, lambda: scene.world.ecs.stop_task(scene.seeded, task, "done"))
        scene.clock.sleep(50)

    scene.aws.interfering.append(slow)

    start(scene, RollOptions(batch=2))

    assert drained
    assert scene.aws.terminated_busy == []
    assert_given_back(scene, 4)


def waiting_to_go(scene: Scene) -> list[str]:
    members = scene.group.members
    return [id_ for id_ in scene.draining if id_ in members and not members[id_].is_terminating]


@pytest.mark.parametrize("decrement", [True, False])
def test_what_is_detached_in_the_moment_of_its_termination_takes_tasks_again(decrement: bool) -> None:
    scene = Scene(3)
    detached: list[str] = []

    def detach(_: int, name: str, when: str) -> None:
        if (name, when) == ("terminate_instance", "before") and not detached:
            detached.extend(waiting_to_go(scene))
            scene.world.autoscaling.detach(scene.group, detached[0], decrement=decrement)

    scene.aws.interfering.append(detach)

    events = start(scene)

    assert statuses(scene, detached[0]) == ["ACTIVE"]
    assert f"{detached[0]}: no longer in its group" in texts(events)
    assert f"{detached[0]}: terminating" not in texts(events)
    assert scene.old == detached
    assert scene.desired == (2 if decrement else 3)


def test_an_abort_that_waits_in_vain_for_an_instance_to_register_stops_and_says_so() -> None:
    scene = Scene(3)
    _, events = draining_one(scene)
    stopped(scene, events)
    cluster, registration = scene.world.ecs.registrations_of(scene.old[-1])[0]
    scene.world.ecs.deregister(cluster, registration, force=True)
    scene.clock.sleep(1000)

    with pytest.raises(RollIncomplete, match="not registered with this cluster") as caught:
        list(scene.roll.abort())

    assert "--include-unregistered" in caught.value.hint
    assert JOURNAL in scene.aws.objects
    list(scene.roll.abort(include_unregistered=True))
    assert scene.desired == 3
    assert JOURNAL not in scene.aws.objects


def test_a_new_instance_that_runs_the_tasks_of_another_cluster_is_not_taken_for_surplus() -> None:
    scene = Scene(3)
    scene.world.set_condition("register-elsewhere", "other")
    with pytest.raises(RollIncomplete):
        start(scene, RollOptions(boot_timeout=300))
    [new] = scene.new
    [(cluster, registration)] = scene.world.ecs.registrations_of(new)
    definition = scene.world.ecs.register_definition(
        {"family": "once", "containerDefinitions": [{"name": "once", "image": "once", "memory": 64}]}
    )
    scene.world.ecs.start_task(cluster, definition, registration)

    with pytest.raises(RollIncomplete, match="is registered with cluster other"):
        list(scene.roll.abort())

    assert scene.aws.terminated_busy == []


@pytest.mark.parametrize("call", ["encrypt", "decrypt"])
@pytest.mark.parametrize("code", ["KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException"])
def test_what_kms_cannot_do_at_the_moment_is_tried_again(call: str, code: str) -> None:
    def failing(*_: object, **__: object) -> None:
        raise AwsError("KMS failed", code=code)

    kms = Kms(failing)  # type: ignore[arg-type]
    with pytest.raises(AwsError) as caught:
        getattr(kms, call)(*(("k", b"x") if call == "encrypt" else (b"x",)), {}, what="the key")

    assert not caught.value.refused


@pytest.mark.parametrize("seconds", [60, 200])
def test_a_group_whose_members_are_still_reported_is_not_taken_for_deleted(seconds: float) -> None:
    scene = Scene(3)
    _, events = draining_one(scene)
    until = scene.clock.at + seconds
    scene.aws.misreading.append(lambda name, answer: [] if name == "groups" and scene.clock.at < until else answer)

    if seconds > 120:
        with pytest.raises(RollIncomplete, match="has not described group prod-instances for"):
            list(events)
        scene.aws.misreading.clear()
        events = scene.roll.resume()
    list(events)

    assert scene.old == []
    assert_given_back(scene, 3)


def test_an_abort_leaves_no_key_behind_although_a_hook_holds_the_instance_that_has_it() -> None:
    scene = Scene(3)
    scene.world.set_condition("managed-draining")
    _, events = draining_one(scene)
    stopped(scene, events)

    list(scene.roll.abort())

    assert scene.key_pairs == {OLD_KEY}
    assert_given_back(scene, 3)


def test_an_instance_that_could_not_register_here_and_lives_in_another_cluster_is_refused() -> None:
    """A REGISTRATION_FAILED of this cluster says nothing of the tasks that another cluster has placed there since."""
    scene = Scene(3)
    theirs = scene.old[0]
    scene.world.befall("registration-failed-twice", theirs)
    [failed] = [r for r in scene.seeded.registrations.values() if r.status == "REGISTRATION_FAILED"]
    scene.seeded.registrations.pop(failed.arn)
    move_to_cluster(scene, theirs, "bank")
    scene.seeded.registrations[failed.arn] = failed

    assert f"{theirs} is registered with cluster bank, not with {RACK}" in refused(scene)
