"""`rackctl racks`: which racks are known, which is current, where each setting comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.completers import complete_rack
from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.errors import NotFound, RackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.aws.sts import Caller
    from rackctl.rack import Rack
    from rackctl.settings import Value

_output = output_option("table")


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    lazy={
        "adopt": ("rackctl.cli.racks_adopt:adopt", "Adopt an ECS cluster as a rack: bucket, KMS key and tags."),
        "find": (
            "rackctl.cli.racks_find:find",
            "List the ECS clusters of this account and region, and what each lacks to be a rack.",
        ),
        "policy": (
            "rackctl.cli.racks_policy:policy",
            "Print the least IAM policy that lets a user or role run commands on this rack.",
        ),
        "template": (
            "rackctl.cli.racks_template:template",
            "Print a template of CloudFormation or Terraform that makes a rack's store, or a rack.",
        ),
    },
)
@_output
@click.pass_context
def racks(ctx: click.Context, output: str) -> None:
    """List the known racks and mark the current one; AWS is not called.

    A rack need not be known: the name of any ECS cluster will do for --rack.
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.ensure_object(Invocation), output)


def _list(invocation: Invocation, output: str) -> None:
    from rackctl.cli.render import table

    try:
        current = invocation.sources.current().value
    except UsageError as error:
        current = ""
        note(f"{error}: {error.hint}" if error.hint else str(error))
    known = []
    for name, origin in invocation.sources.known().items():
        rack = _rack(invocation, name)
        known.append(
            {
                "name": name,
                "current": name == current,
                "cluster": rack.cluster,
                "region": rack.in_force("region").value or None,
                "known_from": str(origin),
            }
        )
    if output == "json":
        click.echo(json.dumps(known, indent=2))
        return
    rows = [
        ["*" if k["current"] else "", str(k["name"]), str(k["cluster"]), str(k["region"] or ""), str(k["known_from"])]
        for k in known
    ]
    click.echo(table(["", "NAME", "CLUSTER", "REGION", "KNOWN FROM"], rows))


@racks.command(cls=RackCommand)
@click.argument("name", metavar="[RACK]", required=False, shell_complete=complete_rack)
@click.option("--verify", is_flag=True, help="Show the account and the caller of the credentials too.")
@_output
@pass_invocation
def show(invocation: Invocation, name: str | None, verify: bool, output: str) -> None:
    """Show every setting of a rack that is in force and where it comes from.

    Tags are read from the rack's cluster. If that fails, the settings that a tag might give are unknown.
    """
    from rackctl.settings import Source

    rack = invocation.rack if name is None else _rack(invocation, name)
    by_name_alone = {Source.OPTION, Source.ENVIRONMENT}
    known = {n for n, origin in invocation.sources.known().items() if origin.source not in by_name_alone}
    settings = _settings(rack, is_known=rack.name in known)
    selected_by = "the command line" if name else str(rack.chosen_by)
    caller: Caller | None = None
    failure: RackctlError | None = None
    if verify:
        try:
            caller = rack.aws.sts.caller()
        except RackctlError as error:
            failure = error  # raised when the settings, which may explain it, are printed
    if output == "json":
        described = {
            key: {"value": found.value or None, "source": found.origin.source.name.lower(), "from": str(found.origin)}
            for key, found in settings.items()
        }
        document = {"name": rack.name, "selected_by": selected_by, "settings": described}
        if caller:
            document["caller"] = {"account": caller.account, "arn": caller.arn}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(_text(rack.name, selected_by, settings, caller))
    if failure:
        raise failure


def _text(name: str, selected_by: str, settings: Mapping[str, Value], caller: Caller | None) -> str:
    from rackctl.cli.render import table

    rows = [[key, found.value, str(found.origin)] for key, found in settings.items()]
    rows.insert(0, ["rack", name, selected_by])
    if caller:
        rows += [["account", caller.account, "the credentials"], ["caller", caller.arn, "the credentials"]]
    return table(["SETTING", "VALUE", "FROM"], rows)


def _settings(rack: Rack, *, is_known: bool) -> dict[str, Value]:
    """Return each setting in force. Raises NotFound for an unknown rack that has no cluster."""
    from rackctl.settings import SETTINGS, Origin, Source, Value

    try:
        rack.tags  # noqa: B018 - read first, so that the other settings are shown even if this fails
    except RackctlError as error:
        if isinstance(error, NotFound) and not is_known:
            raise
        note(f"cannot read the tags of cluster {rack.cluster}: {error}{f' ({error.hint})' if error.hint else ''}")
        unknown = {name for name, setting in SETTINGS.items() if setting.tagged and not rack.is_given(name)}
    else:
        unknown = set()
    return {name: Value("", Origin(Source.UNKNOWN)) if name in unknown else rack.in_force(name) for name in SETTINGS}


def _rack(invocation: Invocation, name: str) -> Rack:
    sources = invocation.sources
    return replace(sources, options={**sources.options, "rack": name}).rack(notify=note)
