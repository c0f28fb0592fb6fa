"""What somebody has found who tried to make a roll do harm: each is a race, or an answer at the worst moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene
from tests.roll.acts import (
    draining_one,
)

if TYPE_CHECKING:
    from rackctl.model import ContainerInstance


@pytest.mark.parametrize("options", [RollOptions(), RollOptions(surge=False)], ids=["surge", "no surge"])
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
