"""The APIs of EC2, Auto Scaling, ECS, IAM's simulation and Systems Manager's parameters, answered from a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackctl.local.api.autoscaling import AutoScalingService
from rackctl.local.api.ec2 import Ec2Service
from rackctl.local.api.ecs import EcsService
from rackctl.local.api.iam import IamService
from rackctl.local.api.past import Past
from rackctl.local.api.ssm import SsmService
from rackctl.local.api.wire import Answer
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackctl.local.api.iam import Decide
    from rackctl.local.api.operations import Asked, Service
    from rackctl.local.api.twists import Twist
    from rackctl.local.iam_policy import Need
    from rackctl.local.world import World

__all__ = ["Answer", "Api"]

# Operations with these names change nothing.
_READS = ("Describe", "Get", "List", "Simulate")


class Api:
    """Answers the requests of AWS clients from a world. The caller advances the world's time and holds its lock.

    ``decide`` returns IAM's decision on an action.
    """

    SERVICES: Final = frozenset({"ec2", "autoscaling", "ecs", "iam", "ssm"})

    def __init__(self, world: World, decide: Decide = lambda _: ("allowed", [])) -> None:
        self.world = world
        self.decide = decide
        self.past = Past(world)
        self._services: dict[str, Service] = {
            "ec2": Ec2Service(world),
            "autoscaling": AutoScalingService(world),
            "ecs": EcsService(world),
            "iam": IamService(world, self._decided),
            "ssm": SsmService(world),
        }

    def _decided(self, need: Need) -> tuple[str, list[str]]:
        return self.decide(need)

    def operations(self, service: str) -> frozenset[str]:
        """Return the names of a service's operations."""
        return frozenset(self._services[service].protocol.model.operation_names)

    def action_of(self, service: str, headers: Mapping[str, str], body: bytes) -> str:
        """Return the name of a request's operation; empty if it is not known."""
        return self._services[service].protocol.action(_lower(headers), body)

    @staticmethod
    def is_read(action: str) -> bool:
        return action.startswith(_READS)

    def parameters(self, service: str, headers: Mapping[str, str], body: bytes) -> Asked:
        """Return a request's parameters; none if they do not fit the model."""
        protocol = self._services[service].protocol
        try:
            return protocol.read(protocol.action(_lower(headers), body), body)[1]
        except Refused:
            return {}

    def as_of(self, seconds: float) -> Api:
        """Return the API of the world as it was a number of AWS's seconds ago."""
        return Api(self.past.as_of(seconds))

    def respond(self, service: str, headers: Mapping[str, str], body: bytes, twists: Sequence[Twist] = ()) -> Answer:
        """Carry out a request; return the response, which may be an error response."""
        operations = self._services[service]
        protocol = operations.protocol
        action = protocol.action(_lower(headers), body)
        try:
            operation, asked = protocol.read(action, body)
            parameters: Asked = asked
            for twist in twists:
                parameters = twist.parameters(parameters)
            result = operations.call(action, parameters)
            for twist in twists:
                result = twist.result(result, operation.output_shape.members if operation.output_shape else {})
        except Refused as refused:
            return protocol.refuse(refused)
        if not self.is_read(action):
            self.world.changed()
        return protocol.answer(operation, result)

    def refuse(self, service: str, refused: Refused) -> Answer:
        """Return an error response in the service's format."""
        return self._services[service].protocol.refuse(refused)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
