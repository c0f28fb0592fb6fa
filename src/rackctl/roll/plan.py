"""What a roll would do, said before it does anything: a value that text and JSON are made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.launches import launch_sources, launched_from
from rackctl.roll.decide import surge_of
from rackctl.roll.dips import dips, not_steady
from rackctl.roll.groups import belonging, registered_ids
from rackctl.roll.observe import Observer
from rackctl.roll.pace import alarms_now
from rackctl.roll.preflight import Preflight
from rackctl.roll.problems import Problem, about, of_alarms
from rackctl.roll.reasons.chosen import Planned
from rackctl.roll.reasons.key_preflight import KeyPreflight
from rackctl.roll.refresh_preflight import RefreshPreflight, course
from rackctl.roll.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.clock import Clock
    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.launches import LaunchSource
    from rackctl.model import AutoScalingGroup, CapacityProvider, LaunchTemplateRef
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.dips import Dip
    from rackctl.roll.observe import Look
    from rackctl.roll.reasons.ways import KeyWay
    from rackctl.roll.view import AlarmSeen, RollOptions, Selection, View
    from rackctl.settings import Value

_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """A launch template as a group names it, and what that is now: the version number and its key."""

    launch_template_id: str
    launch_template_name: str
    version: str
    version_number: int
    key_name: str


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What happens to one group.

    ``replace`` is in the order that is expected, ``at_once`` how many of them go at a time at most; ``surge`` is
    how many instances more the group will have, and ``surge_reason`` why so. ``missing`` is how many it lacks.
    ``key`` is how it gets its new key, in a keyroll. ``launches`` is what it launches from, and ``launched_from`` what
    each of them was launched from, where that makes them outdated.
    """

    auto_scaling_group_name: str
    desired_capacity: int
    max_size: int
    templates: tuple[TemplateUse, ...]
    replace: tuple[str, ...]
    surge: int
    surge_reason: str
    at_once: int
    seconds: float
    missing: int = 0
    key: KeyWay | None = None
    launches: tuple[LaunchSource, ...] = ()
    launched_from: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeftAlone:
    ec2_instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a roll would do. It is refused when there is a refusal, and then changes nothing.

    ``bucket`` and ``kms_key`` are where the journal and the keys would be, and what says so. ``launched_until`` is the
    newest LaunchTime of an instance of its groups, ``unsteady`` are the services that are not steady now.
    """

    rack: str
    options: RollOptions
    selection: Selection
    groups: tuple[GroupPlan, ...]
    bucket: Value
    kms_key: Value
    dips: tuple[Dip, ...] = ()
    standalone_tasks: tuple[tuple[str, str], ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    problems: tuple[Problem, ...] = ()
    unsteady: tuple[str, ...] = ()
    launched_until: datetime = _EVER

    @property
    def refusals(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.warns)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(problem.reason for problem in self.problems if problem.warns)

    @property
    def total(self) -> int:
        return sum(len(group.replace) for group in self.groups)

    @property
    def seconds(self) -> float:
        """How long it may take, if boots and drains take what is usual."""
        return sum(group.seconds for group in self.groups)

    @property
    def instance_hours(self) -> float:
        """How many hours of extra instances it may cost."""
        return sum(group.surge * group.seconds for group in self.groups) / 3600


class PlanRefused(RackctlError):
    """A roll that did not begin. Nothing was changed."""

    def __init__(self, refusals: Sequence[Problem], noun: str) -> None:
        before = f"no {noun} was started and nothing was changed"
        if len(refusals) == 1:
            super().__init__(f"{before}: {refusals[0].reason}", hint=refusals[0].remedy)
        else:
            super().__init__("\n".join([f"{before}:", *(line for one in refusals for line in one.lines())]))


class Planner:
    """Looks at everything a roll depends on, changing nothing."""

    def __init__(
        self,
        rack: Rack,
        instances: Instances,
        keys: KeyStore,
        clock: Clock,
        *,
        options: RollOptions,
        selection: Selection,
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._instances = instances
        self._keys = keys
        self._options = options
        self._selection = selection
        self._criterion = Planned(selection, clock.now())
        self._observer = Observer(rack, instances, clock, self._criterion)
        self._providers: list[CapacityProvider] = []

    def plan(self) -> Plan:
        """Make the plan. Raises what AWS refuses."""
        listed = self._instances.list()
        everywhere = self._aws.autoscaling.all_groups()
        looks, unclear = self._looks(listed, everywhere)
        views = {name: self._view(look) for name, look in looks.items()}
        keys = self._key_preflight(listed, everywhere, looks, views)
        groups = tuple(
            self._group(look, views[name], keys.ways.get(name) if keys else None) for name, look in looks.items()
        )
        alarms = alarms_now(self._aws, self._options.alarms)
        problems = [
            *about("groups", unclear),
            *about("groups", self._not_here(looks)),
            *Preflight(self._rack, self._instances, self._observer.instance).problems(listed, looks, views),
            *about("key", keys.problems() if keys else ()),
            *about("sharing", keys.shared() if keys else ()),
            *self._engine_problems(groups, looks, views, alarms),
            *of_alarms(alarms, lasting=0),
        ]
        where = {r.container_instance_arn: i.ec2_instance_id for i in listed for r in i.registrations}
        replaced = {id_ for group in groups for id_ in group.replace}
        tasks = self._aws.ecs.running_tasks(self._rack.cluster)
        moved = [task for task in tasks if where.get(task.container_instance_arn) in replaced]
        services = self._aws.ecs.services(self._rack.cluster)
        members = [self._observer.instance(m.ec2_instance_id) for look in looks.values() for m in look.members]
        return Plan(
            rack=self._rack.name,
            options=self._options,
            selection=self._selection,
            groups=groups,
            bucket=self._rack.setting("bucket"),
            kms_key=self._rack.setting("kms_key"),
            dips=tuple(dips(services, moved)),
            unsteady=tuple(sorted(service.service_name for service in services if service.unsteady)),
            standalone_tasks=tuple(
                (task.task_arn.rpartition("/")[2], where[task.container_instance_arn])
                for task in moved
                if not task.service_name
            ),
            left_alone=tuple(self._left_alone(listed, looks)),
            problems=tuple(dict.fromkeys([*problems, *about("services", not_steady(services, moved))])),
            launched_until=max((i.first_launch_time for i in members if i), default=_EVER),
        )

    def _key_preflight(
        self,
        listed: Sequence[RackInstance],
        everywhere: Sequence[AutoScalingGroup],
        looks: Mapping[str, Look],
        views: Mapping[str, View],
    ) -> KeyPreflight | None:
        if self._selection.kind != "key":
            return None
        groups = {name: (look.group, views[name]) for name, look in looks.items()}
        return KeyPreflight(
            self._rack, self._keys, self._options, self._observer.instance,
            listed=listed, everywhere=everywhere, groups=groups,
        )  # fmt: skip

    def _engine_problems(
        self,
        groups: Sequence[GroupPlan],
        looks: Mapping[str, Look],
        views: Mapping[str, View],
        alarms: Sequence[AlarmSeen],
    ) -> Iterator[Problem]:
        if self._options.engine == "rackctl":
            return about("capacity", self._of_full_groups(groups))
        preflight = RefreshPreflight(self._rack, self._options, self._selection, self._observer.instance, alarms)
        kept = {group.auto_scaling_group_name for group in groups if group.key and group.key.way == "keep"}
        return about("hooks", preflight.problems(looks, views, self._criterion.launches, self._providers, kept))

    def _not_here(self, looks: Mapping[str, Look]) -> Iterator[Problem]:
        """Refuse to leave out what was named, since it is not one of the rack's."""
        for name in self._selection.groups:
            if name not in looks:
                yield Problem(
                    f'rack "{self._rack.name}" has no Auto Scaling group {name}',
                    "`rackctl instances keyroll plan` shows the rack's groups",
                )
        members = {m.ec2_instance_id: (name, m) for name, look in looks.items() for m in look.members}
        for id_ in self._selection.ec2_instance_ids:
            group, member = members.get(id_, ("", None))
            if member is None:
                yield Problem(
                    f'{id_} is not an instance of one of the groups of rack "{self._rack.name}"',
                    "`rackctl instances` lists the rack's instances; nothing would replace one outside of a group",
                )
            elif member.on_standby:
                yield Problem(
                    f"{id_} is on standby in group {group} ({member.lifecycle_state})",
                    f"`aws autoscaling exit-standby --auto-scaling-group-name {group} --instance-ids {id_}`",
                )

    def _looks(
        self, listed: Sequence[RackInstance], everywhere: Sequence[AutoScalingGroup]
    ) -> tuple[dict[str, Look], list[Problem]]:
        """Look at the rack's groups, and return what forbids to say which they are."""
        problems: list[Problem] = []
        registered = registered_ids(listed)
        providers = self._providers = self._aws.ecs.capacity_providers(self._rack.ecs_cluster.capacity_providers)
        ours = []
        for group in everywhere:
            name = group.auto_scaling_group_name
            match belonging(group, self._rack.name, registered, providers):
                case "ours":
                    ours.append(name)
                case "unclear":
                    others = [m.ec2_instance_id for m in group.instances if m.in_service]
                    others = sorted(id_ for id_ in others if id_ not in registered)
                    problems.append(
                        Problem(
                            f"group {name} has no tag Rack, and only some of its instances are registered with cluster "
                            f"{self._rack.cluster} (not {', '.join(others[:5])}): it may be another rack's",
                            f"tag the group Rack={self._rack.name} if it is this rack's, or Rack=NAME of the other",
                        )
                    )
                case "foreign":
                    pass
        if not ours:
            problems.append(
                Problem(
                    f'rack "{self._rack.name}" has no Auto Scaling group: nothing would replace an instance',
                    f"tag its groups Rack={self._rack.name}, or check --rack and --region",
                )
            )
        if self._selection.groups:
            ours = [name for name in ours if name in self._selection.groups]
        if self._selection.kind == "outdated":
            self._criterion.launches.update(
                (group.auto_scaling_group_name, launch_sources(self._aws, group))
                for group in everywhere
                if group.auto_scaling_group_name in ours
            )
        looks = self._observer.look(sorted(ours))
        if missing := sorted(set(ours) - looks.keys()):
            raise RackctlError(
                f"Auto Scaling did not describe group {', '.join(missing)}", hint="try again in a moment"
            )
        return looks, problems

    def _view(self, look: Look) -> View:
        newest = () if look.is_whole else self._aws.autoscaling.activities(look.name)[:1]
        return replace(
            look.view(self._options),
            launch_failures=tuple(a.status_message for a in newest if a.status_code == "Failed"),
            refresh=self._aws.autoscaling.refreshing(look.name),
        )

    def _group(self, look: Look, view: View, key: KeyWay | None) -> GroupPlan:
        surge, reason = surge_of(view.desired_capacity, view.max_size, len(view.old), self._options)
        simulation = simulate(view)
        if self._options.engine == "refresh":
            surge, reason, simulation = course(view, simulation.order)
        return GroupPlan(
            auto_scaling_group_name=look.name,
            desired_capacity=view.desired_capacity,
            max_size=view.max_size,
            templates=tuple(self._uses(look.group.launch_templates)),
            replace=simulation.order,
            surge=surge,
            surge_reason=reason,
            at_once=simulation.at_once,
            seconds=simulation.seconds,
            missing=view.missing,
            key=key,
            launches=self._criterion.launches.get(look.name, ()),
            launched_from={id_: str(source) for id_, source in self._sources(look).items() if source},
        )

    def _sources(self, look: Look) -> dict[str, LaunchSource | None]:
        """Map the members of a group to what they were launched from, where that makes them outdated."""
        if self._selection.kind != "outdated":
            return {}
        return {
            member.ec2_instance_id: launched_from(instance, member)
            for member in look.group.instances
            if (instance := self._observer.instance(member.ec2_instance_id))
        }

    def _uses(self, refs: Sequence[LaunchTemplateRef]) -> Iterator[TemplateUse]:
        for ref in refs:
            version = self._aws.ec2.launch_template_version(ref)
            yield TemplateUse(
                version.launch_template_id,
                ref.launch_template_name,
                ref.version,
                version.version_number,
                version.key_name,
            )

    def _left_alone(self, listed: Sequence[RackInstance], looks: Mapping[str, Look]) -> Iterator[LeftAlone]:
        """Yield what is not replaced although one might expect it; of named instances nothing else is expected."""
        if self._selection.kind == "ids":
            return
        members = {m.ec2_instance_id: m for look in looks.values() for m in look.members}
        unknown = {id_ for look in looks.values() for id_, source in self._sources(look).items() if source is None}
        for instance in listed:
            id_ = instance.ec2_instance_id
            if instance.is_external:
                yield LeftAlone(id_, "it is a machine of ECS Anywhere, which no group replaces")
            elif instance.status == "gone":
                yield LeftAlone(id_, "it no longer exists; only its registration with ECS is left")
            elif instance.is_terminating:
                yield LeftAlone(id_, "it is being terminated")
            elif id_ not in members:
                yield LeftAlone(id_, self._outside(instance, looks))
            elif id_ in unknown:
                yield LeftAlone(id_, "rackctl cannot tell what it was launched from; to replace it, give its id")
        for member in members.values():
            if member.on_standby:
                yield LeftAlone(member.ec2_instance_id, f"it is on standby in its group ({member.lifecycle_state})")

    def _outside(self, instance: RackInstance, looks: Mapping[str, Look]) -> str:
        group = instance.instance.auto_scaling_group_name if instance.instance else ""
        if group in looks:
            return f"it belongs to group {group} and is not among its members, as in a warm pool"
        if group and self._selection.groups:
            return f"it is in group {group}, which was not selected"
        if group:
            return f"it is in group {group}, which is not this rack's"
        return "it is in no Auto Scaling group, so nothing would replace it; its key is kept"

    def _of_full_groups(self, groups: Sequence[GroupPlan]) -> Iterator[Problem]:
        for group in groups:
            if not group.surge and 0 < len(group.replace) <= self._options.batch:
                what = "the one instance" if len(group.replace) == 1 else f"all {len(group.replace)} instances"
                yield Problem(
                    f"{what} of group {group.auto_scaling_group_name} would be drained at once and without a surge: "
                    "the drains do not end unless another group has room for the tasks",
                    warns=True,
                )
