from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from rackctl.cli.main import cli
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            child = command.get_command(context, word)
            assert child is not None
            yield from _commands(child, f"{path} {word}")


COMMANDS = dict(_commands(cli, "rackctl"))


# The first word of what a command, or an option that is a switch, does.
VERBS = frozenset(
    """
    Act Adopt Allow Check Clear Continue Count Create Delete Drain Forget Inject Keep Launch List Load Log Print
    Redirect Refresh Remove Renew Replace Request Resume Return Roll Run Set Show Skip Start Stop Store Take Terminate
    Wait
    """.split()  # noqa: SIM905 - a list of words reads as words
)
# Words that stand for a process, a default or an instance that has a name of its own.
AVOIDED = re.compile(
    r"\b(somebody|nobody|anybody|unless told|for ever|by default|give back|so many|\(default)", re.IGNORECASE
)
# As click writes a default: two spaces, then notes in brackets.
NOTES = re.compile(r"  \[(?P<notes>[^\]]*)\]$")
# Options whose value is a setting of the rack, by that setting's name.
OF_SETTINGS = {setting.flag: setting for setting in SETTINGS.values()}


def _offences(path: str) -> Iterator[str]:
    command = COMMANDS[path]
    context = click.Context(command, info_name=path, terminal_width=78)
    first = (command.help or "").split("\n\n")[0].strip()
    if first.split(" ")[0].rstrip(",") not in VERBS:
        yield f"begins with no verb that we know: {first}"
    if not first.endswith("."):
        yield f"does not end its first sentence: {first}"
    for line in command.get_help(context).splitlines():
        if len(line) >= 80:
            yield f"is {len(line)} columns wide: {line}"
    if isinstance(command, click.Group):
        listed = command.get_help(context).partition("Commands:\n")[2].splitlines()
        yield from (f"cuts the help of a command: {line}" for line in listed if line.endswith("..."))
    for text in (command.help or "", *(p.help or "" for p in command.params if isinstance(p, click.Option))):
        if found := AVOIDED.search(text):
            yield f"says {found[0]!r}: {text}"
    for option in command.get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            yield from (f"{option.opts[0]} {offence}" for offence in _offences_of(option))


def _offences_of(option: click.Option) -> Iterator[str]:
    text = option.help or ""
    written = NOTES.search(text)
    bare, notes = text[: written.start()] if written else text, written["notes"] if written else ""
    if not (bare[:1].isupper() and bare.endswith(".")):
        yield f"is no sentence: {text}"
    if option.is_flag and option.opts[0] not in {"--version", "--help", "-h"} and bare.split(" ")[0] not in VERBS:
        yield f"begins with no verb that we know: {text}"
    shows_default = option.show_default or "default: " in notes
    default = option.to_info_dict()["default"]
    if default not in {None, False} and not option.count and not option.is_flag and not shows_default:
        yield f"does not show its default, {default}"
    if notes and not re.fullmatch(r"(default: [^;]+(; \d[^;]*)?)?(; )?(env: [A-Z_, ]+)?", notes):
        yield f"notes in another form: [{notes}]"
    setting = OF_SETTINGS.get(option.opts[-1])
    if setting and option.name in {setting.name, f"_{setting.name}"}:
        if f"env: {setting.environment_variable}" not in notes:
            yield f"does not show {setting.environment_variable}"
        if setting.default("") and "default: " not in notes:
            yield "does not show its default"


def test_every_help_text_holds_to_the_style() -> None:
    """Sentence case, imperative, under 80 columns; default and variable shown alike by every option."""
    offences = [f"{path}: {offence}" for path in COMMANDS for offence in _offences(path)]

    assert offences == []


def test_a_group_says_of_each_command_what_the_command_says_of_itself() -> None:
    for path, command in COMMANDS.items():
        for word, (_, line) in getattr(command, "_lazy", {}).items():
            assert COMMANDS[f"{path} {word}"].short_help in {None, line}


@pytest.mark.parametrize("path", [path for path in COMMANDS if path.count(" ") < 2])
def test_help_imports_neither_boto3_nor_paramiko(path: str) -> None:
    heavy = {"boto3", "botocore", "paramiko", "cryptography", "rich", "asyncssh", "moto", "asyncio"}
    code = f"""
import sys
from rackctl.cli.main import cli
from rackctl.settings import SETTINGS
try:
    cli({[*path.split()[1:], "--help"]!r})
except SystemExit:
    pass
print(*sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stderr.strip() == ""
