"""The settings of a rack: their meaning, their checks and their sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Source(IntEnum):
    """The sources of a setting, nearest first."""

    OPTION = 1
    ENVIRONMENT = 2
    CONFIG_FILE = 3
    LOCAL_RACK = 4
    # AWS's own configuration: variables such as AWS_REGION, and ~/.aws/config.
    AWS = 5
    TAG = 6
    DEFAULT = 7
    UNSET = 8
    # A tag may set it, but the tags could not be read.
    UNKNOWN = 9


_NAMED = {
    Source.LOCAL_RACK: "the local rack",
    Source.DEFAULT: "default",
    Source.UNSET: "not set",
    Source.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a value. ``name`` is the option, variable, file or tag."""

    source: Source
    name: str = ""

    def __str__(self) -> str:
        if self.source is Source.TAG:
            return f"tag {self.name}"
        return self.name or _NAMED.get(self.source, self.source.name.lower())


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and its origin."""

    value: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a rack.

    ``tagged`` says whether a tag of the cluster may set it. Anyone who may tag the cluster can write its tags, so no
    tag decides what runs on the user's machine or weakens a check made there.
    """

    name: str
    help: str
    default: Callable[[str], str] = lambda _: ""
    check: Callable[[str], str | None] = lambda _: None
    tagged: bool = False
    option: str = ""
    choices: tuple[str, ...] = ()

    def problem(self, value: str) -> str | None:
        """Return what is wrong with a value, or None."""
        if self.choices and value not in self.choices:
            return f"it must be one of {', '.join(self.choices)}"
        return self.check(value)

    @property
    def environment_variable(self) -> str:
        return f"RACKCTL_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{(self.option or self.name).replace('_', '-')}"

    @property
    def tag(self) -> str:
        return f"rackctl:{self.name.replace('_', '-')}"


def rack_name_problem(name: str) -> str | None:
    """Return what is wrong with a rack's name, or None.

    A leading dash means that an option stands where the name should.
    """
    if not name.strip() or name[0] == "-" or name != name.strip() or not name.isprintable() or len(name) > 255:
        return "a rack's name must have 1 to 255 printable characters, no leading dash, and no spaces at its ends"
    return None


def _printable(value: str) -> str | None:
    return None if value.isprintable() else "it must have printable characters only"


def _matching(pattern: str, problem: str) -> Callable[[str], str | None]:
    return lambda value: None if re.fullmatch(pattern, value) else problem


def _port(value: str) -> str | None:
    number = re.fullmatch(r"[0-9]{1,5}", value)
    return None if number and 0 < int(value) < 65536 else "it must be a number from 1 to 65535"


def _seconds(value: str) -> str | None:
    number = re.fullmatch(r"[0-9]{1,4}", value)
    return None if number and 0 < int(value) <= 3600 else "it must be a number of seconds from 1 to 3600"


_URL = _matching(r"https?://[^/\s]+/?", "it must be a URL such as https://host:port")
_REGION = _matching(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", "it must be the name of a region, such as us-east-1")
_ACCOUNT = _matching(r"[0-9]{12}", "it must be an AWS account id, which has 12 digits")
# Names by AWS's rules, or ARNs.
_CLUSTER = _matching(
    r"[A-Za-z0-9_-]{1,255}|arn:[!-~]+", "it must have letters, digits, dashes and underscores only, or be an ARN"
)
_BUCKET = _matching(r"[A-Za-z0-9._-]{3,255}|arn:[!-~]+", "it must have letters, digits, dots and dashes only")
_KMS_KEY = _matching(r"[A-Za-z0-9:/_-]{1,2048}", "it must be a KMS key's id, its ARN or alias/NAME")
# Plain words only: the name is used in ssh_config, shell commands and command lines.
_USER = _matching(
    r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,255}",
    "it must have ASCII letters, digits and _ . @ + - only, and not begin with . or -",
)


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("region", "AWS region", check=_REGION),
        Setting("profile", "AWS profile, as in ~/.aws/config", check=_printable),
        Setting("endpoint_url", "endpoint in place of AWS's own", check=_URL),
        Setting("cluster", "name of the ECS cluster", default=lambda rack: rack, check=_CLUSTER),
        Setting("bucket", "S3 bucket for SSH keys, journals and the history of rolls", check=_BUCKET, tagged=True),
        Setting("bucket_owner", "AWS account that owns the bucket, if not the cluster's", check=_ACCOUNT),
        Setting(
            "prefix",
            "prefix of the objects in the bucket",
            default=lambda rack: f"rackctl/{rack}",
            check=_printable,
            tagged=True,
        ),
        Setting("kms_key", "KMS key (id, ARN or alias) that seals the SSH keys", check=_KMS_KEY, tagged=True),
        Setting(
            "key_name",
            "name of a keyroll's new key pair: keep (the one it has), new or auto",
            default=lambda _: "auto",
            choices=("auto", "keep", "new"),
            tagged=True,
        ),
        Setting("ssh_user", "user to log in as", default=lambda _: "ec2-user", check=_USER, tagged=True, option="user"),
        Setting(
            "ssh_port",
            "port of the instances' SSH server",
            default=lambda _: "22",
            check=_port,
            tagged=True,
            option="port",
        ),
        Setting(
            "address",
            "address to connect to: auto, public, private or ipv6",
            default=lambda _: "auto",
            choices=("auto", "public", "private", "ipv6"),
            tagged=True,
        ),
        Setting("jump", "jump host: [user@]host[:port]", check=_printable),
        Setting(
            "proxy_command",
            "command to connect through; %h address, %p port, %i instance id, %r user",
            check=_printable,
        ),
        Setting(
            "via",
            "ssm or eice: connect through Session Manager or EC2 Instance Connect Endpoint",
            choices=("ssm", "eice", "none"),
        ),
        Setting(
            "host_key_check",
            "host key check: strict, first-use or off",
            default=lambda _: "first-use",
            choices=("strict", "first-use", "off"),
        ),
        Setting(
            "connect_timeout",
            "seconds to wait for the SSH server's first byte; if not set, 120 through a command",
            default=lambda _: "30",
            check=_seconds,
        ),
        Setting(
            "send_locale",
            "send LANG and LC_* to instances, as Debian's ssh does: yes or no",
            default=lambda _: "yes",
            choices=("yes", "no"),
        ),
    )
}
