"""`rackctl instances ssh-config`, and `ssh-proxy`, which its output calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.ssh_options import reach_options
from rackctl.errors import RackctlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rackctl.model import Instance
    from rackctl.ssh.deadline import Deadline
    from rackctl.ssh.host_keys import HostKeyCheck
    from rackctl.ssh.reach import Target


@click.command("ssh-config", cls=RackCommand)
@reach_options
@pass_invocation
def ssh_config(invocation: Invocation) -> None:
    """Print an OpenSSH configuration with a Host for each instance, named by its id.

    Connections go through `rackctl instances ssh-proxy` with this rack and these options. Host keys are checked
    against those that rackctl has pinned. `rackctl instances ssh-agent add` loads the keys that OpenSSH logs in with.

    \b
    Examples:
      rackctl instances ssh-config > ~/.ssh/rackctl_prod
      (then in ~/.ssh/config: Include rackctl_prod)
      scp -F ~/.ssh/rackctl_prod app.log i-0a321c8b:/tmp
      rsync -e 'ssh -F ~/.ssh/rackctl_prod' -a site/ i-0a321c8b:site/
    """
    from rackctl.ssh.host_keys import HostKeyFile
    from rackctl.ssh.openssh import Host, host_entry

    rack = invocation.rack
    instances = invocation.instances.instances()
    state = invocation.state_directory.absolute()
    pins = HostKeyFile(state)
    identities = _identities(invocation, instances, state)
    proxy = list(_proxy(invocation))
    entries = [
        host_entry(
            Host(i.ec2_instance_id, rack["ssh_user"], rack["ssh_port"], proxy, identities[i.ec2_instance_id]),
            pins.path,
            rack["host_key_check"],  # type: ignore[arg-type]  # checked where it was read
        )
        for i in instances
    ]
    click.echo(
        "\n".join([f"# The instances of rack {rack.name!r}, as `rackctl instances ssh-config` writes it.\n", *entries]),
        nl=False,
    )


def _identities(invocation: Invocation, instances: Iterable[Instance], state: Path) -> dict[str, list[Path]]:
    """Write the public keys of the instances, each to a file of its own; map the instances to the files to try."""
    from rackctl.keys import SharedKeyStore
    from rackctl.ssh.openssh import write_public_key

    keys = SharedKeyStore(invocation.rack)
    files: dict[str, list[Path]] = {}
    lacking: dict[str, list[str]] = {}
    for instance in instances:
        id_ = instance.ec2_instance_id
        try:
            tried = list(keys.candidates(instance.key_name, instance.first_launch_time))
        except RackctlError as error:
            lacking.setdefault(str(error), []).append(id_)
            files[id_] = []
        else:
            files[id_] = [write_public_key(state, key.key_name, key.public_key, key.generation) for key in tried]
    for why, ids in lacking.items():
        note(f"{', '.join(ids)}: which key to offer is left to your own configuration: {why}")
    return files


# Variables that select the rack and the connection; credentials must not be written to a file.
_FROM_ENVIRONMENT = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_ECS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
_PATHS = ("RACKCTL_CONFIG", "RACKCTL_STATE_DIR")
# Passed by OpenSSH, so that its -p works. Not the user: OpenSSH before 9.6 passes any text to the shell.
_FROM_OPENSSH = {"ssh_port": "%p"}
# Written to the configuration, so that the cluster's tags are not read at each connection.
_LOOKED_UP = ("address", "ssh_user")


def _proxy(invocation: Invocation) -> Iterator[str]:
    """Yield the words of the proxy command to ``%h``: this rackctl with the rack and the settings in force."""
    from rackctl.settings import SETTINGS

    given = invocation.environment
    passed = {*_LOOKED_UP, *_FROM_OPENSSH}
    own = {setting.environment_variable for name, setting in SETTINGS.items() if name not in passed}
    carried = {name: given[name] for name in sorted({*own, *_FROM_ENVIRONMENT} & given.keys()) if given[name]}
    carried |= {name: str(Path(given[name]).absolute()) for name in _PATHS if given.get(name)}
    if carried:
        yield from ("env", *(f"{name}={value}" for name, value in carried.items()))
    yield from _this_program()
    yield from ("instances", "ssh-proxy", "--rack", invocation.rack.name)
    chosen = {name: value for name, value in invocation.options.items() if name in SETTINGS}
    looked_up = {name: invocation.rack[name] for name in _LOOKED_UP}
    for name, value in {**chosen, **looked_up, **_FROM_OPENSSH}.items():
        yield SETTINGS[name].flag
        yield value
    yield "%h"


def _this_program() -> list[str]:
    """Return the command of this rackctl, for any directory."""
    script = Path(sys.argv[0])
    if script.is_file() and script.suffix != ".py" and os.access(script, os.X_OK):
        return [str(script.absolute())]
    # Of the interpreter's own command line, what stands before the arguments: `python -m …`.
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


@click.command("ssh-proxy", cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@reach_options
@pass_invocation
def ssh_proxy(invocation: Invocation, ec2_instance_id: str) -> None:
    """Act as OpenSSH's ProxyCommand for the instance ID.

    On the first connection to an instance, its host key is checked and pinned first.
    """
    from rackctl.ssh.host_keys import HostKeyFile
    from rackctl.ssh.login import deadline_for
    from rackctl.ssh.reach import reach
    from rackctl.ssh.relay import join

    instance = invocation.instances.find(ec2_instance_id)
    target = reach(invocation.rack, instance)
    pins = HostKeyFile(invocation.state_directory)
    if invocation.rack["host_key_check"] != "off" and not pins.pinned(ec2_instance_id):
        from rackctl.ssh.login import host_key_check

        check = host_key_check(invocation.rack, instance, state_directory=invocation.state_directory, notify=note)
        _pin(target, check, deadline_for(invocation.rack, target))
    join(target, deadline_for(invocation.rack, target))


def _pin(target: Target, check: HostKeyCheck, deadline: Deadline) -> None:
    """Pin the host key of a new instance, also if only OpenSSH has a key exchange in common with it."""
    from rackctl.ssh.connect import pin_host_key
    from rackctl.ssh.failures import NoCommonAlgorithm

    try:
        pin_host_key(target, check, deadline=deadline)
    except NoCommonAlgorithm:
        if target.proxy:
            raise
        from rackctl.ssh.keyscan import pin_by_keyscan

        pin_by_keyscan(target, check)
