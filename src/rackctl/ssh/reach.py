"""Connection settings of an instance: address, port and user, directly or through a proxy command."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import SshError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rackctl.model import Instance
    from rackctl.rack import Rack

# The settings that connect through a command; the one from the nearest source counts. "none" connects directly.
_WAYS = ("proxy_command", "jump", "via")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A command whose standard input and output are connected to a server; ``shown`` is for messages."""

    argv: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class Target:
    """An instance's SSH server, and the proxy command to it, if any."""

    ec2_instance_id: str
    host: str
    port: int
    user: str
    proxy: Proxy | None = None

    @property
    def way(self) -> str:
        """Address and port, or the proxy command, for messages."""
        return f"through `{self.proxy.shown}`" if self.proxy else f"{self.host} port {self.port}"

    def __str__(self) -> str:
        return f"{self.ec2_instance_id} ({self.way})"


def reach(rack: Rack, instance: Instance) -> Target:
    """Return the connection settings of an instance by the rack's settings.

    Raises SshError if the instance is not running or has no address, or if a program is not installed; UsageError for
    settings that contradict each other.
    """
    id_ = instance.ec2_instance_id
    if instance.state != "running":
        raise SshError(f"{id_} is {instance.state}, not running", hint=_UNTIL.get(instance.state, ""))
    name, value = _way(rack)
    host = _address(instance, rack["address"], through=bool(name))
    if host and not _HOST.fullmatch(host):
        raise SshError(f"EC2 returned an invalid address for {id_}: {host!r}")
    port = int(rack["ssh_port"])
    target = Target(id_, host, port, rack["ssh_user"])
    if name == "proxy_command":
        proxy = _proxy_command(value, target)
    elif name == "jump":
        proxy = _jump(value, target)
    elif name == "via":
        proxy = _via(value, target, rack)
    else:
        proxy = None
        _require_address(target, instance, rack["address"])
    return Target(id_, host, port, target.user, proxy)


# An IPv4 or IPv6 address, or a name. It is used in command lines and in the shell command of a proxy.
_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9_.:-]{0,254}")

_UNTIL = {
    "pending": "try again when `rackctl instances` shows it running",
    "stopped": "start it with `aws ec2 start-instances`",
}


def _way(rack: Rack) -> tuple[str, str]:
    """Return the name and value of the setting that connects through a command, if any, from the nearest source."""
    set_ = sorted((rack.setting(name).origin.source, name) for name in _WAYS if rack[name])
    nearest = [name for near, name in set_ if near == set_[0][0] and rack[name] != "none"]
    if len(nearest) > 1:
        named = " and ".join(f"{rack.setting(name).origin} ({name})" for name in nearest)
        raise UsageError(f"two connection methods are set: {named}", hint="remove one of them")
    return (nearest[0], rack[nearest[0]]) if nearest else ("", "")


def _address(instance: Instance, setting: str, *, through: bool) -> str:
    public, private, ipv6 = instance.public_ip, instance.private_ip, instance.ipv6_address
    if setting != "auto":
        return {"public": public, "private": private, "ipv6": ipv6}[setting]
    return ((private or public) if through else (public or private)) or ipv6


def _require_address(target: Target, instance: Instance, setting: str) -> None:
    if target.host:
        return
    other = _address(instance, "auto", through=False)
    kind = {"auto": "", "ipv6": "IPv6 "}.get(setting, f"{setting} ")
    raise SshError(
        f"{target.ec2_instance_id} has no {kind}address",
        hint=f"reach it at {other} with --address auto, or through Session Manager with --via ssm"
        if other
        else "reach it through Session Manager with --via ssm",
    )


def _proxy_command(command: str, target: Target) -> Proxy:
    """Expand a proxy command as OpenSSH does (ssh_config(5), TOKENS), and have the user's shell run it."""
    values = {"%h": target.host, "%p": str(target.port), "%i": target.ec2_instance_id, "%r": target.user, "%%": "%"}

    def expand(match: re.Match[str]) -> str:
        if match[0] not in values:
            raise UsageError(
                f'proxy_command is "{command}": unknown token {match[0]}',
                hint="%h is the address, %p the port, %i the instance id, %r the user, %% a percent sign",
            )
        if not values[match[0]]:
            raise SshError(f"{target.ec2_instance_id} has no address for {match[0]} in the proxy command")
        return values[match[0]]

    # The user name is the only value that could be more than one word to a shell.
    if "%r" in command and shlex.quote(target.user) != target.user:
        raise UsageError(f'"{target.user}" cannot be used for %r in a proxy command')
    shown = re.sub("%.?", expand, command)
    return Proxy((os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {shown}"), shown)


_JUMP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.@+-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


def _jump(jump: str, target: Target) -> Proxy:
    """Connect through another host with the OpenSSH client, which uses the user's own configuration and keys."""
    match = _JUMP.fullmatch(jump)
    if match is None:
        raise UsageError(f'jump is "{jump}": expected [user@]host[:port]')
    if not target.host:
        raise SshError(f"{target.ec2_instance_id} has no address to reach from {jump}")
    _require_program("ssh", "--jump needs the OpenSSH client", "install it (openssh-client)")
    there = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
    host = match["host"].strip("[]")
    argv = ["ssh", "-W", there]
    if match["user"]:
        argv += ["-l", match["user"]]
    if match["port"]:
        argv += ["-p", match["port"]]
    return _shown([*argv, "--", host])


def _via(service: str, target: Target, rack: Rack) -> Proxy:
    _require_program("aws", f"--via {service} needs the AWS CLI", "see https://aws.amazon.com/cli")
    common = []
    if rack.aws.region:
        common += ["--region", rack.aws.region]
    if rack["profile"]:
        common += ["--profile", rack["profile"]]
    if service == "eice":
        tunnel = ["--instance-id", target.ec2_instance_id, "--remote-port", str(target.port)]
        return _shown(["aws", "ec2-instance-connect", "open-tunnel", *tunnel, *common])
    _require_program(
        "session-manager-plugin",
        "--via ssm needs the AWS CLI's Session Manager plugin",
        "see https://docs.aws.amazon.com/systems-manager/latest/userguide/"
        "session-manager-working-with-install-plugin.html",
    )
    session = ["--target", target.ec2_instance_id, "--document-name", "AWS-StartSSHSession"]
    return _shown(["aws", "ssm", "start-session", *session, "--parameters", f"portNumber={target.port}", *common])


def _shown(argv: Sequence[str]) -> Proxy:
    return Proxy(tuple(argv), shlex.join(argv))


def _require_program(name: str, what: str, remedy: str, *, which: Callable[[str], str | None] = shutil.which) -> None:
    if which(name) is None:
        raise SshError(f"`{name}` is not installed: {what}", hint=remedy)
