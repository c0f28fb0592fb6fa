"""The hold of one process on a roll: its events, safe points, retries, and the check that the journal is its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG, POLL
from rackctl.errors import SIGNALLED, AccessDenied, RackctlError, RollIncomplete
from rackctl.roll.journal import InstanceRecord
from rackctl.roll.lock import JournalLost
from rackctl.roll.report import Event, Progress
from rackctl.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.clock import Clock
    from rackctl.model import AutoScalingGroup, Instance
    from rackctl.rack import Rack
    from rackctl.roll.journal import GroupRecord, Journal
    from rackctl.roll.lock import Lock
    from rackctl.roll.report import EventKind, InstancePhase

T = TypeVar("T")

# A cluster of thousands is looked at less often, so that the calls stay clear of AWS's rate limits.
_INSTANCES_PER_SECOND = 100
_SLICE = 0.5  # how long a stop request may wait while the roll does, in seconds
# How long AWS may fail to answer, as after a laptop's sleep, before the roll stops, in seconds.
_PATIENCE = 120.0
_SAY_SOMETHING_EVERY = 60.0
BUSY_FOR = 120.0  # how long another scaling activity may be in progress, in seconds


class StopRequest:
    """A request to stop at the next safe point, as a signal handler leaves it: ``signal`` is its number."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0


class RollStopped(RollIncomplete):
    """A roll that was asked to stop, and did. Its exit code is a shell's: 128 and the signal's number."""

    def __init__(self, message: str, *, signal: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = SIGNALLED + signal


class StopNow(Exception):
    """Raised at a safe point to leave the roll."""


class Hold:
    """What every step of a roll works with while this process holds its journal."""

    def __init__(self, rack: Rack, clock: Clock, lock: Lock, journal: Journal, stop: StopRequest) -> None:
        self.rack = rack
        self.aws = rack.aws
        self.clock = clock
        self.lock = lock
        self.journal = journal
        self.progress = Progress(clock, journal)
        self._stop = stop
        self._may_stop = True
        self._silent_since = clock.monotonic()
        self._heartbeat_failing_since: float | None = None

    # Events

    def event(
        self,
        kind: EventKind,
        message: str,
        *,
        group: str = "",
        ec2_instance_id: str = "",
        phase: InstancePhase | None = None,
        tasks_left: int | None = None,
        service_event: str = "",
        waits_for: str = "",
    ) -> Event:
        """Make an event. An instance's phase is noted in the journal as well, to be written at the next write."""
        if ec2_instance_id and phase:
            self.note(group, ec2_instance_id, phase)
        self._silent_since = self.clock.monotonic()
        progress = self.progress
        return Event(
            self.clock.now(), kind, message, group, ec2_instance_id, phase, tasks_left, service_event,
            progress.done, self.journal.total, progress.seconds_left,
            progress.is_new(ec2_instance_id), waits_for, progress.waiting, self.journal.phase,
        )  # fmt: skip

    @property
    def is_silent(self) -> bool:
        """Whether there has been no event for so long that it is time to report what is waited for."""
        return self.clock.monotonic() - self._silent_since >= _SAY_SOMETHING_EVERY

    def note(self, group: str, ec2_instance_id: str, phase: InstancePhase) -> InstanceRecord:
        """Note an instance's phase in the journal, while it is under way: of the others there may be thousands."""
        record = self.journal.instances.get(ec2_instance_id)
        if record is None or record.phase != phase:
            drained = record is not None and record.drained_by_roll
            group = group or (record.auto_scaling_group_name if record else "")
            record = InstanceRecord(group, phase, rfc3339(self.clock.now()), drained)
        if phase in {"waiting", "ready", "gone"}:
            self.journal.instances.pop(ec2_instance_id, None)
        else:
            self.journal.instances[ec2_instance_id] = record
        return record

    # AWS

    def retrying(self, call: Callable[[], T]) -> T:
        """Call AWS, and repeat the call for a while if it gets no answer; each wait is a safe point.

        Raises an error that lasts, and at once one that says that AWS has refused.
        """
        since = self.clock.monotonic()
        while True:
            try:
                return call()
            except AwsError as error:
                if error.refused or self._must_stop or self.clock.monotonic() - since > _PATIENCE:
                    raise
            self.pause()

    def running(self, ec2_instance_id: str) -> Instance | None:
        """Return an instance that EC2 reports, and not as terminating; None otherwise."""
        found = self.retrying(lambda: next(self.aws.ec2.instances_by_id([ec2_instance_id]), None))
        return found if found and not found.is_terminating else None

    def groups(self) -> list[AutoScalingGroup]:
        """Describe the groups of the journal, except deleted ones.

        A group that an answer leaves out is asked for again until that has lasted.
        """
        return self._groups(lambda: self.aws.autoscaling.groups(list(self.journal.groups)))

    def all_groups(self) -> list[AutoScalingGroup]:
        """Describe all groups of the account and region; the roll's own are asked for again, as in `groups`."""
        found: list[AutoScalingGroup] = []

        def ask() -> list[AutoScalingGroup]:
            found[:] = self.aws.autoscaling.all_groups()
            return found

        self._groups(ask)
        return found

    def _groups(self, ask: Callable[[], list[AutoScalingGroup]]) -> list[AutoScalingGroup]:
        arns = {group.auto_scaling_group_arn for group in self.journal.groups.values() if not group.deleted}
        ours: list[AutoScalingGroup] = []

        def all_described() -> bool:
            ours[:] = [group for group in self.retrying(ask) if group.auto_scaling_group_arn in arns]
            return len(ours) == len(arns)

        self.until(all_described)
        return ours

    def group(self, name: str) -> AutoScalingGroup | None:
        """Describe one group of the journal, its policy and all; None if it is not described."""
        return next((group for group in self.groups() if group.auto_scaling_group_name == name), None)

    def until(self, ask: Callable[[], T | None]) -> T | None:
        """Ask until there is an answer, for as long as AWS's answers may lag; return the last one."""
        deadline = self.clock.monotonic() + LAG
        while not (found := ask()) and self.clock.monotonic() < deadline:
            self.pause()
        return found

    def write(self) -> None:
        """Write the journal, if it has changed: always before the change in AWS that it describes."""
        self.retrying(self.lock.write)

    def check_owner(self) -> None:
        """Check that this process still owns the journal. Raises JournalLost."""
        self.retrying(self.lock.check_owner)

    def change(self, call: Callable[[], T]) -> T:
        """Change something in AWS while this process still owns the journal. Raises JournalLost."""
        self.check_owner()
        return call()

    def unless_lost(self, call: Callable[[], T]) -> T:
        """Change something even if S3 cannot be asked who owns the journal. Raises JournalLost if another process does.

        An instance must not stay DRAINING for lack of an answer from S3.
        """
        try:
            self.lock.check_owner()
        except JournalLost:
            raise
        except RackctlError:
            pass
        return call()

    def changing(self, call: Callable[[], T]) -> T:
        """Make a change that may be made twice, and repeat it for a while if it gets no answer."""
        return self.retrying(lambda: self.change(call))

    def when_not_busy(self, change: Callable[[], None]) -> None:
        """Make a change, again while another scaling activity is in progress."""
        began = self.clock.monotonic()
        while True:
            try:
                self.change(change)
            except AwsError as error:
                if not error.busy or self.clock.monotonic() - began > BUSY_FOR:
                    raise
            else:
                return
            self.pause()

    # The processes of groups

    def suspend(self, record: GroupRecord, group: AutoScalingGroup, process: str) -> bool:
        """Suspend a process of a group, and write that to the journal first; return whether it was running."""
        if process in group.suspended_processes:
            return False
        new = process not in record.suspended
        if new:
            record.suspended.append(process)
            self.write()
        name = record.auto_scaling_group_name
        try:
            self.when_not_busy(lambda: self.aws.autoscaling.suspend_processes(name, [process]))
        except AccessDenied:
            if new:  # it was not done, so there is nothing to resume
                record.suspended.remove(process)
                self.write()
            raise
        return new

    def resume(self, record: GroupRecord, processes: Sequence[str]) -> list[str]:
        """Resume those of these processes that the roll itself has suspended; return them."""
        ours = [process for process in processes if process in record.suspended]
        if ours:
            name, resume = record.auto_scaling_group_name, self.aws.autoscaling.resume_processes
            self.retrying(lambda: self.when_not_busy(lambda: resume(name, ours)))
            record.suspended = [process for process in record.suspended if process not in ours]
            self.write()
        return ours

    def event_of_processes(self, group: str, what: str) -> Event:
        return self.event("processes", f"group {group}: {what}", group=group)

    # Safe points

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """Make no wait inside a safe point: the work is finished before a stop request takes effect."""
        self._may_stop = False
        try:
            yield
        finally:
            self._may_stop = True

    @property
    def _must_stop(self) -> bool:
        return bool(self._stop) and self._may_stop

    @property
    def stop_signal(self) -> int:
        return self._stop.signal

    def checkpoint(self) -> None:
        """Safe point: raise StopNow if a stop was requested; write the journal if it is time."""
        if self._must_stop:
            raise StopNow
        self._heartbeat()

    def pause(self, instances: int = 0) -> None:
        """Wait until it is time to look again, or until a stop is requested."""
        self._heartbeat()
        until = self.clock.monotonic() + max(POLL, instances / _INSTANCES_PER_SECOND)
        while not self._must_stop and (left := until - self.clock.monotonic()) > 0:
            self.clock.sleep(min(_SLICE, left))
        self.checkpoint()

    def short_pause(self) -> None:
        """Wait half a second, for work in this process."""
        self.clock.sleep(_SLICE)
        self.checkpoint()

    def wait(self, seconds: float) -> None:
        """Pause for at least so many seconds, as `pause` does."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.pause()

    def _heartbeat(self) -> None:
        """Show that the roll is running, unless S3 does not answer for once."""
        try:
            self.lock.heartbeat()
        except AwsError as error:
            now = self.clock.monotonic()
            self._heartbeat_failing_since = self._heartbeat_failing_since or now
            if error.refused or now - self._heartbeat_failing_since > _PATIENCE:
                raise
        else:
            self._heartbeat_failing_since = None
