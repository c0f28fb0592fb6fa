"""The checks of a keyroll's plan, by topics, and of the capacity providers."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from rackctl.doctor.finding import Finding
from rackctl.owners import owner_of
from rackctl.roll.problems import Topic
from rackctl.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rackctl.model import AutoScalingGroup, CapacityProvider
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.plan import GroupPlan, Plan

TOPICS: tuple[Topic, ...] = get_args(Topic)
# If these are suspended, a new instance gets no requests, or an unhealthy one is not replaced. Other processes are
# often suspended on purpose. https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html
_NEEDED = {
    "AddToLoadBalancer": "new instances are not added to its load balancer",
    "HealthCheck": "unhealthy instances are not detected",
    "ReplaceUnhealthy": "unhealthy instances are not replaced",
}


def plan_topics(plan: Plan, rack: Rack, instances: Sequence[RackInstance] | None) -> Iterator[Finding]:
    """Yield the problems of a keyroll's plan by topics, in the plan's words, and checks that a plan leaves out.

    ``instances`` is None if they could not be listed.
    """
    groups = rack.aws.autoscaling.groups([group.auto_scaling_group_name for group in plan.groups])
    by_name = {group.auto_scaling_group_name: group for group in groups}
    besides: Mapping[str, Callable[[], Iterable[Finding]]] = {
        "groups": lambda: (*_owners_and_forms(plan, by_name), *_left_alone(plan, instances or ())),
        "processes": lambda: _suspended(groups),
        "capacity": lambda: _room(plan.groups),
        "agents": lambda: _unlisted("agents") if instances is None else _agents_off(plan, instances),
        "registrations": lambda: _unlisted("registrations") if instances is None else _gone(instances),
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
    """Return the message of a topic without problems; empty if other findings of the topic have it."""
    match topic:
        case "roll":
            return f"no roll of rack {plan.rack} is unfinished"
        case "store":
            return (
                f"s3://{plan.bucket.value} ({plan.bucket.origin}) accepts conditional writes; KMS key "
                f"{plan.kms_key.value} ({plan.kms_key.origin}) encrypts and decrypts"
            )
        case "processes":
            return "Launch and Terminate are not suspended in any group; no instance refresh is in progress"
        case "hooks":
            return "no lifecycle hook holds terminating instances"
        case "agents":
            return "the ECS agent of each instance is connected"
        case "registrations":
            return "each instance is registered with this cluster, and with no other"
        case "services":
            return "each service with tasks on the instances is steady"
        case "key":
            return "a keyroll can renew the key"
        case "sharing":
            kept = sorted({name for group in plan.groups if group.key for name in group.key.key_names})
            if not kept:
                return "not needed: a keyroll gives the key pair a new name"
            return f"no other group, launch template, launch configuration or instance names key pair {listed(kept)}"
        case "groups" | "capacity":
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
    """Describe a group's launch source, and the version as the group names it."""
    if group.launch_configuration_name:
        return f"launch configuration {group.launch_configuration_name}"
    uses = listed(
        f"{use.launch_template_name or use.launch_template_id} version {use.version}"
        + (f" (now {use.version_number})" if use.version != str(use.version_number) else "")
        for use in planned.templates
    )
    policy = " in a mixed instances policy" if group.mixed_instances_policy else ""
    return f"launch template {uses}{policy}"


def _unlisted(check: str) -> Iterator[Finding]:
    yield Finding(check, "skipped", "the instances could not be listed")


def _left_alone(plan: Plan, instances: Sequence[RackInstance]) -> Iterator[Finding]:
    """Warn of instances that a roll would not replace, except those that are terminating."""
    going = {i.ec2_instance_id for i in instances if i.is_terminating or i.status == "gone"}
    for left in plan.left_alone:
        if left.ec2_instance_id not in going:
            yield Finding("groups", "warning", f"a roll leaves {left.ec2_instance_id} as it is: {left.reason}")


def _agents_off(plan: Plan, instances: Sequence[RackInstance]) -> Iterator[Finding]:
    """Warn of agents that are off on instances that the plan does not replace, and so does not mention."""
    planned = {id_ for group in plan.groups for id_ in group.replace}
    for instance in instances:
        id_ = instance.ec2_instance_id
        if instance.registrations and not instance.agent_connected and id_ not in planned and instance.status != "gone":
            remedy = "restart the agent (`sudo systemctl restart ecs` on the instance)"
            yield Finding("agents", "warning", f"the agent of {id_} is off", "" if instance.is_terminating else remedy)


def _gone(instances: Sequence[RackInstance]) -> Iterator[Finding]:
    for instance in instances:
        if instance.status == "gone":
            arn = instance.registrations[0].container_instance_arn
            yield Finding(
                "registrations",
                "warning",
                f"{instance.ec2_instance_id} no longer exists, and is still registered",
                f"`aws ecs deregister-container-instance --force --cluster {arn.split('/')[1]} --container-instance "
                f"{arn}` removes the registration, if ECS does not remove it within some hours",
            )


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
                f"{has}: a roll cannot surge, and has one instance less until each replacement can take tasks",
                f"`aws autoscaling update-auto-scaling-group --auto-scaling-group-name {name} --max-size {most + 1}`, "
                "or in the code that creates the group",
            )


def providers(rack: Rack) -> Iterator[Finding]:
    """Check the capacity providers: managed scaling, termination protection and draining."""
    found = rack.aws.ecs.capacity_providers(rack.ecs_cluster.capacity_providers)
    if not found:
        yield Finding("providers", "ok", "the cluster has no capacity provider of an Auto Scaling group")
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
        f"{provider.name}: {has}; instances that Auto Scaling terminates by itself are not drained",
        f"`aws ecs update-capacity-provider --name {provider.name} --auto-scaling-group-provider "
        "managedDraining=ENABLED`",
    )
