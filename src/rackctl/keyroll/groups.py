"""What a rack's Auto Scaling groups look like right now, with what EC2 and ECS say of their members."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from rackctl.model import AutoScalingGroup, ContainerInstance, GroupInstance, Instance
    from rackctl.rack import Rack


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group. ``instance`` is None when EC2 does not report it (yet, or any more).

    ``ended`` says that its end has been asked for and granted, whatever AWS's services have come to know of it.
    """

    group_instance: GroupInstance
    instance: Instance | None = None
    container_instance: ContainerInstance | None = None
    ended: bool = False

    @property
    def ec2_instance_id(self) -> str:
        return self.group_instance.ec2_instance_id

    @property
    def availability_zone(self) -> str:
        return self.group_instance.availability_zone

    @property
    def key_name(self) -> str:
        return self.instance.key_name if self.instance else ""

    @property
    def is_going(self) -> bool:
        return self.ended or self.group_instance.is_going or bool(self.instance and self.instance.is_going)

    @property
    def is_set_aside(self) -> bool:
        """Whether its group does not count it: on standby, or in the warm pool."""
        state = self.group_instance.lifecycle_state
        return state.startswith("Warmed") or state in {"Standby", "EnteringStandby"}

    @property
    def in_service(self) -> bool:
        return self.group_instance.lifecycle_state == "InService"

    @property
    def counts(self) -> bool:
        """Whether it can take tasks: its group, ECS and the agent all say so."""
        registered = self.container_instance
        return bool(
            self.in_service
            and not self.is_going
            and registered
            and registered.status == "ACTIVE"
            and registered.agent_connected
        )

    @property
    def agent_is_off(self) -> bool:
        registered = self.container_instance
        return bool(registered and registered.status in {"ACTIVE", "DRAINING"} and not registered.agent_connected)

    @property
    def tasks(self) -> int:
        """How many tasks ECS shows on it, DAEMON tasks among them."""
        registered = self.container_instance
        return registered.running_tasks_count + registered.pending_tasks_count if registered else 0

    @property
    def registration_failed(self) -> bool:
        return bool(self.container_instance and self.container_instance.status == "REGISTRATION_FAILED")

    def describe(self) -> str:
        """Say in a few words how far a new instance has come."""
        state, registered = self.group_instance.lifecycle_state, self.container_instance
        if self.counts:
            return "in service, registered, agent connected"
        if registered is None:
            return f"{state}, not registered with ECS" + (" yet" if state == "InService" else "")
        reason = f" ({registered.status_reason})" if registered.status_reason else ""
        return f"{state}, {registered.status}{reason}, agent {'on' if registered.agent_connected else 'off'}"


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group and its members, seen in one look."""

    group: AutoScalingGroup
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        return self.group.auto_scaling_group_name

    @property
    def desired_capacity(self) -> int:
        return self.group.desired_capacity

    @property
    def alive(self) -> list[Member]:
        """The members that make up its capacity."""
        return [m for m in self.members if not m.is_going and not m.is_set_aside]

    def stale(self, key_name: str) -> list[Member]:
        """The members that carry another key than this."""
        return [m for m in self.alive if m.instance is not None and m.key_name != key_name]

    def fresh(self, key_name: str) -> list[Member]:
        """The members that carry this key, or of which EC2 does not say yet."""
        return [m for m in self.alive if m.instance is None or m.key_name == key_name]

    def zones(self, *, without: Collection[str] = ()) -> Counter[str]:
        """Count its capacity by Availability Zone, some instances left out."""
        zones = Counter(dict.fromkeys(self.group.availability_zones, 0))
        # What is set aside comes back to its zone one day, and must not make it one too many there.
        staying = [m for m in self.members if not m.is_going and m.ec2_instance_id not in without]
        zones.update(m.availability_zone for m in staying)
        return zones

    def member(self, ec2_instance_id: str) -> Member | None:
        return next((m for m in self.members if m.ec2_instance_id == ec2_instance_id), None)


def is_even(zones: Counter[str]) -> bool:
    """Tell whether zones are as even as they can be: else Auto Scaling moves instances between them."""
    return not zones or max(zones.values()) - min(zones.values()) <= 1


class Groups:
    """Looks at groups: one call for the groups, two for each hundred registrations, one for the instances in doubt."""

    def __init__(self, rack: Rack) -> None:
        self._aws = rack.aws
        self._cluster = rack.cluster
        self._instances: dict[str, Instance] = {}
        self._registered: dict[str, ContainerInstance] = {}

    def seen(self, ec2_instance_id: str) -> Instance | None:
        """Give what EC2 has said of an instance, if it has been asked."""
        return self._instances.get(ec2_instance_id)

    def look(
        self, names: list[str], *, at_ecs: bool = True, ended: Collection[str] = frozenset()
    ) -> dict[str, GroupState]:
        """Describe groups and their members. One that does not exist is left out.

        Without ``at_ecs`` the registrations are those of the last look, and it is one call or two. ``ended`` are
        instances whose end has just been granted, which AWS may not show yet.
        """
        groups = self._aws.autoscaling.groups(names)
        members = [member for group in groups for member in group.instances]
        if at_ecs:
            self._registered = self._describe_registered() if members else {}
        registered = self._registered
        # What of an instance can change is its state. While the agent answers it is up; one that has vanished may be
        # in service for minutes more, as far as its group has noticed.
        in_doubt = [
            id_
            for member in members
            for id_ in [member.ec2_instance_id]
            if id_ not in self._instances
            or (at_ecs and not member.is_going and not (id_ in registered and registered[id_].agent_connected))
        ]
        self._instances.update((i.ec2_instance_id, i) for i in self._aws.ec2.instances_by_id(in_doubt))
        return {
            group.auto_scaling_group_name: GroupState(
                group,
                tuple(
                    Member(m, self._instances.get(id_), registered.get(id_), id_ in ended)
                    for m in group.instances
                    for id_ in [m.ec2_instance_id]
                ),
            )
            for group in groups
        }

    def _describe_registered(self) -> dict[str, ContainerInstance]:
        return {
            found.ec2_instance_id: found
            for arns in self._aws.ecs.container_instance_arns(self._cluster)
            for found in self._aws.ecs.describe_container_instances(self._cluster, arns)
        }
