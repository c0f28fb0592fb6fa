"""`rackctl local faults`: inject faults into the local rack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from rackctl.cli.command import Group
from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.local.control import Control

_output = output_option("text")


@click.group(cls=Group)
def faults() -> None:
    """Inject faults into the local rack: its APIs and instances."""


def _complete_fault(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from rackctl.local.faults import known

    texts = {name: text for entries in known().values() for name, (_, text) in entries.items()}
    return [CompletionItem(name, help=text) for name, text in texts.items() if name.startswith(incomplete)]


class _Add(click.Command):
    """The command whose help lists every fault."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's name
        from rackctl.local.faults import known

        for title, entries in known().items():
            with formatter.section(title):
                formatter.write_dl([(f"{name} {argument}".strip(), text) for name, (argument, text) in entries.items()])


@faults.command(cls=_Add)
@click.argument("fault", metavar="FAULT", shell_complete=_complete_fault)
@click.argument("target", default="")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Inject it at most N times.  [default: no limit]")
@click.option("--skip", type=click.IntRange(0), metavar="N", help="Skip the first N calls.  [default: 0]")
@click.option(
    "--probability", type=click.FloatRange(0, 1), metavar="P", help="Inject it with this probability.  [default: 1]"
)
@click.option("--mutating", is_flag=True, default=None, help="Skip calls that change nothing.")
@click.option("--code", help="Error code of `error`.  [default: InternalFailure]")
@click.option("--status", type=click.IntRange(400, 599), help="HTTP status of `error`.  [default: AWS's]")
@click.option("--seconds", type=click.FloatRange(0), help="Seconds of `delay`, `late` and `drip`.  [default: 1]")
@click.option("--which", metavar="ID", help="Item that `incomplete` leaves out.  [default: the first]")
@pass_invocation
def add(invocation: Invocation, /, fault: str, target: str, **details: Any) -> None:
    """Inject a fault from now on.

    \b
    Examples:
      rackctl local faults add throttle 'ecs:*' --count 5
      rackctl local faults add error 'ec2:*' --code InternalError --status 503
      rackctl local faults add drop-after autoscaling:Terminate*
      rackctl local faults add incomplete ecs:DescribeContainerInstances
      rackctl local faults add deny ec2:RunInstances
      rackctl local faults add no-capacity us-east-1b
      rackctl local faults add vanish i-0123456789abcdef0
    """
    from rackctl.local.faults import KINDS as calls  # noqa: N811 - as the help calls them
    from rackctl.local.world.conditions import CONDITIONS as conditions  # noqa: N811
    from rackctl.local.world.conditions import INCIDENTS as incidents  # noqa: N811

    given = {name: value for name, value in details.items() if value is not None}
    if fault not in calls and given:
        raise UsageError(f"--{next(iter(given))} is for faults of the API; {fault} has no options")
    if fault in calls:
        if not target:
            raise UsageError(f"{fault} needs a target", hint=f"for example `rackctl local faults add {fault} 'ecs:*'`")
        number = _control(invocation)("add_fault", kind=fault, pattern=target, **given)
        note(f"fault {number}: {fault} {target}; end it with `rackctl local faults clear {number}`")
    elif fault in conditions:
        if target and not conditions[fault][1]:
            raise UsageError(f"{fault} takes no target")
        _control(invocation)("set_condition", name=fault, argument=target)
        note(f"{fault} {target}".strip() + f"; end it with `rackctl local faults clear {fault}`")
    elif fault in incidents:
        if not target:
            raise UsageError(f"{fault} needs an instance's id")
        _control(invocation)("befall", incident=fault, instance=target)
    else:
        names = [*calls, *conditions, *incidents]
        raise UsageError(f'there is no fault "{fault}"', hint=f"the faults are {', '.join(names)}")


@faults.command("list")
@_output
@pass_invocation
def list_faults(invocation: Invocation, output: str) -> None:
    """List the faults in force."""
    from rackctl.cli.render import table

    ask = _control(invocation)
    found, conditions = ask("faults"), ask("status")["conditions"]
    if output == "json":
        click.echo(json.dumps({"api": found, "conditions": conditions}, indent=2))
        return
    rows = [[str(f["number"]), f["kind"], f["pattern"], ", ".join(_details(f))] for f in found]
    rows += [[name, name, argument, ""] for name, argument in conditions.items()]
    click.echo(table(["CLEAR BY", "FAULT", "TARGET", "DETAILS"], rows))


def _details(fault: Mapping[str, Any]) -> Iterator[str]:
    match fault["kind"]:
        case "error":
            yield f"{fault['code']} ({fault['status']})"
        case "incomplete" if fault["which"]:
            yield f"without {fault['which']}"
        case "delay" | "late" | "drip":
            yield f"{fault['seconds']:g} s"
    if fault["skip"]:
        yield f"after {fault['skip']} more calls"
    if fault["count"] is not None:
        yield f"{fault['count']} more times"
    if fault["probability"] < 1:
        yield f"with probability {fault['probability']:g}"
    if fault["mutating"]:
        yield "only calls that change something"


@faults.command()
@click.argument("which", nargs=-1, metavar="[NUMBER|CONDITION]...")
@pass_invocation
def clear(invocation: Invocation, which: Sequence[str]) -> None:
    """Clear faults: those named, or all of them."""
    ask = _control(invocation)
    conditions = ask("status")["conditions"]
    for name in which or [*conditions]:
        if name in conditions:
            ask("clear_condition", name=name)
        elif not name.isdecimal() or not ask("clear_faults", number=int(name)):
            raise NotFound(f'there is no fault "{name}"', hint="`rackctl local faults list` lists the faults in force")
    if not which:
        ask("clear_faults")


def _control(invocation: Invocation) -> Control:
    from rackctl.local import control

    return control.Control(control.running(invocation.state_directory))
