"""`rackctl instances terminate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import AWS, note, say, waiting_for
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.text import listed, printable

if TYPE_CHECKING:
    from rackctl.model import AutoScalingGroup, Instance
    from rackctl.rack_instance import RackInstance


@click.command(cls=RackCommand)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_instance)
@options(
    click.option("--drain", is_flag=True, help="Drain the instance first."),
    click.option(
        "--drain-timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="Stop, and leave the instance as it was, if the drain takes longer.",
    ),
    click.option("--wait", is_flag=True, help="Wait until the replacement can take tasks; always so for several IDs."),
    click.option(
        "--wait-timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="Stop waiting for the replacement after this time.",
    ),
    click.option("--no-replacement", is_flag=True, help="Terminate the instance even if its group cannot replace it."),
    click.option("--dry-run", is_flag=True, help="Show what would be done and what runs there, and change nothing."),
)
@pass_invocation
def terminate(invocation: Invocation, /, ids: tuple[str, ...], dry_run: bool, **options: Any) -> None:
    """Terminate the instances ID; their Auto Scaling groups replace them.

    Whole ids are required. The group's desired capacity stays the same, and its lifecycle hooks run. Several instances
    are terminated one after the other: each when the replacement of the one before can take tasks. If one of them
    cannot be terminated, none is. If an instance is already being terminated, the exit status is 0.

    \b
    Examples:
      rackctl instances terminate i-0a321c8b
      rackctl instances terminate --drain --wait i-0123456789abcdef0
      rackctl instances terminate --drain --dry-run i-0a321c8b i-0b81ab34
    """
    from rackctl.instances import require_ec2_instance_id

    for id_ in ids:
        require_ec2_instance_id(id_)
    distinct = list(dict.fromkeys(ids))
    chosen = _Options(**options)
    if len(distinct) > 1:
        if chosen.no_replacement:
            raise UsageError(
                "--no-replacement takes one ID: each of several instances waits for the replacement of the one before",
                hint="give one ID, or leave out --no-replacement",
            )
        chosen = replace(chosen, wait=True)
    if chosen.wait and chosen.no_replacement:
        raise UsageError("--wait waits for a replacement, and --no-replacement expects none: leave one of them out")
    with waiting_for(AWS):
        checked = [_check(invocation, id_, chosen) for id_ in distinct]
    if dry_run:
        for found in checked:
            click.echo(printable(_what_would_be_done(invocation, found, chosen)))
        return
    progress = _Progress(left=list(distinct))
    try:
        for n, found in enumerate(checked):
            # The wait for a replacement may have taken minutes.
            _terminate(invocation, found if n == 0 else _check(invocation, distinct[n], chosen), chosen, progress)
    except (RackctlError, KeyboardInterrupt):
        if len(distinct) > 1:
            progress.tell(chosen)
        raise


@dataclass(frozen=True)
class _Options:
    drain: bool
    drain_timeout: float
    wait: bool
    wait_timeout: float
    no_replacement: bool


@dataclass(frozen=True)
class _Checked:
    """An instance that can be terminated; ``group`` is None where no replacement is to be waited for."""

    seen: RackInstance
    instance: Instance
    group: AutoScalingGroup | None


@dataclass
class _Progress:
    """How far the termination of several instances is; ``sent`` is the one whose replacement is waited for."""

    left: list[str]
    replaced: list[str] = field(default_factory=list)
    sent: str = ""

    def tell(self, chosen: _Options) -> None:
        """Say what is done and what is left."""
        parts = [f"terminated: {listed(self.replaced)}"] if self.replaced else []
        if self.sent:
            parts.append(f"terminated, replacement not ready: {self.sent}")
        if self.left:
            parts.append(f"not terminated: {listed(self.left)}")
        note(f"stopped; {'; '.join(parts)}")
        if self.left:
            command = " ".join(["rackctl instances terminate", *(["--drain"] if chosen.drain else []), *self.left])
            say(f"  continue with `{command}`" + (f", once {self.sent} is replaced" if self.sent else ""))


def _check(invocation: Invocation, id_: str, chosen: _Options) -> _Checked:
    """Find an instance. Raises RackctlError for one that cannot be terminated as chosen."""
    instance = invocation.instances.find(id_)
    seen = invocation.instances.describe(instance)
    if instance.state == "terminated":
        raise NotFound(f"{id_} has been terminated already")
    group = _group(invocation, seen, no_replacement=chosen.no_replacement)
    if chosen.drain and not seen.is_terminating:
        _require_drainable(invocation, seen)
    return _Checked(seen, instance, group)


def _terminate(invocation: Invocation, found: _Checked, chosen: _Options, progress: _Progress) -> None:
    id_, group = found.seen.ec2_instance_id, found.group
    if (member := found.seen.member) and member.on_standby:
        name = member.auto_scaling_group_name
        note(f"{id_} is on standby ({member.lifecycle_state}): group {name} does not count it and will not replace it")
    if chosen.drain and not found.seen.is_terminating:
        _drain(invocation, found.seen, chosen.drain_timeout)
    if invocation.instances.terminate(found.instance, notify=note):
        click.echo(f'Successfully sent terminate to instance "{id_}"')
        sys.stdout.flush()
    else:
        note(f"{id_} is being terminated already")
        group = group and _still_to_replace(group, id_)
    progress.left.remove(id_)
    progress.sent = id_
    if chosen.wait and group:
        for replacement in invocation.instances.replacement(group, timeout=chosen.wait_timeout):
            note(f"replacement: {replacement.describe()}")
    progress.sent = ""
    progress.replaced.append(id_)


def _still_to_replace(group: AutoScalingGroup, terminating: str) -> AutoScalingGroup | None:
    """Return a group without its new members, which may include the replacement; None if it lacks no instance."""
    in_service = tuple(m for m in group.instances if m.in_service and m.ec2_instance_id != terminating)
    return replace(group, instances=in_service) if len(in_service) < group.desired_capacity else None


def _what_would_be_done(invocation: Invocation, found: _Checked, chosen: _Options) -> str:
    from rackctl.details import describe_task, tasks_on

    seen = found.seen
    named = f"{seen.ec2_instance_id} ({seen.status})"
    if seen.is_terminating:
        return f"{named} is being terminated already"
    name = found.group.auto_scaling_group_name if found.group else ""
    replacement = f"group {name} launches a replacement" if name else "nothing replaces it"
    lines = [f"Would {'drain and terminate' if chosen.drain else 'terminate'} {named}; {replacement}"]
    if not seen.registrations:
        lines.append(f"  not registered with cluster {invocation.rack.cluster}: what runs on it is not known")
    lines += [f"  {describe_task(task)}" for task in tasks_on(invocation.rack, seen)]
    return "\n".join(lines)


def _group(invocation: Invocation, seen: RackInstance, *, no_replacement: bool) -> AutoScalingGroup | None:
    """Return the group that replaces an instance; None if none does."""
    from rackctl.instances import not_in_a_group

    id_, member = seen.ec2_instance_id, seen.member
    if member is None:
        if seen.is_terminating:
            return None
        raise not_in_a_group(id_)
    group = invocation.instances.group(member.auto_scaling_group_name)
    name = group.auto_scaling_group_name
    if member.on_standby:
        return None
    if "Launch" in group.suspended_processes and not seen.is_terminating:
        if no_replacement:
            return None
        raise RackctlError(
            f"the Launch process of group {name} is suspended: {id_} would not be replaced; it was left alone",
            hint=f"`aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes Launch`, or "
            "use --no-replacement",
        )
    return group


def _require_drainable(invocation: Invocation, seen: RackInstance) -> None:
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


def _drain(invocation: Invocation, seen: RackInstance, timeout: float) -> None:
    from rackctl.drain import drain

    for progress in drain(invocation.rack, invocation.clock, seen, timeout=timeout):
        note(f"{progress.ec2_instance_id}: {progress.describe()}")
