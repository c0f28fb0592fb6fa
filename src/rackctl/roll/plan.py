"""What a roll would do, said before it does anything: a value that text and JSON are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.roll.decide import surge_of
from rackctl.roll.groups import belonging, registered_ids
from rackctl.roll.observe import Observer
from rackctl.roll.preflight import Preflight
from rackctl.roll.problems import Problem
from rackctl.roll.simulate import simulate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.clock import Clock
    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, LaunchTemplateRef, Service, Task
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.observe import Look
    from rackctl.roll.view import RollOptions, View
    from rackctl.settings import Value


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


@dataclass(frozen=True, slots=True)
class Dip:
    """A service that will run with less than its desired count for a while, or whose tasks cannot be moved."""

    service_name: str
    desired_count: int
    lowest_count: int
    stuck: bool
    reason: str


@dataclass(frozen=True, slots=True)
class LeftAlone:
    ec2_instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a roll would do. It is refused when there is a refusal, and then changes nothing.

    ``bucket`` and ``kms_key`` are where the journal and the keys would be, and what says so.
    """

    rack: str
    options: RollOptions
    groups: tuple[GroupPlan, ...]
    bucket: Value
    kms_key: Value
    dips: tuple[Dip, ...] = ()
    standalone_tasks: tuple[tuple[str, str], ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    problems: tuple[Problem, ...] = ()

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

    def __init__(self, refusals: Sequence[Problem]) -> None:
        reasons = "; ".join(r.reason for r in refusals)
        super().__init__(
            f"no keyroll was started and nothing was changed: {reasons}",
            hint="\n  ".join(r.remedy for r in refusals if r.remedy),
        )
        self.refusals = tuple(refusals)


def make_plan(rack: Rack, instances: Instances, keys: KeyStore, clock: Clock, options: RollOptions) -> Plan:
    """Look at everything a roll depends on, changing nothing. Raises what AWS refuses."""
    return _Planner(rack, instances, keys, clock, options).plan()


class _Planner:
    def __init__(self, rack: Rack, instances: Instances, keys: KeyStore, clock: Clock, options: RollOptions) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._instances = instances
        self._keys = keys
        self._options = options
        self._observer = Observer(rack, instances, clock, lambda _: True, float("inf"))

    def plan(self) -> Plan:
        listed = self._instances.list()
        everywhere = self._aws.autoscaling.all_groups()
        looks, unclear = self._looks(listed, everywhere)
        views = {name: self._view(look) for name, look in looks.items()}
        groups = tuple(self._group(look, views[name]) for name, look in looks.items())
        preflight = Preflight(self._rack, self._instances, self._keys, self._options, self._observer.instance)
        problems = [*unclear, *preflight.problems(listed, everywhere, looks, views), *self._of_full_groups(groups)]
        where = _where(listed)
        replaced = {id_ for group in groups for id_ in group.replace}
        tasks = self._aws.ecs.running_tasks(self._rack.cluster)
        moved = [task for task in tasks if where.get(task.container_instance_arn) in replaced]
        return Plan(
            rack=self._rack.name,
            options=self._options,
            groups=groups,
            bucket=self._rack.setting("bucket"),
            kms_key=self._rack.setting("kms_key"),
            dips=tuple(_dips(self._aws.ecs.services(self._rack.cluster), moved)),
            standalone_tasks=tuple(_standalone(moved, where)),
            left_alone=tuple(_left_alone(listed, looks)),
            problems=tuple(problems),
        )

    def _looks(
        self, listed: Sequence[RackInstance], everywhere: Sequence[AutoScalingGroup]
    ) -> tuple[dict[str, Look], list[Problem]]:
        """Look at the rack's groups, and return what forbids to say which they are."""
        problems: list[Problem] = []
        registered = registered_ids(listed)
        providers = self._aws.ecs.capacity_providers(self._rack.ecs_cluster.capacity_providers)
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

    def _group(self, look: Look, view: View) -> GroupPlan:
        surge, reason = surge_of(view.desired_capacity, view.max_size, len(view.old), self._options)
        simulation = simulate(view)
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
        )

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

    def _of_full_groups(self, groups: Sequence[GroupPlan]) -> Iterator[Problem]:
        for group in groups:
            if not group.surge and 0 < len(group.replace) <= self._options.batch:
                what = "the one instance" if len(group.replace) == 1 else f"all {len(group.replace)} instances"
                yield Problem(
                    f"{what} of group {group.auto_scaling_group_name} would be drained at once and without a surge: "
                    "the drains do not end unless another group has room for the tasks",
                    warns=True,
                )


def _where(listed: Sequence[RackInstance]) -> dict[str, str]:
    return {r.container_instance_arn: i.ec2_instance_id for i in listed for r in i.registrations}


def _dips(services: Sequence[Service], moved: Sequence[Task]) -> Iterator[Dip]:
    """Look at the services that have tasks on what is replaced: those of Fargate or of external machines have none."""
    concerned = {task.service_name for task in moved}
    for service in sorted(services, key=lambda s: s.service_name):
        desired = service.desired_count
        if service.scheduling_strategy == "DAEMON" or not desired or service.service_name not in concerned:
            continue
        # ECS rounds the minimum up and the maximum down.
        # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html
        minimum = math.ceil(desired * service.minimum_healthy_percent / 100)
        maximum = math.floor(desired * service.maximum_percent / 100)
        percents = f"minimum {service.minimum_healthy_percent} %, maximum {service.maximum_percent} %"
        if minimum >= desired and maximum <= desired:
            yield Dip(
                service.service_name, desired, desired, stuck=True,
                reason=f"{percents}: no task may stop before another runs, and none may run in addition, so its tasks "
                "cannot be moved and the drain will time out: allow one of the two",
            )  # fmt: skip
        elif minimum < desired:
            yield Dip(
                service.service_name, desired, minimum, stuck=False,
                reason=f"{percents}: ECS may stop a task before another runs in its place",
            )  # fmt: skip


def _standalone(moved: Sequence[Task], where: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Return the tasks of no service on the instances to replace, and where each runs."""
    for task in moved:
        if not task.service_name:
            yield task.task_arn.rpartition("/")[2], where[task.container_instance_arn]


def _left_alone(listed: Sequence[RackInstance], looks: Mapping[str, Look]) -> Iterator[LeftAlone]:
    members = {m.ec2_instance_id: m for look in looks.values() for m in look.members}
    for instance in listed:
        id_ = instance.ec2_instance_id
        if instance.is_external:
            yield LeftAlone(id_, "it is a machine of ECS Anywhere, which no group replaces")
        elif instance.status == "gone":
            yield LeftAlone(id_, "it no longer exists; only its registration with ECS is left")
        elif instance.is_terminating:
            yield LeftAlone(id_, "it is being terminated")
        elif id_ not in members:
            yield LeftAlone(id_, _outside(instance, looks))
    for member in members.values():
        if member.on_standby:
            yield LeftAlone(member.ec2_instance_id, f"it is on standby in its group ({member.lifecycle_state})")


def _outside(instance: RackInstance, looks: Mapping[str, Look]) -> str:
    group = instance.instance.auto_scaling_group_name if instance.instance else ""
    if group in looks:
        return f"it belongs to group {group} and is not among its members, as in a warm pool"
    if group:
        return f"it is in group {group}, which is not this rack's"
    return "it is in no Auto Scaling group, so nothing would replace it; its key is kept"
