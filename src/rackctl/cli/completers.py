"""Completions of option values and arguments. None of these functions raises or prints."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from rackctl.cli.invocation import Invocation
from rackctl.errors import RackctlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import click

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _starting(with_: str, values: Iterable[str] | Mapping[str, str]) -> list[CompletionItem]:
    helps = values if isinstance(values, dict) else {}
    return [CompletionItem(value, help=helps.get(value)) for value in values if value.startswith(with_)]


def complete_instance(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an instance id from those listed within the last minutes, or from the rack's instances."""
    from rackctl.cli.last_listed import recall, remember

    invocation = ctx.ensure_object(Invocation)
    try:
        return _starting(incomplete, recall(invocation)) or _starting(
            incomplete, remember(invocation, invocation.instances.list())
        )
    except Exception:  # noqa: BLE001 - an error would be printed into the user's command line
        return []


def complete_key(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a stored key, or of a key that the rack's instances have."""
    invocation = ctx.ensure_object(Invocation)
    names: set[str] = set()
    # An error would be printed into the user's command line.
    with suppress(Exception):
        names.update(invocation.keys.names())
    with suppress(Exception):
        names.update(i.key_name for i in invocation.instances.instances() if i.key_name)
    return _starting(incomplete, sorted(names))


def complete_rack(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a known rack; AWS is not called."""
    try:
        known = ctx.ensure_object(Invocation).sources.known()
    except (RackctlError, OSError):
        return []
    return _starting(incomplete, {name: str(origin) for name, origin in known.items()})


def complete_profile(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an AWS profile from the AWS config and credentials files."""
    import configparser
    from pathlib import Path

    environment = ctx.ensure_object(Invocation).environment
    names = set[str]()
    for variable, default in (
        ("AWS_CONFIG_FILE", "~/.aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ):
        read = configparser.RawConfigParser(strict=False)
        try:
            read.read(Path(environment.get(variable) or default).expanduser(), encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
            continue
        names.update(n.removeprefix("profile ").strip() for n in read.sections() if not n.startswith(_NO_PROFILES))
    return _starting(incomplete, sorted(names))


_NO_PROFILES = ("sso-session ", "services ")


def complete_region(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an AWS region."""
    from rackctl.aws.models import regions

    return _starting(incomplete, regions())


def complete_filter(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a filter's field with its ``=``, then the known values of that field."""
    from rackctl.cli.selection import FIELDS, VALUES

    field, equals, value = incomplete.partition("=")
    if not equals:
        return _starting(incomplete, [f"{name}=" for name in FIELDS])
    before, comma, last = value.rpartition(",")
    return _starting(
        f"{field}={before}{comma}{last}", [f"{field}={before}{comma}{known}" for known in VALUES.get(field, ())]
    )


def complete_sort(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a field to order by. (click takes a word that begins with ``-`` for an option.)"""
    from rackctl.cli.selection import FIELDS

    return _starting(incomplete, FIELDS)


def complete_columns(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last field of a list."""
    from rackctl.cli.selection import FIELDS

    before, comma, _last = incomplete.rpartition(",")
    named = before.split(",")
    return _starting(incomplete, [f"{before}{comma}{name}" for name in FIELDS if name not in named])


def complete_one_of(*choices: str) -> Completer:
    """Return a completer for a fixed set of values."""
    return lambda _ctx, _parameter, incomplete: _starting(incomplete, choices)
