"""Which rack, and where each of its settings comes from."""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.session import Credentials
from rackctl.errors import NotFound, UsageError
from rackctl.rack import (
    SETTINGS,
    Config,
    LocalRack,
    Rack,
    Sources,
    Value,
    config_file,
    find_local_rack,
    read_config,
    state_dir,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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

    def cluster_tags(self, cluster: str) -> Mapping[str, str]:
        self.asked += 1
        return self.tags


def rack(tags: Mapping[str, str] | None = None, given: Mapping[str, str] | None = None) -> tuple[Rack, TaggedAws]:
    aws = TaggedAws(tags or {})
    values = {name: Value(value, "given") for name, value in (given or {}).items()}
    return Rack(Value("prod", "test"), values, aws=aws), aws  # type: ignore[arg-type]


def test_the_option_beats_the_environment_beats_the_config_files_default() -> None:
    config = Config(_NOWHERE, "staging", {"prod": {}, "staging": {}})

    assert sources({"rack": "a"}, {"RACKCTL_RACK": "b"}, config).current().value == "a"
    assert sources({}, {"RACKCTL_RACK": "b"}, config).current().value == "b"
    assert sources({}, {}, config).current().value == "staging"


def test_the_only_rack_of_the_config_file_needs_no_naming() -> None:
    assert sources(config=Config(_NOWHERE, "", {"prod": {}})).current().value == "prod"


def test_the_local_rack_is_taken_only_when_nothing_else_is_named() -> None:
    assert sources(local=LOCAL).current() == Value("local", "the local rack, which is up")
    assert sources({}, {"RACKCTL_RACK": "prod"}, local=LOCAL).current().value == "prod"


def test_without_any_rack_the_error_names_the_three_ways_and_the_racks_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        sources(config=TWO).current()

    for way in ("--rack", "RACKCTL_RACK", "default_rack in /home/ann", "prod, staging"):
        assert way in caught.value.hint


@pytest.mark.parametrize(
    ("options", "environment", "origin"), [({"rack": ""}, {}, "--rack"), ({}, {"RACKCTL_RACK": ""}, "RACKCTL_RACK")]
)
def test_an_empty_name_is_refused_and_never_falls_through_to_another_rack(
    options: dict[str, str], environment: dict[str, str], origin: str
) -> None:
    with pytest.raises(UsageError, match=f"{origin} is empty"):
        sources(options, environment, TWO, LOCAL).current()


def test_each_setting_comes_from_the_nearest_place_that_has_it() -> None:
    config = Config(_NOWHERE, "", {"prod": {"ssh_user": "file", "bucket": "file", "kms_key": "file"}})
    found = sources({"ssh_user": "option"}, {"RACKCTL_SSH_USER": "env", "RACKCTL_BUCKET": "env"}, config).rack()

    assert found.setting("ssh_user") == Value("option", "--user")
    assert found.setting("bucket") == Value("env", "RACKCTL_BUCKET")
    assert found.setting("kms_key") == Value("file", "/home/ann/.config/rackctl/config.toml")


def test_a_tag_of_the_cluster_comes_after_what_is_given_and_before_the_default() -> None:
    found, aws = rack({"rackctl:ssh-user": "core", "rackctl:ssh-port": "2222"}, {"ssh_user": "given"})

    assert found["ssh_user"] == "given"
    assert aws.asked == 0
    assert found.setting("ssh_port") == Value("2222", "tag rackctl:ssh-port")
    assert found.setting("prefix") == Value("rackctl/prod", "default")
    assert aws.asked == 1


def test_a_tag_can_neither_run_a_command_nor_weaken_a_check_nor_name_the_buckets_owner() -> None:
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


def test_a_tag_that_makes_no_sense_is_named() -> None:
    found, _ = rack({"rackctl:ssh-port": "ssh"})

    with pytest.raises(UsageError, match='the tag rackctl:ssh-port of cluster prod is "ssh": a port is'):
        found["ssh_port"]


def test_a_setting_that_is_needed_and_missing_names_every_way_to_set_it() -> None:
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
def test_a_setting_that_makes_no_sense_is_refused_before_anything_is_asked(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=value):
        sources({"rack": "prod", name: value}).rack()


def test_an_empty_setting_is_refused_wherever_it_comes_from() -> None:
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
def test_the_local_racks_credentials_never_go_anywhere_else(
    options: dict[str, str], environment: dict[str, str]
) -> None:
    found = sources(options, environment, local=LOCAL)

    assert found._credentials(found.current().value) is None
    assert found._local_settings(found.current().value) == {}


def test_known_racks_are_those_of_the_file_the_local_one_and_the_chosen_one() -> None:
    known = sources({"rack": "other"}, {}, TWO, LOCAL).known()

    assert list(known) == ["local", "other", "prod", "staging"]
    assert known["local"] == "the local rack"
    assert known["other"] == "--rack"


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
    assert SETTINGS["ssh_user"].check(user) is None


@pytest.mark.parametrize(
    ("seconds", "problem"), [("1", False), ("3600", False), ("0", True), ("9999", True), ("x", True), ("٣", True)]
)
def test_a_connect_timeout_is_whole_seconds(seconds: str, problem: bool) -> None:
    assert bool(SETTINGS["connect_timeout"].check(seconds)) == problem


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_config_file_gives_racks_and_their_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "c.toml", 'default_rack = "prod"\n[racks.prod]\nregion = "eu-west-1"\nssh_port = 2200\n')

    config = read_config(path)

    assert config.default_rack == "prod"
    assert config.racks == {"prod": {"region": "eu-west-1", "ssh_port": "2200"}}


def test_no_config_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_config(tmp_path / "none.toml").racks == {}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[racks.prod]\nregion = "eu-west-1"\nbuckett = "b"\n', 3, 'unknown setting "buckett": did you mean bucket?'),
        ('[racks.a]\nbucket = "x"\n[racks.b]\nbukket = "y"\n', 4, "bukket"),
        ('racks.prod.zzz = "b"\n', 1, 'unknown setting "zzz"'),
        ('defualt_rack = "prod"\n', 1, "did you mean default_rack?"),
        ('\n[rack.prod]\nregion = "eu-west-1"\n', 2, 'unknown key "rack"'),
        ('[racks]\nprod = "eu-west-1"\n', 2, '"prod" is not a setting'),
        ("[racks.prod]\nssh_port = 99999\n", 2, "a port is a number"),
        ("[racks.prod]\nssh_user = true\n", 2, "ssh_user must be a string"),
        ('[racks.prod]\nbucket = ""\n', 2, "bucket is empty"),
        ('default_rack = "prdo"\n[racks.prod]\n', 1, "there is no [racks.prdo]"),
    ],
)
def test_a_typo_in_the_config_file_is_named_with_file_line_and_key(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = write(tmp_path / "config.toml", text)

    with pytest.raises(UsageError) as caught:
        read_config(path)

    assert f"{path}, line {line}:" in str(caught.value)
    assert says in str(caught.value)


def test_a_config_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config.toml: .*line 2"):
        read_config(write(tmp_path / "config.toml", "[racks.prod]\nregion = \n"))


def test_a_config_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the config file"):
        read_config(tmp_path)


def test_a_local_rack_is_found_while_its_daemon_lives(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    described = {
        "version": 1,
        "name": "local",
        "endpoint_url": "http://127.0.0.1:1",
        "region": "us-east-1",
        "access_key_id": "A",
        "secret_access_key": "secret",
        "proxy_command": None,
        "pid": os.getpid(),
    }
    (tmp_path / "local" / "rack.json").write_text(json.dumps(described))
    with (tmp_path / "local" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        found = find_local_rack(tmp_path)

    assert found == LocalRack("local", "http://127.0.0.1:1", "us-east-1", Credentials("A", "secret"))
    assert "secret" not in repr(found)


def test_a_local_rack_whose_daemon_is_dead_is_not_found(tmp_path: Path) -> None:
    assert find_local_rack(tmp_path) is None
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "rack.json").write_text(json.dumps({"pid": os.getpid()}))
    assert find_local_rack(tmp_path) is None

    (tmp_path / "local" / "lock").touch()

    assert find_local_rack(tmp_path) is None


def test_files_are_where_the_environment_says() -> None:
    assert str(config_file({"RACKCTL_CONFIG": "/x/c.toml"})) == "/x/c.toml"
    assert str(state_dir({"RACKCTL_STATE_DIR": "/x"})) == "/x"


@pytest.mark.parametrize(("variable", "give"), [("RACKCTL_STATE_DIR", state_dir), ("RACKCTL_CONFIG", config_file)])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_path_in_the_environment_is_refused(
    variable: str, give: Callable[[Mapping[str, str]], Path], value: str
) -> None:
    with pytest.raises(UsageError, match=f"{variable} is empty"):
        give({variable: value})


def test_every_setting_has_help_and_a_default_that_passes_its_own_check() -> None:
    for setting in SETTINGS.values():
        assert setting.help
        default = setting.default("prod")
        assert not default or setting.check(default) is None
