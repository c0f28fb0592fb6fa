"""`rackctl instances terminate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import note
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.errors import NotFound, RackctlError, UsageError

if TYPE_CHECKING:
    from rackctl.cluster import Cluster
    from rackctl.model import AutoScalingGroup, Instance


@click.command(cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@click.option("--drain", is_flag=True, help="Drain the instance first.")
@click.option(
    "--drain-timeout",
    type=Duration(),
    default="15m",
    show_default=True,
    help="Stop, and leave the instance as it was, if the drain takes longer.",
)
@click.option("--wait", is_flag=True, help="Wait until the replacement can take tasks.")
@click.option(
    "--wait-timeout",
    type=Duration(),
    default="15m",
    show_default=True,
    help="Stop waiting for the replacement after this time.",
)
@pass_invocation  # fmt: skip
def terminate(
    invocation: Invocation, ec2_instance_id: str, drain: bool, drain_timeout: float, wait: bool, wait_timeout: float
) -> None:
    """Terminate the instance ID; its Auto Scaling group replaces it.

    The whole id is required. The group's desired capacity stays the same, and its lifecycle hooks run. If the
    instance is already being terminated, the exit status is 0.

    \b
    Examples:
      rackctl instances terminate i-0a321c8b
      rackctl instances terminate --drain --wait i-0123456789abcdef0
    """
    from rackctl.cluster import require_ec2_instance_id

    require_ec2_instance_id(ec2_instance_id)
    cluster = invocation.cluster
    instance = cluster.find(ec2_instance_id)
    if instance.state == "terminated":
        raise NotFound(f"{ec2_instance_id} has been terminated already")
    group = _group(cluster, instance) if wait else None
    if drain and not cluster.is_going(ec2_instance_id):
        _drain(cluster, instance, drain_timeout)
    if cluster.terminate(instance):
        click.echo(f'Successfully sent terminate to instance "{ec2_instance_id}"')
    else:
        note(f"{ec2_instance_id} is being terminated already")
    if group:
        _wait(cluster, group, wait_timeout)


def _group(cluster: Cluster, instance: Instance) -> AutoScalingGroup:
    member = cluster.member(instance.ec2_instance_id)
    name = member.auto_scaling_group_name if member else instance.auto_scaling_group_name
    if not name:
        raise UsageError(f"--wait: {instance.ec2_instance_id} belongs to no Auto Scaling group, so nothing replaces it")
    group = cluster.group(name)
    if "Launch" in group.suspended_processes:
        raise RackctlError(
            f"the Launch process of group {name} is suspended: {instance.ec2_instance_id} would not be replaced; "
            "it was left alone",
            hint=f"`aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes Launch`",
        )
    return group


def _drain(cluster: Cluster, instance: Instance, timeout: float) -> None:
    id_ = instance.ec2_instance_id
    registered = cluster.registration(id_)
    if registered is None:
        note(f"{id_} is not registered with ECS: there is nothing to drain")
        return
    if not registered.agent_connected:
        raise RackctlError(
            f"the agent of {id_} is off, so ECS cannot move its tasks; it was left alone",
            hint="leave --drain out to terminate it as it is: its services start their tasks elsewhere",
        )
    for progress in cluster.drain(registered, timeout=timeout):
        left = len(progress.tasks)
        event = f": {progress.service_event}" if progress.service_event else ""
        note(f"{id_}: {left} task{'s' if left != 1 else ''} left{event}" if left else f"{id_}: drained")


def _wait(cluster: Cluster, group: AutoScalingGroup, timeout: float) -> None:
    from rackctl.cluster import describe_replacement

    for progress in cluster.replacement(group, timeout=timeout):
        note(f"replacement: {describe_replacement(progress)}")
