"""`rackctl local`: a rack on this machine."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import Group
from rackctl.cli.console import draws_on, note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.errors import RackctlError, UsageError
from rackctl.local.faults_command import faults
from rackctl.local.policy_command import policy

if TYPE_CHECKING:
    from rackctl.local.state import RackDescription

# The exit status of `systemctl status` for a service that is not running.
DOWN = 3
_PACKAGES = ("asyncssh", "flask", "flask_cors", "moto", "werkzeug")

_output = output_option("text")


@click.group(cls=Group)
def local() -> None:
    """Run a rack on this machine: the AWS APIs that rackctl calls, and instances that accept SSH.

    It needs neither root nor an AWS account, and costs nothing. All other commands work with it unchanged.

    \b
    Examples:
      rackctl local up                       start it
      rackctl instances                      use it
      eval "$(rackctl local env)"            point other AWS clients to it
      aws ecs list-clusters                  call it with one of them
      rackctl local faults add throttle 'ecs:*' --count 5
      rackctl local down                     remove it
    """


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", value):
        raise click.BadParameter("a local rack's name must have up to 31 lower-case letters, digits and dashes")
    return value


@local.command()
@click.option(
    "--instances", type=click.IntRange(0, 5000), default=3, show_default=True, metavar="N", help="Number of instances."
)
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 1000),
    default=10,
    show_default=True,
    metavar="X",
    help="Run X times as fast as AWS.",
)
@click.option("--no-key", is_flag=True, help="Store no SSH key; `keyroll` makes the first.")
@click.option(
    "--foreign", is_flag=True, help="Start a cluster of a CloudFormation stack that is no rack yet, its key in a file."
)
@click.option("--name", default="local", show_default=True, metavar="NAME", callback=_name, help="Name of the rack.")
@pass_invocation
def up(invocation: Invocation, /, no_key: bool, **options: Any) -> None:
    """Start the local rack and print some commands to try.

    If the local rack is already up, it stays unchanged; other options than its own are an error. If the last one was
    not stopped by `down`, for example because the machine was switched off, it continues where it was.
    """
    from rackctl.local import control
    from rackctl.local.state import Options

    _require_packages()
    if no_key and options["foreign"]:
        raise UsageError("--no-key and --foreign contradict each other", hint="remove one of them")
    asked = Options(key=not no_key, **options)
    with _Progress(invocation) as progress:
        found = control.start(invocation.state_directory, asked, progress=progress.say)
    for text in found.notes:
        note(text)
    differing = [
        option
        for option, wanted in asdict(asked).items()
        if option != "gateway"
        and found.rack.options[option] != wanted
        and _was_given("no_key" if option == "key" else option)
    ]
    if differing:
        others = ", ".join("--no-key" if option == "key" else f"--{option}" for option in differing)
        raise UsageError(
            f'the local rack "{found.rack.name}" is already up with another {others}; it was not changed',
            hint="use it, or remove it first with `rackctl local down`",
        )
    _introduce(invocation, found.rack, started=found.started)


def _was_given(parameter: str) -> bool:
    return click.get_current_context().get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def _require_packages() -> None:
    from importlib.util import find_spec

    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise RackctlError(
            f"the local rack needs packages that are not installed: {', '.join(missing)}",
            hint="install them: `pipx install --force '.[local]'` in a clone of rackctl",
        )


class _Progress:
    """Shows the progress of the start on stderr: on a terminal in one line, cleared at the end."""

    def __init__(self, invocation: Invocation) -> None:
        self._in_place = draws_on(sys.stderr, invocation.environment)

    def __enter__(self) -> _Progress:
        return self

    def say(self, words: str) -> None:
        if self._in_place:
            click.echo(f"\r\x1b[Krackctl: starting the local rack: {words} ...", nl=False, err=True)
        else:
            note(f"starting the local rack: {words}")

    def __exit__(self, *_: object) -> None:
        if self._in_place:
            click.echo("\r\x1b[K", nl=False, err=True)


def _introduce(invocation: Invocation, rack: RackDescription, *, started: bool) -> None:
    ids = _ids(rack)
    some = ids[0] if ids else "ID"
    rackctl = "rackctl" if _is_current(invocation, rack) else f"rackctl -r {rack.name}"
    state = "is up" if started else "is already up"
    many = f"{len(ids)} instance{'' if len(ids) == 1 else 's'}"
    speed = "as fast as" if rack.options["speed"] == 1 else f"{rack.options['speed']:g} times as fast as"
    click.echo(f'The local rack "{rack.name}" {state}: {many}; time runs {speed} AWS\'s. Commands to try:\n')
    commands = (
        _of_a_stranger(rack)
        if rack.key_file
        else {
            f"{rackctl} instances": "list them",
            f"{rackctl} instances ssh {some}": "log in to one",
            f"{rackctl} instances terminate {some}": "replace one",
            f"{rackctl} instances keyroll": "replace all, with a new SSH key",
            'eval "$(rackctl local env)"': "let any AWS client use it",
            "rackctl local down": "remove it",
        }
    )
    width = max(map(len, commands)) + 3
    for command, what in commands.items():
        click.echo(f"  {command:<{width}}# {what}")


def _of_a_stranger(rack: RackDescription) -> dict[str, str]:
    """Return the commands that adopt a cluster; the key is in ``rack.key_file``."""
    return {
        "rackctl racks find": "list the clusters, and what each lacks to be a rack",
        f"rackctl racks adopt {rack.name} --create": "create bucket, KMS key and tags",
        f"rackctl instances keys import {rack.key_file}": "store the key that the instances have, sealed",
        "rackctl instances": "list them",
        "rackctl doctor": "check everything",
        'eval "$(rackctl local env)"': "let any AWS client use it",
        "rackctl local down": "remove it",
    }


def _ids(rack: RackDescription) -> list[str]:
    from rackctl.local import control

    return list(control.Control(rack)("status")["instance_ids"])


def _is_current(invocation: Invocation, rack: RackDescription) -> bool:
    invocation.__dict__.pop("sources", None)  # so far the invocation knew no local rack
    try:
        return invocation.sources.current().value == rack.name
    except UsageError:
        return False


@local.command()
@pass_invocation
def down(invocation: Invocation) -> None:
    """Stop and remove the local rack with its instances, keys and state."""
    from rackctl.local import control

    if control.down(invocation.state_directory):
        click.echo("Stopped and removed the local rack")
    else:
        note("there is no local rack to remove")


@local.command()
@_output
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show whether the local rack is up, and its state. The exit status is 3 if it is down."""
    from rackctl.local import control

    invocation = ctx.ensure_object(Invocation)
    directory = invocation.state_directory
    rack = control.describe(directory)
    if rack is None:
        click.echo(json.dumps({"up": False}) if output == "json" else "The local rack is down.")
        ctx.exit(DOWN)
    from datetime import UTC, datetime

    found = control.Control(rack)("status")
    since = datetime.fromtimestamp(found["up_since"], UTC)
    described = {
        "up": True,
        "name": rack.name,
        "endpoint_url": rack.endpoint_url,
        "region": rack.region,
        "pid": rack.pid,
        "state_directory": str(directory / "local"),
        "key_file": rack.key_file or None,
        **found,
        "up_since": since.isoformat(timespec="seconds"),
    }
    if output == "json":
        click.echo(json.dumps(described, indent=2))
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["instances"].items())) or "none"
    conditions = [f"{name} {argument}".strip() for name, argument in found["conditions"].items()]
    memory = f"{found['peak_memory_bytes'] / 2**20:.0f} MB at most"
    lines = {
        "Rack": rack.name,
        "Up since": f"{since.astimezone():%Y-%m-%d %H:%M:%S %Z} (pid {rack.pid}, {memory})",
        "Endpoint": f"{rack.endpoint_url} ({rack.region})",
        "Instances": f"{states}; {found['network']}, SSH on port {found['ssh_port']}",
        **({"Key": rack.key_file} if rack.key_file else {}),
        "Speed": f"{found['speed']:g} times AWS's",
        "Faults": ", ".join([*conditions, *([f"{found['faults']} of the API"] if found["faults"] else [])]) or "none",
        "State": described["state_directory"],
    }
    for name, text in lines.items():
        click.echo(f"{name + ':':<11}{text}")


@local.command()
@pass_invocation
def env(invocation: Invocation) -> None:
    """Print shell commands that point any AWS client to the local rack.

    \b
    Example:
      eval "$(rackctl local env)"
    """
    from rackctl.local import control

    rack = control.running(invocation.state_directory)
    variables = {
        "AWS_ENDPOINT_URL": rack.endpoint_url,
        "AWS_ACCESS_KEY_ID": rack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": rack.secret_access_key,
        "AWS_REGION": rack.region,
        "AWS_DEFAULT_REGION": rack.region,
        "RACKCTL_RACK": rack.name,
    }
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo("unset AWS_PROFILE AWS_SESSION_TOKEN")


local.add_command(faults)
local.add_command(policy)
