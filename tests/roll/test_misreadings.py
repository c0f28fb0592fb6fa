"""One answer of AWS is wrong: empty, without one item, with one that is foreign, or late; at each call of a roll.

ECS, EC2 and Auto Scaling are eventually consistent, and ECS reports what it could not describe as ``failures``
(MISSING) beside a status of 200. A roll may wait for that or stop, and then `resume` finishes it; it never terminates
what runs tasks, and never leaves anything behind.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.clock import LAG
from rackctl.errors import RackctlError
from rackctl.model import AutoScalingGroup, ContainerInstance, Instance
from tests.fakes.world import Scene, outdate
from tests.roll.acts import EACH, JOURNAL, assert_given_back, start

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("empty", "incomplete", "foreign", "late")


ROLLS: dict[str, Callable[[], Scene]] = {"key": lambda: Scene(2), "outdated": lambda: outdate(Scene(2))}


def calls() -> list[tuple[str, str, int]]:
    """Name what a roll asks from its plan on, each with its number among the calls of its name."""
    found = []
    for reason, make in ROLLS.items():
        scene = make()
        start(scene)
        asked = sorted(Counter(scene.aws.reads).items())
        found += [(reason, name, n) for name, count in asked for n in range(0, count, EACH)]
    return found


def wrong(kind: str, answer: Any, before: Any) -> Any:
    """Return another answer in the place of one; the same where there is none of this kind."""
    if kind == "late":
        return answer if before is None else before
    if isinstance(answer, dict):
        return {} if kind == "empty" else dict(list(answer.items())[1:]) if kind == "incomplete" else answer
    if isinstance(answer, str):
        return "" if kind == "empty" else answer
    if not isinstance(answer, list):
        return answer
    if kind == "empty":
        return []
    return answer[1:] if kind == "incomplete" else [*answer, *map(foreign, answer[:1])]


def foreign(item: Any) -> Any:
    """Turn an item into one of another rack, or of none."""
    match item:
        case AutoScalingGroup():
            return replace(item, auto_scaling_group_name="theirs", auto_scaling_group_arn="arn:theirs", tags={})
        case Instance():
            return replace(item, ec2_instance_id="i-0f0f0f0f0f0f0f0f0")
        case ContainerInstance():
            return replace(item, ec2_instance_id="i-0f0f0f0f0f0f0f0f0", container_instance_arn="arn:theirs")
        case list():
            return item
        case str():
            return f"{item}0"
        case _:
            return item


def misread_once(scene: Scene, name: str, number: int, kind: str) -> list[str]:
    """Have one call answered wrongly; the list says whether it has been."""
    done: list[str] = []
    seen = 0
    before: Any = None
    before_at = scene.clock.at

    def misread(called: str, answer: Any) -> Any:
        nonlocal seen, before, before_at
        if called != name:
            return answer
        listed = list(answer) if hasattr(answer, "__next__") else answer
        if scene.clock.at - before_at > LAG:
            before = None  # AWS is not behind by so much
        seen += 1
        given = wrong(kind, listed, before) if seen - 1 == number else listed
        if seen - 1 == number:
            done.append(name)
        before, before_at = listed, scene.clock.at
        return iter(given) if hasattr(answer, "__next__") else given

    scene.aws.misreading.append(misread)
    return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reason", "name", "number"), calls())
def test_one_wrong_answer_costs_no_task_no_capacity_and_leaves_nothing_behind(
    reason: str, name: str, number: int, kind: str
) -> None:
    scene = ROLLS[reason]()
    done = misread_once(scene, name, number, kind)

    # It may stop, or refuse: what counts is what it leaves.
    with suppress(RackctlError):
        start(scene)
    assert done
    if JOURNAL in scene.aws.objects:
        list(scene.roll.resume())
    elif scene.old:
        start(scene)

    assert scene.aws.terminated_busy == []
    assert scene.old == []
    assert_given_back(scene, 2)


def test_the_observer_sees_that_an_instance_was_terminated_with_its_tasks() -> None:
    # Without this, nothing above could fail for it.
    scene = ROLLS["key"]()

    scene.aws.terminate_instance(scene.old[0], decrement_desired_capacity=False)

    assert scene.aws.terminated_busy
