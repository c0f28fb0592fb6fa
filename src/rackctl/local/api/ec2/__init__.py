"""EC2's operations, grouped by subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ec2.instances import Instances
from rackctl.local.api.ec2.key_pairs import KeyPairs
from rackctl.local.api.ec2.networks import Networks
from rackctl.local.api.ec2.tags import Tags
from rackctl.local.api.ec2.templates import LaunchTemplates
from rackctl.local.api.ec2.volumes import Volumes
from rackctl.local.api.operations import Service
from rackctl.local.api.wire_query import Ec2Protocol
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.api.operations import Asked, Result
    from rackctl.local.world import World


class Ec2Service(Service):
    def __init__(self, world: World) -> None:
        rooms = [Instances, KeyPairs, LaunchTemplates, Tags, Networks, Volumes]
        super().__init__(world, "ec2", Ec2Protocol, rooms)

    def call(self, name: str, asked: Asked) -> Result:
        if asked.get("DryRun"):
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        return super().call(name, asked)
