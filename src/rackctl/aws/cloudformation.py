"""CloudFormation: the resources of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError

if TYPE_CHECKING:
    from rackctl.aws.client import Client


@dataclass(frozen=True, slots=True)
class StackResource:
    physical_resource_id: str
    resource_type: str


class CloudFormation:
    def __init__(self, call: Client) -> None:
        self._call = call

    def resource(self, stack_name: str, logical_resource_id: str) -> StackResource | None:
        """Describe a resource of a stack; None if there is no such stack, or it has no such resource."""
        try:
            found = self._call(
                "describe_stack_resources",
                lambda answer: [
                    StackResource(document["PhysicalResourceId"], document["ResourceType"])
                    for document in answer["StackResources"]
                ],
                resource=f"stack {stack_name}",
                StackName=stack_name,
                LogicalResourceId=logical_resource_id,
            )
        except AwsError as error:
            # "Stack with id … does not exist", "Resource … does not exist for stack …"
            if error.code == "ValidationError":
                return None
            raise
        return next(iter(found), None)
