"""What a roll would do, said before it does anything: a value that text and JSON are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.errors import NotFound, RackctlError
from rackctl.keyroll.groups import Groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.cluster import Cluster
    from rackctl.keyroll.groups import GroupState, Member
    from rackctl.keyroll.journal import RollOptions
    from rackctl.model import AutoScalingGroup, LaunchTemplate, LaunchTemplateRef, RackInstance, Service, Task
    from rackctl.rack import Rack

# What the estimate of time takes for granted, in seconds: a new instance until it counts, a drain, a termination.
BOOT_ESTIMATE = 180.0
DRAIN_ESTIMATE = 90.0

STACK_TAG = "aws:cloudformation:stack-name"


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

    ``replace`` is in the order that is expected, ``at_once`` how many of them go at a time at the most; ``surge`` is
    how many instances more the group will have, and ``surge_reason`` why so.
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
class Refusal:
    """Why there would be no roll, and what lifts it."""

    reason: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a roll would do. It is refused when there is a refusal, and then changes nothing."""

    rack: str
    options: RollOptions
    groups: tuple[GroupPlan, ...]
    dips: tuple[Dip, ...] = ()
    standalone_tasks: tuple[tuple[str, str], ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()

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

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        reasons = "; ".join(r.reason for r in refusals)
        super().__init__(
            f"no keyroll was begun and nothing was changed: {reasons}",
            hint="\n  ".join(r.remedy for r in refusals if r.remedy),
        )
        self.refusals = tuple(refusals)


def replacing_order(stale: Sequence[Member], filled: Mapping[str, int]) -> list[Member]:
    """Order the instances to replace, the zones of their group being filled so.

    What cannot take tasks goes first: to replace it costs no capacity. Then one from each zone in turn, so that those
    that are left, and with them those that have come, are as even over the zones as all of them are; where zones are
    alike, from the one that has fewest, since Auto Scaling launches there, and leaves the zone of the surge for the
    end, when the surge is taken back.
    """
    zones: dict[str, list[Member]] = {}
    for member in sorted(stale, key=lambda m: (m.counts, m.ec2_instance_id), reverse=True):
        zones.setdefault(member.availability_zone, []).append(member)
    ordered = []
    while left := [zone for zone in zones.items() if zone[1]]:
        _, members = min(left, key=lambda zone: (zone[1][-1].counts, -len(zone[1]), filled.get(zone[0], 0), zone[0]))
        ordered.append(members.pop())
    return ordered


def make_plan(rack: Rack, cluster: Cluster, options: RollOptions) -> Plan:
    """Look at everything a roll depends on, changing nothing. Raises what asking AWS raises."""
    return _Planner(rack, cluster, options).plan()


@dataclass(slots=True)
class _Findings:
    refusals: list[Refusal]
    warnings: list[str]


class _Planner:
    def __init__(self, rack: Rack, cluster: Cluster, options: RollOptions) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._cluster = cluster
        self._options = options
        self._found = _Findings([], [])

    def plan(self) -> Plan:
        listed = self._cluster.list()
        everywhere = self._aws.autoscaling.all_groups()
        names = groups_of_rack(self._rack.name, listed, everywhere)
        states = Groups(self._rack).look(names)
        templates = self._templates([state.group for state in states.values()])
        self._check_settings()
        if not states:
            self._refuse(
                f'rack "{self._rack.name}" has no Auto Scaling group: nothing would replace an instance',
                f"tag its groups Rack={self._rack.name}, or check --rack and --region",
            )
        self._check_sharing(states, everywhere)
        for state in states.values():
            self._check_group(state, templates)
        services = self._aws.ecs.services(self._rack.cluster)
        tasks = self._aws.ecs.running_tasks(self._rack.cluster)
        groups = tuple(self._group(state) for state in states.values())
        self._warn_of_full_groups(groups)
        return Plan(
            rack=self._rack.name,
            options=self._options,
            groups=groups,
            dips=tuple(_dips(services)),
            standalone_tasks=tuple(_standalone(tasks, listed, {id_ for group in groups for id_ in group.replace})),
            left_alone=tuple(_left_alone(listed, states)),
            refusals=tuple(self._found.refusals),
            warnings=tuple(self._found.warnings),
        )

    def _refuse(self, reason: str, remedy: str = "") -> None:
        self._found.refusals.append(Refusal(reason, remedy))

    def _check_settings(self) -> None:
        for setting in ("bucket", "kms_key"):
            try:
                self._rack.require(setting)
            except NotFound as error:
                self._refuse(str(error), error.hint)

    def _templates(self, groups: Sequence[AutoScalingGroup]) -> dict[str, LaunchTemplate]:
        ids = sorted({ref.launch_template_id for group in groups for ref in group.launch_templates})
        return {t.launch_template_id: t for t in self._aws.ec2.launch_templates([id_ for id_ in ids if id_])}

    def _check_sharing(self, states: dict[str, GroupState], everywhere: Sequence[AutoScalingGroup]) -> None:
        """Refuse to change what the groups of others launch from."""
        ours = {ref for state in states.values() for ref in state.group.launch_templates}
        changed = {ref.launch_template_id for ref in ours}
        defaults = {ref.launch_template_id for ref in ours if ref.version == "$Default"}
        for group in everywhere:
            if group.auto_scaling_group_name in states:
                continue
            for ref in group.launch_templates:
                moves = changed if ref.version == "$Latest" else defaults if ref.version == "$Default" else set()
                if ref.launch_template_id in moves:
                    self._refuse(
                        f"launch template {_named(ref)} is also what group {group.auto_scaling_group_name} launches "
                        f"from, as {ref.version}, and that group is not this rack's: it would get this rack's key",
                        f"have that group name a version by its number, or tag it Rack={self._rack.name} if it is "
                        "the rack's",
                    )

    def _check_group(self, state: GroupState, templates: dict[str, LaunchTemplate]) -> None:
        group, name = state.group, state.name
        if not group.launch_templates:
            what = f" {group.launch_configuration_name}" if group.launch_configuration_name else ""
            self._refuse(
                f"group {name} launches from a launch configuration{what}, which cannot be given another key",
                "move it to a launch template: "
                "https://docs.aws.amazon.com/autoscaling/ec2/userguide/migrate-to-launch-templates.html",
            )
        for process in ("Launch", "Terminate"):
            if process in group.suspended_processes:
                self._refuse(
                    f"the {process} process of group {name} is suspended",
                    f"`aws autoscaling resume-processes --auto-scaling-group-name {name} "
                    f"--scaling-processes {process}`",
                )
        if refresh := self._aws.autoscaling.refreshing(name):
            self._refuse(
                f"the instance refresh {refresh} of group {name} is under way, which replaces the same instances",
                f"wait for its end, or `aws autoscaling cancel-instance-refresh --auto-scaling-group-name {name}`",
            )
        if _is_weighted(group):
            self._refuse(
                f"group {name} counts its capacity in weights of its instance types and not in instances: a surge and "
                "its end cannot be told apart from them",
                "roll it with an instance refresh: "
                "https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh.html",
            )
        self._check_stack(state, templates)
        for member in state.alive:
            if member.agent_is_off and self._options.force:
                count = f"{member.tasks} task{'s' * (member.tasks != 1)}"
                self._found.warnings.append(
                    f"the agent of {member.ec2_instance_id} is off: --force ends its {count} with it"
                )
            elif member.agent_is_off:
                self._refuse(
                    f"the agent of {member.ec2_instance_id} is off: ECS cannot move its tasks, its drain would not end",
                    "restart the agent (`sudo systemctl restart ecs` on the instance), or go on all the same with "
                    "--force: its tasks are then ended with it",
                )
        if group.warm_pool_size:
            self._found.warnings.append(
                f"group {name} has {group.warm_pool_size} instances in its warm pool; they are left alone, and one "
                "that comes into service with the old key is replaced like any other"
            )

    def _check_stack(self, state: GroupState, templates: dict[str, LaunchTemplate]) -> None:
        owned = {
            f"launch template {_named(ref)}": template.tags[STACK_TAG]
            for ref in state.group.launch_templates
            if (template := templates.get(ref.launch_template_id)) and STACK_TAG in template.tags
        }
        if not owned and STACK_TAG in state.group.tags:
            owned = {f"group {state.name}": state.group.tags[STACK_TAG]}
        for what, stack in owned.items():
            if self._options.out_of_band:
                self._found.warnings.append(
                    f"{what} belongs to the CloudFormation stack {stack}: its next update may bring the old key back"
                )
            else:
                self._refuse(
                    f"{what} belongs to the CloudFormation stack {stack}, whose next update would bring the old key "
                    "back",
                    "change the key in the stack, or go around it with --out-of-band",
                )

    def _group(self, state: GroupState) -> GroupPlan:
        group, batch = state.group, self._options.batch
        count = len(state.alive)
        surge, reason = surge_of(group, count, self._options)
        # At a time go as many as there is a surge for; without one, the batch.
        at_once = min(max(surge or batch, 1), count)
        replace = tuple(m.ec2_instance_id for m in _expected_order(state, surge, at_once))
        seconds = math.ceil(count / at_once) * (BOOT_ESTIMATE + DRAIN_ESTIMATE) if count else 0.0
        return GroupPlan(
            auto_scaling_group_name=state.name,
            desired_capacity=group.desired_capacity,
            max_size=group.max_size,
            templates=tuple(self._uses(group.launch_templates)),
            replace=replace,
            surge=surge,
            surge_reason=reason,
            at_once=at_once,
            seconds=seconds,
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

    def _warn_of_full_groups(self, groups: Sequence[GroupPlan]) -> None:
        for group in groups:
            if not group.surge and 0 < len(group.replace) <= self._options.batch:
                what = "the one instance" if len(group.replace) == 1 else f"all {len(group.replace)} instances"
                self._found.warnings.append(
                    f"{what} of group {group.auto_scaling_group_name} would be drained at once and without a surge: "
                    "unless another group has room for the tasks, that does not end"
                )


def _expected_order(state: GroupState, surge: int, at_once: int) -> list[Member]:
    """Say in which order instances will go if Auto Scaling launches each new one where there are fewest."""
    filled, left = state.zones(), list(state.alive)

    def launch() -> None:
        filled[min(filled, key=lambda zone: (filled[zone], zone))] += 1

    for _ in range(surge):
        launch()
    ordered: list[Member] = []
    while left:
        going = replacing_order(left, filled)[:at_once]
        ordered += going
        for member in going:
            left.remove(member)
            filled[member.availability_zone] -= 1
            if len(left) >= surge:
                launch()
    return ordered


def surge_of(group: AutoScalingGroup, to_replace: int, options: RollOptions) -> tuple[int, str]:
    """Say by how many instances a group is to grow while some of it are replaced, and why by so many."""
    wanted = min(options.batch, to_replace)
    room = max(group.max_size - group.desired_capacity, 0)
    if not wanted:
        return 0, "nothing is to be replaced"
    if not options.surge:
        return 0, "--no-surge"
    if not room:
        return 0, f"the group is at its maximum size of {group.max_size}, which is never raised"
    if room < wanted:
        return room, f"the group's maximum size of {group.max_size} allows no more"
    return wanted, "new instances come before old ones go"


def groups_of_rack(rack: str, listed: Sequence[RackInstance], groups: Sequence[AutoScalingGroup]) -> list[str]:
    """Name the groups of a rack: those tagged as its, and those its instances are in; build groups apart."""
    ids = {i.ec2_instance_id for i in listed}
    return sorted(
        group.auto_scaling_group_name
        for group in groups
        if group.tags.get("Purpose") != "Build"
        and (
            group.tags.get("Rack") == rack
            or ("Rack" not in group.tags and any(m.ec2_instance_id in ids for m in group.instances))
        )
    )


def _is_weighted(group: AutoScalingGroup) -> bool:
    policy: Any = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
    return any(override.get("WeightedCapacity", "1") != "1" for override in overrides)


def _named(ref: LaunchTemplateRef) -> str:
    return ref.launch_template_name or ref.launch_template_id


def _dips(services: Sequence[Service]) -> Iterator[Dip]:
    for service in sorted(services, key=lambda s: s.service_name):
        desired = service.desired_count
        if service.scheduling_strategy == "DAEMON" or not desired:
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
                "cannot be moved and the drain will time out; allow one of the two",
            )  # fmt: skip
        elif minimum < desired:
            yield Dip(
                service.service_name, desired, minimum, stuck=False,
                reason=f"{percents}: ECS may stop a task before another runs in its place",
            )  # fmt: skip


def _standalone(tasks: Sequence[Task], listed: Sequence[RackInstance], replaced: set[str]) -> Iterator[tuple[str, str]]:
    """Give the tasks of no service on the instances to replace, and where each runs."""
    where = {i.container_instance.container_instance_arn: i.ec2_instance_id for i in listed if i.container_instance}
    for task in tasks:
        id_ = where.get(task.container_instance_arn, "")
        if not task.service_name and id_ in replaced:
            yield task.task_arn.rpartition("/")[2], id_


def _left_alone(listed: Sequence[RackInstance], states: dict[str, GroupState]) -> Iterator[LeftAlone]:
    members = {m.ec2_instance_id: m for state in states.values() for m in state.members}
    for instance in listed:
        id_ = instance.ec2_instance_id
        if instance.instance is None:
            yield LeftAlone(id_, "it no longer exists; only its registration with ECS is left")
        elif instance.instance.is_going:
            yield LeftAlone(id_, "it is being terminated")
        elif id_ not in members:
            yield LeftAlone(id_, _outside(instance.instance.auto_scaling_group_name, states))
    for member in members.values():
        if member.is_set_aside:
            yield LeftAlone(
                member.ec2_instance_id, f"it is set aside by its group ({member.group_instance.lifecycle_state})"
            )


def _outside(group: str, states: dict[str, GroupState]) -> str:
    if group in states:
        return f"it belongs to group {group} and is not among its members, as in a warm pool"
    if group:
        return f"it is in group {group}, which is not this rack's"
    return "it is in no Auto Scaling group: nothing would replace it. It keeps its key, which is kept for it"
