"""Invalid command lines: one form for click's errors and rackctl's, and suggestions that work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.cli.usage import COMMAND_HINTS, OPTION_HINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result


def typed(line: str) -> Result:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    return CliRunner().invoke(cli, line.split(), prog_name="rackctl", obj=invocation)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("instances terminate", "missing argument 'ID...'", "usage: rackctl instances terminate [OPTIONS] ID..."),
        ("instances -o yaml", "invalid value for '-o' / '--output': 'yaml' is not one of", "usage: rackctl instances"),
        ("instances keyroll --batch 0", "invalid value for '--batch': 0 is not in the range", "usage: "),
        ("instances terminate --wait-timeout 5x i-0a321c8b", "invalid value for '--wait-timeout': ", "usage: "),
        ("--nope", "no such option: --nope", "`rackctl --help` lists the options"),
        ("instances terminate --force i-0a321c8b", "no such option: --force", "without --drain, terminate stops"),
        ("instances terminate --wait-time 3 i-0a321c8b", "no such option: --wait-time", "did you mean --wait-timeout?"),
        ("instances keyroll --no-drain", "no such option: --no-drain", "a keyroll drains every instance; --force"),
        ("instances keyroll --dryrun", "no such option: --dryrun", "did you mean --dry-run?"),
        ("instances keyroll --yes", "no such option: --yes", "this command asks no questions"),
        ("instances --json", "no such option: --json", "use -o json"),
        ("instances ssh-config --json", "no such option: --json", "`rackctl instances ssh-config --help` lists"),
        ("instances ssh --key file i-0a321c8b", "no such option: --key", "-i names the file of a private key"),
        ("instances terminte", 'no such command: "terminte"', "did you mean `rackctl instances terminate`?"),
        ("instances delete", 'no such command: "delete"', "did you mean `rackctl instances terminate`?"),
        ("instances plan", 'no such command: "plan"', "did you mean `rackctl instances keyroll plan`?"),
        ("ssh i-0a321c8b", 'no such command: "ssh"', "did you mean `rackctl instances ssh`?"),
        ("instances xyzzy", 'no such command: "xyzzy"', "`rackctl instances --help` lists the commands"),
        ("local start", 'no such command: "start"', "did you mean `rackctl local up`?"),
        ("local faults ad", 'no such command: "ad"', "did you mean `rackctl local faults add`?"),
        ("help", 'no such command: "help"', "did you mean `rackctl --help`?"),
        ("instances terminate web-1", '"web-1" is not an instance id', "an id looks like i-0a321c8b"),
    ],
)
def test_every_invalid_command_line_is_refused_in_one_form_with_an_indented_hint(
    line: str, message: str, hint: str
) -> None:
    result = typed(line)

    first, *others = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert first.startswith(f"rackctl: {message}")
    assert not first.endswith(".")
    assert [other[: len(hint) + 2] for other in others] == [f"  {hint}"]


def test_a_group_without_a_command_prints_its_help() -> None:
    assert "Commands:" in typed("local").stderr


def commands(command: click.Command = cli, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for word in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), word)
            assert child is not None
            yield from commands(child, *path, word)


ALL = {" ".join(("rackctl", *path)): command for path, command in commands()}


def flags(command: click.Command) -> set[str]:
    options = [p for p in command.get_params(click.Context(command)) if isinstance(p, click.Option) and not p.hidden]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


def is_command(line: str) -> bool:
    words, options = [w for w in line.split() if w[0] != "-"], [w for w in line.split() if w[0] == "-"]
    return " ".join(words) in ALL and flags(ALL[" ".join(words)]).issuperset(options)


@pytest.mark.parametrize(("name", "flag"), OPTION_HINTS)
def test_a_hint_about_an_option_names_options_and_commands_that_exist(name: str, flag: str) -> None:
    about = [command for path, command in ALL.items() if not name or path.split()[-1] == name]
    hint = OPTION_HINTS[name, flag]

    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.sub("`.*?`", "", hint)))
    assert any(flag not in flags(command) and named <= flags(command) for command in about)
    assert not name or all(flag not in flags(command) for command in about)
    assert all(map(is_command, re.findall("`(.*?)`", hint)))


@pytest.mark.parametrize(("name", "word"), COMMAND_HINTS)
def test_a_suggested_command_exists_and_the_word_for_it_does_not(name: str, word: str) -> None:
    assert is_command(COMMAND_HINTS[name, word])
    assert not any(path.split()[-1] == word and (not name or path.split()[-2] == name) for path in ALL)
