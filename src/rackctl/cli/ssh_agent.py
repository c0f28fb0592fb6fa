"""`rackctl instances ssh-agent`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.console import note
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.text import as_typed, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.ssh.openssh import Agent

# ssh-add takes 0 for ever, and no more than 32 bits.
_SHORTEST, _LONGEST = 1, 2**31 - 1


@click.group("ssh-agent", cls=LazyGroup)
def ssh_agent() -> None:
    """Load the keys of the rack's instances into your ssh-agent, or remove them.

    With these keys, OpenSSH logs in by the configuration that `rackctl instances ssh-config` prints.
    """


@ssh_agent.command(cls=RackCommand)
@click.option(
    "--lifetime",
    type=Duration(),
    default="1h",
    show_default=True,
    help="Time for which the agent keeps the keys, such as 30m or 8h.",
)
@pass_invocation
def add(invocation: Invocation, lifetime: float) -> None:  # fmt: skip
    """Load the keys of the rack's instances into your ssh-agent, for a limited time.

    The keys are never written to a file. Loading a key again restarts its time.
    """
    from rackctl.ssh.openssh import Agent

    seconds = int(lifetime)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise UsageError("--lifetime: a key is kept for a second at least, and 68 years at most")
    agent = Agent(invocation.environment)

    def load(name: str) -> str:
        key = invocation.keys.fetch(name)
        agent.add(key.private_key, lifetime=seconds)
        return f"added {name} {key.fingerprint} for {as_typed(seconds)}"

    _for_each_key(invocation, agent, load)


@ssh_agent.command(cls=RackCommand)
@pass_invocation
def remove(invocation: Invocation) -> None:
    """Remove the keys of the rack's instances from your ssh-agent."""
    from rackctl.ssh.openssh import Agent

    agent = Agent(invocation.environment)

    def take_out(name: str) -> str:
        public_key = invocation.keys.public_key(name)
        if public_key is None:
            raise NotFound("it is not in the rack's store, so rackctl has not loaded it")
        if not agent.holds(public_key):
            return f"{name} is not in the agent"
        agent.remove(public_key)
        return f"removed {name}"

    _for_each_key(invocation, agent, take_out)


def _for_each_key(invocation: Invocation, agent: Agent, deed: Callable[[str], str]) -> None:
    """Do something with each key that the rack's instances have; one that fails does not keep the others from it."""
    agent.require()
    names = sorted({instance.key_name for instance in invocation.instances.instances()})
    failures = []
    for name in names:
        try:
            click.echo(printable(deed(name)))
        except RackctlError as error:
            failures.append(error)
            note(f"{name or 'instances without a key pair'}: {error}{f' ({error.hint})' if error.hint else ''}")
    if not names:
        note(f'rack "{invocation.rack.name}" has no instances, and so no keys')
    if failures:
        sys.exit(failures[0].exit_code)
