"""ECS's capacity providers, and which of them a cluster has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import refusal

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def group_arn(rack: Rack) -> str:
    groups = rack.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    return str(groups[0]["AutoScalingGroupARN"])


def created(rack: Rack, name: str = "spot", **provider: Any) -> dict[str, Any]:
    answer = rack.ecs.create_capacity_provider(
        name=name, autoScalingGroupProvider={"autoScalingGroupArn": group_arn(rack), **provider}
    )
    found: dict[str, Any] = answer["capacityProvider"]
    return found


def test_a_capacity_provider_is_described_with_its_group_and_managed_settings(seeded: Rack) -> None:
    """ECS's model, AutoScalingGroupProvider: autoScalingGroupArn, managedScaling, managedTerminationProtection, …"""
    created(seeded, managedScaling={"status": "ENABLED", "targetCapacity": 90}, managedDraining="DISABLED")

    answer = seeded.ecs.describe_capacity_providers(capacityProviders=["spot"])

    assert answer["failures"] == []
    assert answer["capacityProviders"][0]["status"] == "ACTIVE"
    assert answer["capacityProviders"][0]["autoScalingGroupProvider"] == {
        "autoScalingGroupArn": group_arn(seeded),
        "managedScaling": {
            "status": "ENABLED",
            "targetCapacity": 90,
            "minimumScalingStepSize": 1,
            "maximumScalingStepSize": 10000,
            "instanceWarmupPeriod": 300,
        },
        "managedTerminationProtection": "DISABLED",
        "managedDraining": "DISABLED",
    }


def test_every_account_has_the_capacity_providers_of_fargate(seeded: Rack) -> None:
    """ECS's guide: "The Fargate and Fargate Spot capacity providers don't need to be created"."""
    providers = seeded.ecs.describe_capacity_providers()["capacityProviders"]

    assert [provider["name"] for provider in providers] == ["FARGATE", "FARGATE_SPOT"]
    assert "autoScalingGroupProvider" not in providers[0]


def test_a_capacity_provider_that_does_not_exist_is_a_failure(seeded: Rack) -> None:
    answer = seeded.ecs.describe_capacity_providers(capacityProviders=["FARGATE", "none"])

    assert [provider["name"] for provider in answer["capacityProviders"]] == ["FARGATE"]
    assert [(failure["arn"].rpartition("/")[2], failure["reason"]) for failure in answer["failures"]] == [
        ("none", "MISSING")
    ]


def test_a_cluster_names_its_capacity_providers_and_its_arn(seeded: Rack) -> None:
    created(seeded)
    seeded.ecs.put_cluster_capacity_providers(
        cluster="rack",
        capacityProviders=["spot", "FARGATE"],
        defaultCapacityProviderStrategy=[{"capacityProvider": "spot", "weight": 1}],
    )

    cluster = seeded.ecs.describe_clusters(clusters=["rack"])["clusters"][0]

    assert cluster["capacityProviders"] == ["spot", "FARGATE"]
    assert cluster["defaultCapacityProviderStrategy"][0]["capacityProvider"] == "spot"
    assert cluster["clusterArn"] == "arn:aws:ecs:us-east-1:123456789012:cluster/rack"


def test_a_group_has_one_capacity_provider(seeded: Rack) -> None:
    created(seeded)

    assert "already being used" in refusal(created, rack=seeded, name="second")[1]


@pytest.mark.parametrize("name", ["aws-x", "ECS2", "fargate_x", "a b"])
def test_a_name_that_a_capacity_provider_may_not_have_is_refused(seeded: Rack, name: str) -> None:
    """CreateCapacityProvider, name: "The name can't be prefixed with "aws", "ecs", or "fargate"."."""
    assert refusal(created, rack=seeded, name=name)[0] == "InvalidParameterException"


def test_managed_termination_protection_needs_managed_scaling_and_protected_instances(seeded: Rack) -> None:
    """AutoScalingGroupProvider: "When using managed termination protection, managed scaling must also be used"."""
    protection = {"managedTerminationProtection": "ENABLED"}
    assert "managed scaling" in refusal(created, rack=seeded, **protection)[1]

    protection["managedScaling"] = {"status": "ENABLED"}  # type: ignore[assignment]
    assert "protection from scale in" in refusal(created, rack=seeded, **protection)[1]

    seeded.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName="rack-instances", NewInstancesProtectedFromScaleIn=True
    )
    assert created(seeded, **protection)["autoScalingGroupProvider"]["managedTerminationProtection"] == "ENABLED"


def test_a_capacity_provider_in_use_is_not_deleted(seeded: Rack) -> None:
    """DeleteCapacityProvider: "you must … remove the capacity provider from the cluster" first."""
    created(seeded)
    use: Any = {"cluster": "rack", "defaultCapacityProviderStrategy": []}
    seeded.ecs.put_cluster_capacity_providers(capacityProviders=["spot"], **use)
    assert refusal(seeded.ecs.delete_capacity_provider, capacityProvider="spot")[0] == "ResourceInUseException"

    seeded.ecs.put_cluster_capacity_providers(capacityProviders=[], **use)
    seeded.ecs.delete_capacity_provider(capacityProvider="spot")

    assert seeded.ecs.describe_capacity_providers(capacityProviders=["spot"])["failures"][0]["reason"] == "MISSING"


def test_an_update_of_a_capacity_provider_changes_only_the_given_settings(seeded: Rack) -> None:
    created(seeded)

    seeded.ecs.update_capacity_provider(name="spot", autoScalingGroupProvider={"managedDraining": "DISABLED"})

    provider = seeded.ecs.describe_capacity_providers(capacityProviders=["spot"])["capacityProviders"][0]
    assert provider["autoScalingGroupProvider"]["managedDraining"] == "DISABLED"
    assert provider["autoScalingGroupProvider"]["managedScaling"]["status"] == "DISABLED"
