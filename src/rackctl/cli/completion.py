"""`rackctl completion`: shell scripts, and their protocol with rackctl.

A script hands over the command line up to the cursor as COMP_LINE and reads one completion a line: value, tab, help.
Unlike click's own scripts, these keep help whole in fish, put no space after ``FIELD=``, and complete behind an equals
sign in bash, for which that ends a word.
"""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

from rackctl.cli.command import RackCommand

_BASH = """\
_rackctl() {
    local value help
    COMPREPLY=()
    while IFS=$'\\t' read -r value help; do
        COMPREPLY+=("$value")
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        _RACKCTL_COMPLETE=bash_complete "$1" 2>/dev/null)
    # bash 3.2, as macOS has it, knows neither compopt nor nosort.
    if [[ ${COMPREPLY[0]-} == *= ]] && type compopt &>/dev/null; then compopt -o nospace; fi
}
complete -o nosort -F _rackctl rackctl 2>/dev/null || complete -F _rackctl rackctl
"""
_ZSH = """\
#compdef rackctl
_rackctl() {
    local value help
    local -a whole open
    while IFS=$'\\t' read -r value help; do
        value=${value//:/\\\\:}${help:+:$help}
        if [[ ${value%%:*} == *= ]]; then open+=("$value"); else whole+=("$value"); fi
    done < <(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" _RACKCTL_COMPLETE=zsh_complete ${words[1]} 2>/dev/null)
    (( $#whole )) && _describe -V rackctl whole
    (( $#open )) && _describe -V rackctl open -S ''
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _rackctl "$@"
else
    compdef _rackctl rackctl
fi
"""
_FISH = """\
function __rackctl_complete
    set -lx COMP_LINE (commandline -cp | string collect)
    set -lx _RACKCTL_COMPLETE fish_complete
    rackctl 2>/dev/null
end
complete --command rackctl --no-files --arguments '(__rackctl_complete)'
"""


class _LineComplete(ShellComplete):
    """Completion of a command line that the script passes whole, up to the cursor."""

    def get_completion_args(self) -> tuple[list[str], str]:
        # With one more character, the last word is the one under the cursor, even if that is empty or quoted.
        words = split_arg_string(os.environ["COMP_LINE"] + "_")
        while len(words) > 1 and re.match(r"[A-Za-z_]\w*=", words[0]):
            del words[0]  # an assignment before the command
        return words[1:-1], words[-1][:-1]

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.value}\t{' '.join((item.help or '').split())}"


class _Bash(_LineComplete):
    name = "bash"
    source_template = _BASH.replace("%", "%%")

    def format_completion(self, item: CompletionItem) -> str:
        """Return the part after the last word break within the word, which is the part that bash replaces."""
        incomplete = self.get_completion_args()[1]
        kept = 1 + max((incomplete.rfind(mark) for mark in os.environ.get("COMP_WORDBREAKS", "")), default=-1)
        return str(item.value)[kept:]


class _Zsh(_LineComplete):
    name = "zsh"
    source_template = _ZSH.replace("%", "%%")


class _Fish(_LineComplete):
    name = "fish"
    source_template = _FISH.replace("%", "%%")


SHELLS = {shell.name: shell for shell in (_Bash, _Zsh, _Fish)}


def use_these_scripts() -> None:
    """Register these classes with click in place of its own."""
    for shell in SHELLS.values():
        add_completion_class(shell)


@click.command(cls=RackCommand)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
      bash: echo 'eval "$(rackctl completion bash)"' >> ~/.bashrc
      zsh:  echo 'eval "$(rackctl completion zsh)"' >> ~/.zshrc  # after compinit
      fish: rackctl completion fish > ~/.config/fish/completions/rackctl.fish
    """
    click.echo(SHELLS[shell](ctx.find_root().command, {}, "rackctl", "_RACKCTL_COMPLETE").source(), nl=False)
