"""Observe, decide and act on one group until nothing is left to do.

Every turn begins with a look at the group and does what is to be done next, so that it makes no difference whether the
roll has just started, was interrupted anywhere, or something else has changed the group meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rackctl.clock import POLL
from rackctl.errors import RackctlError, Timeout
from rackctl.roll.capacity import Capacity
from rackctl.roll.changes import DEPARTED, Changes
from rackctl.roll.decide import REBALANCING, after, decide, waits_for
from rackctl.roll.drained import Drained
from rackctl.roll.observe import GroupDeleted, Observer, Since
from rackctl.roll.pace import Pace
from rackctl.roll.problems import in_roll
from rackctl.roll.prove import Prover
from rackctl.roll.view import (
    Done,
    EndBatch,
    LowerByMissing,
    Prove,
    Raise,
    Reactivate,
    StartDrains,
    SuspendRebalancing,
    Terminate,
    View,
    is_even,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rackctl.instances import Instances
    from rackctl.model import ScalingActivity
    from rackctl.roll.check import Check
    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.observe import Look
    from rackctl.roll.reasons import Reason
    from rackctl.roll.report import Event
    from rackctl.roll.view import Action, Goal

_ACTIVITIES_EVERY = 15.0
# How long a group that is to shrink waits for the end of what is terminating, in seconds.
_TERMINATING_FOR = 120.0


class Loop:
    """Works on one group at a time, and remembers what this process has seen, drained and proven."""

    def __init__(self, hold: Hold, instances: Instances, reason: Reason, check: Check | None) -> None:
        self._hold = hold
        self._instances = instances
        self.reason = reason
        self._options = hold.journal.options
        self._clock = hold.clock
        self.observer = Observer(hold.rack, instances, hold.clock, reason)
        self._capacity = Capacity(hold, self.observer)
        self._changes = Changes(hold, reason.is_old)
        self.drained = Drained(hold, instances, self.observer, self._capacity, self._changes)
        self.prover = Prover(hold, reason)
        self._pace = Pace(hold, check)
        self._since = Since(hold.clock)
        self._past: dict[str, set[str]] = {}
        self._failures: dict[str, dict[str, str]] = {}
        self._asked_activities = float("-inf")
        # Groups in which an instance refresh may be in progress.
        self._disturbed: set[str] = set()
        self._checked_old: dict[str, set[str]] = {}
        self._hooks: dict[str, tuple[str, ...]] = {}

    # The goals

    def reach(self, record: GroupRecord, goal: Goal) -> Iterator[Event]:
        """Act on one group until it has reached a goal. Raises what stops the roll."""
        name = record.auto_scaling_group_name
        if goal == "replace":
            self._disturbed.add(name)
            self._past[name] = {activity.activity_id for activity in self._activities(name)}
            self._failures.pop(name, None)
        while True:
            self._hold.checkpoint()
            self.drained.poll()
            if goal == "replace":
                yield from self._pace.poll()
            view = yield from self._view(record)
            view = yield from self._check(view, goal)
            looked, is_fresh, has_acted = self._clock.monotonic(), False, False
            while (action := decide(view, goal)) is not None:
                if isinstance(action, Done):
                    return
                if isinstance(action, Terminate) and not is_fresh:
                    # The other actions of this turn took time: look again before a termination; at ECS too, if much.
                    if has_acted and self._clock.monotonic() - looked > POLL:
                        break
                    view, is_fresh = (yield from self._view(record, at_ecs=False)), True
                    continue
                if isinstance(action, StartDrains | EndBatch) and goal == "replace" and self._pace.is_behind:
                    # A proof or a check took its time, or tasks have just been moved: what forbids more is asked first.
                    yield from self._pace.poll()
                    view = yield from self._check(self._pace.on(view), goal)
                    continue
                if not (yield from self._act(record, view, action)):
                    break
                view, is_fresh, has_acted = after(view, action), False, True
                self._hold.progress.count(view)
                self._hold.checkpoint()
            yield from self._remind(view, goal)
            self._hold.pause(len(view.members))

    def suspend_rebalancing(self, record: GroupRecord) -> Iterator[Event]:
        """Keep Auto Scaling from terminating instances, undrained, to balance the zones."""
        look = self._capacity.look_once(record, at_ecs=False)
        if look and self._hold.suspend(record, look.group, REBALANCING):
            yield self._hold.event_of_processes(look.name, f"suspended {REBALANCING}")

    def views(self) -> dict[str, View]:
        """Look at every group of the journal that exists, once, and count what is left."""
        views: dict[str, View] = {}
        for record in self._hold.journal.groups.values():
            try:
                look = self._capacity.look_once(record)
            except GroupDeleted:
                continue
            if look:
                views[look.name] = self._compose(look, record.surge)
                self._hold.progress.count(views[look.name])
        return views

    def wait_until_described(self, record: GroupRecord) -> None:
        """Wait until a group is described. Raises GroupDeleted when it is not for long."""
        while self._capacity.look_once(record, at_ecs=False) is None:
            self._hold.pause()

    def wait_for_terminations(self, record: GroupRecord, *, old: bool) -> Iterator[Event]:
        """Wait until the terminating instances, old or new, are gone, for as long as a lifecycle hook may take."""
        deadline = self._clock.monotonic() + _TERMINATING_FOR
        while True:
            view = yield from self._view(record, at_ecs=False)
            left = [m for m in view.terminating if m.is_old is old and not m.is_gone]
            hooks = self._hooks_of(view.group) if left else ()
            limit = deadline + (self._options.boot_timeout if hooks else 0)
            if not left or self._clock.monotonic() >= limit:
                return
            yield from self._remind(view, "restore")
            self._hold.pause(len(view.members))

    # Seeing

    def _view(self, record: GroupRecord, *, at_ecs: bool = True) -> Generator[Event, None, View]:
        """Look at a group; count the surge by it, and report what is new."""
        name = record.auto_scaling_group_name
        look = self._capacity.look(record, at_ecs=at_ecs)
        departures = self._changes.departed(look)
        view = self._compose(look, self._capacity.remaining_surge(record, look, self._changes.taken_out(name)))
        self._hold.progress.count(view)
        yield from self._changes.of_new_instances(view)
        for id_, departure in departures:
            self.drained.forget(id_)
            if departure == "vanished":
                self._disturbed.add(name)
            if departure in {"detached", "standby"}:
                yield from self.drained.let_go(name, id_, DEPARTED[departure])
            yield self._hold.event(
                "instance", f"{id_}: {DEPARTED[departure]}", group=name, ec2_instance_id=id_, phase="gone"
            )
        for member in view.members:
            if member.drain:
                event = self.drained.service_event(member.ec2_instance_id)
                yield from self._changes.of_drain(member, name, event)
        return view

    def _compose(self, look: Look, remaining_surge: int) -> View:
        name = look.name
        if look.is_whole:
            self._failures.pop(name, None)
        view = replace(
            look.view(self._options),
            remaining_surge=remaining_surge,
            is_proven=self.prover.is_proven(name),
            launch_failures=tuple(self._failures.get(name, {}).values()),
            missing_for=self._since.lasting(f"missing {name}", not look.is_whole),
            lost=self._changes.lost,
            surges_lost=self._capacity.surges_lost,
            hooks=self._hooks.get(name, ()),
        )
        return self._pace.on(view)

    def _check(self, view: View, goal: Goal) -> Generator[Event, None, View]:
        """Read what is read only if there is reason to, and raise what stops the roll."""
        if view.missing:
            yield from self._failed_launches(view.group)
        if goal == "replace":
            view = self._with_doubts(view)
        for problem in in_roll(view, goal):
            if not problem.warns:
                error = Timeout if problem.timed_out else RackctlError
                raise error(problem.reason, hint=problem.remedy)
        return view

    def _with_doubts(self, view: View) -> View:
        """Add whether something else replaces the same instances, and whether the group launches old ones again."""
        name = view.group
        if name in self._disturbed:
            refresh = self._hold.retrying(partial(self._hold.aws.autoscaling.refreshing, name))
            view = replace(view, refresh=refresh)
            if not refresh:
                self._disturbed.discard(name)
        # Read at the first look, and when an old instance has joined since. How a group names its template may lag too.
        old, known = {m.ec2_instance_id for m in view.old}, self._checked_old.get(name, set())
        if not old <= known:
            group = self._hold.group(name)
            launches_old = self._hold.retrying(partial(self.reason.launches_old, group)) if group else ""
            lasting = self._since.lasting(f"launches old {name}", bool(launches_old))
            if launches_old:
                view = replace(view, launches_old=launches_old, launches_old_for=lasting)
            else:
                self._checked_old[name] = known | old
        return view

    def _failed_launches(self, group: str) -> Iterator[Event]:
        """Find failed launches: the call that raised the desired capacity does not report them."""
        now = self._clock.monotonic()
        if now - self._asked_activities < _ACTIVITIES_EVERY:
            return
        self._asked_activities = now
        activities = self._activities(group)
        past = self._past.setdefault(group, {activity.activity_id for activity in activities})
        failures = self._failures.setdefault(group, {})
        for activity in reversed(activities):
            if activity.activity_id in past or activity.status_code != "Failed":
                continue
            past.add(activity.activity_id)
            new = activity.status_message not in failures.values()
            failures[activity.activity_id] = activity.status_message
            if new:
                yield self._hold.event("problem", f"group {group}: {activity.status_message}", group=group)

    def _activities(self, group: str) -> list[ScalingActivity]:
        return self._hold.retrying(partial(self._hold.aws.autoscaling.activities, group))

    def _hooks_of(self, group: str) -> tuple[str, ...]:
        if group not in self._hooks:
            hooks = self._hold.retrying(partial(self._hold.aws.autoscaling.lifecycle_hooks, group))
            self._hooks[group] = tuple(hook.name for hook in hooks if hook.is_terminating)
        return self._hooks[group]

    def _remind(self, view: View, goal: Goal) -> Iterator[Event]:
        """Report what is waited for if there has been no event for a while."""
        if not self._hold.is_silent:
            return
        if view.terminating:
            self._hooks_of(view.group)
        waits = waits_for(view, goal) or ["AWS to reflect the last change"]
        shown = "; ".join(waits[:5]) + (f"; and {len(waits) - 5} more" if len(waits) > 5 else "")
        yield self._hold.event("waiting", f"waiting for {shown}", group=view.group)

    # Acting

    def _act(self, record: GroupRecord, view: View, action: Action) -> Generator[Event, None, bool]:
        """Carry out an action; return whether the next one can be decided in the same turn."""
        match action:
            case SuspendRebalancing():
                yield from self.suspend_rebalancing(record)
                return True
            case Raise(count):
                yield self._capacity.raise_by(record, count)
                return False
            case LowerByMissing():
                yield from self._capacity.lower_by_missing(record)
                return False
            case Prove(id_):
                yield from self.prover.prove(view.group, id_)
                return self.prover.is_proven(view.group)
            case StartDrains(ids):
                self._pace.take_on(m.ec2_instance_id for m in view.old if m.ec2_instance_id in ids and not m.drain)
                self.drained.start(view, ids)
                return True
            case Reactivate(ids):
                self._hold.check_owner()
                self.reactivate()
                for id_ in ids:
                    self._hold.note(view.group, id_, "waiting")
                    self.drained.forget(id_)
                return True
            case Terminate():
                return (yield from self._terminate(record, view, action))
            case EndBatch():
                yield from self._pace.end_batch(view)
                return True
            case Done():
                return False

    def _terminate(self, record: GroupRecord, view: View, action: Terminate) -> Generator[Event, None, bool]:
        id_ = action.ec2_instance_id
        self._require_not_elsewhere(view, action)
        if action.gives_up:
            said = f"{id_}: terminating it with whatever runs on it ({action.evidence})"
            yield self._hold.event("problem", said, group=view.group, ec2_instance_id=id_)
        self._hold.journal.anything_drained = True
        self._pace.moved(self.drained.services(id_))
        if any(m.ec2_instance_id == id_ and not m.drain for m in view.old):
            self._pace.take_on([id_])
        done = yield from self._capacity.terminate(record, view, id_, decrement=action.decrement)
        if done:
            self.drained.forget(id_)
        return done

    def _require_not_elsewhere(self, view: View, action: Terminate) -> None:
        """Raise RackctlError for an instance that this cluster does not know, and another one does."""
        id_ = action.ec2_instance_id
        member = view.member(id_)
        if not action.gives_up and not (member and member.registration in {"absent", "failed"}):
            return
        if other := self._hold.retrying(partial(self._instances.registered_elsewhere, id_)):
            raise RackctlError(
                f"{id_} of group {view.group} is registered with cluster {other}, not with this rack's",
                hint=f"detach {id_} from the group, then resume",
            )

    # What a roll undoes

    def reactivate(self) -> list[str]:
        """Set the instances that the roll has drained, and not terminated, to ACTIVE; return their ids."""
        return self.drained.reactivate({m.ec2_instance_id: m for view in self.views().values() for m in view.members})

    def resume_processes(self, record: GroupRecord) -> Iterator[Event]:
        """Resume what the roll has suspended, except zone rebalancing if that would terminate instances."""
        name = record.auto_scaling_group_name
        processes = list(record.suspended)
        if REBALANCING in processes and not self._is_balanced(record):
            processes.remove(REBALANCING)
            record.suspended = processes
            yield self._hold.event_of_processes(
                name,
                f"left {REBALANCING} suspended: the Availability Zones are uneven, and Auto Scaling would terminate "
                "instances undrained to even them. When that is wanted: `aws autoscaling resume-processes "
                f"--auto-scaling-group-name {name} --scaling-processes {REBALANCING}`",
            )
        if resumed := self._hold.resume(record, processes):
            yield self._hold.event_of_processes(name, f"resumed {', '.join(resumed)}")

    def _is_balanced(self, record: GroupRecord) -> bool:
        look = self._capacity.look(record, at_ecs=False)
        return is_even(self._compose(look, record.surge).by_zone())
