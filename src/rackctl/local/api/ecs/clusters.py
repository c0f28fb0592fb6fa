"""ECS's operations on clusters and tags."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rackctl.local.api.ecs import documents
from rackctl.local.api.ecs.common import MISSING, check_at_most, check_supported, invalid, listed, tags_from
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World
    from rackctl.local.world.clusters import Tags


class Clusters(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs

    def list_clusters(self, asked: Asked) -> Result:
        return listed("clusterArns", [(c.arn, c.arn) for c in self._ecs.clusters.values()], asked)

    def describe_clusters(self, asked: Asked) -> Result:
        check_at_most(asked, "clusters", 100)
        include = frozenset(asked.get("include", ()))
        found, failures = [], []
        for name in asked.get("clusters") or ["default"]:
            try:
                found.append(documents.cluster(self._ecs.cluster(name), include))
            except Refused:
                arn = name if name.startswith("arn:") else self._ecs.arn(f"cluster/{name}")
                failures.append({"arn": arn, "reason": MISSING})
        return {"clusters": found, "failures": failures}

    def create_cluster(self, asked: Asked) -> Result:
        check_supported(asked, "clusterName", "tags")
        name = asked.get("clusterName", "default")
        if not re.fullmatch(r"[a-zA-Z][\w-]{0,254}", name):
            raise invalid("Invalid identifier: Identifier is for cluster. Your input: " + name)
        cluster = self._ecs.create_cluster(name, tags_from(asked))
        return {"cluster": documents.cluster(cluster, frozenset({"TAGS"}))}

    def list_tags_for_resource(self, asked: Asked) -> Result:
        return {"tags": documents.tag_documents(self._tags_of(asked["resourceArn"]))}

    def tag_resource(self, asked: Asked) -> Result:
        tags = self._tags_of(asked["resourceArn"])
        given = tags_from(asked)
        if len({**tags, **given}) > 50:
            raise invalid("Tags can have at most 50 items.")
        tags.update(given)
        return {}

    def untag_resource(self, asked: Asked) -> Result:
        tags = self._tags_of(asked["resourceArn"])
        for key in asked["tagKeys"]:
            tags.pop(key, None)
        return {}

    def _tags_of(self, arn: str) -> Tags:
        match arn.rpartition(":")[2].split("/"):
            case ["cluster", name]:
                return self._ecs.cluster(name).tags
            case ["container-instance", name, _] if arn in self._ecs.cluster(name).registrations:
                return self._ecs.cluster(name).registrations[arn].tags
            case ["service", name, service] if service in self._ecs.cluster(name).services:
                return self._ecs.cluster(name).services[service].tags
            case ["capacity-provider", name] if name in self._ecs.capacity_providers:
                return self._ecs.capacity_providers[name].tags
            case _:
                raise invalid(f"The specified resource has no tags here, or does not exist: {arn}")
