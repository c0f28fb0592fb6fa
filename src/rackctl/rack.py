"""The current rack and its settings: from options, environment, config file, cluster tags and defaults.

The first of these that sets a setting wins:

1. the command-line option
2. the environment variable ``RACKCTL_<SETTING>``
3. ``[racks.NAME]`` of the config file
4. the tag ``rackctl:<setting>`` on the rack's ECS cluster
5. the default
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from rackctl.aws.session import Aws, Credentials
from rackctl.errors import AccessDenied, NotFound, UsageError
from rackctl.owners import owner_of
from rackctl.settings import SETTINGS, Origin, Source, Value, rack_name_problem
from rackctl.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackctl.aws.s3 import Bucket
    from rackctl.config import Config
    from rackctl.local_rack import LocalRack
    from rackctl.model import EcsCluster


# AWS's own variables, in the order in which they are read. They apply if rackctl's setting is not given.
_AWS_VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "profile": ("AWS_DEFAULT_PROFILE", "AWS_PROFILE"),
    "endpoint_url": ("AWS_ENDPOINT_URL",),
}


@dataclass(frozen=True, slots=True)
class Sources:
    """Every source of a rack's name and settings except the tags of its cluster.

    ``options`` are those given on the command line, by the name of their setting, ``rack`` included.
    """

    options: Mapping[str, str]
    environment: Mapping[str, str]
    config: Config
    local: LocalRack | None

    def known(self) -> dict[str, Origin]:
        """Map the racks that are known without a call to AWS to their origins."""
        racks = dict.fromkeys(self.config.racks, Origin(Source.CONFIG_FILE, str(self.config.path)))
        if self.local:
            racks.setdefault(self.local.name, Origin(Source.LOCAL_RACK))
        for name in self._named():
            racks.setdefault(name.value, name.origin)
        return dict(sorted(racks.items()))

    def current(self) -> Value:
        """Select the rack.

        Raises UsageError if none is named, or if the name is invalid.
        """
        for named in self._named():
            return named
        if self.config.default_rack:
            return Value(self.config.default_rack, self._in_config("default_rack in"))
        if len(self.config.racks) == 1:
            return Value(next(iter(self.config.racks)), self._in_config("the only rack in"))
        if self.local:
            return Value(self.local.name, Origin(Source.LOCAL_RACK))
        known = f" (it has {', '.join(sorted(self.config.racks))})" if self.config.racks else ""
        raise UsageError(
            "no rack selected",
            hint=f"name one with --rack, with RACKCTL_RACK, or as default_rack in {self.config.path}{known}; "
            "or start one on this machine with `rackctl local up`",
        )

    def _named(self) -> Iterator[Value]:
        """Yield the names from the option and the variable, nearest first. Raises UsageError."""
        for origin, value in (
            (Origin(Source.OPTION, "--rack"), self.options.get("rack")),
            (Origin(Source.ENVIRONMENT, "RACKCTL_RACK"), self.environment.get("RACKCTL_RACK")),
        ):
            if value is None:
                continue
            if not value:
                raise UsageError(f"{origin} is empty", hint="give it the name of a rack, or remove it")
            if problem := rack_name_problem(value):
                raise UsageError(f"{origin} is {quoted(value)}: {problem}")
            yield Value(value, origin)

    def _in_config(self, what: str) -> Origin:
        return Origin(Source.CONFIG_FILE, f"{what} {self.config.path}")

    def rack(self, *, notify: Callable[[str], None] = lambda _: None) -> Rack:
        """Build the selected rack; AWS is not called. Raises UsageError."""
        chosen = self.current()
        return Rack(chosen, self.settings(chosen.value), self._credentials(chosen.value), notify=notify)

    def account(self, *, notify: Callable[[str], None] = lambda _: None) -> Aws:
        """Return the AWS services of the selected rack's account and region; AWS is not called.

        If no rack is selected, they are those of the options, the variables and AWS's own configuration.
        """
        named = next(self._named(), None)
        try:
            name = (named or self.current()).value
        except UsageError:
            name = ""
        return Rack(Value(name, Origin(Source.UNSET)), self.settings(name), self._credentials(name), notify=notify).aws

    def rack_of(self, cluster: EcsCluster, aws: Aws) -> Rack:
        """Return the rack of a cluster: the one that the config file has for it, or one by the cluster's own name.

        A convox rack is named after its stack; the name of its cluster is generated. Options and variables are left
        out, since they belong to the rack that they select.
        """
        names = [
            name
            for name, given in self.config.racks.items()
            if given.get("cluster", name) in {cluster.name, cluster.cluster_arn}
            and given.get("region", cluster.region) == cluster.region
        ]
        owner = owner_of(cluster.tags)
        name = names[0] if names else owner.stack if owner and owner.kind == "convox" else cluster.name
        origin = self._in_config("racks in") if names else Origin(Source.DEFAULT)
        return Rack(
            Value(name, origin), replace(self, options={}, environment={}).settings(name), aws=aws, described=cluster
        )

    def settings(self, rack: str) -> dict[str, Value]:
        """Return the settings of a rack from options, variables, the config file and the local rack.

        Raises UsageError.
        """
        found: dict[str, Value] = {}
        for name, setting in SETTINGS.items():
            variable = setting.environment_variable
            for origin, value in (
                (Origin(Source.OPTION, setting.flag), self.options.get(name)),
                (Origin(Source.ENVIRONMENT, variable), self.environment.get(variable)),
                (Origin(Source.CONFIG_FILE, str(self.config.path)), self.config.racks.get(rack, {}).get(name)),
                (Origin(Source.LOCAL_RACK), self._local_settings(rack).get(name)),
            ):
                if value is None:
                    continue
                if not value:
                    raise UsageError(f"{origin} is empty", hint=f"give it a value ({setting.help}), or remove it")
                if problem := setting.problem(value):
                    raise UsageError(f"{origin} is {quoted(value)}: {problem}")
                found[name] = Value(value, origin)
                break
        return found

    def _local_settings(self, rack: str) -> dict[str, str]:
        return self.local.settings if self.local and self._is_local(rack) else {}

    def _credentials(self, rack: str) -> Credentials | None:
        return self.local.credentials if self.local and self._is_local(rack) else None

    def _is_local(self, rack: str) -> bool:
        """Return whether this rack is the local one. Its endpoint and credentials are used together or not at all."""
        return (
            self.local is not None
            and rack == self.local.name
            and rack not in self.config.racks
            and not any(self.options.get(name) for name in ("endpoint_url", "profile"))
            and self.environment.get("AWS_ENDPOINT_URL", self.local.endpoint_url) == self.local.endpoint_url
            and not self.environment.get("RACKCTL_ENDPOINT_URL")
        )


class Rack:
    """A rack: its name, its settings and its AWS services.

    The tags of the cluster are read once, and only if a setting is used that no nearer source sets. ``described`` is
    the cluster, if it has been read already.
    """

    def __init__(
        self,
        chosen: Value,
        given: Mapping[str, Value],
        credentials: Credentials | None = None,
        *,
        notify: Callable[[str], None] = lambda _: None,
        aws: Aws | None = None,
        described: EcsCluster | None = None,
    ) -> None:
        self.name = chosen.value
        self.chosen_by = chosen.origin
        self._given = given
        self._described = described
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
    def ecs_cluster(self) -> EcsCluster:
        """The rack's cluster as ECS describes it, read once."""
        return self._described or self.aws.ecs.cluster(self.cluster)

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of the rack's cluster."""
        return self.ecs_cluster.tags

    @cached_property
    def store(self) -> Bucket:
        """The rack's bucket. It must belong to the cluster's account unless the user has named another owner.

        A tag can name a bucket, but not its owner: the permission to tag the cluster must not suffice to move the keys
        into another account.
        """
        return self.aws.s3.bucket(self.require("bucket"), owner=self["bucket_owner"] or self.ecs_cluster.account)

    @property
    def kms_key(self) -> str:
        """The rack's KMS key. Raises AccessDenied for a key of another account that only a tag names."""
        key = self.require("kms_key")
        account = key.split(":")[4] if key.startswith("arn:") and key.count(":") >= 5 else ""
        if account and account != self.ecs_cluster.account and not self.is_given("kms_key"):
            raise AccessDenied(
                f"KMS key {key}, which a tag of cluster {self.cluster} names, belongs to account {account} and not to "
                f"the cluster's, {self.ecs_cluster.account}",
                hint="if that key is right, set RACKCTL_KMS_KEY, or kms_key under "
                f"[racks.{self.name}] in the config file",
            )
        return key

    def __getitem__(self, name: str) -> str:
        """Return a setting's value; empty if it is not set and has no default. Raises RackctlError."""
        return self.setting(name).value

    def setting(self, name: str) -> Value:
        """Return a setting's value and origin.

        Raises UsageError for an invalid tag, and RackctlError if the tags cannot be read.
        """
        setting = SETTINGS[name]
        if name in self._given:
            return self._given[name]
        if setting.tagged and (tag := self.tags.get(setting.tag)):
            if problem := setting.problem(tag):
                raise UsageError(f"the tag {setting.tag} of cluster {self.cluster} is {quoted(tag)}: {problem}")
            return Value(tag, Origin(Source.TAG, setting.tag))
        default = setting.default(self.name)
        return Value(default, Origin(Source.DEFAULT if default else Source.UNSET))

    def in_force(self, name: str) -> Value:
        """Return a setting's value and origin, AWS's own configuration included. Raises RackctlError."""
        found = self.setting(name)
        if found.value or name not in _AWS_VARIABLES:
            return found
        for variable in _AWS_VARIABLES[name]:
            if value := os.environ.get(variable):
                return Value(value, Origin(Source.AWS, variable))
        if name == "region" and self.aws.region:
            return Value(self.aws.region, Origin(Source.AWS, os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"))
        return found

    def is_given(self, name: str) -> bool:
        """Return whether a source nearer than the cluster's tags sets a setting."""
        return name in self._given

    def require(self, name: str) -> str:
        """Return the value of a setting that is required. Raises NotFound, with the ways to set it."""
        value = self[name]
        if not value:
            setting = SETTINGS[name]
            tag = f", or tag the cluster: {setting.tag}" if setting.tagged else ""
            raise NotFound(
                f'rack "{self.name}" has no {name} ({setting.help})',
                hint=f"`rackctl racks adopt {self.cluster} --create` makes what is missing; or set "
                f"{setting.environment_variable}, or {name} under [racks.{self.name}] in the config file{tag}",
            )
        return value
