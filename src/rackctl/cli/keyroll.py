"""`rackctl instances keyroll`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup
from rackctl.cli.options import options, setting_option
from rackctl.cli.rolling import (
    add_commands,
    along_the_way,
    engine_options,
    group_option,
    reason_option,
    start_options,
    start_roll,
)
from rackctl.roll.view import KEYROLL

if TYPE_CHECKING:
    from rackctl.roll.view import Selection

_options = options(
    *along_the_way(KEYROLL.noun).values(),
    engine_options,
    group_option,
    click.option("--key-type", type=click.Choice(["ed25519", "rsa"]), help="Type of the new key.  [default: ed25519]"),
    setting_option("key_name", "WAY",
                   "Name of the new key pair: keep, new, or auto, which keeps a name that rackctl did not give."),
    click.option("--shared-key-pair", is_flag=True, default=None,
                 help="Renew a key pair even if others launch instances with it."),
    click.option("--out-of-band", is_flag=True, default=None,
                 help="Set a key in launch templates that name none, even if a CloudFormation stack owns them."),
    reason_option,
)  # fmt: skip


@click.group(cls=LazyGroup, invoke_without_command=True)
@options(_options, start_options)
@click.pass_context
def keyroll(ctx: click.Context, /, **options: Any) -> None:
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
    start_roll(ctx, _select, options)


def _select(groups: tuple[str, ...], **options: Any) -> tuple[Selection, dict[str, Any]]:
    return replace(KEYROLL, groups=groups), options


add_commands(keyroll, KEYROLL, _select, _options)
