"""`rackctl local policy`: what the local rack's user is allowed."""

from __future__ import annotations

import json

import click

from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@click.option("--clear", is_flag=True, help="Remove the policy: everything is allowed again.")
@pass_invocation
def policy(invocation: Invocation, file: str | None, clear: bool) -> None:
    """Set the IAM policy in FILE as all that is allowed.

    Each call that needs another action is refused in the words of its service. `rackctl racks policy` prints such
    policies; - reads one from stdin.

    \b
    Examples:
      rackctl racks policy --for list | rackctl local policy -
      rackctl local policy --clear
    """
    from rackctl.local import control

    if clear == (file is not None):
        raise UsageError("give a FILE or --clear", hint="see `rackctl local policy --help`")
    document = None
    try:
        if file is not None:
            with click.open_file(file, encoding="utf-8") as opened:
                document = json.load(opened)
    except ValueError as error:
        raise UsageError(f"the policy is not JSON: {error}") from error
    control.Control(control.running(invocation.state_directory))("set_policy", policy=document)
    note("all actions are allowed" if clear else "only what the policy allows is allowed")
