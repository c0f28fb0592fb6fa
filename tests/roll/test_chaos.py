"""A roll is cut off at each call that changes something, before and after it takes effect; then resumed, or aborted.

The calls are those that a whole roll made, so that a new call is covered automatically. Here AWS is a
model in memory; tests/local/test_keyroll_chaos.py does the same to a process and a server.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.keys import generate
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, START, Scene, add_group, mixed, name_version, outdate, replacing
from tests.roll.acts import EACH, JOURNAL, assert_given_back, run_until_killed, start

if TYPE_CHECKING:
    from collections.abc import Callable

# Of these only the beginning is special: the calls that make and take back template versions.
BEGINNINGS = {"shared template", "mixed policy"}
_BEGINNING = 16


def shared_template() -> Scene:
    """Make a rack of two groups that name one template in two ways, which are two versions."""
    scene = Scene(2)
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-newer"}, source="1")
    name_version(scene, "$Latest")
    add_group(scene, instances=1).launch_template["Version"] = "$Default"
    return scene


def mixed_policy() -> Scene:
    scene = Scene(2)
    mixed(scene)
    return scene


def late_key_pairs() -> Scene:
    scene = Scene(2, key_name="ops")
    scene.world.set_condition("key-pairs-late", "12")
    return scene


def configured() -> Scene:
    """Make a rack whose group launches from a launch configuration, which cannot be changed."""
    scene = Scene(2, key_name="ops")
    data = {**scene.template.versions[1].data, "LaunchConfigurationName": "old-style"}
    scene.world.autoscaling.launch_configurations["old-style"] = data
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"
    scene.world.ec2.templates.clear()
    return scene


def both_ways() -> Scene:
    """Make a rack of two groups, one with a key name of rackctl's and one with another name."""
    scene = Scene(2)
    theirs = generate("ops", created=START)
    scene.world.ec2.import_key_pair("ops", theirs.public_key.encode(), {})
    scene.keys.store(theirs)
    data = {**scene.template.versions[1].data, "KeyName": "ops"}
    template = scene.world.ec2.create_template("prod-theirs", data, {})
    specification = {"LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": "prod-theirs"}
    add_group(scene, instances=2, specification={**specification, "Version": "$Latest"})
    return scene


SCENES: dict[str, tuple[Callable[[], Scene], RollOptions]] = {
    "surge": (lambda: Scene(3), RollOptions()),
    "batch": (lambda: Scene(5), RollOptions(batch=2)),
    "full": (lambda: Scene(3, max_size=3), RollOptions()),
    "shared template": (shared_template, RollOptions()),
    "mixed policy": (mixed_policy, RollOptions()),
    "outdated": (lambda: outdate(Scene(3)), RollOptions()),
    "outdated, full": (lambda: outdate(Scene(3, max_size=3)), RollOptions()),
    "kept name": (lambda: Scene(3, key_name="ops"), RollOptions()),
    "kept name, full": (lambda: Scene(3, max_size=3, key_name="ops"), RollOptions(batch=2)),
    "kept name, late": (late_key_pairs, RollOptions()),
    "kept name of a configuration": (configured, RollOptions()),
    "both ways": (both_ways, RollOptions()),
    "all": (lambda: replacing(Scene(3), "all"), RollOptions(batch=2)),
    "ids": (lambda: replacing(Scene(3), "ids"), RollOptions()),
}


def whole_roll(name: str) -> list[tuple[str, int, str, str]]:
    """Roll, and return what came before and after each change; after one that AWS has refused comes nothing."""
    make, options = SCENES[name]
    scene = make()
    moments: list[tuple[str, int, str, str]] = []
    made = len(scene.aws.mutations)
    scene.aws.interfering.append(lambda number, call, moment: moments.append((name, number - made, call, moment)))
    start(scene, options)
    return [m for m in moments if 0 <= m[1] < (_BEGINNING if name in BEGINNINGS else math.inf)]


@cache  # the rolls take a second each, for every worker
def points() -> list[tuple[str, int, str, str]]:
    return [point for name in SCENES for point in whole_roll(name)][::EACH]


@pytest.mark.parametrize(("name", "number", "call", "moment"), points())
def test_resume_finishes_a_roll_that_was_killed(name: str, number: int, call: str, moment: str) -> None:
    make, options = SCENES[name]
    scene = make()
    capacity = scene.desired
    assert run_until_killed(scene, lambda: start(scene, options), number, moment)
    begun = JOURNAL in scene.aws.objects
    scene.clock.sleep(400)

    status = scene.roll.status()
    assert (status is not None) == begun
    if begun:
        list(scene.roll.resume())
        assert scene.old == []

    assert_given_back(scene, capacity)


@pytest.mark.parametrize(("name", "number", "call", "moment"), points())
def test_abort_gives_back_a_rack_whose_roll_was_killed(name: str, number: int, call: str, moment: str) -> None:
    make, options = SCENES[name]
    scene = make()
    capacity, templates = scene.desired, scene.templates
    run_until_killed(scene, lambda: start(scene, options), number, moment)
    scene.clock.sleep(400)

    if JOURNAL in scene.aws.objects:
        some_old = bool(scene.old)
        list(scene.roll.abort())
        if some_old:
            assert scene.templates == templates

    assert_given_back(scene, capacity)


@pytest.mark.parametrize("seed", range(60))
def test_a_roll_that_is_killed_again_and_again_is_finished_or_given_back_all_the_same(seed: int) -> None:
    chance = random.Random(seed)
    make, options = SCENES[chance.choice(sorted(SCENES))]
    scene = make()
    capacity = scene.desired
    run_until_killed(scene, lambda: start(scene, options), chance.randrange(2, 50), "after")
    for _ in range(chance.randrange(1, 5)):
        scene.clock.sleep(400)
        if JOURNAL not in scene.aws.objects:
            break
        aborting = scene.roll.status().journal.phase == "aborting"  # type: ignore[union-attr]
        way = scene.roll.abort if aborting or chance.random() < 0.3 else scene.roll.resume
        run_until_killed(scene, lambda way=way: list(way()), chance.randrange(30), chance.choice(["before", "after"]))  # type: ignore[misc]
    scene.clock.sleep(400)
    if (status := scene.roll.status()) is not None:
        list((scene.roll.abort if status.journal.phase == "aborting" else scene.roll.resume)())

    assert_given_back(scene, capacity)


def calls_of_a_roll() -> list[tuple[str, str, int]]:
    """Name what a roll asks once it has begun, each with how often it does."""
    found = []
    for name in ("surge", "outdated"):
        scene = SCENES[name][0]()
        events = scene.roll.start(RollOptions(), scene.selection)
        next(events)
        scene.aws.reads.clear()
        list(events)
        found += [(name, call, times) for call, times in sorted(Counter(scene.aws.reads).items())]
    return found


@pytest.mark.parametrize("from_the", ["first", "middle", "last"])
@pytest.mark.parametrize(("name", "call", "times"), calls_of_a_roll())
def test_a_minute_without_an_answer_to_a_question_is_waited_out(
    name: str, call: str, times: int, from_the: str
) -> None:
    scene = SCENES[name][0]()
    events = scene.roll.start(RollOptions(), scene.selection)
    next(events)
    left = {"first": 0, "middle": times // 2, "last": times - 1}[from_the]
    began: list[float] = []

    def interfere(_: int, asked: str, __: str) -> None:
        nonlocal left
        if asked != call:
            return
        left -= 1
        if left < 0:
            began.append(scene.clock.at)
            if scene.clock.at < began[0] + 60:
                raise AwsError(f"AWS failed at {call}", code="InternalFailure")

    scene.aws.interfering.append(interfere)

    list(events)

    assert began
    assert scene.old == []
    assert_given_back(scene, 3)


def test_the_observer_sees_a_broken_promise() -> None:
    # Without this, nothing above could fail for a service that dips.
    scene = Scene(3)
    victim = next(i for i in scene.old)
    scene.world.autoscaling.terminate(victim, decrement=False)
    other = next(i for i in scene.old if i != victim)
    scene.world.autoscaling.terminate(other, decrement=False)

    scene.clock.sleep(5)

    assert scene.broken_promises
    assert OLD_KEY in scene.key_names
