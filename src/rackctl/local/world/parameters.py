"""Systems Manager's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.base import Commons

# AWS's parameter for the recommended image of container instances.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/retrieve-ecs-optimized_AMI.html
RECOMMENDED = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"


@dataclass(frozen=True)
class Parameter:
    name: str
    value: str
    version: int
    modified: float


class Parameters:
    """Parameters by name, each with its newest version only."""

    def __init__(self, world: Commons, values: Mapping[str, str]) -> None:
        self._world = world
        self._named = {name: Parameter(name, value, 1, world.now) for name, value in values.items()}

    def get(self, name: str) -> Parameter | None:
        return self._named.get(name)

    def put(self, name: str, value: str) -> Parameter:
        """Write a parameter, as a new version if it exists."""
        before = self._named.get(name)
        self._named[name] = Parameter(name, value, before.version + 1 if before else 1, self._world.now)
        self._world.changed()
        return self._named[name]

    def resolve(self, image_id: str) -> str:
        """Return the image of ``resolve:ssm:NAME``; any other image unchanged. Raises Refused for no parameter."""
        name = image_id.removeprefix("resolve:ssm:")
        if name == image_id:
            return image_id
        found = self._named.get(name)
        if found is None:
            raise Refused("InvalidParameterValue", f"The Systems Manager parameter {name} does not exist.")
        return found.value
