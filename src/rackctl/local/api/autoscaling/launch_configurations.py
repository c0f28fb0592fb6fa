"""Auto Scaling's operations on launch configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, page_size
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World


class LaunchConfigurations(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def create_launch_configuration(self, asked: Asked) -> Result:
        name = asked["LaunchConfigurationName"]
        if name in self._scaling.launch_configurations:
            raise Refused(
                "AlreadyExists",
                "Launch Configuration by this name already exists - A launch configuration already exists with the "
                f"name {name}",
            )
        if "ImageId" not in asked or "InstanceType" not in asked:
            raise validation_error("Valid requests must contain the ImageId and InstanceType parameters.")
        key_name = asked.get("KeyName")
        if key_name and key_name not in self.world.ec2.key_pairs:
            raise validation_error(f"The key pair '{key_name}' does not exist")
        self._scaling.launch_configurations[name] = {
            **asked,
            "LaunchConfigurationARN": f"arn:aws:autoscaling:{self.world.region}:{self.world.account_id}"
            f":launchConfiguration:{self.world.ids.uuid()}:launchConfigurationName/{name}",
            "CreatedTime": self.world.now,
        }
        return {}

    def describe_launch_configurations(self, asked: Asked) -> Result:
        names = set(asked.get("LaunchConfigurationNames", ()))
        found, token = page(
            self._scaling.launch_configurations.values(),
            order=lambda configuration: configuration["LaunchConfigurationName"],
            asked=asked,
            limit=page_size(asked, 50, 100),
            invalid_token=INVALID_TOKEN,
            matches=lambda configuration: not names or configuration["LaunchConfigurationName"] in names,
        )
        empty: Result = {"KernelId": "", "RamdiskId": "", "KeyName": "", "UserData": "", "SecurityGroups": []}
        return {"LaunchConfigurations": [{**empty, **configuration} for configuration in found], "NextToken": token}

    def delete_launch_configuration(self, asked: Asked) -> Result:
        name = asked["LaunchConfigurationName"]
        if name not in self._scaling.launch_configurations:
            raise validation_error(f"Launch configuration name not found - Launch configuration {name} not found")
        for group in self._scaling.groups.values():
            if group.launch_configuration == name:
                raise Refused(
                    "ResourceInUse",
                    f"Cannot delete launch configuration {name} because it is attached to AutoScalingGroup "
                    f"{group.name}",
                )
        del self._scaling.launch_configurations[name]
        return {}
