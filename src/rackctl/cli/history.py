"""`rackctl instances history`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.console import AWS, note, stdout_canvas, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.text import counted, listed, minutes_and_seconds

if TYPE_CHECKING:
    from rackctl.roll.history import Entry

_HEADERS = ("STARTED", "ROLL", "RESULT", "REPLACED", "TOOK", "BY", "REASON", "PROBLEM")


@click.command(cls=RackCommand)
@click.option(
    "--limit", type=click.IntRange(1, 20_000), metavar="N", default=20, show_default=True, help="Show the newest N."
)
@output_option("table")
@pass_invocation
def history(invocation: Invocation, limit: int, output: str) -> None:
    """List the rolls of a rack, newest first: what, when, by whom, why, for how long, and how they ended.

    These are the keyrolls and replacements of the last year and the one that is running or unfinished. They are kept
    in the rack's bucket: anyone who may write there can change them.

    \b
    Examples:
      rackctl instances history
      rackctl instances history -o json | jq -c '.[] | [.ended, .reason]'
    """
    from rackctl.cli.render import table
    from rackctl.roll.history import past_rolls

    with waiting_for(AWS):
        past = past_rolls(invocation.rack, invocation.clock, limit)
    if output == "json":
        click.echo(json.dumps([_fields(entry) for entry in past.entries], indent=2))
    else:
        width = stdout_canvas(invocation.environment).width
        click.echo(table(_HEADERS, map(_cells, past.entries), width=width))
    if past.unknown:
        note(f"could not check whether a roll is unfinished: {past.unknown}")
    if past.older:
        note(f"{counted(past.older, 'older roll')} not shown: use --limit")
    if past.not_entries:
        note(f"left out {counted(past.not_entries, 'object')} that this rackctl cannot read as a roll")


def _cells(entry: Entry) -> list[str]:
    replaced = "" if entry.replaced is None else f"{entry.replaced} of {entry.total}"
    return [
        entry.started.replace("T", " ").removesuffix("Z")[:16],
        entry.command,
        entry.outcome,
        replaced,
        "" if entry.seconds is None else minutes_and_seconds(entry.seconds),
        listed(dict.fromkeys(operator.who for operator in entry.operators)),
        entry.reason,
        "" if entry.outcome == "running" else entry.problem,
    ]


def _fields(entry: Entry) -> dict[str, Any]:
    """Return a roll as an object of ``-o json``. Names and meanings are documented and stable."""
    return {
        "started": entry.started,
        "ended": entry.ended or None,
        "seconds": entry.seconds,
        "roll": entry.command,
        "engine": entry.engine,
        "selection": "all" if entry.kind == "key" else entry.kind,
        "older_than": entry.older_than or None,
        "groups": list(entry.groups),
        "result": entry.outcome,
        "replaced": entry.replaced,
        "total": entry.total,
        "reason": entry.reason or None,
        "problem": entry.problem or None,
        "key_name": entry.key_name or None,
        "operators": [{"who": operator.who, "caller_arn": operator.caller_arn or None} for operator in entry.operators],
    }
