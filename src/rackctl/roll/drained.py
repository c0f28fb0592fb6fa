"""Drain the instances of a roll, and set those that it does not terminate to ACTIVE again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rackctl import drain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.instances import Instances
    from rackctl.model import ContainerInstance
    from rackctl.roll.capacity import Capacity
    from rackctl.roll.changes import Changes
    from rackctl.roll.hold import Hold
    from rackctl.roll.observe import Observer
    from rackctl.roll.report import Event
    from rackctl.roll.view import Member, View

# How long a drain may stand still before its services are asked for their events, in seconds.
_STUCK = 30.0


class Drained:
    """The drains of one process."""

    def __init__(
        self, hold: Hold, instances: Instances, observer: Observer, capacity: Capacity, changes: Changes
    ) -> None:
        self._hold = hold
        self._clock = hold.clock
        self._instances = instances
        self._observer = observer
        self._capacity = capacity
        self._changes = changes
        self._drains = drain.Drains(
            hold.rack,
            hold.clock,
            stop_standalone=hold.journal.options.stop_standalone,
            patience=_STUCK,
            change=hold.change,
        )
        self._began: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._service_events: dict[str, str] = {}
        self._services: dict[str, frozenset[str]] = {}
        self._reactivated: set[str] = set()

    def service_event(self, ec2_instance_id: str) -> str:
        """Return the newest event of the services that a stuck drain waits for."""
        return self._service_events.get(ec2_instance_id, "")

    def services(self, ec2_instance_id: str) -> frozenset[str]:
        """Return the names of the services whose tasks were seen on an instance that is being drained."""
        return self._services.get(ec2_instance_id, frozenset())

    def start(self, view: View, ids: Sequence[str]) -> None:
        """Drain instances, and follow their tasks from now on."""
        members = [m for m in view.members if m.ec2_instance_id in ids]
        self._hold.journal.anything_drained = True
        for member in members:
            note = self._hold.note(view.group, member.ec2_instance_id, "draining")
            # ECS may not show yet that the roll has set it to ACTIVE.
            note.drained_by_roll |= member.is_active or member.ec2_instance_id in self._reactivated
        self._hold.write()
        registrations = {m.ec2_instance_id: self._observer.registrations(m.ec2_instance_id) for m in members}
        # Those that are shown as DRAINING too: the answer may lag.
        everything = [registered for some in registrations.values() for registered in some]
        self._hold.changing(partial(drain.set_status, self._hold.rack, everything, "DRAINING"))
        for id_, some in registrations.items():
            self._hold.retrying(partial(self._drains.start, id_, some))
            self._asked[id_] = self._clock.monotonic()
            self._began.setdefault(id_, self._asked[id_])
        self._tell_observer({})

    def poll(self) -> None:
        """Read the tasks of draining instances, before the look, so that the decision knows the newer fact."""
        progress = self._hold.retrying(self._drains.poll) if self._drains.ec2_instance_ids else {}
        self._service_events = {id_: draining.service_event for id_, draining in progress.items()}
        self._services = {id_: draining.services for id_, draining in progress.items()}
        self._tell_observer(progress)

    def _tell_observer(self, progress: Mapping[str, drain.Draining]) -> None:
        now = self._clock.monotonic()
        self._observer.drains(
            {
                id_: (
                    progress.get(id_) or drain.Draining(id_, unreported=1),
                    now - self._began[id_],
                    now - self._asked[id_],
                )
                for id_ in self._drains.ec2_instance_ids
            }
        )

    def forget(self, ec2_instance_id: str) -> None:
        """Follow an instance no more; its status stays as it is."""
        self._drains.forget(ec2_instance_id)
        self._began.pop(ec2_instance_id, None)

    # Backwards

    def reactivate(self, members: Mapping[str, Member]) -> list[str]:
        """Set the instances that the roll has drained, and not terminated, to ACTIVE; return their ids.

        ``members`` are the members of the roll's groups. Raises RackctlError; the journal then still says which
        instances the roll has drained.
        """
        drained = [id_ for id_, record in self._hold.journal.instances.items() if record.drained_by_roll]
        # An instance whose termination was requested may terminate although the answer was an error: no tasks for it.
        drained = [id_ for id_ in drained if not self._capacity.is_undecided(id_)]
        restored: dict[str, Sequence[ContainerInstance]] = {}
        for id_ in drained:
            member = members.get(id_)
            is_leaving = member is not None and member.is_terminating
            if not is_leaving and (registrations := self._registrations_to_restore(id_, member)):
                restored[id_] = registrations
        # Also those that ECS does not show as DRAINING: the answer may lag.
        if everything := [registered for some in restored.values() for registered in some]:
            # Reading the above took time, in which another process may have taken the roll over.
            self._hold.unless_lost(partial(drain.set_status, self._hold.rack, everything, "ACTIVE"))
        self._reactivated.update(restored)
        for id_ in restored:
            if (member := members.get(id_)) is None or member.on_standby:
                self._changes.count_out(id_)
        for id_ in drained:
            self._hold.note("", id_, "waiting")
            self.forget(id_)
        return list(restored)

    def _registrations_to_restore(self, id_: str, member: Member | None) -> list[ContainerInstance]:
        if member is None and not self._hold.running(id_):
            return []
        # Also one that has lost its agent since it was drained, which may come back.
        registrations = list(self._observer.all_registrations(id_)) or self._instances.registrations(id_)
        return [registered for registered in registrations if registered.is_alive]

    def let_go_of(self, group: str) -> Iterator[Event]:
        """Set to ACTIVE the drained instances of a deleted group that still run, and forget them."""
        for id_, instance in list(self._hold.journal.instances.items()):
            if instance.auto_scaling_group_name == group:
                yield from self.let_go(group, id_, "its group has been deleted")
                self._hold.journal.instances.pop(id_, None)
                self.forget(id_)

    def let_go(self, group: str, id_: str, why: str) -> Iterator[Event]:
        """Set an instance that the roll was draining to ACTIVE, if it left its group and still runs."""
        record = self._hold.journal.instances.get(id_)
        if record is None or not record.drained_by_roll:
            return
        if registrations := self._registrations_to_restore(id_, None):
            self._hold.change(partial(drain.set_status, self._hold.rack, registrations, "ACTIVE"))
            yield self._hold.event("restored", f"{id_}: {why}; set to ACTIVE and left alone", group=group)
        self._hold.note(group, id_, "waiting")
