"""Injected faults of calls and answers, through boto3 over HTTP."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest
import urllib3.exceptions
from botocore.exceptions import ClientError

from rackctl.local.faults import KINDS
from rackctl.local.world.base import Refused
from rackctl.local.world.conditions import CONDITIONS, INCIDENTS
from tests.local.door import CLUSTER, GROUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local.door import Door


def code(act: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        act()
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# Answers that are late


def test_late_answers_a_read_with_the_state_of_some_seconds_ago(door: Door) -> None:
    """EC2's guide, eventual consistency: a change "might not be immediately visible to all subsequent commands"."""
    autoscaling, ecs, ec2 = door.client("autoscaling"), door.client("ecs"), door.client("ec2")
    arn = door.arns()[0]

    def seen() -> tuple[int, str, int]:
        (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        described = ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[arn])
        versions = ec2.describe_launch_template_versions(LaunchTemplateName=GROUP)["LaunchTemplateVersions"]
        return group["MaxSize"], described["containerInstances"][0]["status"], len(versions)

    for service in ("autoscaling", "ecs", "ec2"):
        door.fault("late", f"{service}:Describe*", seconds=20)
    before = seen()
    door.pass_time(10)
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=9)
    ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[arn], status="DRAINING")
    ec2.create_launch_template_version(LaunchTemplateName=GROUP, LaunchTemplateData={"KeyName": "k"})

    assert seen() == before
    door.pass_time(15)
    assert seen() == before
    door.pass_time(6)
    assert seen() == (9, "DRAINING", 2)


def test_a_late_fault_with_a_count_of_one_affects_one_call(door: Door) -> None:
    autoscaling = door.client("autoscaling")
    door.fault("late", "autoscaling:Describe*", seconds=1000, count=1)
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=9)

    sizes = [autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]["MaxSize"] for _ in range(2)]

    assert sizes == [5, 9]


def test_only_ec2_auto_scaling_and_ecs_can_be_late(door: Door) -> None:
    with pytest.raises(Refused, match="only answers of ec2, autoscaling and ecs can be late"):
        door.fault("late", "s3:GetObject", seconds=5)


# Answers that are not the whole truth

EMPTY: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
    "ecs:ListContainerInstances":
        ("ecs", lambda c: c.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]),
    "ecs:ListServices": ("ecs", lambda c: c.list_services(cluster=CLUSTER)["serviceArns"]),
    "ecs:ListTasks": ("ecs", lambda c: c.list_tasks(cluster=CLUSTER)["taskArns"]),
    "ecs:DescribeClusters": ("ecs", lambda c: c.describe_clusters(clusters=[CLUSTER])["clusters"]),
    "ec2:DescribeInstances": ("ec2", lambda c: c.describe_instances()["Reservations"]),
    "ec2:DescribeKeyPairs": ("ec2", lambda c: c.describe_key_pairs()["KeyPairs"]),
    "ec2:DescribeLaunchTemplates": ("ec2", lambda c: c.describe_launch_templates()["LaunchTemplates"]),
    "autoscaling:DescribeAutoScalingGroups":
        ("autoscaling", lambda c: c.describe_auto_scaling_groups()["AutoScalingGroups"]),
    "kms:ListAliases": ("kms", lambda c: c.list_aliases()["Aliases"]),
}  # fmt: skip


@pytest.mark.parametrize("call", EMPTY)
def test_empty_with_a_count_empties_that_many_answers(door: Door, call: str) -> None:
    door.world.ec2.import_key_pair(
        "k", b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKDfqTd6JfxpmXMbmOZNXAgYkDpFm8tV7oZLSYdOR6rA", {}
    )
    service, ask = EMPTY[call]
    client = door.client(service)
    door.fault("empty", call, count=2)

    answers = [bool(ask(client)) for _ in range(3)]

    assert answers == [False, False, True]


def test_incomplete_leaves_one_item_out_of_a_describe(door: Door) -> None:
    """ECS's API, failures: "MISSING" is its reason for what it does not find."""
    ecs, arns = door.client("ecs"), door.arns()
    door.fault("incomplete", "ecs:DescribeContainerInstances", which=arns[1], count=1)

    answer = ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)

    found = [document["containerInstanceArn"] for document in answer["containerInstances"]]
    assert found == [arns[0], arns[2]]
    assert answer["failures"] == [{"arn": arns[1], "reason": "MISSING"}]
    assert not ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)["failures"]


def test_incomplete_leaves_out_the_first_item_of_a_list_or_the_named_one(door: Door) -> None:
    ecs, arns = door.client("ecs"), door.arns()

    def listed() -> list[str]:
        found: list[str] = ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
        return found

    door.fault("incomplete", "ecs:ListContainerInstances", count=1)
    door.fault("incomplete", "ecs:ListContainerInstances", which=arns[2], skip=1)

    assert [listed(), listed()] == [arns[1:], arns[:2]]


def test_incomplete_leaves_out_a_nested_item(door: Door) -> None:
    id_ = next(iter(door.world.autoscaling.groups[GROUP].members))
    autoscaling, ec2 = door.client("autoscaling"), door.client("ec2")
    door.fault("incomplete", "autoscaling:DescribeAutoScalingGroups", which=id_)
    door.fault("incomplete", "ec2:DescribeInstances", which=id_)

    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    reservations = ec2.describe_instances()["Reservations"]

    assert (len(group["Instances"]), group["DesiredCapacity"]) == (2, 3)
    assert len(reservations) == 2
    assert id_ not in str([group["Instances"], reservations])


@pytest.mark.parametrize("service", ["ec2", "ecs", "autoscaling", "s3"])
def test_same_token_answers_with_the_first_page_endlessly(door: Door, service: str) -> None:
    client = door.client(service)
    pages: dict[str, Callable[[], Any]] = {
        "ec2": lambda: client.get_paginator("describe_instances").paginate(),
        "ecs": lambda: client.get_paginator("list_container_instances").paginate(cluster=CLUSTER),
        "autoscaling": lambda: client.get_paginator("describe_auto_scaling_groups").paginate(),
        "s3": lambda: client.get_paginator("list_objects_v2").paginate(Bucket=door.bucket),
    }
    assert len(list(pages[service]())) == 1
    door.fault("same-token", f"{service}:*")

    # botocore's paginator is the witness: it sees that the token was there before.
    with pytest.raises(botocore.exceptions.PaginationError, match="same next token"):
        list(pages[service]())


def test_incomplete_leaves_objects_out_of_a_list_of_s3(door: Door) -> None:
    s3 = door.client("s3")
    for key in ("keys/a", "keys/b"):
        s3.put_object(Bucket=door.bucket, Key=key, Body=b"")

    def listed() -> list[str]:
        answer = s3.list_objects_v2(Bucket=door.bucket)
        assert answer["KeyCount"] == len(answer.get("Contents", []))
        return [found["Key"] for found in answer.get("Contents", [])]

    door.fault("incomplete", "s3:ListObjectsV2", which="keys/b", count=1)
    door.fault("empty", "s3:ListObjectsV2", count=1, skip=1)

    assert [listed(), listed(), listed()] == [["keys/a"], [], ["keys/a", "keys/b"]]


# Answers that did not come whole, or from AWS


def get(door: Door) -> Any:
    return door.client("s3").get_object(Bucket=door.bucket, Key="x")["Body"].read()


def test_cut_sends_half_of_the_body(door: Door) -> None:
    """RFC 9112, section 8: a message whose body is shorter than its Content-Length is incomplete."""
    door.client("s3").put_object(Bucket=door.bucket, Key="x", Body=b"0123456789")
    door.fault("cut", "s3:GetObject", count=1)

    with pytest.raises((botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError)):
        get(door)
    assert get(door) == b"0123456789"


def read(client: Any, service: str) -> dict[str, Any]:
    operation = {
        "ec2": "describe_instances",
        "autoscaling": "describe_auto_scaling_groups",
        "ecs": "list_clusters",
        "kms": "list_keys",
    }[service]
    answer: dict[str, Any] = getattr(client, operation)()
    return answer


# botocore reads a document to the end of the connection, however long it should have been.
SPOILED: dict[str, tuple[int, Callable[[bytes, bytes], bool]]] = {
    "cut": (200, lambda whole, came: 0 < len(came) < len(whole)),
    "truncate": (200, lambda whole, came: 0 < len(came) < len(whole)),
    "html": (200, lambda _, came: came.startswith(b"<!DOCTYPE html>")),
    "object": (200, lambda _, came: came == b"{}"),
    "null": (200, lambda _, came: came == b"null"),
    "blank": (200, lambda _, came: came == b""),
    "garbage": (200, lambda _, came: len(came) == 256 and not came.isascii()),
    "no-content": (204, lambda _, came: came == b""),
}


@pytest.mark.parametrize("service", ["ec2", "autoscaling", "ecs", "kms"])
@pytest.mark.parametrize("kind", SPOILED)
def test_an_answer_may_be_replaced_by_one_that_is_not_aws_s(door: Door, service: str, kind: str) -> None:
    status, fits = SPOILED[kind]
    whole = raw(door, service)["body"]
    door.fault(kind, f"{service}:*")

    came = raw(door, service)

    assert came["status_code"] == status
    assert fits(whole, came["body"])
    assert (int(came["headers"].get("content-length", 0)) == len(whole)) == (kind == "cut")


def raw(door: Door, service: str) -> dict[str, Any]:
    """Return an answer as botocore has received it, before it is parsed."""
    client = door.client(service)
    found: list[dict[str, Any]] = []

    def keep(response_dict: dict[str, Any], **_: object) -> None:
        found.append(dict(response_dict))

    client.meta.events.register("before-parse", keep)
    with suppress(Exception):  # what botocore makes of it is not what is tested
        read(client, service)
    return found[0]


def test_gzip_junk_has_the_header_of_gzip_and_another_body(door: Door) -> None:
    door.fault("gzip-junk", "ecs:*")

    came = raw(door, "ecs")

    assert came["headers"]["content-encoding"] == "gzip"
    assert came["body"][:2] != b"\x1f\x8b"


def test_two_dates_sends_the_header_date_twice(door: Door) -> None:
    door.fault("two-dates", "ecs:ListClusters")

    answer = door.client("ecs").list_clusters()

    assert answer["ResponseMetadata"]["HTTPHeaders"]["date"].count("GMT") == 2


def test_drip_sends_the_answer_byte_by_byte(door: Door) -> None:
    """Each byte comes in time, so that only a deadline over the whole answer ends it."""
    door.fault("drip", "ecs:ListClusters", seconds=0.002)
    whole = door.client("ecs").list_clusters()["clusterArns"]
    door.endpoint.faults.clear()

    assert whole == door.client("ecs").list_clusters()["clusterArns"]


def test_a_caller_that_hangs_up_ends_a_drip(door: Door) -> None:
    door.fault("drip", "ecs:ListClusters", seconds=30)

    with pytest.raises((botocore.exceptions.HTTPClientError, urllib3.exceptions.HTTPError)):
        door.client("ecs", read_timeout=0.2).list_clusters()


# Errors


def test_conflict_affects_conditional_requests_only(door: Door) -> None:
    """PutObject, IfNoneMatch: "If a conflicting operation occurs during the upload S3 returns a 409 …"."""
    s3 = door.client("s3")
    door.fault("conflict", "s3:*", count=2)

    def put(**condition: str) -> Any:
        return s3.put_object(Bucket=door.bucket, Key="x", Body=b"", **condition)

    etag = put()["ETag"]
    assert code(lambda: put(IfMatch=etag)) == ("ConditionalRequestConflict", 409)
    assert code(lambda: put(IfNoneMatch="*")) == ("ConditionalRequestConflict", 409)
    put(IfMatch=etag)


@pytest.mark.parametrize(
    ("name", "status"), [("ResourceContention", 500), ("ScalingActivityInProgress", 400), ("Whatever", 500)]
)
@pytest.mark.parametrize("action", ["UpdateAutoScalingGroup", "SuspendProcesses", "ResumeProcesses"])
def test_an_error_has_the_status_that_the_service_s_model_gives_it(
    door: Door, action: str, name: str, status: int
) -> None:
    """Auto Scaling's model: ResourceContentionFault is a 500, ScalingActivityInProgressFault a 400."""
    autoscaling = door.client("autoscaling")
    door.fault("error", f"autoscaling:{action}", code=name)
    calls = {
        "UpdateAutoScalingGroup": autoscaling.update_auto_scaling_group,
        "SuspendProcesses": autoscaling.suspend_processes,
        "ResumeProcesses": autoscaling.resume_processes,
    }

    assert code(lambda: calls[action](AutoScalingGroupName=GROUP)) == (name, status)


def test_the_docs_name_every_fault() -> None:
    text = (Path(__file__).parents[2] / "docs" / "local-rack.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9-]+)[^`]*`", text.partition("\n## Faults\n")[2].partition("\n## ")[0]))

    assert {*KINDS, *CONDITIONS, *INCIDENTS} <= named
