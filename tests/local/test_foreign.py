"""`local up --foreign`: a cluster as a CloudFormation stack creates it, without anything of rackctl's."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackctl.instances import Instances
from rackctl.local.state import Options
from tests.local.fast import FastClock
from tests.local_rack import LocalRackProcess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRackProcess]:
    rack = LocalRackProcess(tmp_path_factory.mktemp("foreign"), Options(speed=100.0, foreign=True))
    yield rack
    rack.down()


def test_nothing_of_it_is_rackctl_s(foreign: LocalRackProcess) -> None:
    """By boto3: a cluster without rackctl's tags, no bucket, no KMS key, a key pair with another name."""
    (group,) = foreign.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (cluster,) = foreign.client("ecs").describe_clusters(clusters=[foreign.rack.name], include=["TAGS"])["clusters"]

    assert foreign.rack.name.startswith("Local-ClusterEB0386A7-")
    assert {tag["key"].partition(":")[0] for tag in cluster["tags"]} == {"aws"}
    assert "Rack" not in {tag["Key"] for tag in group["Tags"]}
    assert "aws:cloudformation:stack-name" in {tag["Key"] for tag in group["Tags"]}
    assert group["LaunchTemplate"]["Version"] == "1"
    assert foreign.client("s3").list_buckets()["Buckets"] == []
    aliases = foreign.client("kms").list_aliases()["Aliases"]
    assert [alias for alias in aliases if not alias["AliasName"].startswith("alias/aws/")] == []
    assert [pair["KeyName"] for pair in foreign.client("ec2").describe_key_pairs()["KeyPairs"]] == ["ops"]


def test_its_capacity_provider_scales_and_drains(foreign: LocalRackProcess) -> None:
    """aws-cdk-lib's AsgCapacityProvider: managed scaling, termination protection and draining are on by default."""
    (cluster,) = foreign.client("ecs").describe_clusters(clusters=[foreign.rack.name])["clusters"]
    (provider,) = foreign.client("ecs").describe_capacity_providers(capacityProviders=cluster["capacityProviders"])[
        "capacityProviders"
    ]
    behind = provider["autoScalingGroupProvider"]

    assert behind["managedScaling"]["status"] == "ENABLED"
    assert (behind["managedTerminationProtection"], behind["managedDraining"]) == ("ENABLED", "ENABLED")
    (group,) = foreign.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert group["AutoScalingGroupARN"] == behind["autoScalingGroupArn"]
    assert group["NewInstancesProtectedFromScaleIn"]
    assert {service["running"] for service in foreign.services().values()} == {1, 2, 3}


def test_openssh_logs_in_with_the_key_in_the_file(foreign: LocalRackProcess) -> None:
    key = Path(foreign.description.key_file)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    listed = Instances(foreign.rack, FastClock(foreign.options.speed)).list()
    assert listed[0].instance
    options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(key)]
    proxy = ["-o", f"ProxyCommand={foreign.description.proxy_command}"] if foreign.description.proxy_command else []

    done = subprocess.run(
        ["ssh", *options, *proxy, "-p", foreign.description.ssh_port, f"ec2-user@{listed[0].instance.private_ip}",
         "true"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
