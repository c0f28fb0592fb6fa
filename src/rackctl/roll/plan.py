"""What a roll would do, said before it does anything: a value that text and JSON are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.errors import AccessDenied, NotFound, RackctlError
from rackctl.keys import is_key_name
from rackctl.roll.decide import surge_of
from rackctl.roll.groups import belonging, registered_ids
from rackctl.roll.observe import Observer
from rackctl.roll.problems import Problem, in_plan
from rackctl.roll.simulate import simulate
from rackctl.roll.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.clock import Clock
    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, LaunchTemplate, LaunchTemplateRef, RackInstance, Service, Task
    from rackctl.rack import Rack
    from rackctl.roll.observe import Look
    from rackctl.roll.view import RollOptions
    from rackctl.settings import Value

STACK_TAG = "aws:cloudformation:stack-name"
_REFRESH_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh.html"
_MIGRATE_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/migrate-to-launch-templates.html"
# How many instances are looked for in the account's other clusters.
_LOOKED_FOR = 10


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
        self._clock = clock
        self._options = options
        self._problems: list[Problem] = []

    def plan(self) -> Plan:
        listed = self._instances.list()
        everywhere = self._aws.autoscaling.all_groups()
        looks = self._looks(listed, everywhere)
        templates = self._templates([look.group for look in looks.values()])
        if self._check_settings():
            self._check_store(listed)
        self._check_sharing(looks, everywhere)
        views = [self._view(look) for look in looks.values()]
        for look, view in zip(looks.values(), views, strict=True):
            self._check_group(look, view, templates)
            self._problems += in_plan(view)
        self._check_elsewhere(views)
        groups = tuple(self._group(look, view) for look, view in zip(looks.values(), views, strict=True))
        self._warn_of_full_groups(groups)
        tasks = self._aws.ecs.running_tasks(self._rack.cluster)
        for instance in listed:
            if len(instance.registrations) > 1:
                arn = instance.registrations[0].container_instance_arn
                self._warn(
                    f"{instance.ec2_instance_id} has {len(instance.registrations)} registrations; "
                    f"{arn.rpartition('/')[2]} counts, and the tasks of all that live are followed"
                )
        where = _where(listed)
        replaced = {id_ for group in groups for id_ in group.replace}
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
            problems=tuple(self._problems),
        )

    def _refuse(self, reason: str, remedy: str = "") -> None:
        self._problems.append(Problem(reason, remedy))

    def _warn(self, reason: str) -> None:
        self._problems.append(Problem(reason, warns=True))

    # Which groups

    def _looks(self, listed: Sequence[RackInstance], everywhere: Sequence[AutoScalingGroup]) -> dict[str, Look]:
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
                    self._refuse(
                        f"only some instances of group {name} are registered with cluster {self._rack.cluster}, and "
                        f"{', '.join(others[:5])} not: whether the group is this rack's is not known",
                        f"tag the group Rack={self._rack.name} if it is, or with the name of its rack",
                    )
                case "foreign":
                    pass
        if not ours:
            self._refuse(
                f'rack "{self._rack.name}" has no Auto Scaling group: nothing would replace an instance',
                f"tag its groups Rack={self._rack.name}, or check --rack and --region",
            )
        observer = Observer(self._rack, self._instances, self._clock, lambda _: True, float("inf"))
        looks = observer.look(sorted(ours))
        if missing := sorted(set(ours) - looks.keys()):
            raise RackctlError(
                f"Auto Scaling did not describe group {', '.join(missing)}", hint="try again in a moment"
            )
        self._instance = observer.instance
        return looks

    def _view(self, look: Look) -> View:
        group = look.group
        failures: tuple[str, ...] = ()
        if sum(m.is_member for m in look.members) < group.desired_capacity:
            newest = self._aws.autoscaling.activities(look.name)[:1]
            failures = tuple(a.status_message for a in newest if a.status_code == "Failed")
        return View(
            group=look.name,
            desired_capacity=group.desired_capacity,
            max_size=group.max_size,
            min_size=group.min_size,
            members=look.members,
            zones=group.availability_zones,
            suspended=look.suspended,
            options=self._options,
            launch_failures=failures,
            refresh=self._aws.autoscaling.refreshing(look.name),
        )

    def _check_elsewhere(self, views: Sequence[View]) -> None:
        """Refuse instances that are registered with another cluster, which no option lifts."""
        unknown = [m.ec2_instance_id for v in views for m in v.old if m.in_service and m.registration == "unknown"]
        for id_ in unknown[:_LOOKED_FOR]:
            if other := self._instances.registered_elsewhere(id_):
                self._refuse(
                    f"{id_} is registered with cluster {other}, not with {self._rack.cluster}",
                    f"roll the rack of that cluster, or take {id_} out of the group",
                )

    # What forbids a roll, or is to be known before

    def _check_settings(self) -> bool:
        complete = True
        for setting in ("bucket", "kms_key"):
            try:
                self._rack.require(setting)
            except NotFound as error:
                self._refuse(str(error), error.hint)
                complete = False
        return complete

    def _check_store(self, listed: Sequence[RackInstance]) -> None:
        """Try the bucket and the KMS key as the roll would use them, and see whether it is the rack's store."""
        store, prefix = self._rack.store, self._rack["prefix"]
        try:
            self._try_kms()
            if not store.try_conditional_write(f"{prefix}/write-check"):
                self._refuse(
                    f"s3://{store.name} ignores the conditions of conditional writes", "use a bucket of S3's own"
                )
            stored = set(self._keys.names())
        except (AccessDenied, NotFound, RackctlError) as error:
            self._refuse(str(error), error.hint)
            return
        present = {i.instance.key_name: i.ec2_instance_id for i in listed if i.instance}
        lost = sorted(name for name in present if is_key_name(self._rack.name, name) and name not in stored)
        if lost:
            reason = f"key {lost[0]}, which {present[lost[0]]} has, is not stored in s3://{store.name}/{prefix}/keys/"
            if self._rack.is_given("bucket"):
                self._warn(f"{reason}: rackctl cannot log in to such instances")
            else:
                self._refuse(
                    f"{reason}, and only a tag names that bucket",
                    "find out who changed the tag rackctl:bucket; if the bucket is right and the key is lost, name the "
                    f"bucket yourself: RACKCTL_BUCKET={store.name}",
                )

    def _try_kms(self) -> None:
        nonce, context = b"rackctl", {"rackctl:rack": self._rack.name, "rackctl:key-name": "write-check"}
        kms, key = self._aws.kms, self._rack.kms_key
        sealed = kms.encrypt(key, nonce, context, what="the new key")
        if kms.decrypt(sealed, context, what="the new key", kms_key=key) != nonce:
            raise RackctlError(f"KMS key {key} does not decrypt what it has encrypted")

    def _templates(self, groups: Sequence[AutoScalingGroup]) -> dict[str, LaunchTemplate]:
        ids = sorted({ref.launch_template_id for group in groups for ref in group.launch_templates})
        return {t.launch_template_id: t for t in self._aws.ec2.launch_templates([id_ for id_ in ids if id_])}

    def _check_sharing(self, looks: Mapping[str, Look], everywhere: Sequence[AutoScalingGroup]) -> None:
        """Refuse to change what the groups of others launch from."""
        ours = {ref for look in looks.values() for ref in look.group.launch_templates}
        changed = {ref.launch_template_id for ref in ours}
        defaults = {ref.launch_template_id for ref in ours if ref.version == "$Default"}
        for group in everywhere:
            if group.auto_scaling_group_name in looks:
                continue
            for ref in group.launch_templates:
                moves = changed if ref.version == "$Latest" else defaults if ref.version == "$Default" else set()
                if ref.launch_template_id in moves:
                    self._refuse(
                        f"group {group.auto_scaling_group_name}, which is not this rack's, launches from {ref.version} "
                        f"of launch template {_named(ref)} as well: it would get this rack's key",
                        f"have that group name a version by its number, or tag it Rack={self._rack.name} if it is "
                        "the rack's",
                    )

    def _check_group(self, look: Look, view: View, templates: Mapping[str, LaunchTemplate]) -> None:
        group, name = look.group, look.name
        in_service = [m for m in view.capacity if m.in_service]
        if in_service and not any(m.registration in {"registered", "failed"} for m in in_service):
            self._refuse(
                f"none of the instances in service of group {name} is registered with cluster {self._rack.cluster}",
                "check --cluster, --rack and --region",
            )
        if not group.launch_templates:
            what = f" {group.launch_configuration_name}" if group.launch_configuration_name else ""
            self._refuse(
                f"group {name} launches from a launch configuration{what}, which cannot be given another key",
                f"move it to a launch template: {_MIGRATE_DOCS}",
            )
        counted_in = _counted_in(group)
        if counted_in:
            self._refuse(
                f"group {name} counts its capacity in {counted_in} and not in instances: a surge and its end cannot be "
                "told apart",
                f"roll it with an instance refresh: {_REFRESH_DOCS}",
            )
        self._check_stack(look, templates)
        windows = [
            m.ec2_instance_id for m in view.old if (i := self._instance(m.ec2_instance_id)) and i.platform == "windows"
        ]
        if windows and self._options.key_type != "rsa":
            self._refuse(
                f"{windows[0]} of group {name} runs Windows, and EC2 launches no Windows image with an Ed25519 key",
                "use --key-type rsa",
            )
        if group.warm_pool_size:
            self._warn(
                f"group {name} has {group.warm_pool_size} instances in its warm pool, which keep the old key: the roll "
                "stops when one comes into service"
            )
        for hook in self._aws.autoscaling.lifecycle_hooks(name):
            if hook.is_terminating:
                self._warn(
                    f"lifecycle hook {hook.name} of group {name} may hold each terminating instance for up to "
                    f"{hook.heartbeat_timeout} s"
                )

    def _check_stack(self, look: Look, templates: Mapping[str, LaunchTemplate]) -> None:
        owned = {
            f"launch template {_named(ref)}": template.tags[STACK_TAG]
            for ref in look.group.launch_templates
            if (template := templates.get(ref.launch_template_id)) and STACK_TAG in template.tags
        }
        if not owned and STACK_TAG in look.group.tags:
            owned = {f"group {look.name}": look.group.tags[STACK_TAG]}
        for what, stack in owned.items():
            reason = f"{what} belongs to CloudFormation stack {stack}, whose next update may bring the old key back"
            if self._options.out_of_band:
                self._warn(reason)
            else:
                self._refuse(reason, "change the key in the stack, or use --out-of-band")

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

    def _warn_of_full_groups(self, groups: Sequence[GroupPlan]) -> None:
        for group in groups:
            if not group.surge and 0 < len(group.replace) <= self._options.batch:
                what = "the one instance" if len(group.replace) == 1 else f"all {len(group.replace)} instances"
                self._warn(
                    f"{what} of group {group.auto_scaling_group_name} would be drained at once and without a surge: "
                    "unless another group has room for the tasks, that does not end"
                )


def _counted_in(group: AutoScalingGroup) -> str:
    """Return in what a group counts its capacity, empty where that is instances.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html (DesiredCapacityType)
    """
    if group.desired_capacity_type not in {"", "units"}:
        return group.desired_capacity_type
    policy: Any = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
    weighted = any(override.get("WeightedCapacity", "1") != "1" for override in overrides)
    return "weights of its instance types" if weighted else ""


def _named(ref: LaunchTemplateRef) -> str:
    return ref.launch_template_name or ref.launch_template_id


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
                "cannot be moved and the drain will time out; allow one of the two",
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
    return "it is in no Auto Scaling group: nothing would replace it. Its key is kept"
