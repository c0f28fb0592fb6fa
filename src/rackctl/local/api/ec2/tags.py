"""EC2's operations on tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ec2.common import INVALID_TOKEN, page_size, refuse_reserved
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room, tags_from
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused

_MOST_TAGS = 50

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World


class Tags(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2

    def create_tags(self, asked: Asked) -> Result:
        given = tags_from(asked["Tags"])
        refuse_reserved(given)
        for tags in [self._ec2.tags_of(resource) for resource in asked["Resources"]]:
            if sum(not key.startswith("aws:") for key in {**tags, **given}) > _MOST_TAGS:
                raise Refused("TagLimitExceeded", f"The maximum number of Tags for a resource is {_MOST_TAGS}.")
            tags.update(given)
        return {}

    def delete_tags(self, asked: Asked) -> Result:
        """Delete tags by key, or by key and value; without either, all except AWS's own."""
        for tags in [self._ec2.tags_of(resource) for resource in asked["Resources"]]:
            given = asked.get("Tags") or [{"Key": key} for key in tags if not key.startswith("aws:")]
            refuse_reserved(tag["Key"] for tag in given)
            for tag in given:
                if "Value" not in tag or tags.get(tag["Key"]) == tag["Value"]:
                    tags.pop(tag["Key"], None)
        return {}

    def describe_tags(self, asked: Asked) -> Result:
        tagged: list[tuple[str, str, Mapping[str, str]]] = [
            *(("instance", i.instance_id, i.tags) for i in self._ec2.instances.values()),
            *(("key-pair", p.key_pair_id, p.tags) for p in self._ec2.key_pairs.values()),
            *(("launch-template", t.launch_template_id, t.tags) for t in self._ec2.templates.values()),
        ]
        tags = [(kind, id_, key, value) for kind, id_, tags in tagged for key, value in tags.items()]
        values: dict[str, Callable[[tuple[str, str, str, str]], Iterable[str]]] = {
            "resource-type": lambda tag: [tag[0]],
            "resource-id": lambda tag: [tag[1]],
            "key": lambda tag: [tag[2]],
            "value": lambda tag: [tag[3]],
        }
        found, token = page(
            tags,
            order=lambda tag: [tag[1], tag[2]],
            asked=asked,
            limit=page_size(asked, 5, 1000),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values),
        )
        return {
            "Tags": [
                {"ResourceType": kind, "ResourceId": id_, "Key": key, "Value": value} for kind, id_, key, value in found
            ],
            "NextToken": token,
        }
