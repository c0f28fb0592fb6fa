"""Auto Scaling's operations on tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.local.api.autoscaling.common import GROUP, INVALID_TOKEN, page_size, put_tags, tag_document
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World
    from rackctl.local.world.groups import Group


class Tags(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def create_or_update_tags(self, asked: Asked) -> Result:
        for tag in asked["Tags"]:
            put_tags(self._tagged(tag), [tag])
        return {}

    def delete_tags(self, asked: Asked) -> Result:
        for tag in asked["Tags"]:
            group = self._tagged(tag)
            group.tags = [have for have in group.tags if have["Key"] != tag["Key"]]
        return {}

    def _tagged(self, tag: Mapping[str, Any]) -> Group:
        if tag.get("ResourceType", GROUP) != GROUP or "ResourceId" not in tag:
            raise validation_error(f"Tags need a ResourceId, and {GROUP} as their ResourceType.")
        return self._scaling.get(tag["ResourceId"])

    def describe_tags(self, asked: Asked) -> Result:
        values: dict[str, Callable[[Result], Iterable[str]]] = {
            GROUP: lambda tag: [tag["ResourceId"]],
            "key": lambda tag: [tag["Key"]],
            "value": lambda tag: [tag["Value"]],
            "propagate-at-launch": lambda tag: [str(tag["PropagateAtLaunch"]).lower()],
        }
        found, token = page(
            [tag_document(tag, group) for group in self._scaling.groups.values() for tag in group.tags],
            order=lambda tag: [tag["ResourceId"], tag["Key"]],
            asked=asked,
            limit=page_size(asked, 50, 100),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values, wildcards=False),
        )
        return {"Tags": found, "NextToken": token}
