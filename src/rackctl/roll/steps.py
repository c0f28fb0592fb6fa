"""The steps of a roll, forwards and backwards; each looks first and does what is still to do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.roll.history import History, entry_of
from rackctl.roll.lock import JournalLost
from rackctl.roll.observe import GroupDeleted
from rackctl.roll.prove import NotProven

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from rackctl.roll.history import Outcome
    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.loop import Loop
    from rackctl.roll.report import Event


class Steps:
    """What a roll does while its journal is held. ``loop`` works on one group at a time."""

    def __init__(self, hold: Hold, loop: Loop) -> None:
        self._hold = hold
        self._journal = hold.journal
        self._reason = loop.reason
        self._loop = loop

    def forwards(self) -> Iterator[Event]:
        """Replace every old instance, from wherever the roll stands. Raises RackctlError, StopNow."""
        yield from self._all_active()
        # An old one may have come back into service meanwhile, as from standby, into a group that was done.
        while self._journal.phase != "finishing" or any(view.old for view in self._loop.views().values()):
            yield from self._prepare()
            if not (yield from self._replace_all()):
                return
            self._journal.phase = "finishing"
        yield from self._finish()

    def undoes(self, error: RackctlError) -> bool:
        """Tell whether an error is a reason to roll back by itself: nothing was drained, and nothing is to be lost."""
        untouched = isinstance(error, NotProven) or not any(g.surge or g.pending for g in self._journal.groups.values())
        return untouched and not self._journal.anything_drained and self._journal.phase in {"preparing", "replacing"}

    def _prepare(self) -> Iterator[Event]:
        self._hold.checkpoint()
        yield from self._reason.prepare()
        self._loop.observer.groups_launch_new()
        yield from self._on_each_group(self._loop.suspend_rebalancing)
        self._journal.phase = "replacing"
        self._hold.write()

    def _replace_all(self) -> Generator[Event, None, bool]:
        """Replace the old instances of each group; tell whether the roll can be finished."""
        yield from self._on_each_group(self._replace)
        return True

    def _replace(self, record: GroupRecord) -> Iterator[Event]:
        yield from self._loop.reach(record, "replace")
        yield from self._loop.reach(record, "restore")

    def _give_back(self, *, wait_for_old: bool) -> Iterator[Event]:
        """Restore capacity and processes, and wait for the terminating instances, the old or the new ones."""
        yield from self._on_each_group(partial(self._loop.reach, goal="restore"))
        yield from self._on_each_group(self._loop.resume_processes)
        yield from self._on_each_group(partial(self._loop.wait_for_terminations, old=wait_for_old))

    def _all_active(self) -> Iterator[Event]:
        """Undo what a roll that was cut off has left: set its DRAINING instances to ACTIVE, and resume Launch.

        With Launch suspended, an instance refresh would stand still until it fails.
        """
        for group in self._hold.groups():
            record = self._journal.groups[group.auto_scaling_group_name]
            if not self._journal.lacks_key_pair(record):
                self._hold.resume(record, ["Launch"])
        for id_ in self._hold.changing(self._loop.reactivate):
            yield self._hold.event("restored", f"{id_}: set to ACTIVE", ec2_instance_id=id_)

    def _on_each_group(self, do: Callable[[GroupRecord], Iterator[Event]]) -> Iterator[Event]:
        """Work on one group after the other, leaving out those that were deleted, even in the middle of it."""
        for record in self._journal.groups.values():
            if record.deleted:
                continue
            try:
                self._loop.wait_until_described(record)
                yield from do(record)
            except GroupDeleted as deleted:
                record.deleted = True
                self._hold.progress.forget(record.auto_scaling_group_name)
                yield from self._loop.drained.let_go_of(record.auto_scaling_group_name)
                self._hold.write()
                yield self._hold.event(
                    "problem", f"{deleted}; continuing without it", group=record.auto_scaling_group_name
                )

    def _finish(self) -> Iterator[Event]:
        self._hold.write()
        yield from self._give_back(wait_for_old=True)
        yield from self._reason.finish()
        summary = self._reason.summary()
        yield from self._end("finished")
        yield self._hold.event("finished", summary)

    def backwards(self, *, because: str = "") -> Iterator[Event]:
        """Roll back; if every instance is new already, and proven, finish instead. Raises RackctlError, StopNow.

        ``because`` is the error for which a roll rolls back by itself: then it does not finish.
        """
        yield from self._all_active()
        if not because and (yield from self._is_done()):
            yield self._hold.event("problem", "every instance has been replaced already: finishing the roll instead")
            self._journal.phase = "finishing"
            yield from self._finish()
            return
        yield from self._roll_back(because)

    def _roll_back(self, because: str) -> Iterator[Event]:
        self._journal.phase = "aborting"
        self._hold.write()
        yield from self._reason.roll_back()
        # A hook may hold the new instances that made up the surge: they have the key that is to be deleted.
        yield from self._give_back(wait_for_old=False)
        yield from self._reason.clean_up()
        yield from self._end("rolled back" if because else "aborted", because)
        yield self._hold.event("restored", rolled_back(self._hold))

    def _end(self, outcome: Outcome, problem: str = "") -> Iterator[Event]:
        """Keep an entry in the history, if that can be, and remove the journal."""
        hold, now = self._hold, self._hold.clock.now()
        entry = entry_of(self._journal, outcome, problem, ended=now, replaced=hold.progress.replaced)
        try:
            hold.change(partial(History(hold.rack).add, entry, now))
        except JournalLost:
            raise
        except RackctlError as error:
            yield hold.event("problem", f"the history of rolls may lack this one: {error}")
        hold.retrying(hold.lock.delete)

    def _is_done(self) -> Generator[Event, None, bool]:
        """Tell whether all that is left of the roll is its end: no old instance, and no group that is not proven."""
        if self._journal.retiring and self._journal.phase == "finishing":
            return True  # old keys are being deleted: nothing could be launched with them any more
        if self._journal.phase not in {"replacing", "finishing"}:
            return False
        views = self._loop.views()
        if not views or any(m.is_old is not False for view in views.values() for m in view.capacity):
            return False
        prover, proven = self._loop.prover, 0
        for view in views.values():
            if ready := [m for m in view.capacity if m.can_take_tasks]:
                try:
                    yield from prover.prove(view.group, ready[0].ec2_instance_id)
                except NotProven:
                    return False
                proven += prover.is_proven(view.group)
        return proven > 0 and all(prover.is_proven(name) or not view.capacity for name, view in views.items())


def rolled_back(hold: Hold) -> str:
    """Say how much of a rack that was rolled back is as it was before the roll."""
    replaced, terminating = hold.progress.replaced, hold.progress.terminating
    if not replaced:
        return "rolled back; nothing is changed"
    said = f"rolled back, except for {replaced} of {hold.journal.total} instances, which have been replaced"
    return f"{said} ({terminating} of them still terminating)" if terminating else said
