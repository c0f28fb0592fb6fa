"""EC2: instances, key pairs, launch templates."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rackctl.model import Instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rackctl.aws.session import Client

# A filter takes at most 200 values.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
_FILTER_VALUES = 200
_PAGE = 1000

# Everything but `terminated`, which EC2 goes on reporting for about an hour.
_EXISTING = ("pending", "running", "shutting-down", "stopping", "stopped")


class Ec2:
    def __init__(self, call: Client) -> None:
        self._call = call

    def instances_tagged(self, tags: Mapping[str, str]) -> Iterator[Instance]:
        """Yield the instances that carry all these tags and have not been terminated."""
        filters = {f"tag:{key}": [value] for key, value in tags.items()}
        yield from self._instances({**filters, "instance-state-name": _EXISTING})

    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        """Yield those of these instances that EC2 still reports, in any state.

        It asks by filter, since one unknown id among ``InstanceIds`` fails the whole call.
        """
        for start in range(0, len(ec2_instance_ids), _FILTER_VALUES):
            yield from self._instances({"instance-id": ec2_instance_ids[start : start + _FILTER_VALUES]})

    def _instances(self, filters: Mapping[str, Iterable[str]]) -> Iterator[Instance]:
        asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        for page in self._call.pages("describe_instances", Filters=asked, MaxResults=_PAGE):
            for reservation in page["Reservations"]:
                yield from map(_instance, reservation["Instances"])

    def console_output(self, ec2_instance_id: str) -> str:
        """Give what the instance has written to its console; empty while EC2 has nothing yet."""
        answer = self._call("get_console_output", resource=ec2_instance_id, InstanceId=ec2_instance_id)
        return base64.b64decode(answer.get("Output", "")).decode("utf-8", "replace")


def _instance(document: dict[str, Any]) -> Instance:
    return Instance(
        ec2_instance_id=document["InstanceId"],
        state=document["State"]["Name"],
        launch_time=document["LaunchTime"],
        instance_type=document.get("InstanceType", ""),
        availability_zone=document.get("Placement", {}).get("AvailabilityZone", ""),
        private_ip=document.get("PrivateIpAddress", ""),
        public_ip=document.get("PublicIpAddress", ""),
        key_name=document.get("KeyName", ""),
        tags=tags_of(document),
    )


def tags_of(document: dict[str, Any]) -> dict[str, str]:
    """Give the tags of an EC2 or Auto Scaling document as a mapping."""
    return {tag["Key"]: tag["Value"] for tag in document.get("Tags", ())}
