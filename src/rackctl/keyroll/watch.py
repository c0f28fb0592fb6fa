"""See a group from one look to the next: what is new, what has gone, and what must not last.

Nothing here changes anything in AWS. What a roll must not go on with is raised as RackctlError, with the remedy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from rackctl.errors import RackctlError, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.cluster import Draining
    from rackctl.keyroll.groups import GroupState
    from rackctl.keyroll.run import Event, Run

_ACTIVITIES_EVERY = 15.0
# Auto Scaling tries a launch again and again. What has failed so often in a row is not about to work.
_LAUNCHES_FAILED = 3
# An agent reconnects by itself every now and then, which takes seconds.
_AGENT_OFF_FOR = 120.0
_ON_ITS_WAY_OUT = {"draining", "drained", "terminating"}


class Watch:
    """What one process has seen of the groups of its roll."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._options = run.journal.options
        self._said: dict[str, str] = {}
        self._seen: dict[str, set[str]] = {}
        self._gone: set[str] = set()
        self._since: dict[str, float] = {}
        self._old: dict[str, set[str]] = {}
        self._past: dict[str, set[str]] = {}
        self._failures: dict[str, str] = {}
        self._coming: set[str] = set()
        self._lost = 0
        self._asked_activities = float("-inf")
        # Groups in which somebody else may be replacing instances: none has been asked yet.
        self._disturbed: set[str] = set()

    def begin(self, group: str) -> None:
        """Take what a group has done so far as past."""
        self._disturbed.add(group)
        self._past[group] = {activity.activity_id for activity in self._run.aws.autoscaling.activities(group)}
        self._failures = {}

    def lasting(self, what: str) -> float:
        """Give for how many seconds this has been so; the first time it is asked, none."""
        now = self._run.clock.monotonic()
        return now - self._since.setdefault(what, now)

    def is_over(self, what: str) -> None:
        """Take it that this is not so any more."""
        self._since.pop(what, None)

    # What can be told

    def tell(self, state: GroupState) -> Iterator[Event]:
        """Yield what is new about new instances."""
        first = state.name not in self._seen
        for member in state.fresh(self._run.key_name):
            id_, said = member.ec2_instance_id, member.describe()
            if not member.counts:
                self._coming.add(id_)
            elif id_ in self._coming:
                self._coming.discard(id_)
                self._lost = 0
            if self._said.get(id_) == said or self._is_on_its_way_out(id_):
                continue
            self._said[id_] = said
            if first and member.counts:
                continue  # it was ready when this process came
            yield self._run.event(
                "instance",
                f"{id_}: new, {said}",
                group=state.name,
                ec2_instance_id=id_,
                phase="ready" if member.counts else "booting" if member.in_service else "launching",
            )

    def departed(self, state: GroupState) -> Iterator[tuple[str, Literal["gone", "vanished"]]]:
        """Yield, once each, which instances have left the group or are leaving: gone if the roll ended them."""
        journalled = self._run.journal.instances
        known = {id_ for id_, record in journalled.items() if record.auto_scaling_group_name == state.name}
        now = {m.ec2_instance_id: m for m in state.members}
        for id_ in sorted(known.union(self._seen.get(state.name, ())) - self._gone):
            terminating = id_ in journalled and journalled[id_].phase == "terminating"
            if id_ in now and (terminating or not now[id_].is_going):
                continue
            self._gone.add(id_)
            if id_ in self._coming and not terminating:
                self._coming.discard(id_)
                self._lost += 1
            if not terminating:
                self._disturbed.add(state.name)
            yield id_, "gone" if terminating else "vanished"
        self._seen[state.name] = set(now)

    def tell_drain(self, progress: Draining, group: str) -> Iterator[Event]:
        """Yield how far a drain is, if that is new."""
        id_, left = progress.ec2_instance_id, len(progress.tasks)
        event = f" ({progress.service_event})" if progress.service_event and left else ""
        said = f"{id_}: draining, {left} task{'s' * (left != 1)} left{event}" if left else f"{id_}: drained"
        if self._said.get(id_) != said:
            self._said[id_] = said
            yield self._run.event(
                "instance", said, group=group, ec2_instance_id=id_,
                phase="draining" if left else "drained", tasks_left=left, service_event=progress.service_event,
            )  # fmt: skip

    # What must not last

    def check(self, state: GroupState) -> Iterator[Event]:
        """Raise RackctlError or Timeout for what a roll must not go on with; yield what is about to become that."""
        self._check_processes(state)
        self._check_refresh(state)
        self._check_templates(state)
        yield from self._check_launches(state)
        self._check_agents(state)

    def cannot_launch(self, waited_for: str) -> bool:
        """Whether what a group lacks is not about to come: it has failed too often, or been waited for too long."""
        return len(self._failures) >= _LAUNCHES_FAILED or self.lasting(waited_for) > self._options.boot_timeout

    def failed_launches(self, group: str) -> Iterator[Event]:
        """Find launches that have failed: the call that asked for them never says so."""
        now = self._run.clock.monotonic()
        if now - self._asked_activities < _ACTIVITIES_EVERY:
            return
        self._asked_activities = now
        activities = self._run.aws.autoscaling.activities(group)
        past = self._past.setdefault(group, {activity.activity_id for activity in activities})
        for activity in reversed(activities):
            if activity.activity_id in past or activity.status_code != "Failed":
                continue
            past.add(activity.activity_id)
            new = activity.status_message not in self._failures.values()
            self._failures[activity.activity_id] = activity.status_message
            if new:
                yield self._run.event("problem", f"group {group}: {activity.status_message}", group=group)

    def _is_on_its_way_out(self, id_: str) -> bool:
        record = self._run.journal.instances.get(id_)
        return record is not None and record.phase in _ON_ITS_WAY_OUT

    def _check_processes(self, state: GroupState) -> None:
        for process in ("Launch", "Terminate"):
            if process in state.group.suspended_processes:
                raise RackctlError(
                    f"somebody has suspended the {process} process of group {state.name}",
                    hint=f"`aws autoscaling resume-processes --auto-scaling-group-name {state.name} "
                    f"--scaling-processes {process}`",
                )

    def _check_refresh(self, state: GroupState) -> None:
        """Raise RackctlError when Auto Scaling is replacing the same instances, and drains none.

        It is asked at the beginning, and when an instance has gone that the roll has not ended.
        """
        if state.name not in self._disturbed:
            return
        refresh = self._run.looked(partial(self._run.aws.autoscaling.refreshing, state.name))
        if refresh:
            raise RackctlError(
                f"somebody has started the instance refresh {refresh} of group {state.name}, which replaces the same "
                "instances",
                hint="wait for its end, or `aws autoscaling cancel-instance-refresh --auto-scaling-group-name "
                f"{state.name}`",
            )
        if refresh is not None:
            self._disturbed.discard(state.name)

    def _check_templates(self, state: GroupState) -> None:
        """Raise RackctlError when a group launches with another key again: the roll would replace for ever.

        It is asked only when an instance with another key has come since the first look.
        """
        key, stale = self._run.key_name, {m.ec2_instance_id for m in state.stale(self._run.key_name)}
        known = self._old.setdefault(state.name, stale)
        if stale <= known:
            return
        for ref in state.group.launch_templates:
            version = self._run.looked(partial(self._run.aws.ec2.launch_template_version, ref))
            if version is None:
                return
            if version.key_name != key:
                raise RackctlError(
                    f"group {state.name} launches with {version.key_name or 'no key'} again and not with {key}: "
                    f"somebody has changed launch template {ref.launch_template_name or ref.launch_template_id}, or "
                    "which version of it the group names",
                    hint="find out who does, such as a CloudFormation stack or Terraform; resume gives it the new key "
                    "once more",
                )
        self._old[state.name] = known | stale

    def _check_agents(self, state: GroupState) -> None:
        """Raise RackctlError for an old instance whose agent has been away for long: its drain would not end."""
        for member in state.stale(self._run.key_name):
            what = f"agent off {member.ec2_instance_id}"
            if not member.agent_is_off:
                self.is_over(what)
            elif not self._options.force and self.lasting(what) > _AGENT_OFF_FOR:
                raise RackctlError(
                    f"the agent of {member.ec2_instance_id} is off: ECS cannot move its tasks",
                    hint="restart the agent (`sudo systemctl restart ecs` on the instance), or go on with --force: its "
                    "tasks are then ended with it",
                )

    def _check_launches(self, state: GroupState) -> Iterator[Event]:
        """Raise Timeout or RackctlError for a new instance that does not come."""
        limit, stale = self._options.boot_timeout, state.stale(self._run.key_name)
        if self._lost >= _LAUNCHES_FAILED:
            raise RackctlError(
                f"{self._lost} new instances in a row of group {state.name} have gone before they could take tasks",
                hint="a lifecycle hook abandons them, or they do not pass a health check: "
                f"`aws autoscaling describe-scaling-activities --auto-scaling-group-name {state.name}`",
            )
        for member in state.alive:
            if member in stale and member.in_service:
                continue
            what = f"booting {member.ec2_instance_id}"
            if member.registration_failed:
                registered = member.container_instance
                reason = registered.status_reason if registered else ""
                raise RackctlError(
                    f"{member.ec2_instance_id} could not register with ECS (REGISTRATION_FAILED): "
                    f"{reason or 'ECS gives no reason'}"
                )
            if member.counts or self._is_on_its_way_out(member.ec2_instance_id):
                self.is_over(what)
            elif self.lasting(what) > limit:
                raise Timeout(
                    f"gave up after {limit:g} s waiting for {member.ec2_instance_id}, which is {member.describe()}",
                    hint=f"look at it with `rackctl instances ssh {member.ec2_instance_id}`",
                )
        if len(state.alive) >= state.desired_capacity:
            self.is_over("missing")
            self._failures = {}
            return
        waited = self.lasting("missing")
        yield from self.failed_launches(state.name)
        if self.cannot_launch("missing"):
            reason = next(reversed(self._failures.values()), "")
            raise Timeout(
                f"group {state.name} has {len(state.alive)} instances and wants {state.desired_capacity}, and no more "
                f"have been launched for {waited:.0f} s" + (f": {reason}" if reason else "")
            )
