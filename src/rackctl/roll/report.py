"""What a roll reports: events while it runs, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rackctl.roll.estimate import Learned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rackctl.clock import Clock
    from rackctl.instance_refresh import InstanceRefresh
    from rackctl.model import Instance
    from rackctl.roll.journal import GroupRecord, Journal, Phase
    from rackctl.roll.lock import Found
    from rackctl.roll.view import Member, View

EventKind = Literal[
    "lock", "key", "template", "processes", "surge", "refresh", "instance", "waiting", "proof", "service", "pause",
    "check", "alarm", "problem", "restored", "retired", "advice", "finished",
]  # fmt: skip
# Old instances wait, drain, terminate and are gone; new ones launch, boot and are ready.
InstancePhase = Literal["waiting", "draining", "drained", "terminating", "gone", "launching", "booting", "ready"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened.

    ``is_new`` says of an instance whether it is new, None where that is not known; ``waits_for`` what it waits for now.
    ``waiting`` is how many instances have still to be taken on, ``seconds_left`` an estimate, None where there is none.
    """

    at: datetime
    kind: EventKind
    message: str
    auto_scaling_group_name: str = ""
    ec2_instance_id: str = ""
    phase: InstancePhase | None = None
    tasks_left: int | None = None
    service_event: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    is_new: bool | None = None
    waits_for: str = ""
    waiting: int = 0
    doing: Phase = "replacing"


class Progress:
    """How far a roll is, counted from the views of its groups: what is not gone is not replaced."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self._is_new: dict[str, bool | None] = {}
        self._views: dict[str, View] = {}
        self._learned = Learned()

    def count(self, view: View) -> None:
        """Take a new view of a group into account."""
        self._views[view.group] = view
        self._learned.see(view, self._clock.monotonic())
        self._is_new.update((m.ec2_instance_id, None if m.is_old is None else not m.is_old) for m in view.members)

    def forget(self, group: str) -> None:
        """Take a group out of account that does not exist any more."""
        self._views.pop(group, None)

    def is_new(self, ec2_instance_id: str) -> bool | None:
        return self._is_new.get(ec2_instance_id)

    @property
    def done(self) -> int:
        """How many instances have been replaced."""
        # Of a group that has not been looked at yet, nothing is known to have been replaced.
        return sum(max(self._journal.groups[name].total - len(_left(view)), 0) for name, view in self._views.items())

    @property
    def terminating(self) -> int:
        """How many old instances are terminating and not gone yet: no rollback brings them back."""
        return sum(m.is_terminating for view in self._views.values() for m in _left(view))

    @property
    def replaced(self) -> int:
        """How many instances have been replaced when what is terminating is gone."""
        return self.done + self.terminating

    @property
    def waiting(self) -> int:
        """How many old instances have still to be taken on."""
        if self._journal.phase != "replacing":
            return 0
        return sum(not (m.drain or m.is_terminating) for view in self._views.values() for m in _left(view))

    @property
    def seconds_left(self) -> float | None:
        """Estimate how long the rest takes, by this roll's own boots and drains; None as long as it has had none."""
        if self._journal.phase != "replacing":
            return None
        return self._learned.seconds_left(self._views, self._clock.monotonic()) or None


def phase_of_new(member: Member) -> InstancePhase:
    """Return how far a new instance is."""
    return "ready" if member.can_take_tasks else "booting" if member.in_service else "launching"


def phase_of(member: Member) -> InstancePhase:
    """Return how far an instance is."""
    if member.is_terminating:
        return "terminating"
    if member.is_old is False and not member.is_draining:
        return phase_of_new(member)
    return "draining" if member.is_draining else "waiting"


def _left(view: View) -> list[Member]:
    """Return the old instances of a group that are not gone yet."""
    return [m for m in view.members if m.is_old and not m.on_standby and not m.is_gone]


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """How far a group is: its old instances, its new ones, those of the new that are ready, and the roll's refresh."""

    auto_scaling_group_name: str
    desired_capacity: int
    original_desired_capacity: int
    surge: int
    old: int
    draining: int
    new: int
    ready: int
    refresh: InstanceRefresh | None = None


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

    @property
    def is_refreshing(self) -> bool:
        """Whether Auto Scaling is replacing instances for this roll, watched by a command or not."""
        return any(group.refresh and group.refresh.is_active for group in self.groups)


def status_of(
    found: Found,
    views: Mapping[str, View],
    refreshes: Mapping[str, InstanceRefresh | None],
    instance: Callable[[str], Instance | None],
) -> Status:
    """Return where a roll stands, its groups and its refreshes being so; ``instance`` says what EC2 has said of one."""
    journal = found.journal
    return Status(
        found,
        tuple(_group_status(view, journal.groups[name], refreshes.get(name)) for name, view in views.items()),
        tuple(
            _instance_status(member, view.group, journal, instance(member.ec2_instance_id))
            for view in views.values()
            for member in view.members
        ),
    )


def _instance_status(member: Member, group: str, journal: Journal, instance: Instance | None) -> InstanceStatus:
    phase = phase_of(member)
    record = journal.instances.get(member.ec2_instance_id)
    since = record.since if record and record.phase == phase else ""
    return InstanceStatus(member.ec2_instance_id, group, instance.key_name if instance else "", phase, since)


def _group_status(view: View, record: GroupRecord, refresh: InstanceRefresh | None) -> GroupStatus:
    new = [m for m in view.capacity if m.is_new]
    return GroupStatus(
        auto_scaling_group_name=view.group,
        desired_capacity=view.desired_capacity,
        original_desired_capacity=record.desired_capacity,
        surge=record.surge,
        old=len(_left(view)),
        draining=sum(m.is_draining for m in view.old),
        new=len(new),
        ready=sum(m.can_take_tasks for m in new),
        refresh=refresh,
    )
