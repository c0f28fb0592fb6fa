"""What goes wrong on purpose with calls and answers, as AWS's own clients meet it over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/local"


def test_a_read_may_be_answered_as_it_was_some_seconds_ago(start_local_rack: Callable[..., LocalRackProcess]) -> None:
    """EC2's guide, eventual consistency: "the result of an API command … might not be immediately visible"."""
    rack = start_local_rack(key=False)
    autoscaling, ecs, ec2 = rack.client("autoscaling"), rack.client("ecs"), rack.client("ec2")
    name = "local-instances"

    def seen() -> tuple[int, int, int]:
        (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        tags = ecs.describe_clusters(clusters=["local"], include=["TAGS"])["clusters"][0]["tags"]
        versions = ec2.describe_launch_template_versions(LaunchTemplateName=name)["LaunchTemplateVersions"]
        return group["MaxSize"], sum(tag["key"] == "new" for tag in tags), len(versions)

    for service in ("autoscaling", "ecs", "ec2"):
        rack.faults.add("late", f"{service}:Describe*", seconds=10000)
    before = seen()
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=9)
    ecs.tag_resource(resourceArn=CLUSTER, tags=[{"key": "new", "value": ""}])
    ec2.create_launch_template_version(
        LaunchTemplateName=name, SourceVersion="1", LaunchTemplateData={"EbsOptimized": True}
    )

    assert seen() == before
    rack.faults.clear()
    assert seen() == (9, 1, 2)


def test_only_the_world_s_own_services_answer_late(local_rack: LocalRackProcess) -> None:
    with pytest.raises(UsageError, match="only answers of ec2, autoscaling and ecs can be late"):
        local_rack.faults.add("late", "s3:GetObject", seconds=5)
