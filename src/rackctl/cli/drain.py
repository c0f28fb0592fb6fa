"""`rackctl instances drain` and `undrain`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import AWS, note, say, waiting_for
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.cli.signals import ending_at_once
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.text import counted, listed, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.rack_instance import RackInstance

_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_instance)


@click.command(cls=RackCommand)
@_ids
@options(
    click.option("--wait", is_flag=True, help="Wait until the tasks have left the instances."),
    click.option(
        "--timeout",
        type=Duration(),
        default="15m",
        show_default=True,
        help="With --wait: stop waiting after this time; the instances stay DRAINING.",
    ),
    click.option(
        "--stop-standalone",
        is_flag=True,
        help="Stop tasks that belong to no service instead of waiting for them to end; needs --wait.",
    ),
    click.option("--dry-run", is_flag=True, help="Show what would be drained and what runs there; change nothing."),
)
@pass_invocation
def drain(
    invocation: Invocation, ids: tuple[str, ...], wait: bool, timeout: float, stop_standalone: bool, dry_run: bool
) -> None:
    """Drain the instances ID, all at once: ECS moves their tasks to other instances and places no new ones.

    ID is the id, its start (at least 4 characters after "i-"), an address, a DNS name or a Name tag that only one
    instance has. The instances keep running and stay DRAINING until `undrain`, even if --wait times out or is
    interrupted. Tasks of daemon services stay; tasks of no service run until they end. If one of the instances cannot
    be drained, none is. If an instance is DRAINING already, the exit status is 0.

    \b
    Examples:
      rackctl instances drain i-0a321c8b
      rackctl instances drain --wait i-0a321c8b i-0b81ab34
      rackctl instances drain --wait --timeout 1h --stop-standalone i-0a321c8b
    """
    from rackctl.drain import follow

    if stop_standalone and not wait:
        raise UsageError("--stop-standalone stops tasks while it waits for their end", hint="add --wait")
    with waiting_for(AWS):
        chosen = _checked(invocation, ids, drain=True, completely=wait)
    if dry_run:
        click.echo(printable("\n".join(line for seen in chosen for line in _what_would_be_drained(invocation, seen))))
        return
    to_drain = [i for i in chosen if any(r.status != "DRAINING" for r in i.living_registrations)]
    drained: list[str] = []
    status = "perhaps DRAINING"
    try:
        with ending_at_once():
            _set_status(invocation, to_drain, "DRAINING")
            status = "still DRAINING"
            for seen in chosen:
                if seen not in to_drain:
                    note(f"{seen.ec2_instance_id} is DRAINING already")
            if not wait:
                return
            following = follow(
                invocation.rack, invocation.clock, chosen, timeout=timeout, stop_standalone=stop_standalone
            )
            for progress in following:
                note(f"{progress.ec2_instance_id}: {progress.describe()}")
                if not progress.left:
                    drained.append(progress.ec2_instance_id)
                    _print(f'Drained instance "{progress.ec2_instance_id}"')
    except (RackctlError, KeyboardInterrupt, SystemExit):
        left = [i.ec2_instance_id for i in chosen if i.ec2_instance_id not in drained]
        parts = [f"drained: {listed(drained)}"] if drained else []
        note(f"stopped; {'; '.join([*parts, f'not drained: {listed(left)} ({status})'])}")
        if to_drain:
            words = " ".join(i.ec2_instance_id for i in to_drain)
            say(f"  set back to ACTIVE with `rackctl instances undrain --rack {invocation.rack.name} {words}`")
        raise


@click.command(cls=RackCommand)
@_ids
@click.option("--dry-run", is_flag=True, help="Show what would be set to ACTIVE; change nothing.")
@pass_invocation
def undrain(invocation: Invocation, ids: tuple[str, ...], dry_run: bool) -> None:
    """Set the instances ID to ACTIVE, so that ECS places tasks on them again.

    ID is as for `drain`. Tasks that a drain has moved away do not come back by themselves. If an instance is ACTIVE
    already, the exit status is 0.

    \b
    Examples:
      rackctl instances undrain i-0a321c8b
      rackctl instances undrain i-0b81ab34 ip-10-0-1-17.ec2.internal
    """
    with waiting_for(AWS):
        chosen = _checked(invocation, ids, drain=False)
    draining = [i for i in chosen if any(r.status != "ACTIVE" for r in i.living_registrations)]
    for seen in chosen:
        if seen not in draining:
            note(f"{seen.ec2_instance_id} is ACTIVE already")
    if dry_run:
        for seen in draining:
            click.echo(f"Would set {seen.ec2_instance_id} ({seen.status}) to ACTIVE")
        return
    with ending_at_once():
        _set_status(invocation, draining, "ACTIVE")


def _checked(
    invocation: Invocation, names: Sequence[str], *, drain: bool, completely: bool = False
) -> Sequence[RackInstance]:
    """Return the named instances. Raises RackctlError if the status of one of them cannot be set.

    ``completely`` says that a drain must be able to see that nothing is left.
    """
    chosen = invocation.instances.describe_all(invocation.instances.match_all(names))
    for seen in chosen:
        _require_settable(invocation, seen)
        if drain:
            _consider_agents(seen, completely=completely)
    for warning in _conflicts(invocation, chosen, drain=drain):
        note(warning)
    return chosen


def _require_settable(invocation: Invocation, seen: RackInstance) -> None:
    id_, registered = seen.ec2_instance_id, seen.container_instance
    if seen.instance and seen.instance.state == "terminated":
        raise NotFound(f"{id_} has been terminated; nothing was changed")
    if seen.is_terminating:
        raise RackctlError(f"{id_} is being terminated; nothing was changed", hint="leave it out")
    if registered is None or not seen.living_registrations:
        state = f"is {registered.status}" if registered else "is not registered"
        raise RackctlError(
            f"{id_} {state} with cluster {invocation.rack.cluster}: ECS cannot drain it; nothing was changed",
            hint="check --cluster, and whether the ECS agent runs on it",
        )


def _consider_agents(seen: RackInstance, *, completely: bool) -> None:
    id_ = seen.ec2_instance_id
    if not seen.agent_connected:
        note(f"the agent of {id_} is off: ECS cannot move its tasks until it is on again")
    others = [r for r in seen.registrations if r.is_alive and r not in seen.living_registrations]
    if stranded := sum(r.tasks_count for r in others):
        what = f"a dead registration of {id_} still has {counted(stranded, 'task')}, which ECS cannot move"
        if completely:
            raise RackctlError(
                f"{what}: the drain would not end; nothing was changed",
                hint="deregister that registration, or leave out --wait",
            )
        note(what)


def _conflicts(invocation: Invocation, chosen: Sequence[RackInstance], *, drain: bool) -> Iterator[str]:
    """Yield warnings of an unfinished roll. Raises RackctlError if a running one works on these instances."""
    from rackctl.roll.holding import conflicts, unfinished_roll

    try:
        found = unfinished_roll(invocation.rack, invocation.clock)
    except RackctlError as error:
        yield f"could not see whether a roll works on the same instances: {error}"
        return
    for problem in conflicts(found, chosen, drain=drain) if found else ():
        if not problem.warns:
            raise RackctlError(f"{problem.reason}; nothing was changed", hint=problem.remedy)
        yield problem.reason


def _set_status(invocation: Invocation, chosen: Sequence[RackInstance], status: Literal["ACTIVE", "DRAINING"]) -> None:
    """Set every living registration of instances to a status, and say so once ECS reports it."""
    from rackctl.drain import set_status, wait_for_status

    registrations = [r for seen in chosen for r in seen.living_registrations if r.status != status]
    if not registrations:
        return
    set_status(invocation.rack, registrations, status)
    wait_for_status(invocation.rack, invocation.clock, registrations, status, notify=note)
    for seen in chosen:
        _print(f'Set instance "{seen.ec2_instance_id}" to {status}')


def _print(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


def _what_would_be_drained(invocation: Invocation, seen: RackInstance) -> Iterator[str]:
    from rackctl.details import describe_task, tasks_on

    if seen.status == "draining":
        yield f"{seen.ec2_instance_id} is DRAINING already"
    else:
        yield f"Would drain {seen.ec2_instance_id} ({seen.status})"
    for task in tasks_on(invocation.rack, seen):
        yield f"  {describe_task(task)}"
