"""Record the sessions of README.md and keyroll.md on a local rack, or with --check compare them with new recordings.

docs/session.ansi         what a terminal got: commands and their output
docs/keyroll.ansi         what a terminal showed in the middle of a keyroll: its live view
docs/*-light.svg          drawn from them
docs/*-dark.svg
"""

from __future__ import annotations

import codecs
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parent
COLUMNS, ROWS = 104, 40
COMMANDS = (
    "rackctl instances",
    "rackctl instances ssh $ID 'docker ps --format {{.Image}} | sort'",
    "rackctl instances terminate --drain --dry-run $ID",
    "rackctl instances keyroll --reason 'a laptop was lost' 2>keyroll.log",
    "rackctl instances",
)
KEYROLL = "rackctl instances keyroll --batch 2 --reason 'a laptop was lost'"
# The moment to show: two instances are replaced, more on a slow machine, and the next ones have tasks left.
MOMENT = re.compile(r"old +draining +\d+:\d\d +\d task.*[2-5] of 6 replaced", re.DOTALL)
# GitHub's colours: black, red, green, yellow, blue, magenta, cyan, white.
THEMES = {
    "light": TerminalTheme(
        (255, 255, 255), (36, 41, 47),
        [(36, 41, 47), (207, 34, 46), (26, 127, 55), (154, 103, 0), (9, 105, 218), (130, 80, 223), (27, 124, 131),
         (110, 119, 129)],
    ),
    "dark": TerminalTheme(
        (13, 17, 23), (201, 209, 217),
        [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207),
         (177, 186, 196)],
    ),
}  # fmt: skip
STYLE = re.compile(r"\x1b\[[0-9;]*m")
# Parts that differ between two recordings of the same session.
VARYING = (
    (STYLE, ""),
    (re.compile(r"i-[0-9a-f]{17}"), "ID"),
    (re.compile(r"(\d+ \w+ ago|now)"), "AGO"),
    (re.compile(r"\d+\.\d\d%"), "SHARE"),
    (re.compile(r"[ \r]+"), " "),
    (re.compile(r"AGO \d+"), "AGO PS"),  # where ECS places the tasks of the new instances
    (re.compile(r"keypair-\w+"), "KEY"),
    (re.compile(r"(ID (old|new) .*\n)+"), "INSTANCES\n"),  # how far the other instances are at that moment
    (re.compile(r"(and \d waiting\n)?local: replacing +[2-5] of 6 replaced"), "REST"),
    (re.compile(r"\b\d+:\d\d\b.*"), "TIME"),
)


def record() -> dict[str, str]:
    """Return a terminal's content for each recording, by its name."""
    return {"session": _session(), "keyroll": f"$ {KEYROLL}\n{_in_the_middle()}"}


@contextmanager
def _local_rack(*options: str) -> Iterator[Rack]:
    with tempfile.TemporaryDirectory() as home:
        rack = Rack(home)
        rack.quietly(f"rackctl local up {' '.join(options)}")
        try:
            yield rack
        finally:
            rack.quietly("rackctl local down")


def _session() -> str:
    """Run the commands one after the other."""
    with _local_rack("--speed", "60") as rack:
        # The tasks on this instance are the same each time.
        id_ = rack.quietly("rackctl instances -o id --sort -memory_percent | head -n 1")
        shown = ""
        for command in COMMANDS:
            typed = command.replace("$ID", id_)
            # Notes on stderr that appear only on a slow machine do not belong to the session.
            shown += f"$ {typed}\n{rack.on_terminal(f'{{ {typed}; }} 2>>stderr')}\n"
    return shown.rstrip() + "\n"


def _in_the_middle() -> str:
    """Run a keyroll until the moment to show, and return the terminal's content."""
    held, deadline = False, time.monotonic() + 120

    def is_the_moment(shown: str) -> bool:
        nonlocal held
        plain = STYLE.sub("", shown)
        if "terminating" in plain and not held:
            # A drain takes half a minute on AWS, and here half a second, unless its tasks do not stop.
            rack.quietly("rackctl local faults add stuck-drain")
            held = True
        if time.monotonic() > deadline:
            sys.exit(f"the keyroll was never at the moment that is to be shown: {plain}")
        return bool(MOMENT.search(plain))

    with _local_rack("--speed", "60", "--instances", "6") as rack:
        shown = rack.on_terminal(KEYROLL, until=is_the_moment)
    # A slow machine adds notes about waits.
    kept = [line for line in shown.splitlines(keepends=True) if not line.startswith("rackctl: ")]
    return "".join(kept).rstrip() + "\n"


class Screen:
    """A terminal on which only whole lines are erased, as by rich's live view."""

    _TOKEN = re.compile(r"\x1b\[(?P<number>\d*)(?P<code>[AK])|\x1b\[\?\d+[hl]|\r\n|[\r\n]|(\x1b\[[\d;]*m|[^\r\n\x1b])+")

    def __init__(self) -> None:
        self._lines = [""]
        self._at = 0

    def write(self, text: str) -> None:
        for token in self._TOKEN.finditer(text):
            if token["code"] == "A":
                self._at = max(self._at - int(token["number"] or 1), 0)
            elif token["code"] == "K":
                self._lines[self._at] = ""
            elif token[0] in {"\r\n", "\n"}:
                self._at += 1
                self._lines += [""] * (self._at == len(self._lines))
            elif token[0] != "\r" and not token[0].startswith("\x1b[?"):
                self._lines[self._at] += token[0]

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines)


class Rack:
    """Commands on a local rack with its own state directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._environment = {
            "HOME": directory,
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "RACKCTL_CONFIG": f"{directory}/config.toml",
            "RACKCTL_RACK": "local",
            "RACKCTL_STATE_DIR": f"{directory}/state",
            "TERM": "xterm-256color",
        }

    def quietly(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=self._environment, cwd=self._directory, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def on_terminal(self, command: str, until: Callable[[str], bool] | None = None) -> str:
        """Return a terminal's content at the end of a command, or when ``until`` holds for it."""
        screen = Screen()
        leader, follower = pty.openpty()
        os.set_inheritable(follower, True)
        size = f"stty cols {COLUMNS} rows {ROWS}; {command}"
        with subprocess.Popen(
            ["bash", "-c", size],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=self._environment,
            cwd=self._directory,
            start_new_session=True,
        ) as process:
            os.close(follower)
            decode = codecs.getincrementaldecoder("utf-8")().decode
            try:
                while piece := os.read(leader, 65536):
                    screen.write(decode(piece))
                    is_whole = until and not select.select([leader], [], [], 0.05)[0]
                    if until and is_whole and until(screen.text):
                        return screen.text
            except OSError:
                pass  # Linux says EIO where others say end of file
            finally:
                os.close(leader)
                if until:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        if process.returncode or until:
            sys.exit(f"`{command}` exited with {process.returncode}: {screen.text}")
        return screen.text


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
    """Return the exit status: with --check, 1 if a stored recording is out of date."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, session in record().items():
        stored, shown = DOCS / f"{name}.ansi", session
        if check:
            shown = stored.read_text(encoding="utf-8")
            if normalised(session) != normalised(shown):
                sys.stderr.write(f"{stored.name} shows something else than this:\n{session}")
                return 1
        else:
            stored.write_text(session, encoding="utf-8")
        for theme, colours in THEMES.items():
            path, svg = DOCS / f"{name}-{theme}.svg", drawn(shown, colours)
            if check and path.read_text(encoding="utf-8") != svg:
                stale.append(path.name)
            elif not check:
                path.write_text(svg, encoding="utf-8")
    if stale:
        sys.stderr.write(f"not drawn from what is recorded: {', '.join(stale)}; run docs/record.py\n")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
