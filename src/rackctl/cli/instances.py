"""`rackctl instances`: the list, and the group of commands on instances."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.completers import complete_columns, complete_filter, complete_sort
from rackctl.cli.console import AWS, note, stdout_canvas, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.cli.watching import print_text, repeat, seconds_of, watch_option
from rackctl.errors import AccessDenied, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.rack_instance import RackInstance

FORMAT_NAMES = ("table", "wide", "json", "csv", "id")
# Without --columns these have every field, or most.
_WITH_ALL_FIELDS = {"wide", "json", "csv"}

filter_option = click.option(
    "--filter", "filters", metavar="FIELD=VALUE", multiple=True, shell_complete=complete_filter,
    help="List instances whose field matches: = != =~ (glob) < > <= >=. Repeat to combine.",
)  # fmt: skip
_list_options = options(
    click.option("-o", "--output", type=click.Choice(FORMAT_NAMES), default="table", show_default=True,
                 help="Output format; wide has more columns, id prints one id a line."),
    filter_option,
    click.option("--sort", "sort_by", metavar="[-]FIELD", default="id", show_default=True, shell_complete=complete_sort,
                 help="Sort by a field; -FIELD for descending order."),
    click.option("--columns", metavar="FIELD,...", shell_complete=complete_columns,
                 help="Show these fields of the JSON, in this order."),
    watch_option(),
)  # fmt: skip


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    lazy={
        "drain": ("rackctl.cli.drain:drain", "Drain instances: move their tasks away."),
        "forget-host-key": ("rackctl.cli.ssh:forget_host_key", "Forget the host keys pinned for an instance."),
        "history": ("rackctl.cli.history:history", "List the rolls of the last year, newest first."),
        "keyroll": ("rackctl.cli.keyroll:keyroll", "Replace all instances, with a new SSH key."),
        "keys": ("rackctl.cli.keys:keys", "List, import, show and prune the stored SSH keys."),
        "replace": ("rackctl.cli.replace:replace", "Replace outdated or chosen instances, without downtime."),
        "run": ("rackctl.cli.run:run", "Run a command on many instances at once."),
        "show": ("rackctl.cli.show:show", "Show everything about an instance: tasks, group, events."),
        "ssh-agent": (
            "rackctl.cli.ssh_agent:ssh_agent",
            "Load the instances' keys into your ssh-agent.",
        ),
        "ssh-config": ("rackctl.cli.ssh_config:ssh_config", "Print an OpenSSH configuration for the instances."),
        "ssh-proxy": ("rackctl.cli.ssh_config:ssh_proxy", "Act as OpenSSH's ProxyCommand."),
        "terminate": ("rackctl.cli.terminate:terminate", "Terminate an instance; its group replaces it."),
        "undrain": ("rackctl.cli.drain:undrain", "Set drained instances to ACTIVE again."),
        "ssh": ("rackctl.cli.ssh:ssh", "Log in to an instance or run a command on it."),
    },
)
@_list_options
@click.pass_context
def instances(ctx: click.Context, /, **options: Any) -> None:
    """List a rack's instances, or act on them.

    \b
    AGENT    on if the ECS agent is connected
    STATUS   the ECS status; else the EC2 state, unregistered (running, but not
             known to ECS) or gone (registered, but no longer in EC2)
    PS       running tasks
    CPU MEM  share that tasks reserve, not what they use

    \b
    Examples:
      rackctl instances
      rackctl instances -o id --filter status=draining
      rackctl instances --filter 'cpu_percent>80' --columns id,zone,cpu_percent
      rackctl instances --watch
      rackctl instances -o json | jq '.[] | select(.agent_connected | not)'
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_instances, **options)
    else:
        given = [p for p in options if ctx.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE]
        if given:
            flag = next(p.opts[-1] for p in ctx.command.params if p.name == given[0])
            ctx.fail(f"{flag} is an option of the list; leave out either {flag} or `{ctx.invoked_subcommand}`.")


@instances.command("list", cls=RackCommand)
@_list_options
@pass_invocation
def list_instances(
    invocation: Invocation, output: str, filters: Sequence[str], sort_by: str, columns: str | None, watch: str | None
) -> None:
    """List a rack's instances; the same as `rackctl instances`."""
    from rackctl.cli.selection import columns_of, filtered, ordered

    # Invalid options are reported before AWS is called.
    ordered(filtered([], filters, invocation.clock.now()), sort_by, invocation.clock.now())
    chosen = columns_of(columns) if columns is not None else ()
    if chosen and output == "id":
        raise UsageError("--columns and -o id contradict each other", hint="leave one of them out")
    seconds = seconds_of(watch) if watch is not None else None
    # The thread that requests the next page must not wait long for those that parse the pages before.
    sys.setswitchinterval(0.001)

    def text() -> str:
        found = invocation.instances.list()
        if seconds is None and sys.stdout.isatty():
            from rackctl.cli.last_listed import remember

            remember(invocation, found)
        compared = _compared(invocation, found, output, filters, sort_by, chosen, tell=seconds is None)
        now = invocation.clock.now()
        listed = ordered(filtered(compared, filters, now), sort_by, now)
        return _rendered(invocation, output, listed, chosen, tell=seconds is None)

    if seconds is None:
        with waiting_for(AWS), _garbage_collection_paused():
            listed = text()
        print_text(listed)
    else:
        repeat(invocation, text, seconds)


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Keep the collector from going through the trees that botocore parses, which reference counting frees."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _compared(
    invocation: Invocation,
    found: Sequence[RackInstance],
    output: str,
    filters: Sequence[str],
    sort_by: str,
    chosen: Sequence[str],
    *,
    tell: bool,
) -> Sequence[RackInstance]:
    """Find out which instances are outdated, if that is shown or asked for.

    A caller who may not know it is refused only if he has asked for that field.
    """
    from rackctl.cli.selection import OUTDATED, names_outdated

    is_named = names_outdated(filters) or sort_by.removeprefix("-") == OUTDATED or OUTDATED in chosen
    if not is_named and (chosen or output not in _WITH_ALL_FIELDS):
        return found

    from rackctl.launches import with_outdated

    try:
        return with_outdated(invocation.rack.aws, found)
    except AccessDenied as error:
        if is_named:
            raise
        if tell:
            note(f"could not see which instances are outdated: {error}")
        return found


def _rendered(
    invocation: Invocation, output: str, listed: Sequence[RackInstance], chosen: Sequence[str], *, tell: bool
) -> str:
    from rackctl.cli import render
    from rackctl.cli.selection import FIELDS

    now = invocation.clock.now()
    if output == "json":
        return render.as_json(listed, now, chosen or FIELDS)
    if output == "csv":
        return render.as_csv(listed, now, chosen or FIELDS)
    if output == "id":
        return render.as_ids(listed)
    canvas = stdout_canvas(invocation.environment)
    if not chosen:
        chosen = render.wide(listed) if output == "wide" else render.TABLE
        left_out: Sequence[str] = ()
        if output == "wide" and canvas.width:
            chosen, left_out = render.fitting(listed, now, canvas.width)
        if left_out and tell:
            note(f"too wide for this terminal: {', '.join(left_out)} (use --columns or a pipe)")
    return render.as_table(listed, now, chosen, canvas)
