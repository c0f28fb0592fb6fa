"""The options of the commands that reach instances by SSH."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from rackctl.cli.options import options, setting_option
from rackctl.errors import UsageError

if TYPE_CHECKING:
    from rackctl.cli.invocation import Invocation
    from rackctl.ssh.login import Keys


# The options that say how instances are reached, each a setting of the rack.
reach_options = options(
    setting_option("ssh_user", "NAME", "Log in as this user.", "-l"),
    setting_option("ssh_port", "PORT", "Port of the SSH server.", "-p"),
    setting_option(
        "address",
        "WHICH",
        "Address: auto (public, else private, else ipv6), public, private or ipv6.",
    ),
    setting_option(
        "proxy_command",
        "COMMAND",
        "Connect through a command's stdin and stdout; %h address, %p port, %i id, %r user.",
    ),
    setting_option("jump", "[USER@]HOST[:PORT]", "Connect through this host, with `ssh -W` and your ssh config."),
    setting_option("via", "ssm|eice", "Connect through Session Manager or EC2 Instance Connect Endpoint."),
    setting_option(
        "connect_timeout",
        "SECONDS",
        "Wait at most this long for the server's first byte.",
        default="30; 120 through a command",
    ),
    setting_option(
        "host_key_check",
        "MODE",
        "Host key check: strict, first-use (trust a key that no console output contradicts) or off.",
    ),
)


identity_option = click.option(
    "-i", "--identity", metavar="FILE", type=click.Path(), help="Use the private key in FILE, and no stored key."
)


def keys_of(invocation: Invocation, identity: str | None) -> Keys:
    """Return the source of keys: the file that ``-i`` names, else the rack's store."""
    if identity is None:
        from rackctl.keys import SharedKeyStore

        return SharedKeyStore(invocation.rack)
    from rackctl.keys.files import read_key_file

    return read_key_file(identity, ask_passphrase)


def ask_passphrase(prompt: str) -> bytes:
    """Ask for a passphrase on the terminal, without echo; never on standard input, which may be the command's."""
    import getpass

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        raise UsageError(
            f"{prompt.rstrip(': ')}: there is no terminal to ask on",
            hint="run it in a terminal, or remove the passphrase from a copy of the file: ssh-keygen -p -f COPY",
        ) from error
    return os.fsencode(getpass.getpass(prompt))
