"""What the commands that reach instances by SSH have in common: options, and standard streams that are open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.invocation import into_setting

if TYPE_CHECKING:
    from collections.abc import Callable


def reach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how instances are reached, each a setting of the rack."""
    for option in reversed(
        (
            ("--user", "ssh_user", "NAME", "Log in as this user."),
            ("--port", "ssh_port", "PORT", "Port of the SSH server."),
            ("--address", "address", "WHICH",
             "auto, public, private or ipv6; auto is the public one, else the private one, else IPv6."),
            ("--proxy-command", "proxy_command", "COMMAND",
             "Reach it through a command's stdin and stdout: %h address, %p port, %i instance id, %r user."),
            ("--jump", "jump", "[USER@]HOST[:PORT]", "Reach it through this host, by `ssh -W` and your ssh config."),
            ("--via", "via", "ssm|eice", "Reach it through Session Manager or EC2 Instance Connect Endpoint."),
            ("--connect-timeout", "connect_timeout", "SECONDS",
             "Wait this long for the server's first byte (default 30, or 120 through a command)."),
            ("--host-key-check", "host_key_check", "MODE",
             "strict, first-use (pin a key that nothing speaks against) or off."),
        )
    ):  # fmt: skip
        flag, setting, metavar, text = option
        store = into_setting(setting)
        command = click.option(flag, setting, metavar=metavar, help=text, expose_value=False, callback=store)(command)
    return command


def occupy_standard_streams() -> None:
    """Open /dev/null where a standard stream is closed, before a socket gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
