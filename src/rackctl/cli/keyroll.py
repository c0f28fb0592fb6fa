"""`rackctl instances keyroll`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.completers import complete_one_of
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import described_setting, into_setting, options
from rackctl.cli.rolling import (
    add_commands,
    along_the_way,
    carry_out,
    detach_option,
    document_option,
    dry_run_option,
    engine_options,
    events_option,
    group_option,
    reason_option,
    refuse_options_before,
    roll_options,
    show_plan,
)
from rackctl.roll.view import KEYROLL
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from rackctl.roll.view import Selection

_BEGIN = "Rebooting instances..."
_options = options(
    *along_the_way(KEYROLL.noun).values(),
    engine_options,
    group_option,
    click.option("--key-type", type=click.Choice(["ed25519", "rsa"]), help="Type of the new key.  [default: ed25519]"),
    click.option("--key-name", metavar="WAY", expose_value=False, callback=into_setting("key_name"),
                 shell_complete=complete_one_of(*SETTINGS["key_name"].choices),
                 help=described_setting("key_name", "Name of the new key pair: keep, new, or auto, which keeps a name "
                                        "that rackctl did not give.")),
    click.option("--shared-key-pair", is_flag=True, default=None,
                 help="Renew a key pair even if others launch instances with it."),
    click.option("--out-of-band", is_flag=True, default=None,
                 help="Set a key in launch templates that name none, even if a CloudFormation stack owns them."),
    reason_option,
)  # fmt: skip


@click.group(cls=LazyGroup, invoke_without_command=True)
@options(_options, detach_option, dry_run_option, events_option)
@click.pass_context
def keyroll(
    ctx: click.Context, /, output: str, dry_run: bool, detach: bool, groups: tuple[str, ...], **options: Any
) -> None:
    """Replace all instances, with a new SSH key and without downtime.

    A new key is generated, sealed by KMS and stored in S3. EC2 gets it under the name that the key pair has, or under a
    new one: see --key-name. New instances launch before old ones are terminated, within the group's maximum size. The
    first new instance must accept the new key. Old instances are drained before they are terminated, one at a time
    unless --batch says otherwise. If the keyroll stops, `status` shows its progress, `resume` continues it from any
    machine, and `abort` rolls back.

    \b
    Examples:
      rackctl instances keyroll plan
      rackctl instances keyroll --reason 'a laptop was lost'
      rackctl instances keyroll --batch 5 --drain-timeout 30m
      rackctl instances keyroll --key-name keep
    """
    if ctx.invoked_subcommand is not None:
        refuse_options_before(ctx)
        return
    invocation = ctx.ensure_object(Invocation)
    if dry_run:
        show_plan(ctx, invocation, output, options, _selection(groups))
        return
    selection = _selection(groups)
    carry_out(
        invocation, output, lambda roll: roll.start(roll_options(options), selection, detach=detach), options["check"],
        begin=_BEGIN,
    )  # fmt: skip


@keyroll.command(cls=RackCommand)
@options(_options, document_option)
@click.pass_context
@pass_invocation
def plan(invocation: Invocation, ctx: click.Context, /, output: str, groups: tuple[str, ...], **options: Any) -> None:
    """Show what a keyroll with these options would do, and change nothing.

    The exit status is 1 if the keyroll would be refused.
    """
    show_plan(ctx, invocation, output, options, _selection(groups))


def _selection(groups: tuple[str, ...]) -> Selection:
    return replace(KEYROLL, groups=groups)


add_commands(keyroll, KEYROLL.noun, _BEGIN)
