"""`rackctl instances replace`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup
from rackctl.cli.completers import complete_instance
from rackctl.cli.duration import Duration
from rackctl.cli.options import options
from rackctl.cli.rolling import (
    add_commands,
    along_the_way,
    engine_options,
    group_option,
    reason_option,
    start_options,
    start_roll,
)
from rackctl.errors import UsageError
from rackctl.roll.view import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUTDATED = Selection("outdated")
_options = options(
    click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete_instance),
    click.option("--all", "every", is_flag=True, help="Replace all instances."),
    click.option(
        "--older-than", type=Duration(), help="Replace instances that were launched longer ago than this, such as 30d."
    ),
    group_option,
    *along_the_way(_OUTDATED.noun).values(),
    engine_options,
    reason_option,
)


class _IdsOrCommand(LazyGroup):
    """A group that takes instance ids itself: its first argument is an id, or one of its commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = self._first_argument(ctx, args)
        ctx.meta[_TAKES_IDS] = first is not None and first not in self.commands
        if not ctx.meta[_TAKES_IDS]:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        return click.Command.parse_args(self, ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        # Its argument would take the words of a subcommand.
        params = super().get_params(ctx)
        return params if ctx.meta.get(_TAKES_IDS) else [p for p in params if not isinstance(p, click.Argument)]

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return ["[OPTIONS]", "[ID]...", "| COMMAND"]

    def _first_argument(self, ctx: click.Context, args: Sequence[str]) -> str | None:
        """Return the first word that is neither an option nor the value of one."""
        flags = {flag for p in self.get_params(ctx) if isinstance(p, click.Option) and not p.is_flag for flag in p.opts}
        is_value = False
        for n, word in enumerate(args):
            if is_value:
                is_value = False
            elif word == "--":
                return next(iter(args[n + 1 :]), None)
            elif word.startswith("-") and word != "-":
                is_value = word in flags
            else:
                return word
        return None


_TAKES_IDS = f"{__name__}.takes_ids"


@click.group(cls=_IdsOrCommand, invoke_without_command=True)
@options(_options, start_options)
@click.pass_context
def replace(ctx: click.Context, /, **options: Any) -> None:
    """Replace instances, without downtime: outdated ones, or those that are chosen.

    An instance is outdated if it was launched from another launch template version, image or launch configuration than
    its group launches from now. Without ID, --all or --older-than, outdated instances are replaced. Each is drained
    before it is terminated, and new instances launch first, as in a keyroll. If the replacement stops, `status` shows
    its progress, `resume` continues it from any machine, and `abort` rolls back.

    \b
    Examples:
      rackctl instances replace plan
      rackctl instances replace --batch 5
      rackctl instances replace i-0a321c8b i-0b81ab34
      rackctl instances replace --older-than 30d --group prod-spot
    """
    start_roll(ctx, _select, options)


def _select(
    *, every: bool, older_than: float | None, groups: tuple[str, ...], ids: Sequence[str] = (), **options: Any
) -> tuple[Selection, dict[str, Any]]:
    """Return which instances are meant, and the options that are left. Raises UsageError."""
    from rackctl.instances import require_ec2_instance_id

    for id_ in ids:
        require_ec2_instance_id(id_)
    ways = [
        *(["ID"] if ids else ()),
        *(["--all"] if every else ()),
        *(["--older-than"] if older_than is not None else ()),
    ]
    if len(ways) > 1:
        raise UsageError(f"{' and '.join(ways)} contradict each other", hint="give one of them")
    if ids and groups:
        raise UsageError("ID and --group contradict each other", hint="an ID names its group; leave out --group")
    if ids:
        return Selection("ids", ec2_instance_ids=tuple(dict.fromkeys(ids))), options
    if older_than is not None:
        return Selection("age", older_than=older_than, groups=groups), options
    return Selection("all" if every else "outdated", groups=groups), options


add_commands(replace, _OUTDATED, _select, _options)
