"""The options that commands share, and how they are put on a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from rackctl.cli.completers import complete_profile, complete_rack, complete_region
from rackctl.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")


def options(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Make one decorator of several; their options stand in the help in this order."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


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


def rack_options() -> list[click.Option]:
    """Make the options that every command takes, before and after the command words."""
    texts = {
        "rack": (["-r", "--rack"], "NAME", "The rack to work on.  [env: RACKCTL_RACK]"),
        "cluster": (["--cluster"], "NAME", "Its ECS cluster, if not named as the rack.  [env: RACKCTL_CLUSTER]"),
        "region": (["--region"], "REGION", "AWS region.  [env: RACKCTL_REGION, AWS_REGION]"),
        "profile": (["--profile"], "NAME", "AWS profile.  [env: RACKCTL_PROFILE, AWS_PROFILE]"),
        "endpoint_url": (["--endpoint-url"], "URL", "Endpoint in place of AWS's.  [env: AWS_ENDPOINT_URL]"),
    }
    completers = {"rack": complete_rack, "region": complete_region, "profile": complete_profile}
    options = [
        click.Option(
            [*flags, f"_{name}"],
            metavar=metavar,
            help=text,
            expose_value=False,
            callback=into_setting(name),
            shell_complete=completers.get(name),
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
