"""Which rack, and with what settings: options, environment, config file, cluster tags, defaults.

The first of these that has a setting decides it:

1. the command-line option
2. the environment variable ``RACKCTL_<SETTING>``
3. ``[racks.NAME]`` of the config file
4. the tag ``rackctl:<setting>`` on the rack's ECS cluster
5. the default
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackctl.aws.session import Aws, Credentials
from rackctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value and, for people, where it came from."""

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a rack.

    ``tagged`` says whether a tag on the cluster may give it. Tags can be written by anybody who may tag the
    cluster, so none decides what runs on the user's machine or weakens a check made there.
    """

    name: str
    help: str
    default: Callable[[str], str] = lambda _: ""
    check: Callable[[str], str | None] = lambda _: None
    tagged: bool = False
    option: str = ""

    @property
    def environment_variable(self) -> str:
        return f"RACKCTL_{self.name.upper()}"

    @property
    def tag(self) -> str:
        return f"rackctl:{self.name.replace('_', '-')}"


def _port(value: str) -> str | None:
    number = re.fullmatch(r"[0-9]{1,5}", value)
    return None if number and 0 < int(value) < 65536 else "a port is a number from 1 to 65535"


def _account(value: str) -> str | None:
    return None if re.fullmatch(r"[0-9]{12}", value) else "an AWS account id has 12 digits"


def _user(value: str) -> str | None:
    # Plain words only: the name stands in ssh_config, in shell commands and on command lines.
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,255}", value)
    return None if plain else "a user name has ASCII letters, digits and _ . @ + - only, and does not begin with . or -"


def _seconds(value: str) -> str | None:
    number = re.fullmatch(r"[0-9]{1,4}", value)
    return None if number and 0 < int(value) <= 3600 else "it is a number of seconds from 1 to 3600"


def _one_of(*choices: str) -> Callable[[str], str | None]:
    return lambda value: None if value in choices else f"it is one of {', '.join(choices)}"


def _url(value: str) -> str | None:
    return None if re.fullmatch(r"https?://[^/\s]+/?", value) else "an endpoint is a URL such as https://host:port"


def _region(value: str) -> str | None:
    return None if re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-\d+", value) else "a region's name looks like us-east-1"


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("region", "AWS region", check=_region),
        Setting("profile", "AWS profile, as in ~/.aws/config"),
        Setting("endpoint_url", "endpoint to use in place of AWS's own", check=_url),
        Setting("cluster", "name of the ECS cluster", default=lambda rack: rack),
        Setting("bucket", "S3 bucket for SSH keys and the keyroll's journal", tagged=True),
        Setting("bucket_owner", "AWS account that owns the bucket, if not the cluster's", check=_account),
        Setting("prefix", "prefix of the objects in the bucket", default=lambda rack: f"rackctl/{rack}", tagged=True),
        Setting("kms_key", "KMS key (id, ARN or alias) that seals the SSH keys", tagged=True),
        Setting(
            "ssh_user",
            "user to log in as",
            default=lambda _: "ec2-user",
            check=_user,
            tagged=True,
            option="user",
        ),
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
            "address to reach instances at: auto, public, private or ipv6",
            default=lambda _: "auto",
            check=_one_of("auto", "public", "private", "ipv6"),
            tagged=True,
        ),
        Setting("jump", "[user@]host[:port] to reach instances through"),
        Setting("proxy_command", "command to reach instances through; %h host, %p port, %i instance id"),
        Setting(
            "via",
            "ssm or eice: Session Manager, or EC2 Instance Connect Endpoint",
            check=_one_of("ssm", "eice", "none"),
        ),
        Setting(
            "host_key_check",
            "strict, first-use or off",
            default=lambda _: "first-use",
            check=_one_of("strict", "first-use", "off"),
        ),
        Setting(
            "connect_timeout",
            "seconds to wait for the first byte of an SSH server; 120 through a command, unless set",
            default=lambda _: "30",
            check=_seconds,
        ),
        Setting(
            "send_locale",
            "yes or no: send LANG and LC_* to instances, as Debian's ssh does",
            default=lambda _: "yes",
            check=_one_of("yes", "no"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class LocalRack:
    """The local rack that is up, as its daemon describes it in its state directory."""

    name: str
    endpoint_url: str
    region: str
    credentials: Credentials
    proxy_command: str = ""

    @property
    def settings(self) -> dict[str, str]:
        given = {"region": self.region, "endpoint_url": self.endpoint_url, "proxy_command": self.proxy_command}
        return {name: value for name, value in given.items() if value}


def state_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the directory where rackctl keeps what outlives a command: host keys, the local rack."""
    if chosen := _path_in(environment, "RACKCTL_STATE_DIR"):
        return chosen
    import platformdirs

    return Path(platformdirs.user_state_dir("rackctl", appauthor=False))


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the path of the config file, which need not exist."""
    if chosen := _path_in(environment, "RACKCTL_CONFIG"):
        return chosen
    import platformdirs

    return Path(platformdirs.user_config_dir("rackctl", appauthor=False)) / "config.toml"


def _path_in(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable)
    if value is not None and not value.strip():
        raise UsageError(f"{variable} is empty", hint="give it a path, or unset it")
    return Path(value) if value else None


def find_local_rack(directory: Path) -> LocalRack | None:
    """Give the local rack whose state is kept under a state directory, if it is up."""
    try:
        if not _is_locked(directory / "local" / "lock"):
            return None
        described = json.loads((directory / "local" / "rack.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise UsageError(
            f"the local rack in {directory} is another user's ({error.strerror})",
            hint="name a state directory of your own with RACKCTL_STATE_DIR",
        ) from error
    return LocalRack(
        name=described["name"],
        endpoint_url=described["endpoint_url"],
        region=described["region"],
        credentials=Credentials(described["access_key_id"], described["secret_access_key"]),
        proxy_command=described.get("proxy_command") or "",
    )


def _is_locked(path: Path) -> bool:
    """Tell whether a process holds a lock: one that is no more holds none, and its id may be another's by now."""
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Config:
    """The config file: ``default_rack`` and a table of settings for each rack."""

    path: Path
    default_rack: str = ""
    racks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Read a config file; one that does not exist is empty.

    Raises UsageError, naming the file, the line and the key, for what it cannot have meant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Config(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from error
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", hint="the config file is TOML: see https://toml.io") from error
    return Config(path, *_checked(document, _Complaints(path, text)))


@dataclass(frozen=True, slots=True)
class _Complaints:
    path: Path
    text: str

    def about(self, table: str, key: str, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {self._line_of(table, key)}: {what}")

    def _line_of(self, table: str, key: str) -> int:
        """Find where a key stands, which tomllib does not tell: in its table, or as a dotted key or table."""
        bare = rf"""["']?{re.escape(key)}["']?"""
        header = re.compile(r"\s*\[+\s*(?P<name>.*?)\s*\]+\s*(#.*)?$")
        inside = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if found := header.match(line):
                inside = re.sub(r"""["'\s]""", "", found["name"])
                if inside == f"{table}.{key}".lstrip("."):
                    return number
            elif inside == table and re.match(rf"\s*{bare}\s*[=.]", line):
                return number
        return next(
            (n for n, line in enumerate(self.text.splitlines(), 1) if re.search(rf"\b{re.escape(key)}\b", line)), 1
        )


def _checked(document: Mapping[str, Any], complaints: _Complaints) -> tuple[str, dict[str, dict[str, str]]]:
    for key in document.keys() - {"default_rack", "racks"}:
        raise complaints.about("", key, f'unknown key "{key}"{_did_you_mean(key, ["default_rack", "racks"])}')
    default, racks = document.get("default_rack", ""), document.get("racks", {})
    if not isinstance(default, str):
        raise complaints.about("", "default_rack", "default_rack is the name of a rack, as a string")
    if not isinstance(racks, dict):
        raise complaints.about("", "racks", "racks are tables: [racks.NAME]")
    checked: dict[str, dict[str, str]] = {}
    for name, table in racks.items():
        if not isinstance(table, dict):
            raise complaints.about("racks", name, f'"{name}" is not a setting: racks are tables, [racks.NAME]')
        checked[name] = dict(_checked_rack(name, table, complaints))
    if default and default not in checked:
        raise complaints.about("", "default_rack", f'default_rack is "{default}", but there is no [racks.{default}]')
    return default, checked


def _checked_rack(name: str, table: Mapping[str, Any], complaints: _Complaints) -> Iterator[tuple[str, str]]:
    where = f"racks.{name}"
    for key, value in table.items():
        setting = SETTINGS.get(key)
        if setting is None:
            raise complaints.about(where, key, f'unknown setting "{key}"{_did_you_mean(key, list(SETTINGS))}')
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise complaints.about(where, key, f"{key} must be a string")
        if not str(value):
            raise complaints.about(where, key, f"{key} is empty: give it a value, or leave the line out")
        if problem := setting.check(str(value)):
            raise complaints.about(where, key, f'{key} is "{value}": {problem}')
        yield key, str(value)


def _did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f": did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that can name a rack and its settings, but for the tags of its cluster.

    ``options`` are those given on the command line, by setting name, and ``rack`` among them.
    """

    options: Mapping[str, str]
    environment: Mapping[str, str]
    config: Config
    local: LocalRack | None

    def known(self) -> dict[str, str]:
        """Map each rack that is known without asking AWS to where it is known from."""
        racks = dict.fromkeys(self.config.racks, str(self.config.path))
        if self.local:
            racks.setdefault(self.local.name, "the local rack")
        chosen = self.options.get("rack") or self.environment.get("RACKCTL_RACK")
        if chosen:
            racks.setdefault(chosen, "--rack" if self.options.get("rack") else "RACKCTL_RACK")
        return dict(sorted(racks.items()))

    def current(self) -> Value:
        """Choose the rack.

        Raises UsageError when nothing chooses one, or what chooses it is an empty text, as an unset variable
        in a script gives.
        """
        for origin, value in (
            ("--rack", self.options.get("rack")),
            ("RACKCTL_RACK", self.environment.get("RACKCTL_RACK")),
        ):
            if value:
                return Value(value, origin)
            if value is not None:
                raise UsageError(f"{origin} is empty", hint="give the name of a rack, or leave it out")
        if self.config.default_rack:
            return Value(self.config.default_rack, f"default_rack in {self.config.path}")
        if len(self.config.racks) == 1:
            return Value(next(iter(self.config.racks)), f"the only rack in {self.config.path}")
        if self.local:
            return Value(self.local.name, "the local rack, which is up")
        known = f" (it has {', '.join(sorted(self.config.racks))})" if self.config.racks else ""
        raise UsageError(
            "which rack?",
            hint=f"name one with --rack, with RACKCTL_RACK, or as default_rack in {self.config.path}{known}; "
            "or start one on this machine with `rackctl local up`",
        )

    def rack(self, *, notify: Callable[[str], None] = lambda _: None) -> Rack:
        """Put the chosen rack together, asking AWS nothing. Raises UsageError."""
        chosen = self.current()
        return Rack(chosen, self._settings(chosen.value), self._credentials(chosen.value), notify=notify)

    def _settings(self, rack: str) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for name, setting in SETTINGS.items():
            option = f"--{(setting.option or name).replace('_', '-')}"
            for origin, value in (
                (option, self.options.get(name)),
                (setting.environment_variable, self.environment.get(setting.environment_variable)),
                (str(self.config.path), self.config.racks.get(rack, {}).get(name)),
                ("the local rack", self._local_settings(rack).get(name)),
            ):
                if value is None:
                    continue
                if not value:
                    raise UsageError(f"{origin} is empty", hint=f"give it a value ({setting.help}), or leave it out")
                if problem := setting.check(value):
                    raise UsageError(f'{origin} is "{value}": {problem}')
                found[name] = Value(value, origin)
                break
        return found

    def _local_settings(self, rack: str) -> dict[str, str]:
        return self.local.settings if self.local and self._is_local(rack) else {}

    def _credentials(self, rack: str) -> Credentials | None:
        return self.local.credentials if self.local and self._is_local(rack) else None

    def _is_local(self, rack: str) -> bool:
        """Tell whether this rack is the local one: its endpoint and its credentials are used together or not at all."""
        return (
            self.local is not None
            and rack == self.local.name
            and rack not in self.config.racks
            and not any(self.options.get(name) for name in ("endpoint_url", "profile"))
            and self.environment.get("AWS_ENDPOINT_URL", self.local.endpoint_url) == self.local.endpoint_url
            and not self.environment.get("RACKCTL_ENDPOINT_URL")
        )


class Rack:
    """A rack: its name, its settings and its way to AWS.

    A setting that nothing nearer gives is looked up, once and only when it is asked for, among the tags of
    the cluster.
    """

    def __init__(
        self,
        chosen: Value,
        given: Mapping[str, Value],
        credentials: Credentials | None = None,
        *,
        notify: Callable[[str], None] = lambda _: None,
        aws: Aws | None = None,
    ) -> None:
        self.name = chosen.value
        self.chosen_by = chosen.origin
        self._given = given
        self.aws = aws or Aws(
            region=self._given_value("region"),
            profile=self._given_value("profile"),
            endpoint_url=self._given_value("endpoint_url"),
            credentials=credentials,
            notify=notify,
        )

    def _given_value(self, name: str) -> str | None:
        return self._given[name].value if name in self._given else None

    @property
    def cluster(self) -> str:
        """The name of the rack's ECS cluster."""
        return self.setting("cluster").value

    @cached_property
    def tags(self) -> Mapping[str, str]:
        """The tags of the rack's cluster, read once."""
        return self.aws.ecs.cluster_tags(self.cluster)

    def __getitem__(self, name: str) -> str:
        """Give a setting's value; empty where nothing sets it and there is no default. Raises RackctlError."""
        return self.setting(name).value

    def setting(self, name: str) -> Value:
        """Give a setting's value and where it came from.

        Raises UsageError for a tag that makes no sense, and what asking AWS for the tags raises.
        """
        setting = SETTINGS[name]
        if name in self._given:
            return self._given[name]
        if setting.tagged and (tag := self.tags.get(setting.tag)):
            if problem := setting.check(tag):
                raise UsageError(f'the tag {setting.tag} of cluster {self.cluster} is "{tag}": {problem}')
            return Value(tag, f"tag {setting.tag}")
        default = setting.default(self.name)
        return Value(default, "default" if default else "not set")

    def is_given(self, name: str) -> bool:
        """Tell whether a setting comes from nearer than the cluster's tags."""
        return name in self._given

    def require(self, name: str) -> str:
        """Give a setting that something cannot do without. Raises NotFound, naming the ways to set it."""
        value = self[name]
        if not value:
            setting = SETTINGS[name]
            tag = f", or tag the cluster: rackctl:{name.replace('_', '-')}" if setting.tagged else ""
            raise NotFound(
                f'rack "{self.name}" has no {name} ({setting.help})',
                hint=f"set {setting.environment_variable}, or {name} under [racks.{self.name}] in the config file{tag}",
            )
        return value
