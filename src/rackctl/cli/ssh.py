"""`rackctl instances ssh` and `rackctl instances forget-host-key`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completion import complete_instance
from rackctl.cli.console import note
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.ssh_options import reach_options
from rackctl.errors import SIGNALLED, SshError

if TYPE_CHECKING:
    from rackctl.ssh.connect import Connection


@click.command(cls=RackCommand, context_settings={"allow_interspersed_args": False})
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@click.argument("command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-t", "force_pty", count=True, help="Ask for a terminal for a command too; twice, even without one here.")
@click.option("-T", "no_pty", is_flag=True, help="Ask for no terminal.")
@click.option("-n", "no_input", is_flag=True, help="Read no standard input.")
@reach_options
@pass_invocation
def ssh(
    invocation: Invocation,
    ec2_instance_id: str,
    command: tuple[str, ...],
    force_pty: int,
    no_pty: bool,
    no_input: bool,
) -> None:
    """Log in to the instance ID, or run COMMAND on it, as ssh does.

    ID may be the start of one, of four characters after i- at least. What follows it is the command's, options
    too. The exit status is the command's; 128 and the number of the signal that ended it; or 255 when the
    connection or the login failed.

    \b
    Examples:
      rackctl instances ssh i-0a321c8b
      rackctl instances ssh i-0a321c8b docker ps | grep web
      rackctl instances ssh --via ssm i-0a32 uptime
      tar c . | rackctl instances ssh i-0a321c8b 'tar x -C /srv'
    """
    # A script's `ssh ID -- command` means the command.
    words = command[1:] if command[:1] == ("--",) else command
    line = b" ".join(map(os.fsencode, words))
    with open_connection(invocation, ec2_instance_id) as connection:
        with_pty = not no_pty and _wants_pty(line, force_pty, no_input)
        if connection.banner:
            click.echo(connection.banner, nl=False, err=True)
        run = _on_pty if with_pty else _on_pipes
        status = run(connection, line or None, None if no_input else 0)
    sys.exit(status)


def _wants_pty(command: bytes, forced: int, no_input: bool) -> bool:
    """Decide as OpenSSH does: for a shell or with -t, where stdin is a terminal; with -tt anywhere."""
    if command and not forced:
        return False
    if forced < _EVEN_WITHOUT_A_TERMINAL and (no_input or not os.isatty(0)):
        note("Pseudo-terminal will not be allocated because stdin is not a terminal.")
        return False
    return True


_EVEN_WITHOUT_A_TERMINAL = 2


def _on_pipes(connection: Connection, command: bytes | None, stdin: int | None) -> int:
    from rackctl.ssh.session import Session, to_descriptor

    session = Session(connection, command, stdin=stdin, stdout=to_descriptor(1), stderr=to_descriptor(2))
    return session.wait()


def _on_pty(connection: Connection, command: bytes | None, stdin: int | None) -> int:
    from rackctl.ssh.session import Pty, Session, to_descriptor
    from rackctl.ssh.terminal import Escapes, Terminal, Terminated, size_of

    try:
        terminal = Terminal(0)
    except OSError:
        terminal = None
    size = next(filter(None, map(size_of, range(3))), (0, 0, 0, 0))
    escapes = Escapes(lambda text: click.echo(text, nl=False, err=True))
    session = Session(
        connection,
        command,
        stdin=stdin,
        stdout=to_descriptor(1),
        stderr=to_descriptor(2),
        pty=Pty(os.environ.get("TERM") or "dumb", size, terminal.modes if terminal else b"\0"),
        typed=escapes if terminal else bytes,
    )
    if terminal is None:
        return session.wait()
    try:
        status = terminal.attend(session.result, session.resize, escapes)
    except Terminated as ended:
        return SIGNALLED + ended.signum
    id_ = connection.target.ec2_instance_id
    if status is None:
        raise SshError(f"the connection to {id_} was closed by ~.")
    note(f"the connection to {id_} is closed")
    return status


def open_connection(invocation: Invocation, ec2_instance_id: str) -> Connection:
    """Find an instance, and log in to it with its own key; paramiko is imported while AWS answers."""
    from rackctl.ssh.background import in_background
    from rackctl.ssh.login import connect, import_paramiko

    importing = in_background(import_paramiko)
    rack = invocation.rack
    tags = None if all(map(rack.is_given, _FROM_TAGS)) else in_background(lambda: rack.tags)
    instance = invocation.cluster.match(ec2_instance_id)
    if tags:
        # What went wrong with them is raised where one is needed.
        tags.exception()
    connection = connect(rack, invocation.keys, instance, state_directory=invocation.state_directory, notify=note)
    importing.result()
    return connection


# The settings that a login needs, and that tags of the cluster may give.
_FROM_TAGS = ("address", "bucket", "kms_key", "prefix", "ssh_port", "ssh_user")


@click.command("forget-host-key", cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@pass_invocation
def forget_host_key(invocation: Invocation, ec2_instance_id: str) -> None:
    """Forget the host keys that are pinned for the instance ID; the next ssh meets it for the first time.

    AWS is not asked: the instance may have gone.
    """
    from rackctl.cluster import require_ec2_instance_id
    from rackctl.ssh.host_keys import HostKeyFile

    require_ec2_instance_id(ec2_instance_id)
    forgotten = HostKeyFile(invocation.state_directory).forget(ec2_instance_id)
    if not forgotten:
        note(f"no host key is pinned for {ec2_instance_id}")
    for key in forgotten:
        note(f"forgot {key.fingerprint} ({key.key_type})")
