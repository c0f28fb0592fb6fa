"""`rackctl local policy`: restrict the local rack's user to an IAM policy."""

from __future__ import annotations

import json

import click

from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), required=False)
@click.option("--clear", is_flag=True, help="Remove the policy: all calls are allowed again.")
@pass_invocation
def policy(invocation: Invocation, file: str | None, clear: bool) -> None:
    """Allow only the calls that the IAM policy in FILE allows.

    The local rack refuses every other call with the message of its service. `rackctl racks policy` prints such
    policies; - reads one from stdin.

    \b
    Examples:
      rackctl racks policy --for list | rackctl local policy -
      rackctl local policy --clear
    """
    from rackctl.local import control

    if clear == (file is not None):
        raise UsageError("no policy given", hint="pass a FILE, or --clear to remove the policy")
    document = None
    try:
        if file is not None:
            with click.open_file(file, encoding="utf-8") as opened:
                document = json.load(opened)
    except ValueError as error:
        raise UsageError(f"the policy is not JSON: {error}") from error
    control.Control(control.running(invocation.state_directory))("set_policy", policy=document)
    note("all actions are allowed" if clear else "only the actions of the policy are allowed")
