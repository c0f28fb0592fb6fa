"""`rackctl doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.console import AWS, stdout_canvas, waiting_for
from rackctl.cli.invocation import Invocation
from rackctl.cli.options import output_option
from rackctl.cli.ssh_options import identity_option, keys_of, reach_options
from rackctl.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.doctor import Finding
    from rackctl.ssh.login import Keys

_PROBLEM = 1
_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(cls=RackCommand)
@output_option("text")
@click.option(
    "--as",
    "role",
    type=click.Choice(["list", "show", "ssh", "drain", "terminate", "keyroll"]),
    help="Check that the caller may do this, by IAM's policy simulation.",
)
@click.option("--strict", is_flag=True, help="Count warnings and skipped checks as problems.")
@identity_option
@reach_options
@click.pass_context
def doctor(ctx: click.Context, /, output: str, role: str | None, identity: str | None, strict: bool) -> None:
    """Check everything that a rack needs, and change nothing.

    Each line is ok, a warning, a problem, or a check that was skipped, with the reason; below a problem is its remedy.
    The exit status is 1 if there is a problem.

    \b
    Examples:
      rackctl doctor
      rackctl doctor --as keyroll
      rackctl doctor --strict && rackctl instances keyroll
      rackctl doctor -o json | jq '.[] | select(.status != "ok")'
    """
    invocation = ctx.ensure_object(Invocation)
    identity_keys = keys_of(invocation, identity) if identity is not None else None
    with waiting_for(AWS):
        found = list(_examined(invocation, role or "", identity_keys))
    if output == "json":
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        colored = stdout_canvas(invocation.environment).color
        click.echo("\n".join(_lines(found, colored=colored)))
    fails = {"problem", "warning", "skipped"} if strict else {"problem"}
    if any(finding.status in fails for finding in found):
        ctx.exit(_PROBLEM)


def _examined(invocation: Invocation, role: str, identity: Keys | None) -> Iterator[Finding]:
    from rackctl.doctor import Doctor
    from rackctl.ssh.login import prove

    rack, keys = invocation.rack, invocation.keys
    doctor = Doctor(
        rack,
        keys,
        invocation.roll(),
        invocation.clock,
        prove=lambda instance, timeout: prove(
            rack, identity or keys, instance, state_directory=invocation.state_directory, timeout=timeout
        ),
    )
    return doctor.examine(invocation.instances.list, role)


def _lines(found: Sequence[Finding], *, colored: bool) -> Iterator[str]:
    width = max(len(finding.check) for finding in found)
    for finding in found:
        status = f"{finding.status:<7}"
        if colored and finding.status in _COLORS:
            status = click.style(status, fg=_COLORS[finding.status])
        yield f"{status}  {finding.check:<{width}}  {printable(finding.message, kept='')}"
        if finding.remedy and finding.status != "ok":
            yield from (f"{'':{9 + width}}  → {line.strip()}" for line in printable(finding.remedy).splitlines())
    counts = {status: sum(f.status == status for f in found) for status in ("problem", "warning", "skipped")}
    told = [counted(count, word) for word, count in counts.items() if count and word != "skipped"]
    told += [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    yield f"\n{', '.join(told) if told else 'all checks are ok'}"
