from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from rackctl.cli.main import cli

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


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_its_help(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert command.get_short_help_str(limit=200).endswith("."), "one sentence stands for it in its group's list"
    for param in command.get_params(click.Context(command)):
        if isinstance(param, click.Option) and not param.hidden:
            assert param.help, param.opts
            assert re.sub(r"  \[(env|default): .*\]$", "", param.help).endswith("."), param.help


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
try:
    cli({[*path.split()[1:], "--help"]!r})
except SystemExit:
    pass
print(*sorted({heavy!r} & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ")
    assert done.stderr.strip() == ""
