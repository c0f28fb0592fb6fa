"""`rackctl instances terminate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import note
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.text import counted

if TYPE_CHECKING:
    from rackctl.model import AutoScalingGroup
    from rackctl.rack_instance import RackInstance


@click.command(cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@options(
    click.option("--drain", is_flag=True, help="Drain the instance first."),
    click.option(
        "--drain-timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="Stop, and leave the instance as it was, if the drain takes longer.",
    ),
    click.option("--wait", is_flag=True, help="Wait until the replacement can take tasks."),
    click.option(
        "--wait-timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="Stop waiting for the replacement after this time.",
    ),
    click.option("--no-replacement", is_flag=True, help="Terminate the instance even if its group cannot replace it."),
)
@pass_invocation
def terminate(
    invocation: Invocation,
    /,
    ec2_instance_id: str,
    drain: bool,
    drain_timeout: float,
    wait: bool,
    wait_timeout: float,
    no_replacement: bool,
) -> None:
    """Terminate the instance ID; its Auto Scaling group replaces it.

    The whole id is required. The group's desired capacity stays the same, and its lifecycle hooks run. If the
    instance is already being terminated, the exit status is 0.

    \b
    Examples:
      rackctl instances terminate i-0a321c8b
      rackctl instances terminate --drain --wait i-0123456789abcdef0
    """
    from rackctl.instances import require_ec2_instance_id

    require_ec2_instance_id(ec2_instance_id)
    if wait and no_replacement:
        raise UsageError("--wait waits for a replacement, and --no-replacement expects none: leave one of them out")
    seen = invocation.instances.describe(invocation.instances.find(ec2_instance_id))
    assert seen.instance is not None
    if seen.instance.state == "terminated":
        raise NotFound(f"{ec2_instance_id} has been terminated already")
    group = _group(invocation, seen, wait=wait, no_replacement=no_replacement)
    if drain and not seen.is_terminating:
        _drain(invocation, seen, drain_timeout)
    if invocation.instances.terminate(seen.instance):
        click.echo(f'Successfully sent terminate to instance "{ec2_instance_id}"')
    else:
        note(f"{ec2_instance_id} is being terminated already")
    if wait and group:
        for progress in invocation.instances.replacement(group, timeout=wait_timeout):
            note(f"replacement: {progress.describe()}")


def _group(invocation: Invocation, seen: RackInstance, *, wait: bool, no_replacement: bool) -> AutoScalingGroup | None:
    """Return the group that replaces an instance; None where no replacement is to be waited for."""
    id_, member = seen.ec2_instance_id, seen.member
    if member is None:
        if wait:
            raise UsageError(f"--wait: {id_} belongs to no Auto Scaling group, so nothing replaces it")
        return None
    group = invocation.instances.group(member.auto_scaling_group_name)
    name = group.auto_scaling_group_name
    if member.on_standby:
        note(f"{id_} is on standby ({member.lifecycle_state}): group {name} does not count it and will not replace it")
        return None
    if "Launch" in group.suspended_processes and not no_replacement and not seen.is_terminating:
        raise RackctlError(
            f"the Launch process of group {name} is suspended: {id_} would not be replaced; it was left alone",
            hint=f"`aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes Launch`, or "
            "use --no-replacement",
        )
    return group


def _drain(invocation: Invocation, seen: RackInstance, timeout: float) -> None:
    from rackctl.drain import drain

    id_, registered = seen.ec2_instance_id, seen.container_instance
    cluster = invocation.rack.cluster
    if registered is None or not seen.living_registrations:
        state = f"is {registered.status}" if registered else "is not registered"
        raise RackctlError(
            f"{id_} {state} with cluster {cluster}: what runs on it is not known; it was left alone",
            hint="check --cluster; leave out --drain to terminate it with whatever runs on it",
        )
    if not registered.agent_connected:
        raise RackctlError(
            f"the agent of {id_} is off, so ECS cannot move its tasks; it was left alone",
            hint="leave out --drain to terminate it as it is: its services start their tasks elsewhere",
        )
    if seen.abandoned_tasks:
        raise RackctlError(
            f"a dead registration of {id_} still has {seen.abandoned_tasks} tasks, which ECS cannot move; it was left "
            "alone",
            hint="deregister that registration, or leave out --drain to terminate the instance as it is",
        )
    for progress in drain(invocation.rack, invocation.clock, seen, timeout=timeout):
        left = counted(progress.left, "task")
        event = f": {progress.service_event}" if progress.service_event else ""
        note(f"{id_}: {left} left{event}" if progress.left else f"{id_}: drained")
