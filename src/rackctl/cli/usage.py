"""An invalid command line in rackctl's words, with a suggestion where there is a true one."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from rackctl.errors import RackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# How alike a suggestion has to be: "--no-drain" must not become "--no-surge", which does something else.
_ALIKE = 0.75

_ASKS_NOTHING = "this command asks no questions; leave it out"
# By command (empty: any) and option: what other tools, or other commands, have it for.
OPTION_HINTS = {
    ("", "--yes"): _ASKS_NOTHING,
    ("", "-y"): _ASKS_NOTHING,
    ("", "--json"): "use -o json",
    ("", "--verbose"): "--debug shows the traceback if an error occurs",
    ("", "-v"): "--debug shows the traceback if an error occurs",
    ("rackctl", "-v"): "--version prints the version",
    ("abort", "--dry-run"): "`rackctl instances keyroll status` shows where the roll stands",
    ("drain", "--force"): "a drain never stops a service's task by force; --stop-standalone stops tasks of no service",
    ("instances", "--all"): "the list has all instances of the rack; leave it out",
    ("instances", "--wide"): "use -o wide",
    ("keyroll", "--no-drain"): "a keyroll drains every instance; --force continues if a drain times out",
    ("list", "--all"): "the list has all instances of the rack; leave it out",
    ("list", "--wide"): "use -o wide",
    ("plan", "--dry-run"): "plan changes nothing; leave it out",
    ("plan", "--no-drain"): "a keyroll drains every instance; --force continues if a drain times out",
    ("resume", "--dry-run"): "`rackctl instances keyroll status` shows where the roll stands",
    ("ssh", "--key"): "-i names the file of a private key; without it the stored key is used",
    ("terminate", "--force"): "without --drain, terminate stops whatever runs on the instance; leave it out",
    ("terminate", "--no-drain"): "terminate drains with --drain only; leave it out",
    ("terminate", "--now"): "without --drain, terminate drains nothing first; leave it out",
    ("up", "--count"): "use --instances",
}
# By group (empty: any) and word: the command that does what the word means elsewhere.
COMMAND_HINTS = {
    ("", "activate"): "rackctl instances undrain",
    ("", "connect"): "rackctl instances ssh",
    ("", "cordon"): "rackctl instances drain",
    ("", "delete"): "rackctl instances terminate",
    ("", "describe"): "rackctl instances show",
    ("", "exec"): "rackctl instances run",
    ("", "get"): "rackctl instances show",
    ("", "help"): "rackctl --help",
    ("", "kill"): "rackctl instances terminate",
    ("", "login"): "rackctl instances ssh",
    ("", "ls"): "rackctl instances list",
    ("", "rm"): "rackctl instances terminate",
    ("", "rotate"): "rackctl instances keyroll",
    ("", "uncordon"): "rackctl instances undrain",
    ("", "version"): "rackctl --version",
    ("local", "create"): "rackctl local up",
    ("local", "delete"): "rackctl local down",
    ("local", "rm"): "rackctl local down",
    ("local", "start"): "rackctl local up",
    ("local", "stop"): "rackctl local down",
}
# Its commands are not suggested from elsewhere, and importing it takes time.
_NOT_SEARCHED = "local"


def in_our_words(error: click.ClickException) -> RackctlError:
    """Return an error of click's as rackctl's, with a hint."""
    if not isinstance(error, click.UsageError):
        return RackctlError(_sentence(error.format_message()))
    ctx = error.ctx
    if isinstance(error, click.NoSuchOption):
        named = error.option_name
        return UsageError(f"no such option: {named}", hint=_for_option(ctx, named) if ctx else "")
    return UsageError(_sentence(error.format_message()), hint=_usage(ctx) if ctx else "")


def no_such_command(ctx: click.Context, word: str, commands: Iterable[str]) -> UsageError:
    """Return the error for a word that is none of a group's commands."""
    close = get_close_matches(word, commands, n=1, cutoff=_ALIKE)
    group = ctx.info_name or ""
    if close:
        suggestion = f"{ctx.command_path} {close[0]}"
    else:
        suggestion = (
            COMMAND_HINTS.get((group, word))
            or next((path for path, command in _tree(ctx.find_root()) if command.name == word), "")
            or COMMAND_HINTS.get(("", word), "")
        )
    hint = f"did you mean `{suggestion}`?" if suggestion else f"`{ctx.command_path} --help` lists the commands"
    return UsageError(f'no such command: "{word}"', hint=hint)


def _tree(ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands below a group with their paths, parents first."""
    group = ctx.command
    assert isinstance(group, click.Group)
    for word in group.list_commands(ctx):
        if word != _NOT_SEARCHED and (command := group.get_command(ctx, word)) and not command.hidden:
            below = click.Context(command, parent=ctx, info_name=word)
            yield below.command_path, command
            if isinstance(command, click.Group):
                yield from _tree(below)


def _for_option(ctx: click.Context, named: str) -> str:
    options = [p for p in ctx.command.get_params(ctx) if isinstance(p, click.Option) and not p.hidden]
    own = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    for command in (ctx.info_name or "", ""):
        hint = OPTION_HINTS.get((command, named), "")
        if hint and set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", hint)) <= own:
            return hint
    by_words = {flag.lstrip("-"): flag for flag in own}
    close = get_close_matches(named.lstrip("-"), by_words, n=1, cutoff=_ALIKE)
    return f"did you mean {by_words[close[0]]}?" if close else f"`{ctx.command_path} --help` lists the options"


def _usage(ctx: click.Context) -> str:
    usage = " ".join(ctx.get_usage().split())
    return f"{usage[0].lower()}{usage[1:]}; `{ctx.command_path} --help` explains it"


def _sentence(message: str) -> str:
    """Return one of click's messages as rackctl writes its own: without a capital and a full stop."""
    lowered = f"{message[0].lower()}{message[1:]}" if message[:1].isupper() and message[1:2].islower() else message
    return lowered.removesuffix(".")
