"""The options that commands share, and helpers to define options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from rackctl.cli.completers import complete_profile, complete_rack, complete_region
from rackctl.cli.invocation import Invocation
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")


def options(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Combine decorators into one; the help lists their options in this order."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def into_setting(name: str) -> Any:
    """Return an option callback that stores the value as a setting of the rack."""

    def store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Invocation).options[name] = value

    return store


def output_option(plain: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that selects between a text format and JSON."""
    return click.option(
        "-o", "--output", type=click.Choice([plain, "json"]), default=plain, show_default=True, help="Output format."
    )


def described(text: str, *, default: str = "", env: Sequence[str] = ()) -> str:
    """Return an option's help with its default and its environment variables, in click's format."""
    notes = [f"default: {default}"] if default else []
    if env:
        notes.append(f"env: {', '.join(env)}")
    return f"{text}  [{'; '.join(notes)}]" if notes else text


def described_setting(name: str, text: str, *, default: str = "", aws: Sequence[str] = ()) -> str:
    """Return the help of an option that is a setting of the rack; ``aws`` are AWS's variables for it."""
    setting = SETTINGS[name]
    return described(text, default=default or setting.default(""), env=(setting.environment_variable, *aws))


def _store_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).debug = True


def rack_options() -> list[click.Option]:
    """Return the options that every command takes, before and after the command words."""
    texts = {
        "rack": (["-r", "--rack"], "NAME", described("Rack to work on.", env=["RACKCTL_RACK"])),
        "cluster": (["--cluster"], "NAME", described_setting("cluster", "ECS cluster.", default="the rack's name")),
        "region": (["--region"], "REGION", described_setting("region", "AWS region.", aws=["AWS_REGION"])),
        "profile": (["--profile"], "NAME", described_setting("profile", "AWS profile.", aws=["AWS_PROFILE"])),
        "endpoint_url": (
            ["--endpoint-url"],
            "URL",
            described_setting("endpoint_url", "Endpoint in place of AWS's.", aws=["AWS_ENDPOINT_URL"]),
        ),
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
        help="Show the traceback if an error occurs.",
    )
    return [*options, debug]
