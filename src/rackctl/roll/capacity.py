"""Change the desired capacity of a roll's groups, and terminate their members.

AWS's answers may lag, a call may have been carried out although its answer was an error, and something else may change
the same number. So each change is written to the journal before it is made, an answer counts once it shows the last
change or enough time has passed, and only the roll's own share is ever taken back.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG
from rackctl.errors import AccessDenied, RackctlError
from rackctl.roll.hold import BUSY_FOR
from rackctl.roll.journal import PendingChange
from rackctl.roll.lock import JournalLost
from rackctl.roll.observe import GroupDeleted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.observe import Look, Observer
    from rackctl.roll.report import Event
    from rackctl.roll.view import View


class Capacity:
    """The desired capacities of a roll's groups: how much of each is the roll's share, and how it is changed."""

    def __init__(self, hold: Hold, observer: Observer) -> None:
        self._hold = hold
        self._autoscaling = hold.aws.autoscaling
        self._clock = hold.clock
        self._observer = observer
        # The capacity that was set last, and when; when a change was last tried; when a termination was requested whose
        # outcome is not known yet.
        self._set_to: dict[str, tuple[int, float]] = {}
        self._tried: dict[str, float] = {}
        self._asked_to_terminate: dict[str, float] = {}
        self._busy_since: dict[str, float] = {}
        self.surges_lost = 0

    # Looking

    def look(self, record: GroupRecord, *, at_ecs: bool = True) -> Look:
        """Look at a group until its last change can be seen, and count the surge by it. Raises GroupDeleted."""
        while True:
            look = self.look_once(record, at_ecs=at_ecs)
            if look and self._shows_what_was_set(look):
                self._settle(record, look)
                if record.pending is None:
                    return look
            self._hold.pause(len(look.members) if look else 0)

    def look_once(self, record: GroupRecord, *, at_ecs: bool = True) -> Look | None:
        """Look at a group; None when it is not described. Raises GroupDeleted for one that was made anew as well."""
        name = record.auto_scaling_group_name
        look = self._hold.retrying(partial(self._observer.look, [name], at_ecs=at_ecs)).get(name)
        if record.deleted or (look and look.group.auto_scaling_group_arn != record.auto_scaling_group_arn):
            raise GroupDeleted(f"group {name} has been deleted")
        return look

    def _shows_what_was_set(self, look: Look) -> bool:
        desired, at = self._set_to.get(look.name, (look.group.desired_capacity, 0.0))
        if look.group.desired_capacity != desired and self._clock.monotonic() - at < LAG:
            return False
        self._set_to.pop(look.name, None)
        return True

    def _settle(self, record: GroupRecord, look: Look) -> None:
        """Find out whether the last change of the desired capacity has been made, and count the surge by it.

        If something else changed it at the same time, the two cannot be told apart; then the larger capacity stays.
        """
        pending, desired = record.pending, look.group.desired_capacity
        if pending is None:
            return
        if pending.ec2_instance_id:
            member = look.member(pending.ec2_instance_id)
            done = (member is None or member.is_terminating) and desired != pending.before
        else:
            done = desired == pending.after
        if done:
            record.surge = max(record.surge + pending.after - pending.before, 0)
        elif self._clock.monotonic() - self._tried.get(look.name, float("-inf")) < LAG:
            return  # it may be to come
        record.pending = None

    def remaining_surge(self, record: GroupRecord, look: Look, taken_out: int = 0) -> int:
        """Return how much of the desired capacity is the roll's surge.

        If something else has lowered the desired capacity meanwhile, or raised the minimum size, that much of the surge
        is gone, or no longer the roll's. If it is lower because so many members were ``taken_out`` with a decrement
        (DetachInstances, EnterStandby), the group is smaller, and not the surge.
        """
        lower_by = record.desired_capacity + record.surge - look.group.desired_capacity
        if record.surge and lower_by > 0:
            record.desired_capacity -= min(lower_by, taken_out)
        kept = max(record.desired_capacity, look.group.min_size)
        left = min(record.surge, max(look.group.desired_capacity - kept, 0))
        self.surges_lost += left < record.surge
        record.surge = left
        return left

    def is_undecided(self, ec2_instance_id: str) -> bool:
        """Return whether a termination was requested whose outcome is not known yet."""
        at = self._asked_to_terminate.get(ec2_instance_id, float("-inf"))
        return self._clock.monotonic() - at < LAG

    # Changing

    def raise_by(self, record: GroupRecord, count: int) -> Event:
        """Raise the desired capacity by a surge."""
        look = self.look(record, at_ecs=False)
        if not record.surge:
            record.desired_capacity = look.group.desired_capacity
        return self._set(record, look, look.group.desired_capacity + count)

    def _set(self, record: GroupRecord, look: Look, after: int) -> Event:
        name, before = look.name, look.group.desired_capacity
        record.pending = PendingChange(before, after)
        self._hold.write()
        self._tried[name] = self._clock.monotonic()
        try:
            self._hold.when_not_busy(lambda: self._autoscaling.set_desired_capacity(name, after))
        except AccessDenied:
            record.pending = None  # it has not been made
            raise
        record.pending = None
        record.surge = max(record.surge + after - before, 0)
        self._set_to[name] = (after, self._clock.monotonic())
        return self._hold.event("surge", f"group {name}: desired capacity {before} → {after}", group=name)

    def terminate(self, record: GroupRecord, view: View, id_: str, *, decrement: bool) -> Generator[Event, None, bool]:
        """Terminate a member of a group, by name; return whether that was done, or is to be decided again.

        It is decided again while another scaling activity is in progress.
        """
        name, before = view.group, view.desired_capacity
        self._hold.note(name, id_, "terminating")
        if decrement:
            record.pending = PendingChange(before, before - 1, id_)
        self._hold.write()
        try:
            self._hold.check_owner()
            self._asked_to_terminate[id_] = self._tried[name] = self._clock.monotonic()
            self._autoscaling.terminate_instance(id_, decrement_desired_capacity=decrement)
        except RackctlError as error:
            if isinstance(error, AwsError) and error.busy:
                busy = self._clock.monotonic() - self._busy_since.setdefault(id_, self._clock.monotonic())
                if busy <= BUSY_FOR:
                    self._asked_to_terminate.pop(id_)
                    record.pending = None
                    return False
            # A lost answer makes it a second call, which then fails; and the instance may vanish by itself.
            outcome = "refused" if isinstance(error, AccessDenied | JournalLost) else self._outcome(record, id_)
            if outcome != "terminating":
                self._asked_to_terminate.pop(id_, None)
                self._tried.pop(name, None)
                if outcome == "refused":
                    raise
                # It has just been detached; the next look shows that.
                self._hold.note(name, id_, "drained")
                record.pending = None
                return False
        else:
            self._busy_since.pop(id_, None)
            if decrement:
                record.pending = None
                record.surge = max(record.surge - 1, 0)
                self._set_to[name] = (before - 1, self._clock.monotonic())
        self._observer.terminated(id_)
        self._asked_to_terminate.pop(id_, None)
        self.surges_lost = 0
        what = f"; desired capacity {before} → {before - 1}" if decrement else ""
        yield self._hold.event(
            "instance",
            f"{id_}: terminating{what}",
            group=name,
            ec2_instance_id=id_,
            phase="terminating",
            waits_for="termination",
        )
        return True

    def _outcome(self, record: GroupRecord, id_: str) -> Literal["terminating", "refused", "detached"]:
        """Find out what has become of a termination whose answer was an error."""
        until = self._clock.monotonic() + LAG
        while True:
            look = self.look_once(record, at_ecs=False)
            member = look.member(id_) if look else None
            instances = self._hold.retrying(lambda: list(self._hold.aws.ec2.instances_by_id([id_])))
            if (member and member.is_terminating) or any(instance.is_terminating for instance in instances):
                return "terminating"
            if self._clock.monotonic() >= until:
                if look is None or member:
                    return "refused"
                return "detached" if instances else "terminating"
            self._hold.pause()

    def lower_by_missing(self, record: GroupRecord) -> Iterator[Event]:
        """Lower the desired capacity by as much of the surge as was never launched.

        Launch is suspended meanwhile: if an instance came in between, Auto Scaling would choose which one to terminate.
        And one that has just come may not be described at once.
        """
        look = self.look(record, at_ecs=False)
        try:
            self._hold.suspend(record, look.group, "Launch")
            self._hold.wait(LAG)
            look = self.look(record, at_ecs=False)
            alive = sum(member.is_member for member in look.members)
            surplus = min(self.remaining_surge(record, look), look.group.desired_capacity - alive)
            if surplus > 0:
                yield self._set(record, look, look.group.desired_capacity - surplus)
        except (JournalLost, GroupDeleted):
            raise
        except Exception:
            # The group must not stay unable to launch. If this fails too, the journal says so.
            with suppress(RackctlError):
                self._hold.resume(record, ["Launch"])
            raise
        self._hold.resume(record, ["Launch"])
