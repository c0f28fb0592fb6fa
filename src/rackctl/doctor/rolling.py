"""The checks of what a keyroll would meet: what its plan says, by topics, and what moves tasks and capacity besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from rackctl.doctor.finding import Finding
from rackctl.owners import owner_of
from rackctl.roll.problems import Topic
from rackctl.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.model import AutoScalingGroup, CapacityProvider
    from rackctl.rack import Rack
    from rackctl.roll.plan import GroupPlan, Plan

TOPICS: tuple[Topic, ...] = get_args(Topic)
# Without these, a new instance gets no requests, or a broken one is not replaced; other processes are often suspended
# on purpose. https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
_NEEDED = {
    "AddToLoadBalancer": "new instances are not added to its load balancer",
    "HealthCheck": "unhealthy instances are not noticed",
    "ReplaceUnhealthy": "unhealthy instances are not replaced",
}


def plan_topics(plan: Plan, rack: Rack) -> Iterator[Finding]:
    """Tell what the plan of a keyroll says, in its own words, topic by topic."""
    groups = rack.aws.autoscaling.groups([group.auto_scaling_group_name for group in plan.groups])
    by_name = {group.auto_scaling_group_name: group for group in groups}
    besides: Mapping[str, Callable[[], Iterator[Finding]]] = {
        "groups": lambda: _owners_and_forms(plan, by_name),
        "processes": lambda: _suspended(groups),
        "capacity": lambda: _room(plan.groups),
    }
    for topic in TOPICS:
        problems = [problem for problem in plan.problems if problem.topic == topic]
        found = [
            Finding(topic, "warning" if problem.warns else "problem", problem.reason, problem.remedy)
            for problem in problems
        ]
        found += besides[topic]() if topic in besides else ()
        yield from found
        if not [finding for finding in found if finding.status != "ok"] and (well := _well(topic, plan)):
            yield Finding(topic, "ok", well)


def _well(topic: Topic, plan: Plan) -> str:
    """Say what is so where a plan has nothing against a topic; empty if that is said otherwise."""
    match topic:
        case "roll":
            return f"no roll of rack {plan.rack} is unfinished"
        case "store":
            return (
                f"s3://{plan.bucket.value} ({plan.bucket.origin}) takes conditional writes; KMS key "
                f"{plan.kms_key.value} ({plan.kms_key.origin}) encrypts and decrypts"
            )
        case "processes":
            return "Launch and Terminate run in each group, and no instance refresh does"
        case "hooks":
            return "no lifecycle hook holds what terminates"
        case "agents":
            return "the ECS agent of each instance is connected"
        case "registrations":
            return "each instance is registered with this cluster, and with no other"
        case "key":
            return "a keyroll can renew the key"
        case _:
            return ""


def _owners_and_forms(plan: Plan, groups: Mapping[str, AutoScalingGroup]) -> Iterator[Finding]:
    for planned in plan.groups:
        group = groups.get(planned.auto_scaling_group_name)
        if group is None:
            yield Finding("groups", "skipped", f"Auto Scaling did not describe {planned.auto_scaling_group_name}")
            continue
        owner = owner_of(group.tags)
        of = f"of {owner}" if owner else "of no CloudFormation stack"
        count = counted(len(group.instances), "instance")
        yield Finding(
            "groups", "ok", f"{group.auto_scaling_group_name}, {of}: {count}, launched from {_form(group, planned)}"
        )


def _form(group: AutoScalingGroup, planned: GroupPlan) -> str:
    """Say what a group launches from, and how it names the version."""
    if group.launch_configuration_name:
        return f"launch configuration {group.launch_configuration_name}"
    uses = listed(
        f"{use.launch_template_name or use.launch_template_id} version {use.version}"
        + (f" (now {use.version_number})" if use.version != str(use.version_number) else "")
        for use in planned.templates
    )
    policy = " in a mixed instances policy" if group.mixed_instances_policy else ""
    return f"launch template {uses}{policy}"


def _suspended(groups: Sequence[AutoScalingGroup]) -> Iterator[Finding]:
    for group in groups:
        name = group.auto_scaling_group_name
        for process in sorted(group.suspended_processes & _NEEDED.keys()):
            yield Finding(
                "processes",
                "warning",
                f"the {process} process of group {name} is suspended: {_NEEDED[process]}",
                f"`aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes {process}`",
            )


def _room(groups: Sequence[GroupPlan]) -> Iterator[Finding]:
    for group in groups:
        name, most = group.auto_scaling_group_name, group.max_size
        has = f"{name} has {group.desired_capacity} instances of at most {most}"
        if group.desired_capacity < most or not group.replace:
            yield Finding("capacity", "ok", has)
        else:
            yield Finding(
                "capacity",
                "warning",
                f"{has}: a roll drains before the replacement has come, with less capacity meanwhile",
                f"`aws autoscaling update-auto-scaling-group --auto-scaling-group-name {name} --max-size {most + 1}`, "
                "or where the group is made",
            )


def providers(rack: Rack) -> Iterator[Finding]:
    """Check the capacity providers: who scales, whether instances with tasks are protected, and drained."""
    found = rack.aws.ecs.capacity_providers(rack.ecs_cluster.capacity_providers)
    if not found:
        yield Finding("providers", "ok", "no capacity provider of an Auto Scaling group: ECS scales nothing")
    for provider in found:
        yield _provider(provider)


def _provider(provider: CapacityProvider) -> Finding:
    switches = {
        "managed scaling": provider.managed_scaling,
        "managed termination protection": provider.managed_termination_protection,
        "managed draining": provider.managed_draining,
    }
    has = "; ".join(f"{what} is {'on' if on else 'off'}" for what, on in switches.items())
    if provider.managed_draining:
        return Finding("providers", "ok", f"{provider.name}: {has}")
    return Finding(
        "providers",
        "warning",
        f"{provider.name}: {has}: what Auto Scaling terminates by itself stops with its tasks",
        f"`aws ecs update-capacity-provider --name {provider.name} --auto-scaling-group-provider "
        "managedDraining=ENABLED`",
    )
