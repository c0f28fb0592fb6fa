"""rackctl or the AWS CLI accepts every command that an error, a hint or an example in a help text names."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import click
import pytest
from botocore import xform_name

from rackctl.errors import UsageError
from rackctl.roll.journal import Journal
from rackctl.roll.view import RollOptions, Selection
from tests.cli.test_documented_commands import INLINE, parse, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "src" / "rackctl"
# Stands for a value in an f-string: it is a name, an id and a role at once.
VALUE = "ssh"
AWS = re.compile(r"`(aws [a-z][^`]+)`")
# Commands that the AWS CLI has beside the operations of botocore's models.
BESIDE = {("configure", "list-profiles"), ("sso", "login")}
# An example may have its explanation beside it, after some spaces.
EXAMPLE = re.compile(r"^ *(?:\S.*\| )?(rackctl [^#\n]+?)(?:  +.*)?$", re.MULTILINE)


@cache
def trees() -> dict[str, ast.Module]:
    return {str(p.relative_to(SOURCE)): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(SOURCE.rglob("*.py"))}


def texts(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a module, each f-string once and as a whole; what it says of itself is for maintainers."""
    parts: set[ast.AST] = {node.value for node in tree.body[:1] if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else VALUE for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.value


def in_backticks() -> Iterator[tuple[str, str]]:
    for module, tree in trees().items():
        for text in texts(tree):
            yield from ((module, command) for command in INLINE.findall(text) if "…" not in command)


def examples() -> Iterator[tuple[str, str]]:
    """Yield what the help texts show below *Examples*."""
    for module, tree in trees().items():
        for text in texts(tree):
            if "\b\n" in text:
                yield from ((module, example) for example in EXAMPLE.findall(text.partition("\b\n")[2]))


def of_rolls() -> Iterator[tuple[str, str]]:
    """Yield what `Journal.command` is asked for."""
    for module, tree in trees().items():
        for node in ast.walk(tree) if module.startswith("roll/") else ():
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"command", "_command"}
                and len(node.args) == 1
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                yield module, node.args[0].value


def taken(command: str) -> str:
    """Return why the command line does not take a command; empty if it does. What is only named may lack a value."""
    try:
        parse(words_of(command))
    except (click.exceptions.NoArgsIsHelpError, click.MissingParameter, click.exceptions.Exit):
        return ""
    except (click.ClickException, UsageError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("module", "command"), sorted({*in_backticks(), *examples()}), ids=str)
def test_a_command_that_a_message_or_an_example_names_is_taken(
    module: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()

    assert not taken(command), module


@pytest.mark.parametrize("kind", ["key", "outdated"])
@pytest.mark.parametrize("word", sorted({word for _, word in of_rolls()}))
def test_the_subcommands_that_a_roll_names_are_taken(word: str, kind: str) -> None:
    journal = Journal("prod", "arn", "", "", RollOptions(checked=True), Selection(kind))  # type: ignore[arg-type]

    assert not taken(journal.command(word).strip("`"))


def aws_commands() -> Iterator[tuple[str, str]]:
    for module, tree in trees().items():
        for text in texts(tree):
            yield from ((module, command) for command in AWS.findall(text) if "…" not in command)


@cache
def operations(service: str) -> dict[str, tuple[set[str], set[str]]]:
    """Map the operations of a service, as the AWS CLI spells them, to their options and to those that are required."""
    model = botocore.session.Session().get_service_model(service)
    shapes = {name: model.operation_model(name).input_shape for name in model.operation_names}
    return {
        xform_name(name, "-"): (
            {xform_name(member, "-") for member in (shape.members if shape else ())},
            {xform_name(member, "-") for member in (shape.required_members if shape else ())},
        )
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("module", "command"), sorted(set(aws_commands())), ids=str)
def test_a_command_of_the_aws_cli_that_a_message_names_has_its_operation_and_options(module: str, command: str) -> None:
    """The AWS CLI makes its commands and options of botocore's models, by `xform_name`. Without any it is a mention."""
    _, service, operation, *rest = command.split()
    if (service, operation) in BESIDE:
        return

    assert operation in operations(service), module
    options, required = operations(service)[operation]
    given = {word.removeprefix("--") for word in rest if word.startswith("--")}
    assert given <= options, module
    assert not given or required <= given, module


def test_commands_are_found_in_messages_and_in_examples() -> None:
    assert ("roll/reasons/key.py", "abort") in of_rolls()
    assert ("rack.py", "rackctl racks adopt ssh --create") in in_backticks()
    assert ("cli/keys.py", "rackctl instances keys import ~/.ssh/ops.pem") in examples()
    assert len(set(in_backticks())) > 30
    assert len(set(examples())) > 40
    assert len(set(aws_commands())) > 15
