"""The list's field *outdated*: when AWS is called for it, and the note if that is not permitted."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.errors import AccessDenied
from rackctl.instances import Instances
from tests.fakes.world import Scene, outdate
from tests.roll.acts import fail_from

ASKED = {"groups", "launch_template_version"}


def typed(scene: Scene, *words: str) -> Result:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    invocation.clock, invocation.rack = scene.clock, scene.rack
    invocation.instances = Instances(scene.rack, scene.clock)
    return CliRunner().invoke(cli, ["instances", *words], obj=invocation)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-o", "id"),
        ("--filter", "age>60", "--sort", "image_id"),
        ("--columns", "id,launch_template_version,image_id,age"),
        ("-o", "json", "--columns", "id,launch_template_version"),
        ("-o", "csv", "--columns", "id"),
    ],
)
def test_the_groups_launches_are_not_read_if_outdated_is_not_needed(words: tuple[str, ...]) -> None:
    scene = Scene(2)
    scene.aws.reads.clear()

    assert typed(scene, *words).exit_code == 0
    assert ASKED & set(scene.aws.reads) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("-o", "wide"),
        ("-o", "json"),
        ("-o", "csv"),
        ("--filter", "outdated=true"),
        ("-o", "id", "--filter", "outdated!=false"),
        ("--sort", "-outdated"),
        ("--columns", "id,outdated"),
    ],
)
def test_the_groups_launches_are_read_if_outdated_is_shown_or_named(words: tuple[str, ...]) -> None:
    scene = Scene(2)
    scene.aws.reads.clear()

    assert typed(scene, *words).exit_code == 0
    assert set(scene.aws.reads) >= ASKED


def test_outdated_instances_are_selected_and_shown() -> None:
    scene = outdate(Scene(2))

    assert typed(scene, "-o", "id", "--filter", "outdated=true").stdout.split() == sorted(scene.old)
    assert typed(scene, "-o", "id", "--filter", "outdated=false").stdout == ""
    assert typed(scene, "--columns", "id,outdated").stdout.splitlines() == [
        "ID                   OUTDATED",
        *(f"{id_}  yes" for id_ in sorted(scene.old)),
    ]
    (one, _) = json.loads(typed(scene, "-o", "json").stdout)
    assert (one["outdated"], one["launch_template_version"]) == (True, 1)
    assert one["image_id"].startswith("ami-")


def test_without_the_permission_to_read_launches_the_list_has_all_other_fields_unless_outdated_is_named() -> None:
    scene = Scene(2)
    fail_from(scene, "groups", AccessDenied("AWS denied autoscaling:DescribeAutoScalingGroups"))

    shown = typed(scene, "-o", "json")

    assert shown.exit_code == 0
    assert [i["outdated"] for i in json.loads(shown.stdout)] == [None, None]
    assert shown.stderr == (
        "rackctl: could not see which instances are outdated: AWS denied autoscaling:DescribeAutoScalingGroups\n"
    )
    for words in (("--filter", "outdated=true"), ("--sort", "outdated"), ("--columns", "outdated")):
        asked = typed(scene, *words)
        assert (asked.exit_code, asked.stdout) == (4, "")


def test_show_says_that_an_instance_is_outdated() -> None:
    scene = outdate(Scene(1))
    (id_,) = scene.old

    assert "version 1 (outdated)" in typed(scene, "show", id_).stdout
    assert json.loads(typed(scene, "show", "-o", "json", id_).stdout)["outdated"] is True
    fail_from(scene, "launch_template_version", AccessDenied("AWS denied ec2:DescribeLaunchTemplateVersions"))
    result = typed(scene, "show", id_)
    assert result.exit_code == 0
    assert "(outdated)" not in result.stdout
    assert "AWS denied ec2:DescribeLaunchTemplateVersions" in result.stderr
