"""The desired capacity of a roll's groups: how much of it is the roll's share, and how it is changed.

What AWS describes may be behind what was done (`LAG`), a call may have been carried out although its answer was an
error, and somebody else may change the same number. So each change is written in the journal before it is made, what
is seen is believed when it shows the last change or enough time has passed, and only the roll's own share is ever
taken back.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, RackctlError
from rackctl.keyroll.journal import JournalLost, PendingChange
from rackctl.keyroll.processes import resume, suspend
from rackctl.keyroll.run import LAG, GroupDeleted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rackctl.keyroll.groups import GroupState
    from rackctl.keyroll.journal import GroupRecord
    from rackctl.keyroll.run import Event, Run

_BUSY_FOR = 120.0  # how long another scaling activity may be in progress, in seconds
_BUSY = {"ScalingActivityInProgress", "ResourceContention"}
# A surge that has been taken back so often, with no instance replaced meanwhile, will be again.
_TAKEN_BACK = 3


class Capacity:
    """Changes the desired capacity of the groups of a roll, and terminates their members."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._aws = run.aws
        self._clock = run.clock
        # What was set last, and when; when a change was tried whose outcome is not known; whose end was asked for so.
        self._set_to: dict[str, tuple[int, float]] = {}
        self._tried: dict[str, float] = {}
        self._asked_to_end: dict[str, float] = {}
        self._busy_since: dict[str, float] = {}
        self._taken_back = 0

    # Looking

    def look(self, record: GroupRecord, *, at_ecs: bool = True) -> GroupState:
        """Look at a group until what was done last can be seen, and count the surge by it. Raises GroupDeleted."""
        name = record.auto_scaling_group_name
        while True:
            state = self._run.look(name, at_ecs=at_ecs)
            if self._shows_what_was_set(state):
                self._settle(record, state)
                if record.pending is None:
                    return state
            self._run.pause()

    def _shows_what_was_set(self, state: GroupState) -> bool:
        desired, at = self._set_to.get(state.name, (state.desired_capacity, 0.0))
        if state.desired_capacity != desired and self._clock.monotonic() - at < LAG:
            return False
        self._set_to.pop(state.name, None)
        return True

    def _settle(self, record: GroupRecord, state: GroupState) -> None:
        """Find out whether the last change of the desired capacity has been made, and count the surge by it.

        When somebody else has changed it at the same time, that cannot be told; then the larger capacity stays.
        """
        pending, desired = record.pending, state.desired_capacity
        if pending is None:
            return
        if pending.ec2_instance_id:
            member = state.member(pending.ec2_instance_id)
            done = (member is None or member.is_going) and desired != pending.before
        else:
            done = desired == pending.after
        if done:
            record.surge = max(record.surge + pending.after - pending.before, 0)
        elif self._clock.monotonic() - self._tried.get(state.name, float("-inf")) < LAG:
            return  # it may be to come
        record.pending = None

    def share(self, record: GroupRecord, state: GroupState) -> int:
        """Give the roll's share of the desired capacity.

        Somebody else may have set it lower meanwhile, or the minimum size higher: then that much of the surge is gone
        or theirs, and nothing more is to be taken away.
        """
        kept = max(record.desired_capacity, state.group.min_size)
        left = min(record.surge, max(state.desired_capacity - kept, 0))
        self._taken_back += left < record.surge
        record.surge = left
        return left

    def is_undecided(self, ec2_instance_id: str) -> bool:
        """Whether the end of an instance has been asked for without an answer, so that it may yet be seen to go."""
        at = self._asked_to_end.get(ec2_instance_id, float("-inf"))
        return self._clock.monotonic() - at < LAG

    # Changing

    def raise_by(self, record: GroupRecord, state: GroupState, count: int) -> Event:
        """Raise the desired capacity by a surge. Raises RackctlError when somebody takes each one back."""
        if self._taken_back >= _TAKEN_BACK:
            raise RackctlError(
                f"somebody has lowered the desired capacity of group {state.name} again after each of the last "
                f"{self._taken_back} surges, and no instance could be replaced",
                hint="suspend what scales it in (a policy, managed scaling, a schedule), or roll with --no-surge",
            )
        if not record.surge:
            record.desired_capacity = state.desired_capacity
        return self._set(record, state, state.desired_capacity + count)

    def _set(self, record: GroupRecord, state: GroupState, after: int) -> Event:
        name, before = state.name, state.desired_capacity
        record.pending = PendingChange(before, after)
        self._run.save()
        self._tried[name] = began = self._clock.monotonic()
        while True:
            try:
                self._aws.autoscaling.set_desired_capacity(name, after)
                break
            except AccessDenied:
                record.pending = None  # it has not been made
                raise
            except AwsError as error:
                if error.code not in _BUSY or self._clock.monotonic() - began > _BUSY_FOR:
                    raise
            self._run.pause()
            self._run.hold()
        record.pending = None
        record.surge = max(record.surge + after - before, 0)
        self._set_to[name] = (after, self._clock.monotonic())
        return self._run.event("surge", f"group {name}: desired capacity {before} → {after}", group=name)

    def terminate(
        self, record: GroupRecord, state: GroupState, id_: str, *, decrement: bool
    ) -> Generator[Event, None, bool]:
        """Terminate a member of a group; the return value tells whether it is going now, or is to be tried again."""
        name, before = state.name, state.desired_capacity
        self._run.note(name, id_, "terminating")
        if decrement:
            record.pending = PendingChange(before, before - 1, id_)
        self._run.hold()
        self._asked_to_end[id_] = self._tried[name] = self._clock.monotonic()
        try:
            self._aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=decrement)
        except RackctlError as error:
            if isinstance(error, AwsError) and error.code in _BUSY:
                busy = self._clock.monotonic() - self._busy_since.setdefault(id_, self._clock.monotonic())
                if busy <= _BUSY_FOR:
                    self._asked_to_end.pop(id_)
                    return False
            # A lost answer makes it a second call, which then fails; and the instance may vanish by itself.
            if isinstance(error, AccessDenied) or not self._goes_after_all(name, id_):
                self._asked_to_end.pop(id_)
                self._tried.pop(name)
                raise
        else:
            if decrement:
                record.pending = None
                record.surge = max(record.surge - 1, 0)
                self._set_to[name] = (before - 1, self._clock.monotonic())
        self._run.end(id_)
        self._asked_to_end.pop(id_)
        self._taken_back = 0
        self._run.look(name, at_ecs=False)
        what = f"; desired capacity {before} → {before - 1}" if decrement else ""
        yield self._run.event(
            "instance", f"{id_}: terminating{what}", group=name, ec2_instance_id=id_, phase="terminating"
        )
        return True

    def _goes_after_all(self, name: str, id_: str) -> bool:
        until = self._clock.monotonic() + LAG
        while True:
            member = self._run.look(name, at_ecs=False).member(id_)
            if member is None or member.is_going or self._run.instance(id_) is None:
                return True
            if self._clock.monotonic() >= until:
                return False
            self._run.pause()

    def lower_by_what_is_missing(self, record: GroupRecord, state: GroupState) -> Iterator[Event]:
        """Take so much of the surge back as was never launched.

        With Launch suspended meanwhile: if one came in between, Auto Scaling would choose itself which one to end. And
        one that has just come may not be seen at once.
        """
        try:
            suspend(self._run, record, state.group, "Launch")
            self._run.wait(LAG)
            state = self.look(record, at_ecs=False)
            surplus = min(self.share(record, state), state.desired_capacity - len(state.alive))
            if surplus > 0:
                yield self._set(record, state, state.desired_capacity - surplus)
        except (JournalLost, GroupDeleted):
            raise
        except Exception:
            # A group that stays as it is must not stay unable to launch. Where this fails too, the journal says so.
            with suppress(RackctlError):
                resume(self._run, record, ["Launch"])
            raise
        resume(self._run, record, ["Launch"])
