"""`rackctl instances ssh` and `rackctl instances forget-host-key`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import AWS, note, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.ssh_options import identity_option, keys_of, reach_options
from rackctl.errors import SIGNALLED, SshError, UsageError
from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.ssh.connect import Connection
    from rackctl.ssh.session import Session


# Options of OpenSSH's client that rackctl does not have, and what they do.
_ONLY_OPENSSH = {
    "-L": "forward a port",
    "-R": "forward a port",
    "-D": "forward ports",
    "-W": "forward its standard streams",
    "-A": "forward an agent",
    "-X": "forward X11",
    "-Y": "forward X11",
    "-N": "connect without a command",
    "-f": "go to the background",
}
_WITH_VALUE = {"-L", "-R", "-D", "-W"}


def _name_openssh(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Refuse an option of OpenSSH's, and show the command of OpenSSH for this rack."""
    if not value or ctx.resilient_parsing:
        return
    flag = option.opts[0]
    given = f"{flag} {value}" if flag in _WITH_VALUE else flag
    raise UsageError(
        f"rackctl does not {_ONLY_OPENSSH[flag]} ({flag}); OpenSSH does, and can reach this rack",
        hint="`rackctl instances ssh-config > ~/.ssh/rackctl` and `rackctl instances ssh-agent add`, "
        f"then `ssh -F ~/.ssh/rackctl {given} ID`",
    )


def _openssh_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag in _ONLY_OPENSSH:
        command = click.option(
            flag,
            f"_openssh_{flag[1]}",
            is_flag=flag not in _WITH_VALUE,
            hidden=True,
            expose_value=False,
            callback=_name_openssh,
        )(command)
    return command


@click.command(cls=RackCommand, context_settings={"allow_interspersed_args": False})
@click.argument("instance", metavar="[USER@]ID", shell_complete=complete_instance)
@click.argument("command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-t", "force_pty", count=True, help="Request a terminal for a command too; -tt even without a local one.")
@click.option("-T", "no_pty", is_flag=True, help="Request no terminal.")
@click.option("-n", "no_input", is_flag=True, help="Redirect standard input from /dev/null.")
@identity_option
@reach_options
@_openssh_options
@pass_invocation
def ssh(
    invocation: Invocation,
    instance: str,
    command: tuple[str, ...],
    force_pty: int,
    no_pty: bool,
    no_input: bool,
    identity: str | None,
) -> None:
    """Log in to the instance ID or run COMMAND on it, as ssh does.

    ID is the id, its start (at least 4 characters after "i-"), an address, a DNS name or a Name tag that only one
    instance has. Options after ID belong to COMMAND. The exit status is that of COMMAND, 128 plus the signal's number
    if a signal ended it, or 255 if the connection or the login failed.

    \b
    Examples:
      rackctl instances ssh i-0a321c8b
      rackctl instances ssh i-0a321c8b docker ps | grep web
      rackctl instances ssh --via ssm i-0a32 uptime
      rackctl instances ssh 10.0.1.17
      rackctl instances ssh -i ~/.ssh/ops.pem i-0a32
      tar c . | rackctl instances ssh i-0a321c8b 'tar x -C /srv'
      rsync -e 'rackctl instances ssh' -a site/ ec2-user@i-0a321c8b:site/
    """
    user, _, ec2_instance_id = instance.rpartition("@")
    if user:
        invocation.options.setdefault("ssh_user", user)
    # A script's `ssh ID -- command` means the command.
    words = command[1:] if command[:1] == ("--",) else command
    line = b" ".join(map(os.fsencode, words))
    with _open_connection(invocation, ec2_instance_id, identity) as connection:
        stdin = None if no_input else 0
        if not no_pty and _wants_pty(line, force_pty, no_input):
            required = force_pty >= _EVEN_WITHOUT_A_TERMINAL
            status = _on_pty(invocation, connection, line or None, stdin, required=required)
        else:
            status = _session(invocation, connection, line or None, stdin).wait()
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


def _session(
    invocation: Invocation, connection: Connection, command: bytes | None, stdin: int | None, **of_pty: Any
) -> Session:
    """Open a session on stdin, stdout and stderr; ``of_pty`` is what a Session on a pseudo-terminal has besides."""
    from rackctl.ssh.login import locale
    from rackctl.ssh.session import Session, to_descriptor

    return Session(
        connection,
        command,
        stdin=stdin,
        stdout=to_descriptor(1),
        stderr=to_descriptor(2),
        one_place=os.path.sameopenfile(1, 2),
        environment=locale(invocation.rack, invocation.environment),
        **of_pty,
    )


def _on_pty(
    invocation: Invocation, connection: Connection, command: bytes | None, stdin: int | None, *, required: bool
) -> int:
    from rackctl.ssh.session import Pty
    from rackctl.ssh.terminal import Escapes, Terminal, Terminated, size_of

    try:
        terminal = Terminal(0)
    except OSError:
        terminal = None
    size = next(filter(None, map(size_of, range(3))), (0, 0, 0, 0))
    escapes = Escapes(lambda text: click.echo(text, nl=False, err=True))
    session = _session(
        invocation,
        connection,
        command,
        stdin,
        pty=Pty(os.environ.get("TERM") or "dumb", size, terminal.modes if terminal else b"\0", required),
        typed=escapes if terminal else bytes,
    )
    id_ = connection.target.ec2_instance_id
    if not session.has_pty:
        note(f"{id_} refused a terminal (PermitTTY no in its sshd_config?); continuing without one")
    if terminal is None or not session.has_pty:
        return session.wait()
    try:
        status = terminal.run_raw(session.result, session.resize, escapes)
    except Terminated as ended:
        return SIGNALLED + ended.signum
    if status is None:
        raise SshError(f"the connection to {id_} was ended by ~.")
    note(f"the connection to {id_} is closed")
    return status


def _open_connection(invocation: Invocation, ec2_instance_id: str, identity: str | None) -> Connection:
    """Find an instance, and log in to it with its own key.

    While AWS looks for it, paramiko is imported and the stored keys are listed.
    """
    from rackctl.background import in_background
    from rackctl.keys import SharedKeyStore
    from rackctl.ssh.login import connect, import_paramiko

    importing = in_background(import_paramiko)
    rack = invocation.rack
    tags = None if all(map(rack.is_given, _FROM_TAGS)) else in_background(lambda: rack.tags)
    keys = keys_of(invocation, identity)
    if isinstance(keys, SharedKeyStore):
        stored = keys
        in_background(lambda: (tags and tags.result(), stored.everything()))
    with waiting_for(AWS):
        instance = invocation.instances.match(ec2_instance_id)
        if tags:
            # An error with the tags is raised where one is needed.
            tags.exception()
    with waiting_for(f"the login to {instance.ec2_instance_id}"):
        connection = connect(
            rack,
            keys,
            instance,
            state_directory=invocation.state_directory,
            notify=note,
            show_banner=_show_banner,
        )
    importing.result()
    return connection


def _show_banner(text: str) -> None:
    """Show a text that the server sends before the login."""
    # A closed terminal must not end the login.
    with suppress(OSError):
        click.echo(printable(text.replace("\r", "")), nl=False, err=True)


# The settings that a login needs, and that tags of the cluster may give.
_FROM_TAGS = ("address", "bucket", "kms_key", "prefix", "ssh_port", "ssh_user")


@click.command("forget-host-key", cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@click.option("--dry-run", is_flag=True, help="Show what would be forgotten, and change nothing.")
@pass_invocation
def forget_host_key(invocation: Invocation, ec2_instance_id: str, dry_run: bool) -> None:
    """Forget the host keys pinned for the instance ID.

    The next connection is a first connection again. AWS is not called: the instance may no longer exist.
    """
    from rackctl.instances import require_ec2_instance_id
    from rackctl.ssh.host_keys import HostKeyFile

    require_ec2_instance_id(ec2_instance_id)
    pins = HostKeyFile(invocation.state_directory)
    keys = pins.pinned(ec2_instance_id) if dry_run else pins.forget(ec2_instance_id)
    if not keys:
        note(f"no host key is pinned for {ec2_instance_id}")
    for key in keys:
        note(f"{'would forget' if dry_run else 'forgot'} {key.fingerprint} ({key.key_type})")
