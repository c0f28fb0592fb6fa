"""Write the generated parts of docs/, or with --check list those that are out of date.

docs/commands.md   the help of every command
docs/settings.md   the table of settings, between its two markers
docs/permissions.md   the tables of permissions, each between its two markers
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rackctl.cli.main import cli
from rackctl.policies import ROLES
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent
TESTS = DOCS.parent / "tests" / "local"
BEHAVIOURS = {
    "EC2, Auto Scaling and ECS over time": "world",
    "Answers of the APIs": "api",
    "Signatures, S3 and KMS": "test_s*.py",
    "CloudWatch's alarms": "test_alarms.py",
    "Faults": "test_faults*.py",
    "Permissions": "test_denials.py",
    "The instances": "hosts",
    "The process": "test_daemon*.py",
}
PERMISSIONS = re.compile(
    r"(?P<begin><!-- permissions (?P<role>\S+)(?: (?P<part>\S+))? -->\n).*?(?P<end><!-- end of permissions -->)",
    re.DOTALL,
)
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->\n"


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield each command's full name and its help, parents first."""
    given = {"terminal_width": 78, **command.context_settings}
    context = click.Context(command, info_name=name, parent=parent, **given)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            child = command.get_command(context, word)
            assert child is not None
            if not child.hidden:
                yield from commands(child, word, context)


def command_reference() -> str:
    sections = [f"## {path}\n\n```text\n{text.rstrip()}\n```\n" for path, text in commands(cli, "rackctl")]
    intro = "The output of `--help` for each command. `make docs` writes this file."
    return f"# Commands\n\n{intro}\n\n" + "\n".join(sections)


def settings_table() -> str:
    rows = ["| setting | meaning | default | variable | tag |", "| --- | --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        default = setting.default("NAME").replace("NAME", "<rack>")
        cells = (
            f"`{setting.name}`",
            setting.help,
            f"`{default}`" if default else "",
            f"`{setting.environment_variable}`",
            f"`{setting.tag}`" if setting.tagged else "",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def permissions_table(role: str, part: str | None) -> str:
    grants = ROLES[role].parts[part] if part else ROLES[role].grants
    rows = ["| action | resource | condition |", "| --- | --- | --- |"]
    for grant in grants:
        condition = f" `{grant.condition_key}`" if grant.condition else ""
        rows += [f"| `{action}` | `{grant.resource}` |{condition} |" for action in grant.actions]
    return "\n".join(rows) + "\n"


def permissions() -> str:
    """Return the page with its tables rewritten. Raises KeyError for an unknown role."""
    page = (DOCS / "permissions.md").read_text(encoding="utf-8")
    return PERMISSIONS.sub(lambda m: f"{m['begin']}{permissions_table(m['role'], m['part'])}{m['end']}", page)


def behaviours() -> str:
    intro = "Each line is the name of a test under tests/local. `make docs` writes this file."
    sections = [f"# AWS behaviour of the local rack\n\n{intro}\n"]
    for title, where in BEHAVIOURS.items():
        sections.append(f"## {title}\n")
        for path in sorted(TESTS.glob(where if where.endswith(".py") else f"{where}/test_*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [
                node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            ]
            lines = [f"- {name.removeprefix('test_').replace('_', ' ')}" for name in names]
            sections.append("\n".join([f"`{path.relative_to(DOCS.parent)}`\n", *lines, ""]))
    return "\n".join(sections)


def generated() -> dict[Path, str]:
    settings = DOCS / "settings.md"
    before, _, rest = settings.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        DOCS / "commands.md": command_reference(),
        DOCS / "local-rack-behaviour.md": behaviours(),
        DOCS / "permissions.md": permissions(),
        settings: f"{before}{BEGIN}{settings_table()}{END}{after}",
    }


def main() -> None:
    stale = {p: t for p, t in generated().items() if not p.exists() or p.read_text(encoding="utf-8") != t}
    if sys.argv[1:] == ["--check"]:
        for path in stale:
            click.echo(f"{path.relative_to(DOCS.parent)} is out of date: run `make docs`", err=True)
        sys.exit(bool(stale))
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
