"""Completion in the shells themselves: the script that `rackctl completion` prints, and the Tab key."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Shell

_REQUIRED = bool(os.environ.get("RACKCTL_REQUIRE_SHELLS"))


def requires(program: str) -> pytest.MarkDecorator:
    missing = shutil.which(program) is None and not _REQUIRED
    return pytest.mark.skipif(missing, reason=f"{program} is not installed; .ci/run installs it")


# Does what bash's own Tab does, without a terminal:
# https://www.gnu.org/software/bash/manual/bash.html#Programmable-Completion
_BASH = r"""
eval "$(rackctl completion bash)"
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1}
    read -ra COMP_WORDS <<< "${1//=/ = }"
    [[ $1 == *[\ =] ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _rackctl rackctl
    printf '%s\n' "${COMPREPLY[@]}"
}
compopt() { echo "compopt $*"; }
"""


def bash(shell: Shell, line: str) -> list[str]:
    ran = shell(f"{_BASH}\ncomplete_line '{line}'")
    assert ran.stderr == ""
    return ran.stdout.split("\n")[:-1]


def fish(shell: Shell, line: str) -> dict[str, str]:
    ran = shell(f"rackctl completion fish > c.fish; fish -c 'source c.fish; complete -C \"{line}\"'")
    assert ran.stderr == ""
    return dict(entry.partition("\t")[::2] for entry in ran.stdout.splitlines())


def test_after_a_list_on_a_terminal_ids_are_completed_without_aws(changing: Shell) -> None:
    ids = changing.ids()
    assert changing.on_terminal("rackctl instances")[0] == 0

    # The key is the same, and nothing answers any more.
    assert changing("rackctl local down").status == 0
    try:
        assert sorted(bash(changing, "rackctl instances ssh i-")) == ids
    finally:
        changing("rackctl local up --speed 60")


def zsh(shell: Shell, directory: Path, typed: str, *, until: str) -> str:
    """Type into an interactive zsh on a terminal, and give what it draws until something is there.

    Ctrl-X shows the command line as it then is, between < and >.
    """
    (directory / ".zshrc").write_text(
        "PS1='ready: '; unsetopt prompt_sp; autoload -Uz compinit; compinit -u -D; eval \"$(rackctl completion zsh)\"\n"
        "show() { print -r -- \"<$BUFFER>\" }; zle -N show; bindkey '^X' show; LISTMAX=0\n"
    )
    environment = {**shell.environment, "ZDOTDIR": str(directory), "COLUMNS": "200", "TERM": "dumb"}
    leader, follower = pty.openpty()
    process = subprocess.Popen(["zsh", "-i"], stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    drawn, sent, deadline = "", False, time.monotonic() + 30
    os.set_blocking(leader, False)
    try:
        while until not in drawn and time.monotonic() < deadline:
            try:
                drawn += os.read(leader, 65536).decode("utf-8", "replace").replace("\r", "")
            except BlockingIOError:
                time.sleep(0.05)
            if "ready: " in drawn and not sent:
                os.write(leader, typed.encode())
                sent = True
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    return drawn


FIELDS_FROM_CPU = ["cpu_registered=", "cpu_remaining=", "cpu_percent="]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("rackctl ra", ["racks"]),
        ("rackctl instances keyr", ["keyroll"]),
        ("RACKCTL_RACK=prod rackctl ra", ["racks"]),
        ("rackctl instances --filter cpu", ["compopt -o nospace", *FIELDS_FROM_CPU]),
        ("rackctl instances --filter agent_connected=t", ["true"]),
        ("rackctl instances --filter agent_connected=", ["true", "false"]),
        ("rackctl instances --filter status=active,drain", ["active,draining"]),
        ("rackctl instances --sort cpu_p", ["cpu_percent"]),
        ("rackctl instances --columns id,zo", ["id,zone"]),
        ("rackctl instances --region eu-west-", ["eu-west-1", "eu-west-2", "eu-west-3"]),
        ("rackctl instances -o w", ["wide"]),
        ("rackctl instances ssh --address p", ["public", "private"]),
        ("rackctl instances ssh --via s", ["ssm"]),
        ("rackctl -r lo", ["local"]),
        ("rackctl local faults add stuck", ["stuck-drain"]),
    ],
)
def test_bash_completes(shell: Shell, line: str, completed: list[str]) -> None:
    assert sorted(bash(shell, line)) == sorted(completed or [""])


def test_bash_completes_ids_and_profiles(shell: Shell, bare: Shell) -> None:
    assert bash(shell, "rackctl instances ssh i-") == shell.ids()
    (bare.home / ".aws").mkdir()
    (bare.home / ".aws" / "config").write_text("[default]\n[profile work]\n[profile web]\n[sso-session wsso]\n")
    (bare.home / ".aws" / "credentials").write_text("[wild]\n")
    assert bash(bare, "rackctl instances --profile w") == ["web", "wild", "work"]


def test_a_completion_that_fails_prints_nothing(bare: Shell) -> None:
    (bare.home / "config.toml").write_text("nonsense")
    for line in ("rackctl -r ", "rackctl instances ssh i-"):
        assert bash(bare, line) == [""]


@requires("fish")
def test_fish_shows_help_whole(shell: Shell) -> None:
    """In click's own script, help ends at its first comma."""
    shown = fish(shell, "rackctl instances keyroll --")
    assert "," in shown["--no-surge"]
    assert shown["--no-surge"].endswith("as with --surge 0.")
    commands = fish(shell, "rackctl instances ")
    assert commands["ssh"] == "Log in to an instance or run a command on it."


@requires("fish")
def test_fish_completes_fields_values_and_ids(shell: Shell) -> None:
    assert sorted(fish(shell, "rackctl instances --filter cpu")) == sorted(FIELDS_FROM_CPU)
    assert list(fish(shell, "rackctl instances --filter status=drain")) == ["status=draining"]
    assert sorted(fish(shell, "rackctl instances ssh i-")) == shell.ids()
    assert fish(shell, "rackctl instances --region eu-west-1")["eu-west-1"] == "Europe (Ireland)"


# Over two seconds: a shell starts three times, and each Tab runs rackctl.
@requires("zsh")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("rackctl instances keyr\t--no-surg\t\x18", "<rackctl instances keyroll --no-surge >"),
        ("rackctl instances --filter agent_conn\ttr\t\x18", "<rackctl instances --filter agent_connected=true >"),
        ("rackctl instances ssh-\t", "Load the instances' keys into your ssh-agent."),
    ],
)
def test_zsh_completes_with_help_and_puts_no_space_after_a_field(
    shell: Shell, tmp_path: Path, typed: str, shown: str
) -> None:
    assert shown in zsh(shell, tmp_path, typed, until=shown)
