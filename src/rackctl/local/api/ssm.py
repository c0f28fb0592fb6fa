"""Systems Manager's parameters, by which launch templates may name their images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.operations import Asked, Result, Room, Service
from rackctl.local.api.wire_json import JsonProtocol
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.world import World
    from rackctl.local.world.parameters import Parameter


class Parameters(Room["JsonProtocol"]):
    def get_parameter(self, asked: Asked) -> Result:
        found = self.world.parameters.get(asked["Name"])
        if found is None:
            raise Refused("ParameterNotFound", "")
        return {"Parameter": self._document(found)}

    def get_parameters(self, asked: Asked) -> Result:
        names = asked["Names"]
        found = [parameter for name in names if (parameter := self.world.parameters.get(name))]
        known = {parameter.name for parameter in found}
        return {
            "Parameters": [self._document(parameter) for parameter in found],
            "InvalidParameters": [name for name in names if name not in known],
        }

    def put_parameter(self, asked: Asked) -> Result:
        name = asked["Name"]
        if name.lower().startswith(("/aws", "/ssm")):
            raise Refused("AccessDeniedException", f"No access to reserved parameter name: {name}.")
        there = self.world.parameters.get(name)
        if there and not asked.get("Overwrite"):
            raise Refused(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option in the request to "
                "true.",
            )
        made = self.world.parameters.put(name, asked["Value"])
        return {"Version": made.version, "Tier": "Standard"}

    def _document(self, parameter: Parameter) -> Result:
        return {
            "Name": parameter.name,
            "Type": "String",
            "Value": parameter.value,
            "Version": parameter.version,
            "LastModifiedDate": parameter.modified,
            "ARN": f"arn:aws:ssm:{self.world.region}:{self.world.account_id}:parameter/{parameter.name.lstrip('/')}",
            "DataType": "text",
        }


class SsmService(Service):
    def __init__(self, world: World) -> None:
        super().__init__(world, "ssm", JsonProtocol, [Parameters])
