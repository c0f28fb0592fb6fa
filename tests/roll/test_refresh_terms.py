"""The preferences of an instance refresh, as tables of values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rackctl.launches import LaunchSource
from rackctl.model import AutoScalingGroup, LaunchTemplateRef
from rackctl.roll.journal import GroupRecord, TemplateRecord
from rackctl.roll.refresh_terms import (
    is_as_asked,
    matches_launch,
    new_versions,
    preferences,
    skips_matching,
    takes_configuration,
)
from rackctl.roll.view import KEYROLL, RollOptions, Selection

REF = LaunchTemplateRef("lt-1", "hosts", "3")
GROUP = AutoScalingGroup("group", 0, 20, 10, launch_template=REF)
RECORD = GroupRecord("group", "arn", 10, 10, templates=[TemplateRecord("lt-1", "hosts", "3", 3, "old", 3, made=4)])
BY_ATTRIBUTES = replace(GROUP, mixed_instances_policy={"LaunchTemplate": {"Overrides": [{"InstanceRequirements": {}}]}})
CONFIGURED = AutoScalingGroup("group", 0, 20, 10, launch_configuration_name="hosts")


def named(version: str) -> AutoScalingGroup:
    return replace(GROUP, launch_template=replace(REF, version=version))


@pytest.mark.parametrize(
    ("desired", "options", "most"),
    [
        (10, RollOptions(), 100),
        (10, RollOptions(batch=2), 120),
        (3, RollOptions(batch=2), 167),
        (10, RollOptions(batch=1, surge=3), 130),
        (2, RollOptions(batch=5), 200),
    ],
)
def test_a_group_may_grow_by_the_surge(desired: int, options: RollOptions, most: int) -> None:
    """RefreshPreferences: "the difference between them cannot be greater than 100"; 100 and 100 is one at a time."""
    asked = preferences(replace(GROUP, desired_capacity=desired), options, skips=True, rolls_back=True)

    assert (asked["MinHealthyPercentage"], asked["MaxHealthyPercentage"]) == (100, most)


def test_a_single_instance_has_no_checkpoint_before_it() -> None:
    asked = preferences(replace(GROUP, desired_capacity=1), RollOptions(), skips=True, rolls_back=True)

    assert {"CheckpointPercentages", "CheckpointDelay"}.isdisjoint(asked)


@pytest.mark.parametrize(
    ("group", "takes"),
    [(GROUP, True), (named("$Latest"), False), (named("$Default"), False), (BY_ATTRIBUTES, False), (CONFIGURED, False)],
)
def test_only_numbered_versions_are_left_to_the_refresh(group: AutoScalingGroup, takes: bool) -> None:
    assert takes_configuration(group) is takes
    assert new_versions(group, RECORD) == ({REF: "4"} if takes else {})


def test_a_group_that_names_the_new_version_has_nothing_to_be_configured() -> None:
    assert new_versions(named("4"), RECORD) == {}


@pytest.mark.parametrize(
    ("group", "record", "selection", "skips"),
    [
        (GROUP, RECORD, KEYROLL, True),
        (GROUP, replace(RECORD, key_names=["ops"]), KEYROLL, False),
        (GROUP, RECORD, Selection("outdated"), True),
        (GROUP, RECORD, Selection("all"), False),
        (BY_ATTRIBUTES, RECORD, KEYROLL, False),
        (CONFIGURED, RECORD, Selection("outdated"), False),
    ],
)
def test_what_matches_is_skipped_where_the_launch_changes(
    group: AutoScalingGroup, record: GroupRecord, selection: Selection, skips: bool
) -> None:
    """A key that is kept under its name changes no launch: then all match, and all have to be replaced."""
    assert skips_matching(group, record, selection) is skips


def test_an_image_alone_does_not_keep_an_instance_from_matching() -> None:
    launches = [LaunchSource("lt-1", 3, image_id="ami-2")]

    assert matches_launch(LaunchSource("lt-1", 3, image_id="ami-1"), launches)
    assert not matches_launch(LaunchSource("lt-1", 2, image_id="ami-2"), launches)
    assert not matches_launch(None, launches)


@pytest.mark.parametrize(
    ("described", "same"),
    [
        ({"a": 1, "b": {"c": [1, 2]}, "added": True}, True),
        ({"a": 1, "b": {"c": [1, 2], "added": 3}}, True),
        ({"a": 1, "b": {"c": [1, 2, 3]}}, False),
        ({"a": 2, "b": {"c": [1, 2]}}, False),
        ({"a": 1}, False),
        (None, False),
    ],
)
def test_what_aws_adds_to_what_was_asked_for_makes_no_difference(described: Any, same: bool) -> None:
    assert is_as_asked(described, {"a": 1, "b": {"c": [1, 2]}}) is same
