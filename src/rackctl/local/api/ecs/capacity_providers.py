"""ECS's operations on capacity providers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.ecs import documents
from rackctl.local.api.ecs.common import MISSING, invalid, tags_from
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused
from rackctl.local.world.clusters import FARGATE_PROVIDERS, CapacityProvider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World

_MOST = 20  # capacity providers of a cluster
_SWITCHES = ("managedTerminationProtection", "managedDraining")
_SCALING: Mapping[str, Any] = {
    "status": "DISABLED",
    "targetCapacity": 100,
    "minimumScalingStepSize": 1,
    "maximumScalingStepSize": 10000,
    "instanceWarmupPeriod": 300,
}


class CapacityProviders(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs

    def describe_capacity_providers(self, asked: Asked) -> Result:
        """Describe some capacity providers, or all. Those that do not exist are failures."""
        names = [name.rpartition("/")[2] for name in asked.get("capacityProviders", ())]
        if len(names) > 100:
            raise invalid("capacityProviders can have at most 100 items.")
        known = self._ecs.capacity_providers
        limit = asked.get("maxResults", 10)
        if not 1 <= limit <= 10:
            raise invalid("maxResults must be between 1 and 10.")
        found, token = page(
            known.values(),
            order=lambda provider: provider.name,
            asked=asked,
            limit=limit if not names else len(known),
            invalid_token=invalid("Invalid token."),
            token_name="nextToken",  # noqa: S106 - a parameter's name
            matches=lambda provider: not names or provider.name in names,
        )
        tagged = "TAGS" in asked.get("include", ())
        failures = [
            {"arn": self._ecs.arn(f"capacity-provider/{name}"), "reason": MISSING}
            for name in names
            if name not in known
        ]
        answer: Result = {
            "capacityProviders": [documents.capacity_provider(provider, tagged=tagged) for provider in found],
            "failures": failures,
        }
        return {**answer, "nextToken": token} if token else answer

    def create_capacity_provider(self, asked: Asked) -> Result:
        name = asked["name"]
        if not re.fullmatch(r"(?!aws|ecs|fargate)[\w-]{1,255}", name, re.IGNORECASE | re.ASCII):
            raise invalid(
                "The specified capacity provider name is invalid. Up to 255 characters are allowed, including letters, "
                'numbers, underscores, and hyphens. The name cannot be prefixed with "aws", "ecs", or "fargate".'
            )
        if name in self._ecs.capacity_providers:
            raise invalid("A capacity provider with the specified name already exists.")
        given = asked.get("autoScalingGroupProvider")
        if given is None or asked.keys() - {"name", "autoScalingGroupProvider", "tags"}:
            raise invalid("The local rack supports only capacity providers with an autoScalingGroupProvider.")
        group = next((g for g in self.world.autoscaling.groups.values() if g.arn == given["autoScalingGroupArn"]), None)
        if group is None:
            raise invalid("The specified Auto Scaling group ARN is invalid. Specify a valid ARN and try again.")
        if any(p.auto_scaling_group_arn == group.arn for p in self._ecs.capacity_providers.values()):
            raise invalid(
                "The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a "
                "unique Auto Scaling group ARN and try again."
            )
        provider = CapacityProvider(
            self._ecs.arn(f"capacity-provider/{name}"),
            name,
            group.arn,
            dict(_SCALING),
            tags=tags_from(asked),
        )
        _set(provider, given, protected=group.protect_new)
        self._ecs.capacity_providers[name] = provider
        self.world.draining.providers_changed()
        return {"capacityProvider": documents.capacity_provider(provider, tagged=True)}

    def update_capacity_provider(self, asked: Asked) -> Result:
        provider = self._known(asked["name"])
        if provider.auto_scaling_group_arn == "":
            raise invalid("The specified capacity provider is reserved and cannot be updated.")
        groups = self.world.autoscaling.groups.values()
        protected = any(g.protect_new for g in groups if g.arn == provider.auto_scaling_group_arn)
        _set(provider, asked["autoScalingGroupProvider"], protected=protected)
        self.world.draining.providers_changed()
        return {"capacityProvider": documents.capacity_provider(provider, tagged=False)}

    def delete_capacity_provider(self, asked: Asked) -> Result:
        provider = self._known(asked["capacityProvider"].rpartition("/")[2])
        users = [c.name for c in self._ecs.clusters.values() if provider.name in c.capacity_providers]
        if users or provider.name in FARGATE_PROVIDERS:
            raise Refused(
                "ResourceInUseException",
                "The specified capacity provider is in use and cannot be removed."
                if users
                else "The specified capacity provider is reserved and cannot be deleted.",
            )
        del self._ecs.capacity_providers[provider.name]
        provider.status = "INACTIVE"
        return {"capacityProvider": documents.capacity_provider(provider, tagged=False)}

    def put_cluster_capacity_providers(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked["cluster"])
        names = [name.rpartition("/")[2] for name in asked["capacityProviders"]]
        if len(names) > _MOST:
            raise invalid(f"A cluster can have at most {_MOST} capacity providers.")
        for name in names:
            self._known(name)
        strategy = [dict(item) for item in asked["defaultCapacityProviderStrategy"]]
        for item in strategy:
            if item["capacityProvider"] not in names:
                raise invalid(
                    "The specified capacity provider strategy cannot contain a capacity provider that is not "
                    f"associated with the cluster: {item['capacityProvider']}"
                )
        cluster.capacity_providers, cluster.default_strategy = names, strategy
        self.world.draining.providers_changed()
        return {"cluster": documents.cluster(cluster)}

    def _known(self, name: str) -> CapacityProvider:
        found = self._ecs.capacity_providers.get(name)
        if found is None:
            raise invalid(f"The specified capacity provider '{name}' was not found.")
        return found


def _set(provider: CapacityProvider, given: Mapping[str, Any], *, protected: bool) -> None:
    """Change the given settings. Raises Refused for managed termination protection without its requirements."""
    scaling = {**provider.managed_scaling, **given.get("managedScaling", {})}
    switches = {name: given.get(name, provider.switches[name]) for name in _SWITCHES}
    if switches["managedTerminationProtection"] == "ENABLED" and scaling["status"] != "ENABLED":
        raise invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, you must enable managed scaling."
        )
    if switches["managedTerminationProtection"] == "ENABLED" and not protected:
        raise invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, the Auto Scaling group must have instance protection from "
            "scale in enabled."
        )
    provider.managed_scaling, provider.switches = scaling, switches
