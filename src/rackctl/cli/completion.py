"""Shell completion: the scripts, and the ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rackctl.cli.command import RackCommand
from rackctl.cli.invocation import Invocation


@click.command(cls=RackCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
      bash: echo 'eval "$(rackctl completion bash)"' >> ~/.bashrc
      zsh:  echo 'eval "$(rackctl completion zsh)"' >> ~/.zshrc
      fish: rackctl completion fish > ~/.config/fish/completions/rackctl.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "rackctl", "_RACKCTL_COMPLETE").source())


def complete_instance(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete an instance id from the rack's instances; nothing on any error."""
    try:
        listed = ctx.ensure_object(Invocation).cluster.list()
    except Exception:  # noqa: BLE001 - a shell that completes has no place for any error
        return []
    return [i.ec2_instance_id for i in listed if i.ec2_instance_id.startswith(incomplete)]
