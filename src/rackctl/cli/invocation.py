"""What one run of rackctl has at hand: its options, its console, its clock, and the rack they lead to."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import click

from rackctl.clock import Clock, SystemClock
from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from rackctl.cluster import Cluster
    from rackctl.keyroll.replace import Proof as BlockingProof
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack, Sources
    from rackctl.ssh.login import Proof


@dataclass
class Invocation:
    """The composition root: commands take from here what they work with, and tests put in what they like."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    options: dict[str, str] = field(default_factory=dict)
    debug: bool = False

    @cached_property
    def state_directory(self) -> Path:
        from rackctl.rack import state_dir

        return state_dir(self.environment)

    @cached_property
    def sources(self) -> Sources:
        from rackctl.rack import Sources, config_file, find_local_rack, read_config

        return Sources(
            options=self.options,
            environment=self.environment,
            config=read_config(config_file(self.environment)),
            local=find_local_rack(self.state_directory),
        )

    @cached_property
    def rack(self) -> Rack:
        rack = self.sources.rack(notify=note)
        if rack.chosen_by.startswith("the local rack"):
            note(f'using the local rack "{rack.name}", since no other is named')
        return rack

    @cached_property
    def cluster(self) -> Cluster:
        from rackctl.cluster import Cluster

        return Cluster(self.rack, self.clock)

    @cached_property
    def keys(self) -> KeyStore:
        from rackctl.keys import KeyStore

        return KeyStore(self.rack)

    @cached_property
    def prove(self) -> Callable[[Instance], BlockingProof]:
        """Log in to an instance with the key it was launched with, and tell how that went."""
        from rackctl.ssh.login import prove

        return lambda instance: prove(self.rack, self.keys, instance, state_directory=self.state_directory)

    @cached_property
    def start_proof(self) -> Callable[[Instance], Callable[[], Proof | None]]:
        """Begin what `prove` does; what is returned gives the Proof, or None while it is not there yet."""
        from rackctl.ssh.login import start_proof

        return lambda instance: start_proof(self.rack, self.keys, instance, state_directory=self.state_directory)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def note(message: str) -> None:
    """Say something to the person, apart from the results."""
    say(f"rackctl: {message}")


def say(text: str) -> None:
    """Write a line to stderr; where a full disk or the like keeps it from being read, what goes on counts for more."""
    try:
        # Not click.echo, which goes round whoever has taken sys.stderr's place, as a live view does.
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        return


def printable(text: str, *, kept: str = "\n\t") -> str:
    """Give a text that cannot steer a terminal, whoever wrote it: a tag, a server, AWS.

    What is not printable, but for what is ``kept``, becomes what Python would write for it, such as ``\\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def draws_on(stream: Any, environment: Mapping[str, str]) -> bool:
    """Tell whether a stream is a terminal that understands cursor movements."""
    return bool(stream.isatty()) and environment.get("TERM", "dumb") != "dumb"


def into_setting(name: str) -> Any:
    """Make an option's callback that keeps what is given for a setting of the rack."""

    def store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Invocation).options[name] = value

    return store


def output_option(plain: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option that chooses between a form for people and JSON."""
    return click.option(
        "-o", "--output", type=click.Choice([plain, "json"]), default=plain, show_default=True, help="Format."
    )


def _store_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).debug = True


def complete_rack(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a rack from those known without asking AWS; nothing on any error."""
    try:
        return [name for name in ctx.ensure_object(Invocation).sources.known() if name.startswith(incomplete)]
    except (UsageError, OSError):
        return []


def rack_options() -> list[click.Option]:
    """Make the options that every command takes, before and after the command words."""
    texts = {
        "rack": (["-r", "--rack"], "NAME", "The rack to work on.  [env: RACKCTL_RACK]"),
        "cluster": (["--cluster"], "NAME", "Its ECS cluster, if not named as the rack.  [env: RACKCTL_CLUSTER]"),
        "region": (["--region"], "REGION", "AWS region.  [env: RACKCTL_REGION, AWS_REGION]"),
        "profile": (["--profile"], "NAME", "AWS profile.  [env: RACKCTL_PROFILE, AWS_PROFILE]"),
        "endpoint_url": (["--endpoint-url"], "URL", "Endpoint in place of AWS's.  [env: AWS_ENDPOINT_URL]"),
    }
    options = [
        click.Option(
            [*flags, f"_{name}"],
            metavar=metavar,
            help=text,
            expose_value=False,
            callback=into_setting(name),
            shell_complete=complete_rack if name == "rack" else None,
        )
        for name, (flags, metavar, text) in texts.items()
    ]
    debug = click.Option(
        ["--debug", "_debug"],
        is_flag=True,
        expose_value=False,
        callback=_store_debug,
        help="Show the traceback of an error.",
    )
    return [*options, debug]


class _WithRackOptions(click.Command):
    """A command that takes the rack options, and shows them apart from its own."""

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
            # An argument stands in the usage line and is explained in the text.
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections["Rack options" if id(param) in common else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class RackCommand(_WithRackOptions):
    """A command on a rack."""


class LazyGroup(_WithRackOptions, click.Group):
    """A group whose commands are imported when they are named.

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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = []
        for name in self.list_commands(ctx):
            if name in self._lazy:
                records.append((name, self._lazy[name][1]))
            elif (command := super().get_command(ctx, name)) and not command.hidden:
                records.append((name, command.get_short_help_str(limit=formatter.width)))
        if records:
            with formatter.section("Commands"):
                formatter.write_dl(records)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            suggestion = f' Did you mean "{close[0]}"?' if close else ""
            ctx.fail(f'No such command "{args[0]}".{suggestion} `{ctx.command_path} --help` lists them.')
        return super().resolve_command(ctx, args)
