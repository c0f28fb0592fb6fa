"""The current rack, and the origin of each of its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.session import Credentials
from rackctl.config import Config
from rackctl.errors import NotFound, UsageError
from rackctl.local_rack import LocalRack
from rackctl.model import EcsCluster
from rackctl.rack import Rack, Sources
from rackctl.settings import SETTINGS, Origin, Source, Value
from tests.fakes.origin import GIVEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOCAL = LocalRack("local", "http://127.0.0.1:5000", "us-east-1", Credentials("AKIALOCAL", "secret"))


def sources(
    options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    config: Config | None = None,
    local: LocalRack | None = None,
) -> Sources:
    return Sources(options or {}, environment or {}, config or Config(path=_NOWHERE), local)


class _Nowhere:
    def __str__(self) -> str:
        return "/home/ann/.config/rackctl/config.toml"


_NOWHERE: Path = _Nowhere()  # type: ignore[assignment]
TWO = Config(_NOWHERE, "", {"prod": {"region": "eu-west-1"}, "staging": {}})


class TaggedAws:
    """As much of `Aws` as settings need: the tags of one cluster, counted."""

    def __init__(self, tags: Mapping[str, str]) -> None:
        self.tags = tags
        self.asked = 0

    @property
    def ecs(self) -> TaggedAws:
        return self

    def cluster(self, cluster: str) -> EcsCluster:
        self.asked += 1
        return EcsCluster(f"arn:aws:ecs:us-east-1:123456789012:cluster/{cluster}", (), self.tags)


def rack(tags: Mapping[str, str] | None = None, given: Mapping[str, str] | None = None) -> tuple[Rack, TaggedAws]:
    aws = TaggedAws(tags or {})
    values = {name: Value(value, GIVEN) for name, value in (given or {}).items()}
    return Rack(Value("prod", GIVEN), values, aws=aws), aws  # type: ignore[arg-type]


def test_option_then_environment_then_config_file_select_the_rack() -> None:
    config = Config(_NOWHERE, "staging", {"prod": {}, "staging": {}})

    assert sources({"rack": "a"}, {"RACKCTL_RACK": "b"}, config).current().value == "a"
    assert sources({}, {"RACKCTL_RACK": "b"}, config).current().value == "b"
    assert sources({}, {}, config).current().value == "staging"


def test_a_config_file_with_one_rack_selects_it() -> None:
    assert sources(config=Config(_NOWHERE, "", {"prod": {}})).current().value == "prod"


def test_the_local_rack_is_used_only_if_no_other_rack_is_selected() -> None:
    assert sources(local=LOCAL).current() == Value("local", Origin(Source.LOCAL_RACK))
    assert sources({}, {"RACKCTL_RACK": "prod"}, local=LOCAL).current().value == "prod"


def test_an_error_without_a_rack_lists_the_known_racks_and_the_ways_to_select_one() -> None:
    with pytest.raises(UsageError) as caught:
        sources(config=TWO).current()

    for way in ("--rack", "RACKCTL_RACK", "default_rack in /home/ann", "prod, staging"):
        assert way in caught.value.hint


@pytest.mark.parametrize(
    ("options", "environment", "origin"), [({"rack": ""}, {}, "--rack"), ({}, {"RACKCTL_RACK": ""}, "RACKCTL_RACK")]
)
def test_an_empty_rack_name_is_an_error_and_selects_no_other_rack(
    options: dict[str, str], environment: dict[str, str], origin: str
) -> None:
    with pytest.raises(UsageError, match=f"{origin} is empty"):
        sources(options, environment, TWO, LOCAL).current()


def test_each_setting_comes_from_its_nearest_source() -> None:
    config = Config(_NOWHERE, "", {"prod": {"ssh_user": "file", "bucket": "file", "kms_key": "file"}})
    found = sources({"ssh_user": "option"}, {"RACKCTL_SSH_USER": "env", "RACKCTL_BUCKET": "env"}, config).rack()

    assert found.setting("ssh_user") == Value("option", Origin(Source.OPTION, "--user"))
    assert found.setting("bucket") == Value("env", Origin(Source.ENVIRONMENT, "RACKCTL_BUCKET"))
    assert found.setting("kms_key") == Value("file", Origin(Source.CONFIG_FILE, str(_NOWHERE)))


def test_cluster_tags_rank_between_given_settings_and_defaults() -> None:
    found, aws = rack({"rackctl:ssh-user": "core", "rackctl:ssh-port": "2222"}, {"ssh_user": "given"})

    assert found["ssh_user"] == "given"
    assert aws.asked == 0
    assert found.setting("ssh_port") == Value("2222", Origin(Source.TAG, "rackctl:ssh-port"))
    assert found.setting("prefix") == Value("rackctl/prod", Origin(Source.DEFAULT))
    assert aws.asked == 1


def test_tags_cannot_set_commands_host_key_checks_or_the_bucket_owner() -> None:
    found, aws = rack(
        {
            "rackctl:proxy-command": "rm -rf ~",
            "rackctl:host-key-check": "off",
            "rackctl:jump": "x",
            "rackctl:bucket-owner": "111122223333",
        }
    )

    assert found["bucket_owner"] == ""
    assert found["proxy_command"] == ""
    assert found["host_key_check"] == "first-use"
    assert found["jump"] == ""
    assert aws.asked == 0


def test_an_invalid_tag_is_named() -> None:
    found, _ = rack({"rackctl:ssh-port": "ssh"})

    with pytest.raises(UsageError, match='the tag rackctl:ssh-port of cluster prod is "ssh": it must be'):
        found["ssh_port"]


def test_a_missing_required_setting_lists_every_way_to_set_it() -> None:
    found, _ = rack()

    with pytest.raises(NotFound, match='rack "prod" has no bucket') as caught:
        found.require("bucket")

    for way in ("RACKCTL_BUCKET", r"[racks.prod]", "rackctl:bucket"):
        assert way in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region", "us east"),
        ("endpoint_url", "localhost:4566"),
        ("address", "both"),
        ("host_key_check", "no"),
        ("bucket_owner", "1234"),
        ("bucket_owner", "१२३४५६७८९०१२"),
        ("ssh_port", "२२"),
    ],
)
def test_an_invalid_setting_is_refused_before_aws_is_called(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=value):
        sources({"rack": "prod", name: value}).rack()


def test_an_empty_setting_is_refused_from_every_source() -> None:
    with pytest.raises(UsageError, match="RACKCTL_BUCKET is empty"):
        sources({"rack": "prod"}, {"RACKCTL_BUCKET": ""}).rack()
    with pytest.raises(UsageError, match="--region is empty"):
        sources({"rack": "prod", "region": ""}).rack()


def test_the_local_racks_endpoint_and_credentials_go_together() -> None:
    found = sources({}, {}, local=LOCAL).rack()

    assert found.aws.endpoint_url == LOCAL.endpoint_url
    assert found.aws.region == "us-east-1"


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"rack": "prod"}, {}),
        ({"rack": "local", "endpoint_url": "https://aws.example:443"}, {}),
        ({"rack": "local", "profile": "work"}, {}),
        ({"rack": "local"}, {"AWS_ENDPOINT_URL": "https://aws.example:443"}),
        ({"rack": "local"}, {"RACKCTL_ENDPOINT_URL": "https://aws.example:443"}),
    ],
)
def test_the_local_racks_credentials_are_never_sent_to_another_endpoint(
    options: dict[str, str], environment: dict[str, str]
) -> None:
    found = sources(options, environment, local=LOCAL)

    assert found._credentials(found.current().value) is None
    assert found._local_settings(found.current().value) == {}


def test_known_racks_are_configured_local_or_selected() -> None:
    known = sources({"rack": "other"}, {}, TWO, LOCAL).known()

    assert list(known) == ["local", "other", "prod", "staging"]
    assert known["local"] == Origin(Source.LOCAL_RACK)
    assert known["other"] == Origin(Source.OPTION, "--rack")


@pytest.mark.parametrize(
    ("setting", "tag"),
    [
        ("ssh_user", "ec2-user\\"),
        ("ssh_user", "a b"),
        ("ssh_user", "-oProxyCommand=x"),
        ("ssh_user", "$(id)"),
        ("ssh_user", "ec2-user\nHost *"),
        ("ssh_user", "üser"),
        ("ssh_port", "२२"),
        ("ssh_port", "٢٢"),
        ("address", "localhost"),
    ],
)
def test_a_tag_that_ssh_config_or_a_shell_would_read_as_more_than_a_word_is_refused(setting: str, tag: str) -> None:
    found, _ = rack({SETTINGS[setting].tag: tag})

    with pytest.raises(UsageError, match=SETTINGS[setting].tag):
        found.setting(setting)


@pytest.mark.parametrize("user", ["ec2-user", "core", "_apt", "ann.lee", "ann@corp.example", "CORP+ann", "u1"])
def test_user_names_that_are_usual_are_accepted(user: str) -> None:
    assert SETTINGS["ssh_user"].problem(user) is None


@pytest.mark.parametrize(
    ("seconds", "problem"), [("1", False), ("3600", False), ("0", True), ("9999", True), ("x", True), ("٣", True)]
)
def test_a_connect_timeout_is_whole_seconds(seconds: str, problem: bool) -> None:
    assert bool(SETTINGS["connect_timeout"].problem(seconds)) == problem


def test_every_setting_has_help_and_a_default_that_passes_its_own_check() -> None:
    for setting in SETTINGS.values():
        assert setting.help
        default = setting.default("prod")
        assert not default or setting.problem(default) is None
