"""What has changed from one look at a group to the next: what is new, and what has gone and how."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from rackctl.roll.report import phase_of_new
from rackctl.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackctl.model import GroupInstance, Instance
    from rackctl.roll.hold import Hold
    from rackctl.roll.observe import Look
    from rackctl.roll.report import Event
    from rackctl.roll.view import Member, View

# The roll has terminated it; it has terminated otherwise; it is up, and not its group's any more, or on standby there.
Departure = Literal["terminated", "vanished", "detached", "standby"]
DEPARTED: Mapping[Departure, str] = {
    "terminated": "gone",
    "vanished": "terminated, but not by this roll",
    "detached": "no longer in its group",
    "standby": "on standby",
}
_UNDER_WAY = {"draining", "drained", "terminating"}


class Changes:
    """What one process has seen of the groups of its roll."""

    def __init__(self, hold: Hold, is_old: Callable[[Instance, GroupInstance | None], bool]) -> None:
        self._hold = hold
        self._is_old = is_old
        self._said: dict[str, str] = {}
        self._alive: dict[str, set[str]] = {}
        self._old: dict[str, set[str]] = {}
        self._gone: set[str] = set()
        self._reported: set[str] = set()
        self._coming: set[str] = set()
        self._counted_out: set[str] = set()
        self._taken_out: Counter[str] = Counter()
        self.lost = 0

    # What is new

    def of_new_instances(self, view: View) -> Iterator[Event]:
        """Yield how far new instances have come, where that is news."""
        first = view.group not in self._reported
        self._reported.add(view.group)
        for member in view.capacity:
            id_, said = member.ec2_instance_id, member.described
            if member.is_old or member.is_kept:
                continue
            if not member.can_take_tasks:
                self._coming.add(id_)
            elif id_ in self._coming:
                self._coming.discard(id_)
                self.lost = 0
            if self._said.get(id_) == said or self._is_under_way(id_):
                continue
            self._said[id_] = said
            if first and member.can_take_tasks:
                continue  # it was ready when this process came
            yield self._hold.event(
                "instance",
                f"{id_}: new, {said}",
                group=view.group,
                ec2_instance_id=id_,
                phase=phase_of_new(member),
                waits_for="" if member.can_take_tasks else said,
            )

    def of_drain(self, member: Member, group: str, service_event: str) -> Iterator[Event]:
        """Yield how far a drain is, if that is news."""
        drain = member.drain
        assert drain is not None
        id_, left = member.ec2_instance_id, drain.left
        event = f" ({service_event})" if service_event and left else ""
        waits = f"{counted(left, 'task')} left"
        said = f"{id_}: drained" if drain.is_over else f"{id_}: draining, {waits}{event}"
        if self._said.get(id_) != said:
            self._said[id_] = said
            yield self._hold.event(
                "instance", said, group=group, ec2_instance_id=id_, phase="drained" if drain.is_over else "draining",
                tasks_left=left, service_event=service_event,
                waits_for="" if drain.is_over else waits + (f": {service_event}" if service_event else ""),
            )  # fmt: skip

    # What has gone

    def departed(self, look: Look) -> list[tuple[str, Departure]]:
        """Return, once each, which instances count for their group no more, and how that came; keep the total true."""
        members = {m.ec2_instance_id: m for m in look.members}
        alive = {m.ec2_instance_id for m in look.members if m.is_member}
        old = {m.ec2_instance_id for m in look.members if m.is_member and m.is_old}
        journalled = {
            id_: record
            for id_, record in self._hold.journal.instances.items()
            if record.auto_scaling_group_name == look.name
        }
        if look.name in self._old:
            # It has come back from standby, or came with the old key since.
            self._hold.journal.groups[look.name].total += len(old - self._old[look.name])
        self._gone -= alive
        self._counted_out -= alive
        departures: list[tuple[str, Departure]] = []
        for id_ in sorted((self._alive.get(look.name, set()) | journalled.keys()) - alive - self._gone):
            member = members.get(id_)
            terminated = id_ in journalled and journalled[id_].phase == "terminating"
            if terminated and member and not member.on_standby and not member.is_gone:
                continue  # it takes its time
            departure = self._departure(id_, member, terminated=terminated)
            self._gone.add(id_)
            if departure in {"detached", "standby"}:
                self.count_out(id_, look.name)
            if departure == "vanished":
                self.lost += id_ in self._coming
            self._coming.discard(id_)
            departures.append((id_, departure))
        self._alive[look.name], self._old[look.name] = alive, old
        return departures

    def _departure(self, id_: str, member: Member | None, *, terminated: bool) -> Departure:
        if member and member.on_standby:
            return "standby"
        if terminated:
            return "terminated"
        return "detached" if member is None and self._hold.running(id_) else "vanished"

    def taken_out(self, group: str) -> int:
        """Return how many members were taken out of a group since this was asked last."""
        return self._taken_out.pop(group, 0)

    def count_out(self, id_: str, group: str = "") -> None:
        """Subtract an instance that left its group from the total, if it was to be replaced."""
        journalled = self._hold.journal.instances.get(id_)
        if id_ in self._counted_out or (journalled and journalled.counted_out):
            return
        self._counted_out.add(id_)
        if journalled:
            journalled.counted_out = True
            group = journalled.auto_scaling_group_name
        self._taken_out[group] += 1
        record = self._hold.journal.groups.get(group)
        instance = self._hold.running(id_)
        if record and instance and self._is_old(instance, None):
            record.total -= 1

    def _is_under_way(self, id_: str) -> bool:
        record = self._hold.journal.instances.get(id_)
        return record is not None and record.phase in _UNDER_WAY
