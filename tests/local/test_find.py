"""`racks find` on the local rack: clusters, their owners, and what each lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackctl.adopt.find import FoundCluster, find_clusters
from rackctl.aws.session import Aws, Credentials
from rackctl.config import Config
from rackctl.errors import NotFound
from rackctl.keys import KeyStore, generate
from rackctl.owners import Owner
from rackctl.rack import Sources
from rackctl.settings import Source
from tests.fakes.clock import FakeClock
from tests.local.door import CLUSTER, GROUP, KEY_ID, SECRET

if TYPE_CHECKING:
    from tests.local.door import Door


@pytest.fixture
def aws(door: Door) -> Aws:
    url = door.client("s3").meta.endpoint_url
    return Aws(region="us-east-1", endpoint_url=url, credentials=Credentials(KEY_ID, SECRET))


NOTHING = Sources({}, {}, Config(Path("/nowhere")), None)


def found(aws: Aws, sources: Sources = NOTHING) -> dict[str, FoundCluster]:
    return {cluster.name: cluster for cluster in find_clusters(aws, lambda c: sources.rack_of(c, aws))}


def tag(door: Door, **tags: str) -> None:
    arn = door.world.ecs.clusters[CLUSTER].arn
    given = [{"key": key.replace("_", "-").replace("--", ":"), "value": value} for key, value in tags.items()]
    door.client("ecs").tag_resource(resourceArn=arn, tags=given)


def test_an_account_without_clusters_has_none(aws: Aws, door: Door) -> None:
    door.world.ecs.clusters.clear()

    assert found(aws) == {}


def test_a_cluster_lacks_bucket_key_and_the_private_key_of_its_instances(aws: Aws, door: Door) -> None:
    for instance in door.world.ec2.instances.values():
        instance.key_name = "ops"

    cluster = found(aws)[CLUSTER]

    assert (cluster.instances, cluster.rack, cluster.owner, cluster.key_names) == (3, CLUSTER, None, ("ops",))
    assert [(g.auto_scaling_group_name, g.instances) for g in cluster.groups] == [(GROUP, 3)]
    assert cluster.lacks == ("a bucket", "a KMS key", "the private key of ops")
    assert not cluster.is_ready


def test_a_cluster_whose_instances_have_no_key_lacks_one(aws: Aws, door: Door) -> None:
    for instance in door.world.ec2.instances.values():
        instance.key_name = ""

    assert "a key on 3 of 3 instances" in found(aws)[CLUSTER].lacks


def test_a_cluster_with_a_store_that_holds_its_keys_lacks_nothing(aws: Aws, door: Door) -> None:
    tag(door, rackctl__bucket=door.bucket, rackctl__kms_key=door.alias)
    for instance in door.world.ec2.instances.values():
        instance.key_name = "ops"
    assert found(aws)[CLUSTER].lacks == ("the private key of ops",)

    cluster = aws.ecs.cluster(CLUSTER)
    KeyStore(NOTHING.rack_of(cluster, aws)).store(generate("ops", created=FakeClock().now()))

    assert found(aws)[CLUSTER].lacks == ()
    assert found(aws)[CLUSTER].is_ready


def test_a_store_that_may_not_be_listed_is_unknown_and_neither_ready_nor_lacking(aws: Aws, door: Door) -> None:
    tag(door, rackctl__bucket=door.bucket, rackctl__kms_key=door.alias)
    for instance in door.world.ec2.instances.values():
        instance.key_name = "ops"
    door.fault("deny", "s3:ListBucket")

    cluster = found(aws)[CLUSTER]

    assert cluster.lacks == ()
    assert "s3:ListBucket" in cluster.unknown[0]
    assert not cluster.is_ready


@pytest.mark.parametrize(
    ("tags", "owner"),
    [
        ({}, None),
        ({"aws:cloudformation:logical-id": "Group"}, None),
        ({"aws:cloudformation:stack-name": "prod"}, Owner("cloudformation", "prod")),
        (
            {"aws:cloudformation:stack-name": "prod", "aws:cloudformation:logical-id": "Group"},
            Owner("cloudformation", "prod"),
        ),
        (
            {"aws:cloudformation:stack-name": "Prod", "aws:cloudformation:logical-id": "ClusterAsgASGEB0386A7"},
            Owner("cdk", "Prod"),
        ),
        ({"aws:cloudformation:stack-name": "prod", "system": "convox", "rack": "prod"}, Owner("convox", "prod")),
        ({"aws:cloudformation:stack-name": "prod", "System": "convox"}, Owner("convox", "prod")),
    ],
)
def test_the_owner_is_the_stack_that_the_group_is_tagged_with(
    aws: Aws, door: Door, tags: dict[str, str], owner: Owner | None
) -> None:
    """CloudFormation tags what is in a stack with aws:cloudformation:stack-name and :logical-id; CDK ends logical ids
    with eight digits of a hash (its guide, identifiers), convox tags its stacks (convox/rack, cmd: system=convox)."""
    door.world.autoscaling.groups[GROUP].tags += [{"Key": key, "Value": value} for key, value in tags.items()]

    cluster = found(aws)[CLUSTER]

    assert cluster.owner == owner
    assert cluster.groups[0].owner == owner


def test_a_convox_rack_goes_by_the_name_of_its_stack_and_has_the_groups_that_are_tagged_so(
    aws: Aws, door: Door
) -> None:
    """convox tags its group and instances Rack=<stack>; its cluster has a generated name."""
    door.world.ecs.clusters[CLUSTER].tags.update({"aws:cloudformation:stack-name": "prod", "system": "convox"})
    group = door.world.autoscaling.groups[GROUP]
    group.tags = [{"Key": "Rack", "Value": "prod", "PropagateAtLaunch": True}]

    cluster = found(aws)[CLUSTER]

    assert (cluster.rack, cluster.owner) == ("prod", Owner("convox", "prod"))
    assert [g.auto_scaling_group_name for g in cluster.groups] == [GROUP]


def test_hundreds_of_clusters_are_described_by_the_hundred_and_no_group_is_claimed_by_two(aws: Aws, door: Door) -> None:
    """ListClusters answers 100 ARNs a page, DescribeClusters takes 100: the API reference of ECS."""
    ecs = door.client("ecs")
    for number in range(250):
        ecs.create_cluster(clusterName=f"c{number:03}")
    before = door.endpoint.calls.since(0)[-1]["number"]

    clusters = found(aws)

    assert sorted(clusters) == [*(f"c{number:03}" for number in range(250)), CLUSTER]
    assert [c.name for c in clusters.values() if c.groups] == [CLUSTER]
    assert clusters["c000"].lacks == ("instances", "a bucket", "a KMS key")
    actions = [call["action"] for call in door.endpoint.calls.since(before)]
    assert actions.count("ListClusters") == actions.count("DescribeClusters") == 3
    # Of clusters without instances, nothing is asked.
    assert actions.count("ListContainerInstances") == 1


def test_a_cluster_of_the_config_file_goes_by_the_name_and_the_settings_that_it_has_there(aws: Aws, door: Door) -> None:
    config = Config(
        Path("/config.toml"),
        "",
        {"other": {}, "mine": {"cluster": CLUSTER, "bucket": door.bucket, "kms_key": door.alias}},
    )

    cluster = found(aws, replace(NOTHING, config=config))[CLUSTER]

    assert cluster.rack == "mine"
    assert "a bucket" not in cluster.lacks
    elsewhere = replace(config, racks={"mine": {"cluster": CLUSTER, "region": "eu-west-1"}})
    assert found(aws, replace(NOTHING, config=elsewhere))[CLUSTER].rack == CLUSTER


def test_options_and_variables_of_the_selected_rack_are_not_taken_for_another_s(aws: Aws, door: Door) -> None:
    sources = replace(NOTHING, options={"bucket": "b", "cluster": "x"}, environment={"RACKCTL_KMS_KEY": "alias/k"})

    assert {"a bucket", "a KMS key"} <= set(found(aws, sources)[CLUSTER].lacks)
    assert sources.rack_of(aws.ecs.cluster(CLUSTER), aws).setting("cluster").origin.source is Source.DEFAULT


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("prod", "did you mean Prod2 or Prod-ClusterEB0386A7-1ABC?"),
        ("stagging", "did you mean staging?"),
        ("STAGING", "did you mean staging?"),
        ("zzz", ""),
    ],
)
def test_a_cluster_that_does_not_exist_names_those_like_it(aws: Aws, door: Door, name: str, near: str) -> None:
    door.world.ecs.clusters.clear()
    for known in ("Prod-ClusterEB0386A7-1ABC", "staging", "Prod2"):
        door.client("ecs").create_cluster(clusterName=known)

    for ask in (lambda: aws.ecs.cluster(name), lambda: list(aws.ecs.container_instance_arns(name))):
        with pytest.raises(NotFound) as caught:
            ask()
        hint = caught.value.hint
        assert "racks find" in hint
        assert ("did you mean" in hint) == bool(near)
        assert near in hint


def test_a_cluster_that_does_not_exist_is_reported_even_if_clusters_may_not_be_listed(aws: Aws, door: Door) -> None:
    door.fault("deny", "ecs:ListClusters")

    with pytest.raises(NotFound, match='no ECS cluster "x"'):
        aws.ecs.cluster("x")
