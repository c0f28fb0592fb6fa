"""Look at a rack's groups: one call for the groups, two for each hundred registrations, one for the instances in doubt.

The only reader of AWS in the loop. What an answer leaves out is unknown until it has been asked for by id and the
absence has lasted: one incomplete answer says nothing about an instance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rackctl.clock import LAG
from rackctl.drain import blocking, described, is_drained
from rackctl.errors import RackctlError
from rackctl.model import is_ec2_instance_id
from rackctl.rack_instance import rack_instance
from rackctl.roll.problems import UNREPORTED_FOR
from rackctl.roll.view import Drain, Member, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rackctl.clock import Clock
    from rackctl.drain import Draining
    from rackctl.instances import Instances
    from rackctl.model import AutoScalingGroup, ContainerInstance, GroupInstance, Instance
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.reasons import Criterion
    from rackctl.roll.view import Registration, RollOptions

# For how long an instance whose termination was granted may still be described as if it were in service.
_TERMINATED_FOR = 60.0
_DEAD = {"REGISTRATION_FAILED", "INACTIVE"}


class GroupDeleted(RackctlError):
    """A group of the roll does not exist any more."""


@dataclass(frozen=True, slots=True)
class Look:
    """A group and its members, seen in one look; ``suspended`` is how long each process has been seen suspended."""

    group: AutoScalingGroup
    members: tuple[Member, ...]
    suspended: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.group.auto_scaling_group_name

    def member(self, ec2_instance_id: str) -> Member | None:
        return next((m for m in self.members if m.ec2_instance_id == ec2_instance_id), None)

    @property
    def is_whole(self) -> bool:
        """Whether the group has the instances that it wants."""
        return sum(m.is_member for m in self.members) >= self.group.desired_capacity

    def view(self, options: RollOptions) -> View:
        """Return the view of this look, without what only a roll knows."""
        group = self.group
        return View(
            group=self.name,
            desired_capacity=group.desired_capacity,
            max_size=group.max_size,
            members=self.members,
            zones=group.availability_zones,
            suspended=self.suspended,
            options=options,
        )


class Since:
    """How long conditions have held, from look to look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def lasting(self, condition: str, holds: bool = True) -> float:
        """Return for how many seconds a condition has held; 0 the first time, and when it does not hold."""
        if not holds:
            self._since.pop(condition, None)
            return 0.0
        now = self._clock.monotonic()
        return now - self._since.setdefault(condition, now)


class Observer:
    """Looks at groups, and remembers what a look alone cannot tell."""

    def __init__(self, rack: Rack, instances: Instances, clock: Clock, criterion: Criterion) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._of = instances
        self._clock = clock
        self._criterion = criterion
        self._since = Since(clock)
        self._instances: dict[str, Instance] = {}
        self._registered: dict[str, list[ContainerInstance]] = {}
        self._arns: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        # Those of which ECS has said, asked by id, that no registration of them lives.
        self._without: set[str] = set()
        self._terminated: dict[str, float] = {}
        self._drains: Mapping[str, tuple[Draining, float, float]] = {}
        self._seen_draining: set[str] = set()
        self._late_from = float("inf")
        self._late_since = clock.now()
        self._first_seen: dict[str, float] = {}
        self._alive: dict[str, set[str]] = {}

    # What other parts of the roll tell it

    def terminated(self, ec2_instance_id: str) -> None:
        """Treat an instance as terminating even if AWS does not show it yet."""
        self._terminated[ec2_instance_id] = self._clock.monotonic()

    def drains(self, progress: Mapping[str, tuple[Draining, float, float]]) -> None:
        """Store the progress of each drain, and how many seconds ago it began and was polled last."""
        self._drains = progress
        self._seen_draining &= progress.keys()

    def groups_launch_new(self) -> None:
        """Treat old instances that launch from now on as late: the groups launch new ones by now."""
        self._late_from = self._clock.monotonic()
        self._late_since = self._clock.now()

    # What it has seen

    def instance(self, ec2_instance_id: str) -> Instance | None:
        """Return what EC2 has said of an instance, if it has been asked."""
        return self._instances.get(ec2_instance_id)

    def registrations(self, ec2_instance_id: str) -> Sequence[ContainerInstance]:
        """Return the registrations that a drain of an instance has to follow, as they were seen last."""
        return rack_instance(ec2_instance_id, None, self.all_registrations(ec2_instance_id)).living_registrations

    def all_registrations(self, ec2_instance_id: str) -> Sequence[ContainerInstance]:
        """Return every registration of an instance, as they were seen last."""
        return self._registered.get(ec2_instance_id, ())

    # Looking

    def look(self, names: Sequence[str], *, at_ecs: bool = True) -> dict[str, Look]:
        """Look at groups. One that is not described is left out; raises GroupDeleted when that has lasted.

        Without ``at_ecs`` the registrations are those of the last look, and it is one call or two.
        """
        groups = [g for g in self._aws.autoscaling.groups(names) if g.auto_scaling_group_name in names]
        shown = {group.auto_scaling_group_name for group in groups}
        for name in names:
            lasting = self._since.lasting(f"group {name}", name not in shown)
            if lasting > LAG:
                self._require_members(name, lasting)
        groups = [self._with_left_out(group) for group in groups]
        members = [member for group in groups for member in group.instances]
        if at_ecs and members:
            self._read_registrations(members)
        self._read_instances(members, at_ecs=at_ecs)
        now = self._clock.monotonic()
        for member in members:
            self._first_seen.setdefault(member.ec2_instance_id, now)
        return {group.auto_scaling_group_name: self._look(group) for group in groups}

    def _require_members(self, name: str, lasting: float) -> None:
        """Raise GroupDeleted for a group that is not described and, asked by id, has none of its members any more."""
        known = self._alive.get(name)
        members = self._aws.autoscaling.members(sorted(known)).values() if known else ()
        if not any(member.auto_scaling_group_name == name for member in members):
            raise GroupDeleted(f"group {name} has been deleted")
        if lasting > UNREPORTED_FOR:
            raise RackctlError(
                f"Auto Scaling has not described group {name} for {lasting:.0f} s, and still reports its members",
                hint="resume when `aws autoscaling describe-auto-scaling-groups` lists it again",
            )

    def _with_left_out(self, group: AutoScalingGroup) -> AutoScalingGroup:
        """Add the members that this answer leaves out, and that are still members when they are asked for by id."""
        name = group.auto_scaling_group_name
        lost = self._alive.get(name, set()) - {m.ec2_instance_id for m in group.instances}
        found = self._aws.autoscaling.members(sorted(lost)).values() if lost else ()
        members = (*group.instances, *(m for m in found if m.auto_scaling_group_name == name))
        self._alive[name] = {m.ec2_instance_id for m in members if not m.is_terminating}
        return replace(group, instances=members)

    def _read_registrations(self, members: Sequence[GroupInstance]) -> None:
        found: dict[str, list[ContainerInstance]] = {}
        for arns in self._aws.ecs.container_instance_arns(self._rack.cluster):
            _add(found, self._aws.ecs.describe_container_instances(self._rack.cluster, arns))
        doubtful = {m.ec2_instance_id for m in members if not m.is_terminating} - _living(found)
        # What was seen before and is left out now is asked for by its ARN, which says INACTIVE of what is deregistered.
        here = {r.container_instance_arn for some in found.values() for r in some}
        arns = [arn for arn, id_ in self._arns.items() if id_ in doubtful and arn not in here]
        _add(found, described(self._rack, arns))
        in_service = {m.ec2_instance_id for m in members if m.in_service}
        doubtful -= _living(found)
        for id_ in sorted(doubtful & (in_service | found.keys())):
            if self._is_time_to_ask(id_):
                by_id = {r.container_instance_arn: r for r in (*found.get(id_, ()), *self._of.registrations(id_))}
                found[id_] = list(by_id.values())
                self._asked[id_] = self._clock.monotonic()
                self._without.add(id_)
        self._without &= doubtful - _living(found)
        self._registered = found
        self._arns.update((r.container_instance_arn, id_) for id_, some in found.items() for r in some)

    def _is_time_to_ask(self, id_: str) -> bool:
        """Tell whether an instance has been left out for so long that ECS is to be asked for it by id (again)."""
        lasting = self._since.lasting(f"unregistered {id_}")
        return lasting > LAG and self._clock.monotonic() - self._asked.get(id_, float("-inf")) >= LAG

    def _read_instances(self, members: Sequence[GroupInstance], *, at_ecs: bool) -> None:
        # What of an instance can change is its state. While the agent answers it is up; one that has vanished may be
        # in service for minutes more, as far as its group has noticed.
        in_doubt = [
            id_
            for member in members
            for id_ in [member.ec2_instance_id]
            if is_ec2_instance_id(id_)
            and (
                id_ not in self._instances
                or (at_ecs and not any(r.agent_connected for r in self._registered.get(id_, ())))
            )
        ]
        self._instances.update((i.ec2_instance_id, i) for i in self._aws.ec2.instances_by_id(in_doubt))

    def _look(self, group: AutoScalingGroup) -> Look:
        suspended = {
            process: self._since.lasting(
                f"{process} {group.auto_scaling_group_name}", process in group.suspended_processes
            )
            for process in ("Launch", "Terminate", "AZRebalance")
        }
        return Look(
            group,
            tuple(map(self._member, group.instances)),
            {process: lasting for process, lasting in suspended.items() if process in group.suspended_processes},
        )

    def _member(self, member: GroupInstance) -> Member:
        id_ = member.ec2_instance_id
        seen = rack_instance(id_, self._instances.get(id_), self._registered.get(id_, ()), member)
        registered, instance = seen.container_instance, seen.instance
        registration = self._registration(seen)
        terminating = seen.is_terminating or self._was_terminated(id_)
        counts = not terminating and not member.on_standby
        unready = counts and not seen.can_take_tasks
        age = (self._clock.now() - instance.launch_time).total_seconds() if instance else 0.0
        unready_for = self._since.lasting(f"unready {id_}", unready)
        is_old = self._criterion.is_old(instance, member) if instance else None
        # Both times are EC2's.
        is_since = bool(instance and instance.first_launch_time > self._criterion.launched_before)
        is_kept = bool(instance and is_old is False and self._criterion.is_kept(instance))
        if unready and is_old and registration in {"absent", "unknown"}:
            unready_for = max(unready_for, age)
        unreported = counts and ((member.in_service and registration == "unknown") or is_old is None)
        agent_off = bool(registered and registration == "registered") and (
            not seen.agent_connected or bool(seen.abandoned_tasks)
        )
        return Member(
            id_,
            member.availability_zone,
            member.lifecycle_state,
            is_old,
            registration,
            is_confirmed=id_ in self._without,
            is_active=bool(registered and registered.status == "ACTIVE"),
            agent_connected=seen.agent_connected,
            tasks=seen.running_tasks_count + seen.pending_tasks_count,
            abandoned=seen.abandoned_tasks if seen.agent_connected else 0,
            agent_off_for=self._since.lasting(f"agent {id_}", agent_off),
            unready_for=unready_for,
            unreported_for=self._since.lasting(f"unreported {id_}", unreported),
            is_terminating=terminating,
            is_gone=bool(instance and instance.state == "terminated"),
            is_late=bool(counts and is_old and instance and self._came_late(instance)),
            is_kept=is_kept,
            is_ours=bool(instance and not is_kept and (not is_old or is_since)),
            drain=self._drain(seen, registration),
            described=seen.describe(),
            status_reason=registered.status_reason if registered else "",
        )

    def _registration(self, seen: RackInstance) -> Registration:
        id_, registered = seen.ec2_instance_id, seen.container_instance
        if registered and registered.status not in _DEAD:
            self._since.lasting(f"unregistered {id_}", holds=False)
            return "registered"
        if registered and registered.status == "REGISTRATION_FAILED":
            return "failed"
        return "absent" if id_ in self._without else "unknown"

    def _drain(self, seen: RackInstance, registration: Registration) -> Drain | None:
        id_ = seen.ec2_instance_id
        if id_ not in self._drains:
            return None
        progress, elapsed, asked = self._drains[id_]
        living = seen.living_registrations
        if living and all(registered.status == "DRAINING" for registered in living):
            self._seen_draining.add(id_)
        # What was deregistered after it was seen DRAINING gets no tasks any more; those that it had were followed.
        deregistered = registration == "absent" and id_ in self._seen_draining and not progress.left
        return Drain(progress.left, elapsed, asked, is_drained(progress, living) or deregistered, blocking(progress))

    def _was_terminated(self, id_: str) -> bool:
        return self._clock.monotonic() - self._terminated.get(id_, float("-inf")) < _TERMINATED_FOR

    def _came_late(self, instance: Instance) -> bool:
        """Tell whether an instance was launched after the groups were made to launch new ones, or seen long after."""
        since = self._first_seen[instance.ec2_instance_id] - self._late_from
        return since > LAG or (since > 0 and instance.launch_time > self._late_since)


def _living(found: Mapping[str, Iterable[ContainerInstance]]) -> set[str]:
    """Return the ids of the instances of which a registration lives."""
    return {id_ for id_, some in found.items() if any(registered.status not in _DEAD for registered in some)}


def _add(found: dict[str, list[ContainerInstance]], described: Iterable[ContainerInstance]) -> None:
    for registered in described:
        found.setdefault(registered.ec2_instance_id, []).append(registered)
