"""Where a roll stands, as its journal and the instances say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.keyroll.groups import GroupState, Member
    from rackctl.keyroll.journal import Found, GroupRecord, Journal
    from rackctl.keyroll.run import InstancePhase


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """How far a group is: its instances with the old key, with the new one, and those of the new that count."""

    auto_scaling_group_name: str
    desired_capacity: int
    original_desired_capacity: int
    surge: int
    old: int
    draining: int
    new: int
    ready: int


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """An instance of a group; ``since`` is when its phase began, empty where the journal does not say."""

    ec2_instance_id: str
    auto_scaling_group_name: str
    key_name: str
    phase: InstancePhase
    since: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a roll stands, as the journal and the instances say."""

    found: Found
    groups: tuple[GroupStatus, ...]
    instances: tuple[InstanceStatus, ...] = ()

    @property
    def journal(self) -> Journal:
        return self.found.journal

    @property
    def total(self) -> int:
        """How many instances were to be replaced, in the groups that there still are."""
        return sum(self.journal.groups[group.auto_scaling_group_name].total for group in self.groups)

    @property
    def old(self) -> int:
        return sum(group.old for group in self.groups)


def status_of(found: Found, states: Mapping[str, GroupState]) -> Status:
    """Say where a roll stands, its groups being as they are."""
    journal = found.journal
    return Status(
        found,
        tuple(_group_status(state, journal.groups[name], journal.key_name) for name, state in states.items()),
        tuple(_instance_status(member, journal) for state in states.values() for member in state.members),
    )


def _instance_status(member: Member, journal: Journal) -> InstanceStatus:
    registered = member.container_instance
    phase: InstancePhase
    if member.is_going:
        phase = "terminating"
    elif member.key_name == journal.key_name:
        phase = "ready" if member.counts else "booting" if member.in_service else "launching"
    else:
        phase = "draining" if registered and registered.status == "DRAINING" else "waiting"
    record = journal.instances.get(member.ec2_instance_id)
    return InstanceStatus(
        member.ec2_instance_id,
        member.group_instance.auto_scaling_group_name,
        member.key_name,
        phase,
        record.since if record and record.phase == phase else "",
    )


def _group_status(state: GroupState, record: GroupRecord, key_name: str) -> GroupStatus:
    fresh = state.fresh(key_name)
    registered = [m.container_instance for m in state.stale(key_name) if m.container_instance]
    return GroupStatus(
        auto_scaling_group_name=state.name,
        desired_capacity=state.desired_capacity,
        original_desired_capacity=record.desired_capacity,
        surge=record.surge,
        old=len(state.stale(key_name)),
        draining=sum(r.status == "DRAINING" for r in registered),
        new=len(fresh),
        ready=sum(m.counts for m in fresh),
    )
