"""The options that commands share, and helpers to define options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from rackctl.cli.completers import complete_one_of, complete_profile, complete_rack, complete_region
from rackctl.cli.invocation import Invocation
from rackctl.settings import SETTINGS, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rackctl.cli.completers import Completer

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")


def options(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """Combine decorators into one; the help lists their options in this order."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


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


def of_setting(
    name: str,
    metavar: str,
    text: str,
    *short: str,
    default: str = "",
    aws: Sequence[str] = (),
    complete: Completer | None = None,
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return click's arguments for an option that is a setting of the rack; ``aws`` are AWS's variables for it."""
    setting = SETTINGS.get(name) or Setting(name, text)  # the rack's own name is none of its settings

    def store(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Invocation).options[name] = value

    return (*short, setting.flag, f"_{name}"), {
        "metavar": metavar,
        "help": described(text, default=default or setting.default(""), env=(setting.environment_variable, *aws)),
        "expose_value": False,
        "callback": store,
        "shell_complete": complete or complete_one_of(*setting.choices),
    }


def setting_option(*about: str, default: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option of a command's own that is a setting of the rack; `of_setting` has the parameters."""
    flags, more = of_setting(*about, default=default)
    return click.option(*flags, **more)


def _store_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Invocation).debug = True


def rack_options() -> list[click.Option]:
    """Return the options that every command takes, before and after the command words."""
    settings = (
        of_setting("rack", "NAME", "Rack to work on.", "-r", complete=complete_rack),
        of_setting("cluster", "NAME", "ECS cluster.", default="the rack's name"),
        of_setting("region", "REGION", "AWS region.", aws=["AWS_REGION"], complete=complete_region),
        of_setting("profile", "NAME", "AWS profile.", aws=["AWS_PROFILE"], complete=complete_profile),
        of_setting("endpoint_url", "URL", "Endpoint in place of AWS's.", aws=["AWS_ENDPOINT_URL"]),
    )
    debug = click.Option(
        ["--debug", "_debug"],
        is_flag=True,
        expose_value=False,
        callback=_store_debug,
        help="Show the traceback if an error occurs.",
    )
    return [*(click.Option(flags, **more) for flags, more in settings), debug]
