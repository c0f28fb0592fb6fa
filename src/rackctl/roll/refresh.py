"""A roll that Auto Scaling's instance refresh carries out: no process of rackctl has to run meanwhile.

The reason prepares it as any roll, and one refresh is started in each group. The command that watches proves the first
new instance, for which the refresh waits a while, and finishes the roll. ECS's managed draining drains the instances.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from rackctl.aws.autoscaling import desired_configuration
from rackctl.clock import LAG
from rackctl.errors import RackctlError, Timeout
from rackctl.launches import launched_from
from rackctl.roll.observe import GroupDeleted, Since
from rackctl.roll.problems import booting
from rackctl.roll.prove import NotProven
from rackctl.roll.refresh_preflight import names_parameter
from rackctl.roll.refresh_terms import matches_launch, new_versions, preferences, skips_matching
from rackctl.roll.refreshes import Refreshes
from rackctl.roll.report import phase_of
from rackctl.roll.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from rackctl.instance_refresh import InstanceRefresh
    from rackctl.model import AutoScalingGroup, LaunchTemplateRef
    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.loop import Loop
    from rackctl.roll.report import Event, InstancePhase
    from rackctl.roll.view import View

# How a refresh ends that the roll itself has not stopped.
_ENDED = {
    "Failed": "failed",
    "Cancelled": "was cancelled, and not by this roll",
    "Cancelling": "is being cancelled, and not by this roll",
    "RollbackInProgress": "is being rolled back by Auto Scaling",
    "RollbackSuccessful": "was rolled back by Auto Scaling",
    "RollbackFailed": "could not be rolled back by Auto Scaling",
}


# The first new instance is terminated when the refresh is rolled back: there is none to log in to.
_WHY_NOT_READY = "see why with `aws ec2 get-console-output --instance-id ID`, then start again"

# With these, what the refresh did is undone or about to be: by an alarm, or by an operator.
_UNDONE = {"RollbackInProgress", "RollbackSuccessful"}


class RolledBack(RackctlError):
    """Auto Scaling has rolled back an instance refresh, or is rolling it back: the roll rolls back the rest."""


class RefreshSteps(Steps):
    """The steps of such a roll. With ``detach`` it ends once every group's refresh is started."""

    def __init__(self, hold: Hold, loop: Loop, *, detach: bool = False) -> None:
        super().__init__(hold, loop)
        self._detach = detach
        self._refreshes = Refreshes(hold)
        self._since = Since(hold.clock)
        self._said: dict[str, str] = {}
        self._phases: dict[str, InstancePhase] = {}
        # Whether more instances were replaced than the one that is to be proven.
        self._past_checkpoint = False

    # Forwards

    def _replace_all(self) -> Generator[Event, None, bool]:
        """Have Auto Scaling replace the old instances of each group, and wait until it has, unless that is left."""
        yield from self._on_each_group(self._start)
        yield from self._leave() if self._detach else self._watch()
        return not self._detach

    def _prepare(self) -> Iterator[Event]:
        self._hold.checkpoint()
        yield from self._reason.prepare()
        self._journal.phase = "replacing"
        self._hold.write()

    def _start(self, record: GroupRecord) -> Iterator[Event]:
        """Start the refresh of a group, unless it is in progress or has nothing left to replace."""
        name = record.auto_scaling_group_name
        found = self._refreshes.of(record)
        view = self._loop.views().get(name)
        if view is None or (found and found.is_active) or (group := self._hold.group(name)) is None:
            return
        versions = new_versions(group, record)
        if not view.old and not versions:
            if found and found.status != "Successful":
                record.refresh = None  # however it has ended, it has left nothing
            return
        skips = bool(versions) or self._skips_matching(group, record, view)
        started = self._refreshes.start(
            record,
            preferences(group, self._journal.options, skips=skips, rolls_back=self._rolls_back(group, versions)),
            desired_configuration(group, versions) if versions else {},
        )
        yield self._hold.event(
            "refresh", f"group {name}: started instance refresh {started.instance_refresh_id}", group=name
        )

    def _rolls_back(self, group: AutoScalingGroup, versions: Mapping[LaunchTemplateRef, str]) -> bool:
        if not versions or not self._journal.options.alarms:
            return False
        return not self._hold.retrying(partial(names_parameter, self._hold.aws, group))

    def _skips_matching(self, group: AutoScalingGroup, record: GroupRecord, view: View) -> bool:
        if not skips_matching(group, record, self._journal.selection):
            return False
        members = {m.ec2_instance_id: m for m in group.instances}
        for old in view.old:
            instance, member = self._loop.observer.instance(old.ec2_instance_id), members.get(old.ec2_instance_id)
            if instance and matches_launch(launched_from(instance, member), record.launches):
                return False
        return True

    def _leave(self) -> Iterator[Event]:
        self._hold.lock.release()
        yield self._hold.event(
            "lock",
            f"detached: Auto Scaling goes on; {self._journal.command('resume')} watches it and finishes the roll",
        )

    def _watch(self) -> Iterator[Event]:
        """Report what Auto Scaling does until all refreshes have succeeded; prove the first new instances."""
        while True:
            self._hold.checkpoint()
            views = self._loop.views()
            done = True
            for record in [r for r in self._journal.groups.values() if not r.deleted]:
                view = views.get(record.auto_scaling_group_name)
                if view is None:
                    yield from self._on_each_group(self._nothing)
                    done = False
                    continue
                found = self._refreshes.of(record)
                yield from self._report(record.auto_scaling_group_name, found, view)
                done = self._has_replaced(found, view) and done
                yield from self._check(view, found)
            if done:
                return
            self._hold.pause(sum(len(view.members) for view in views.values()))

    def _nothing(self, _: GroupRecord) -> Iterator[Event]:
        """Do nothing with a group: `_on_each_group` itself finds out which groups were deleted."""
        yield from ()

    def _has_replaced(self, found: InstanceRefresh | None, view: View) -> bool:
        """Tell whether a group has no old instance left. Raises RackctlError for a refresh that has ended otherwise."""
        name, old = view.group, [m.ec2_instance_id for m in view.old]
        if found is None:
            return not old
        if said := _ENDED.get(found.status):
            reason = f": {found.status_reason}" if found.status_reason else ""
            error = RolledBack if found.status in _UNDONE else RackctlError
            raise error(
                f"instance refresh {found.instance_refresh_id} of group {name} {said}{reason}",
                hint=f"see what it did: `aws autoscaling describe-scaling-activities --auto-scaling-group-name {name}`",
            )
        lasting = self._since.lasting(f"left {name}", found.status == "Successful" and bool(old))
        if lasting > LAG:
            raise RackctlError(
                f"instance refresh {found.instance_refresh_id} of group {name} has succeeded and left {', '.join(old)}",
                hint=f"to replace just these: {self._journal.command('resume --engine rackctl')}",
            )
        return found.status == "Successful" and not old

    def _check(self, view: View, found: InstanceRefresh | None) -> Iterator[Event]:
        """Prove the first new instance of a group; stop the refresh if that fails, or if later ones are not ready."""
        name, new = view.group, [m for m in view.capacity if m.is_new]
        if len(new) > math.ceil(view.desired_capacity / 100):
            self._past_checkpoint = True
        ready = [m.ec2_instance_id for m in new if m.can_take_tasks]
        try:
            if ready and not self._loop.prover.is_proven(name):
                yield from self._loop.prover.prove(name, ready[0])
            for problem in booting(view):
                if not self._loop.prover.is_proven(name):
                    raise NotProven(problem.reason, hint=_WHY_NOT_READY)
                raise (Timeout if problem.timed_out else RackctlError)(problem.reason, hint=problem.remedy)
        except RackctlError as error:
            if found and found.is_active and not self.undoes(error):
                yield from self._stop(roll_back=False)
            raise

    def undoes(self, error: RackctlError) -> bool:
        """Tell whether the roll rolls back after an error: AWS does, or at most the first instance is replaced."""
        if self._journal.phase not in {"preparing", "replacing"}:
            return False
        if isinstance(error, RolledBack):
            return True
        if isinstance(error, NotProven):
            return not self._past_checkpoint
        return not any(record.refresh for record in self._journal.groups.values())

    # Reports

    def _report(self, name: str, found: InstanceRefresh | None, view: View) -> Iterator[Event]:
        for member in view.members:
            phase: InstancePhase = "gone" if member.is_gone else phase_of(member)
            yield from self._report_phase(name, member.ec2_instance_id, phase)
        there = {m.ec2_instance_id for m in view.members}
        for id_ in [i for i, r in self._journal.instances.items() if r.auto_scaling_group_name == name]:
            if id_ not in there:
                yield from self._report_phase(name, id_, "gone")
        if found:
            reason = f" ({found.status_reason})" if found.status_reason else ""
            said = (
                f"instance refresh {found.instance_refresh_id}: {found.status}, {found.percentage_complete} % complete"
                f"{reason}"
            )
            if self._said.get(name) != said:
                self._said[name] = said
                yield self._hold.event("refresh", f"group {name}: {said}", group=name)
            elif self._hold.is_silent:
                yield self._hold.event("waiting", f"waiting for group {name}: {said}", group=name)

    def _report_phase(self, name: str, id_: str, phase: InstancePhase) -> Iterator[Event]:
        before = self._phases.get(id_)
        self._phases[id_] = phase
        if phase == before or (before is None and phase in {"waiting", "ready"}):
            return
        yield self._hold.event("instance", f"{id_}: {phase}", group=name, ec2_instance_id=id_, phase=phase)

    # Backwards

    def backwards(self, *, because: str = "") -> Iterator[Event]:
        """Cancel the refreshes or have AWS roll them back, then roll back the rest. Raises RackctlError, StopNow."""
        if not because and self._all_succeeded():
            yield from super().backwards()
            return
        self._journal.phase = "aborting"
        self._hold.write()
        yield from self._stop(roll_back=True)
        yield from self._all_active()
        yield from self._roll_back(because)

    def _all_succeeded(self) -> bool:
        found = [self._refreshes.of(record) for record in self._journal.groups.values() if not record.deleted]
        return bool(found) and all(refresh is None or refresh.status == "Successful" for refresh in found)

    def _stop(self, *, roll_back: bool) -> Iterator[Event]:
        """Stop each refresh of the roll, and wait until it is over. Raises RackctlError for a rollback that fails."""
        stopped: dict[str, str] = {}

        def stop(record: GroupRecord) -> Iterator[Event]:
            found = self._refreshes.stop(record, roll_back=roll_back)
            if found and found.is_active:
                name = record.auto_scaling_group_name
                stopped[name] = found.instance_refresh_id
                yield self._hold.event(
                    "refresh", f"group {name}: stopping instance refresh {found.instance_refresh_id}", group=name
                )

        yield from self._on_each_group(stop)
        yield from self._wait_until_over(stopped)

    def _wait_until_over(self, stopped: Mapping[str, str]) -> Iterator[Event]:
        while True:
            views, left = self._loop.views(), False
            for name in stopped:
                record = self._journal.groups[name]
                found = None if record.deleted or name not in views else self._refreshes.of(record)
                if found is None:
                    continue
                yield from self._report(name, found, views[name])
                if found.status == "RollbackFailed":
                    raise RackctlError(
                        f"Auto Scaling could not roll back instance refresh {found.instance_refresh_id} of group "
                        f"{name}: {found.status_reason}",
                        hint="see why with `aws autoscaling describe-scaling-activities --auto-scaling-group-name "
                        f"{name}`; then continue",
                    )
                left = left or found.is_active
            if not left:
                return
            self._hold.pause(sum(len(view.members) for view in views.values()))


def require_none(hold: Hold) -> None:
    """Raise RackctlError while an instance refresh of the roll's is active: another engine must not go on beside it."""
    refreshes = Refreshes(hold)
    for record in hold.journal.groups.values():
        try:
            found = None if record.deleted else refreshes.of(record)
        except GroupDeleted:
            continue
        if found and found.is_active:
            raise RackctlError(
                f"instance refresh {found.instance_refresh_id} of group {record.auto_scaling_group_name} is in "
                f"progress ({found.status})",
                hint=f"{hold.journal.command('resume')} watches it; {hold.journal.command('abort')} stops it",
            )
