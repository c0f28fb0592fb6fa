"""The classes of rackctl's commands: each takes the rack options, and groups import a command on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from rackctl.cli.options import rack_options

if TYPE_CHECKING:
    from collections.abc import Mapping


class RackCommand(click.Command):
    """A command that takes the rack options and lists them in a section of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rack_options = rack_options()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        at = next((n for n, p in enumerate(own) if "--help" in p.opts), len(own))
        return [*own[:at], *self._rack_options, *own[at:]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        common = set(map(id, self._rack_options))
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Rack options": []}
        for param in self.get_params(ctx):
            # Arguments are in the usage line; the text explains them.
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections["Rack options" if id(param) in common else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Group(click.Group):
    """A group that names a command which does not exist, and the one that was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and not args[0].startswith("-"):
            from rackctl.cli.usage import no_such_command

            raise no_such_command(ctx, args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class LazyGroup(RackCommand, Group):
    """A group that imports a command on first use.

    ``lazy`` maps a command's name to ``module:attribute`` and to the line that stands for it in the help.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        from importlib import import_module

        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def _lines(self, ctx: click.Context) -> dict[str, str]:
        """Map each command to its line in the help, without importing lazy commands."""
        lines = {}
        for name in self.list_commands(ctx):
            if name in self._lazy:
                lines[name] = self._lazy[name][1]
            elif (command := super().get_command(ctx, name)) and not command.hidden:
                lines[name] = command.get_short_help_str(limit=1000)
        return lines

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if records := list(self._lines(ctx).items()):
            with formatter.section("Commands"):
                formatter.write_dl(records)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        commands = [CompletionItem(n, help=line) for n, line in self._lines(ctx).items() if n.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)
