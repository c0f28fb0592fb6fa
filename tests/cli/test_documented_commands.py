"""The command line accepts every command that the docs show, with its options and their values."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# Generated from the command line itself, or about what once was.
PAGES = sorted(
    page
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("templates/*.*")]
    if page.suffix in {".md", ".yaml", ".tf"} and page.name not in {"commands.md", "local-rack-behaviour.md"}
)
INLINE = re.compile(r"`(rackctl [^`]+)`")
# Where a shell's own words end a command.
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", "2>&1", "then", "do"}


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Yield each command of a page, and whether it is shown to be typed, or only mentioned.

    One with an ellipsis is neither.
    """
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".md":
        text = "\n".join(f"    {line.removeprefix('#').strip()}" for line in text.splitlines() if line.startswith("#"))
    lines = "\n".join(code_of(text)).replace("\\\n", " ").splitlines()
    found = [(line.strip().removeprefix("$ "), True) for line in lines]
    found += [(mentioned, False) for mentioned in INLINE.findall(text)]
    for line, is_typed in found:
        for command in re.split(r"(?:^|\$\(|[|;&] *|if |! )(?=rackctl )", line):
            if command.startswith("rackctl ") and "…" not in command and "..." not in command:
                yield command, is_typed


def code_of(text: str) -> Iterator[str]:
    """Yield the lines of a page that are code: between fences, or indented by four."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line


def words_of(command: str) -> list[str]:
    """Return the words of a command up to where its shell takes over."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in ENDS or word[0] in "|&;<>()":
            break
        words.append(word)
    return words[1:]


def parse(words: list[str]) -> None:
    """Take a command line apart as click does, and run nothing. Raises click's errors."""
    context: click.Context = cli.make_context("rackctl", words, obj=Invocation(environment={}))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)


SHOWN = [(page.relative_to(ROOT), *shown) for page in PAGES for shown in dict.fromkeys(commands(page))]


@pytest.mark.parametrize(("page", "command", "is_typed"), SHOWN, ids=str)
def test_a_documented_command_is_taken_by_the_command_line(
    page: Path, command: str, is_typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(command)
    for word in words:
        if re.fullmatch(r"\w[\w-]*\.json|FILE", word):  # what an earlier command has written
            Path(word).touch()

    try:
        parse(words)
    except (click.exceptions.NoArgsIsHelpError, click.MissingParameter) as error:
        if is_typed:
            pytest.fail(f"{page}: {command}: {error.format_message()}")
    except (click.ClickException, UsageError) as error:
        pytest.fail(f"{page}: {command}: {error}")
    except click.exceptions.Exit as ended:  # --help and --version
        if ended.exit_code:
            raise


def test_commands_are_found_where_they_are() -> None:
    pages = {page.name for page, _, is_typed in SHOWN if is_typed}

    assert {"README.md", "getting-started.md", "tasks.md", "keyroll.md", "store.yaml", "rack.yaml"} <= pages
    assert len(SHOWN) > 100


@pytest.mark.parametrize(
    "words", [["instances", "shh"], ["instances", "--frobnicate"], ["racks", "policy", "--for", "everything"]]
)
def test_an_unknown_command_is_detected(words: list[str]) -> None:
    with pytest.raises((click.ClickException, UsageError)):
        parse(words)
