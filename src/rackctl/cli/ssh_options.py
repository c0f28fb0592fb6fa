"""The options of the commands that reach instances by SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.completers import complete_one_of
from rackctl.cli.options import into_setting, options
from rackctl.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable


def _reach_option(
    setting: str, metavar: str, text: str, *short: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    complete = complete_one_of(*SETTINGS[setting].choices)
    return click.option(
        *short, SETTINGS[setting].flag, setting, metavar=metavar, help=text, expose_value=False,
        callback=into_setting(setting), shell_complete=complete,
    )  # fmt: skip


# The options that say how instances are reached, each a setting of the rack.
reach_options = options(
    _reach_option("ssh_user", "NAME", "Log in as this user.", "-l"),
    _reach_option("ssh_port", "PORT", "Port of the SSH server.", "-p"),
    _reach_option(
        "address",
        "WHICH",
        "auto, public, private or ipv6; auto is the public one, else the private one, else IPv6.",
    ),
    _reach_option(
        "proxy_command",
        "COMMAND",
        "Reach it through a command's stdin and stdout: %h address, %p port, %i instance id, %r user.",
    ),
    _reach_option("jump", "[USER@]HOST[:PORT]", "Reach it through this host, by `ssh -W` and your ssh config."),
    _reach_option("via", "ssm|eice", "Reach it through Session Manager or EC2 Instance Connect Endpoint."),
    _reach_option(
        "connect_timeout",
        "SECONDS",
        "Wait this long for the server's first byte (default 30, or 120 through a command).",
    ),
    _reach_option("host_key_check", "MODE", "strict, first-use (pin a key that nothing speaks against) or off."),
)
