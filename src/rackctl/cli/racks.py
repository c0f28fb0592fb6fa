"""`rackctl racks`: which racks are known, which is current, where each setting comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import complete_rack, output_option
from rackctl.errors import RackctlError, UsageError

if TYPE_CHECKING:
    from rackctl.rack import Rack

_output = output_option("table")


@click.group(cls=LazyGroup, invoke_without_command=True)
@_output
@click.pass_context
def racks(ctx: click.Context, output: str) -> None:
    """List the racks that are known here, the current one marked; AWS is not asked.

    A rack need not be known: any ECS cluster's name will do for --rack.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.ensure_object(Invocation), output)


def _list(invocation: Invocation, output: str) -> None:
    from rackctl.cli.render import table

    try:
        current = invocation.sources.current().value
    except UsageError as error:
        current = ""
        note(f"no rack is current: {error.hint}")
    known = invocation.sources.known()
    if output == "json":
        described = [
            {"name": name, "current": name == current, "known_from": str(known_from)}
            for name, known_from in known.items()
        ]
        click.echo(json.dumps(described, indent=2))
        return
    rows = []
    for name, known_from in known.items():
        rack = _rack(invocation, name)
        region = rack.aws.region
        rows.append(["*" if name == current else "", name, rack.cluster, region, str(known_from)])
    click.echo(table(["", "NAME", "CLUSTER", "REGION", "KNOWN FROM"], rows))


@racks.command(cls=RackCommand)
@click.argument("name", metavar="[RACK]", required=False, shell_complete=complete_rack)
@_output
@pass_invocation
def show(invocation: Invocation, name: str | None, output: str) -> None:
    """Show every setting of a rack and where it comes from; its cluster's tags are read from AWS."""
    from rackctl.cli.render import table
    from rackctl.settings import SETTINGS

    rack = invocation.rack if name is None else _rack(invocation, name)
    try:
        rack.tags  # noqa: B018 - read here once, so that a failure is told and the rest still shown
        settings = {name: rack.setting(name) for name in SETTINGS}
    except RackctlError as error:
        note(f"the tags of cluster {rack.cluster} could not be read: {error}")
        settings = {name: rack.setting(name) for name in SETTINGS if rack.is_given(name) or not SETTINGS[name].tagged}
    if output == "json":
        described = {key: {"value": found.value, "from": str(found.origin)} for key, found in settings.items()}
        click.echo(json.dumps({"name": rack.name, "chosen_by": str(rack.chosen_by), "settings": described}, indent=2))
    else:
        click.echo(table(["SETTING", "VALUE", "FROM"], ([k, v.value, str(v.origin)] for k, v in settings.items())))


def _rack(invocation: Invocation, name: str) -> Rack:
    sources = invocation.sources
    return replace(sources, options={**sources.options, "rack": name}).rack(notify=note)
