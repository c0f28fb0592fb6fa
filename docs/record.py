"""Record the session of README.md on a real local rack, or with --check compare a new recording with the stored one.

docs/session.ansi         what the terminal got
docs/session-light.svg    drawn from it
docs/session-dark.svg
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).parent
STORED = DOCS / "session.ansi"
COLUMNS = 104
COMMANDS = (
    "rackctl instances",
    "rackctl instances ssh $ID 'docker ps --format {{.Image}} | sort'",
    "rackctl instances terminate --drain --dry-run $ID",
    "rackctl instances keyroll --reason 'a laptop was lost' 2>keyroll.log",
    "rackctl instances",
)
THEMES = {
    "light": TerminalTheme((255, 255, 255), (36, 41, 47), [(36, 41, 47)] * 8),
    "dark": TerminalTheme((13, 17, 23), (201, 209, 217), [(201, 209, 217)] * 8),
}
# What differs between two recordings of the same content.
VARYING = (
    (re.compile(r"i-[0-9a-f]{17}"), "ID"),
    (re.compile(r"(\d+ \w+ ago|now)"), "AGO"),
    (re.compile(r"\d+\.\d\d%"), "SHARE"),
    (re.compile(r"[ \r]+"), " "),
    (re.compile(r"AGO \d+"), "AGO PS"),  # where ECS places the tasks of the new instances
)


def record() -> str:
    """Run the commands on a local rack of their own; return what a terminal gets, prompts included."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "HOME": home,
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "RACKCTL_CONFIG": f"{home}/config.toml",
            "RACKCTL_RACK": "local",
            "RACKCTL_STATE_DIR": f"{home}/state",
            "TERM": "xterm-256color",
        }

        def quietly(command: str) -> str:
            done = subprocess.run(["bash", "-c", command], env=environment, cwd=home, capture_output=True, check=True)
            return done.stdout.decode().strip()

        quietly("rackctl local up --speed 60")
        try:
            # Which tasks run there is the same each time.
            id_ = quietly("rackctl instances -o id --sort -memory_percent | head -n 1")
            shown = ""
            for command in COMMANDS:
                typed = command.replace("$ID", id_)
                shown += f"$ {typed}\n{_on_terminal(typed, environment, home)}\n"
        finally:
            quietly("rackctl local down")
    return shown.rstrip() + "\n"


def _on_terminal(command: str, environment: dict[str, str], directory: str) -> str:
    leader, follower = pty.openpty()
    os.set_inheritable(follower, True)
    size = f"stty cols {COLUMNS} rows 40; {command}"
    # What a slow machine adds on a terminal's stderr, such as what is waited for, is not part of the session.
    errors = Path(directory) / "stderr"
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            ["bash", "-c", size], stdin=follower, stdout=follower, stderr=stderr, env=environment, cwd=directory
        ) as process,
    ):
        os.close(follower)
        got = bytearray()
        try:
            while piece := os.read(leader, 65536):
                got += piece
        except OSError:
            pass  # Linux says EIO where others say end of file
        os.close(leader)
    if process.returncode:
        sys.exit(f"`{command}` exited with {process.returncode}: {errors.read_text(encoding='utf-8')}")
    return got.decode().replace("\r\n", "\n")


def drawn(session: str, theme: TerminalTheme) -> str:
    """Draw a session as SVG, without rich's links to fonts on another site."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(session), soft_wrap=True)
    without_fonts = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="rackctl", theme=theme, code_format=without_fonts, unique_id="rackctl") + "\n"


def normalised(session: str) -> str:
    for pattern, word in VARYING:
        session = pattern.sub(word, session)
    return session


def main() -> int:
    """Return the exit status: with --check 1 if what is stored is out of date."""
    check = "--check" in sys.argv[1:]
    session = record()
    if check:
        stored = STORED.read_text(encoding="utf-8")
        if normalised(session) != normalised(stored):
            sys.stderr.write(f"{STORED.name} shows another session than this:\n{session}")
            return 1
        session = stored
    else:
        STORED.write_text(session, encoding="utf-8")
    stale = []
    for name, theme in THEMES.items():
        path, svg = DOCS / f"session-{name}.svg", drawn(session, theme)
        if check and path.read_text(encoding="utf-8") != svg:
            stale.append(path.name)
        elif not check:
            path.write_text(svg, encoding="utf-8")
    if stale:
        sys.stderr.write(f"not drawn from {STORED.name}: {', '.join(stale)}; run docs/record.py\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
