"""Outdated instances, by the documents of Auto Scaling and EC2."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError, Throttled
from rackctl.errors import AccessDenied
from rackctl.instances import Instances
from rackctl.launches import with_outdated
from rackctl.roll.view import Selection
from tests.fakes.world import Scene, add_group, outdate
from tests.roll.acts import fail_from, start

if TYPE_CHECKING:
    from rackctl.rack_instance import RackInstance


def listed(scene: Scene) -> list[RackInstance]:
    return with_outdated(scene.aws, Instances(scene.rack, scene.clock).list())  # type: ignore[arg-type]


def outdated(scene: Scene) -> dict[str, bool | None]:
    return {i.ec2_instance_id: i.outdated for i in listed(scene) if i.instance and not i.is_terminating}


def test_instances_that_a_replacement_would_replace_are_outdated_and_those_it_launched_are_not() -> None:
    scene = Scene(2)
    assert set(outdated(scene).values()) == {False}

    outdate(scene)

    assert set(outdated(scene).values()) == {True}
    assert {i.ec2_instance_id for i in listed(scene) if i.outdated} == set(scene.old)
    scene.selection = Selection("outdated")
    start(scene)
    scene.clock.sleep(300)
    assert set(outdated(scene).values()) == {False}


def test_groups_are_described_once_and_each_launch_source_once() -> None:
    scene = Scene(3)
    add_group(scene)
    scene.aws.reads.clear()

    assert len(outdated(scene)) == 5
    assert scene.aws.reads.count("groups") == 1
    assert scene.aws.reads.count("launch_template_version") == 2


def test_outdated_is_unknown_for_an_instance_of_no_group_and_one_that_ec2_does_not_describe() -> None:
    scene = outdate(Scene(1))
    (seen,) = Instances(scene.rack, scene.clock).list()
    assert seen.instance
    alone = replace(seen, instance=replace(seen.instance, tags={}))

    found = with_outdated(scene.aws, [alone, replace(seen, instance=None)])  # type: ignore[arg-type]

    assert [i.outdated for i in found] == [None, None]


def forgets_groups(name: str, answer: Any) -> Any:
    return [] if name == "groups" else answer


def test_outdated_is_unknown_if_a_group_or_its_launch_source_does_not_exist() -> None:
    scene = outdate(Scene(2))
    scene.aws.misreading.append(forgets_groups)
    assert set(outdated(scene).values()) == {None}
    scene.aws.misreading.clear()

    gone = AwsError("no such template", code="InvalidLaunchTemplateId.NotFound", refused=True)
    fail_from(scene, "launch_template_version", gone)

    assert set(outdated(scene).values()) == {None}


def test_a_group_that_names_nothing_to_launch_from_makes_it_unknown() -> None:
    scene = Scene(2)
    scene.group.launch_template = None

    assert set(outdated(scene).values()) == {None}


@pytest.mark.parametrize("error", [AccessDenied("no"), Throttled("slow", code="Throttling")])
def test_a_failed_call_is_an_error_and_does_not_make_outdated_unknown(error: Exception) -> None:
    scene = Scene(2)
    fail_from(scene, "launch_template_version", error)

    with pytest.raises(type(error)):
        listed(scene)
