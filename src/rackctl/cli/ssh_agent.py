"""`rackctl instances ssh-agent`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.console import note
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.ssh_options import ask_passphrase, identity_option
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.text import as_typed, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

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
@identity_option
@pass_invocation
def add(invocation: Invocation, lifetime: float, identity: str | None) -> None:  # fmt: skip
    """Load the keys of the rack's instances into your ssh-agent, for a limited time.

    The keys are never written to a file. Loading a key again restarts its time.
    """
    from rackctl.keys import SharedKeyStore
    from rackctl.keys.files import read_key_file
    from rackctl.ssh.openssh import Agent

    seconds = int(lifetime)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise UsageError("--lifetime: a key is kept for a second at least, and 68 years at most")
    agent = Agent(invocation.environment)
    if identity is not None:
        agent.require()
        agent.add(read_key_file(identity, ask_passphrase).private_key, lifetime=seconds)
        click.echo(printable(f"added {identity} for {as_typed(seconds)}"))
        return
    keys = SharedKeyStore(invocation.rack)

    def load(name: str, launched: Sequence[datetime]) -> Iterator[str]:
        added = set()
        for key in (key for time in launched for key in keys.candidates(name, time)):
            if key.fingerprint not in added:
                added.add(key.fingerprint)
                agent.add(key.private_key, lifetime=seconds)
                yield f"added {name} {key.fingerprint} for {as_typed(seconds)}"

    _for_each_key(invocation, agent, load)


@ssh_agent.command(cls=RackCommand)
@identity_option
@pass_invocation
def remove(invocation: Invocation, identity: str | None) -> None:
    """Remove the keys of the rack's instances from your ssh-agent."""
    from rackctl.keys.files import read_key_file
    from rackctl.ssh.openssh import Agent

    agent = Agent(invocation.environment)
    if identity is not None:
        agent.require()
        click.echo(printable(_taken_out(agent, identity, [read_key_file(identity, ask_passphrase).public_key])))
        return

    def take_out(name: str, _: Sequence[datetime]) -> Iterator[str]:
        public_keys = invocation.keys.public_keys(name)
        if not public_keys:
            raise NotFound("it is not in the rack's store, so rackctl has not loaded it")
        yield _taken_out(agent, name, public_keys.values())

    _for_each_key(invocation, agent, take_out)


def _taken_out(agent: Agent, name: str, public_keys: Iterable[str]) -> str:
    held = [public_key for public_key in public_keys if agent.holds(public_key)]
    for public_key in held:
        agent.remove(public_key)
    return f"removed {name}" if held else f"{name} is not in the agent"


def _for_each_key(
    invocation: Invocation, agent: Agent, deed: Callable[[str, Sequence[datetime]], Iterator[str]]
) -> None:
    """Do something with each key that the rack's instances have; one that fails does not keep the others from it.

    ``deed`` takes a key's name and when the instances that have it were launched, and yields what it has done.
    """
    agent.require()
    launched: dict[str, set[datetime]] = {}
    for instance in invocation.instances.instances():
        launched.setdefault(instance.key_name, set()).add(instance.first_launch_time)
    failures = []
    for name in sorted(launched):
        try:
            for done in deed(name, sorted(launched[name])):
                click.echo(printable(done))
        except RackctlError as error:
            failures.append(error)
            note(f"{name or 'instances without a key pair'}: {error}{f' ({error.hint})' if error.hint else ''}")
    if not launched:
        note(f'rack "{invocation.rack.name}" has no instances, and so no keys')
    if failures:
        sys.exit(failures[0].exit_code)
