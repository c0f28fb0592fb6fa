"""`rackctl instances`: the list, and the group of commands on instances."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.cli.watching import print_text, repeat, seconds_of, watch_option

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT_NAMES = ("table", "wide", "json", "csv", "id")


_list_options = options(
    click.option("-o", "--output", type=click.Choice(FORMAT_NAMES), default="table", show_default=True,
                 help="Format; wide has more columns, id is one a line for xargs."),
    click.option("--filter", "filters", metavar="KEY=VALUE", multiple=True,
                 help="Only instances with this in a field of the JSON. Repeat it to ask for more."),
    click.option("--sort", "sort_by", metavar="[-]KEY", default="id", show_default=True,
                 help="Order by a field of the JSON; with a minus, downwards."),
    watch_option(),
)  # fmt: skip


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    lazy={
        "forget-host-key": ("rackctl.cli.ssh:forget_host_key", "Forget the host keys pinned for an instance."),
        "keyroll": ("rackctl.cli.keyroll:keyroll", "Replace all instances, with a new SSH key."),
        "run": ("rackctl.cli.run:run", "Run a command on many instances at once."),
        "ssh-agent": ("rackctl.cli.ssh_agent:ssh_agent", "Load the instances' keys into your ssh-agent."),
        "ssh-config": ("rackctl.cli.ssh_config:ssh_config", "Print an OpenSSH configuration of the instances."),
        "ssh-proxy": ("rackctl.cli.ssh_config:ssh_proxy", "Lead OpenSSH to an instance, as its ProxyCommand."),
        "terminate": ("rackctl.cli.terminate:terminate", "Terminate an instance; its group replaces it."),
        "ssh": ("rackctl.cli.ssh:ssh", "Log in to an instance, or run a command on it."),
    },
)
@_list_options
@click.pass_context
def instances(ctx: click.Context, /, **options: Any) -> None:
    """List a rack's instances, or do something to them.

    \b
    AGENT    whether ECS has a connection to the instance's agent
    STATUS   what ECS says, or EC2 where ECS knows less: pending, unregistered, stopping,
             shutting-down; gone: registered, but the instance no longer exists
    PS       running tasks
    CPU MEM  the share that tasks reserve, not what they use

    \b
    Examples:
      rackctl instances
      rackctl instances -o id --filter status=draining
      rackctl instances --watch
      rackctl instances -o json | jq '.[] | select(.agent_connected | not)'
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_instances, **options)
    else:
        given = [p for p in options if ctx.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE]
        if given:
            name = given[0].removesuffix("_by").removesuffix("s")
            ctx.fail(f"--{name} belongs to the list; leave it out, or `{ctx.invoked_subcommand}` out.")


@instances.command("list", cls=RackCommand)
@_list_options
@pass_invocation
def list_instances(
    invocation: Invocation, output: str, filters: Sequence[str], sort_by: str, watch: str | None
) -> None:
    """List a rack's instances; the same as `rackctl instances`."""
    from rackctl.cli.render import FORMATS, filtered, ordered

    # What is wrong with the options is said before AWS is asked anything.
    ordered(filtered([], filters), sort_by)
    seconds = seconds_of(watch) if watch is not None else None
    # The thread that asks AWS for the next page must not wait long for those that read the pages before.
    sys.setswitchinterval(0.001)

    def text() -> str:
        listed = ordered(filtered(invocation.cluster.list(), filters), sort_by)
        return FORMATS[output](listed, invocation.clock.now())

    if seconds is None:
        print_text(text())
    else:
        repeat(invocation, text, seconds)
