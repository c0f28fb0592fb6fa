"""See a group from one look to the next: what is new, what has gone, and what must not last.

Nothing here changes anything in AWS. What a roll must not go on with is raised as RackctlError, with the remedy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from rackctl.errors import RackctlError, Timeout
from rackctl.keyroll.run import LAG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.cluster import Draining
    from rackctl.keyroll.groups import GroupState, Member
    from rackctl.keyroll.run import Event, Run
    from rackctl.model import AutoScalingGroup, ScalingActivity

_ACTIVITIES_EVERY = 15.0
_SAY_SOMETHING_EVERY = 60.0
# Auto Scaling tries a launch again and again. What has failed so often in a row is not about to work.
_LAUNCHES_FAILED = 3
# An agent reconnects by itself every now and then, which takes seconds.
_AGENT_OFF_FOR = 120.0
_ON_ITS_WAY_OUT = {"draining", "drained", "terminating"}

# The roll has terminated it; it has ended otherwise; it is up, and not its group's any more, or on standby there.
Departure = Literal["terminated", "vanished", "detached", "set aside"]


class Watch:
    """What one process has seen of the groups of its roll."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._options = run.journal.options
        self._said: dict[str, str] = {}
        self._alive: dict[str, set[str]] = {}
        self._stale: dict[str, set[str]] = {}
        self._gone: set[str] = set()
        self._since: dict[str, float] = {}
        self._old: dict[str, set[str]] = {}
        self._past: dict[str, set[str]] = {}
        self._failures: dict[str, str] = {}
        self._coming: set[str] = set()
        self._lost = 0
        self._counted_out: set[str] = set()
        self._asked_activities = float("-inf")
        # Groups in which somebody else may be replacing instances: none has been asked yet.
        self._disturbed: set[str] = set()

    def begin(self, group: str) -> None:
        """Take what a group has done so far as past."""
        self._disturbed.add(group)
        self._past[group] = {activity.activity_id for activity in self._activities(group)}
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
        first = state.name not in self._alive
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

    def departed(self, state: GroupState) -> Iterator[tuple[str, Departure]]:
        """Yield, once each, which instances count for their group no more, and how that came; keep the total true."""
        members, alive = {m.ec2_instance_id: m for m in state.members}, {m.ec2_instance_id for m in state.alive}
        stale = {m.ec2_instance_id for m in state.stale(self._run.key_name)}
        journalled = {
            id_: record
            for id_, record in self._run.journal.instances.items()
            if record.auto_scaling_group_name == state.name
        }
        record = self._run.journal.groups[state.name]
        if state.name in self._stale:
            # It has come back from standby, or was launched with another key since.
            record.total += len(stale - self._stale[state.name])
        self._gone -= alive
        self._counted_out -= alive
        for id_ in sorted((self._alive.get(state.name, set()) | journalled.keys()) - alive - self._gone):
            member = members.get(id_)
            terminated = id_ in journalled and journalled[id_].phase == "terminating"
            if terminated and member and not member.is_set_aside:
                continue  # it takes its time
            self._gone.add(id_)
            departure = self._departure(id_, member, terminated=terminated)
            if departure in {"detached", "set aside"}:
                self.count_out(id_, state.name)
            if departure == "vanished":
                self._disturbed.add(state.name)
                self._lost += id_ in self._coming
            self._coming.discard(id_)
            yield id_, departure
        self._alive[state.name], self._stale[state.name] = alive, stale

    def _departure(self, id_: str, member: Member | None, *, terminated: bool) -> Departure:
        if member and member.is_set_aside:
            return "set aside"
        if terminated:
            return "terminated"
        return "detached" if member is None and self._run.instance(id_) else "vanished"

    def count_out(self, id_: str, group: str = "") -> None:
        """Take an instance that somebody has taken out of its group out of the total, if it was to be replaced."""
        journalled = self._run.journal.instances.get(id_)
        if id_ in self._counted_out or (journalled and journalled.counted_out):
            return
        self._counted_out.add(id_)
        if journalled:
            journalled.counted_out = True
        instance = self._run.instance(id_)
        record = self._run.journal.groups.get(journalled.auto_scaling_group_name if journalled else group)
        if record and instance and instance.key_name != self._run.key_name:
            record.total -= 1

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

    def remind(self) -> Iterator[Event]:
        """Say what is waited for when nothing has been said for a while: a log must show that somebody is at work."""
        if self._run.clock.monotonic() - self._run.silent_since < _SAY_SOMETHING_EVERY:
            return
        on_their_way = [self._said[id_] for id_ in self._run.journal.instances if id_ in self._said]
        yield self._run.event("waiting", "still waiting: " + ("; ".join(on_their_way) or "for new instances"))

    # What must not last

    def check(self, state: GroupState) -> Iterator[Event]:
        """Raise RackctlError or Timeout for what a roll must not go on with; yield what is about to become that."""
        self.check_processes(state, "Launch", "Terminate")
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
        activities = self._activities(group)
        past = self._past.setdefault(group, {activity.activity_id for activity in activities})
        for activity in reversed(activities):
            if activity.activity_id in past or activity.status_code != "Failed":
                continue
            past.add(activity.activity_id)
            new = activity.status_message not in self._failures.values()
            self._failures[activity.activity_id] = activity.status_message
            if new:
                yield self._run.event("problem", f"group {group}: {activity.status_message}", group=group)

    def _activities(self, group: str) -> list[ScalingActivity]:
        return self._run.patiently(partial(self._run.aws.autoscaling.activities, group))

    def _is_on_its_way_out(self, id_: str) -> bool:
        record = self._run.journal.instances.get(id_)
        return record is not None and record.phase in _ON_ITS_WAY_OUT

    def check_processes(self, state: GroupState, *processes: str) -> None:
        """Raise RackctlError for one of these processes that somebody has suspended.

        What lasts counts: one that the roll has just resumed may be seen late.
        """
        for process in processes:
            what = f"{process} suspended {state.name}"
            if process not in state.group.suspended_processes:
                self.is_over(what)
            elif self.lasting(what) > LAG:
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
        if refresh := self._run.patiently(partial(self._run.aws.autoscaling.refreshing, state.name)):
            raise RackctlError(
                f"somebody has started the instance refresh {refresh} of group {state.name}, which replaces the same "
                "instances",
                hint="wait for its end, or `aws autoscaling cancel-instance-refresh --auto-scaling-group-name "
                f"{state.name}`",
            )
        self._disturbed.discard(state.name)

    def _check_templates(self, state: GroupState) -> None:
        """Raise RackctlError when a group launches with another key again: the roll would replace for ever.

        It is asked at the first look, and when an instance with another key has come since. What lasts counts: how
        the group names its template may be seen late, too.
        """
        stale, known = {m.ec2_instance_id for m in state.stale(self._run.key_name)}, self._old.get(state.name, set())
        if stale <= known:
            return
        what = f"another key {state.name}"
        wrong = self._run.patiently(partial(self._other_key, state.group))
        if not wrong:
            self.is_over(what)
            self._old[state.name] = known | stale
        elif self.lasting(what) > LAG:
            raise RackctlError(
                f"group {state.name} {wrong}: somebody has changed it, or the launch template",
                hint="find out who does, such as a CloudFormation stack or Terraform; resume gives it the new key "
                "once more",
            )

    def _other_key(self, group: AutoScalingGroup) -> str:
        """Say how a group launches if not with the new key."""
        key = self._run.key_name
        if not group.launch_templates:
            return "launches from a launch configuration now, which cannot be given a key"
        for ref in group.launch_templates:
            launches_with = self._run.aws.ec2.launch_template_version(ref).key_name
            if launches_with != key:
                return f"launches with {launches_with or 'no key'} again and not with {key}"
        return ""

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
                    f"{reason or 'ECS gives no reason'}",
                    hint=_another(member.ec2_instance_id),
                )
            if member.counts or self._is_on_its_way_out(member.ec2_instance_id):
                self.is_over(what)
            elif self.lasting(what) > limit:
                raise Timeout(
                    f"gave up after {limit:g} s waiting for {member.ec2_instance_id}, which is {member.describe()}",
                    hint=_another(member.ec2_instance_id),
                )
        if len(state.alive) >= state.desired_capacity:
            self.is_over(f"missing {state.name}")
            self._failures = {}
            return
        waited = self.lasting(f"missing {state.name}")
        yield from self.failed_launches(state.name)
        if self.cannot_launch(f"missing {state.name}"):
            reason = next(reversed(self._failures.values()), "")
            raise Timeout(
                f"group {state.name} has {len(state.alive)} instances and wants {state.desired_capacity}, and no more "
                f"have been launched for {waited:.0f} s" + (f": {reason}" if reason else ""),
                hint="wait until there is capacity, or let the group have other instance types or zones; resume with "
                "--no-surge needs no instance in addition",
            )


def _another(ec2_instance_id: str) -> str:
    return (
        f"look at it with `rackctl instances ssh {ec2_instance_id}`; have another one launched in its place with "
        f"`rackctl instances terminate {ec2_instance_id}`, and go on then"
    )
