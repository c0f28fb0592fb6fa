"""`rackctl racks`, by the config file, the state directory and the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import boto3_client

if TYPE_CHECKING:
    from tests.e2e.conftest import Ran, Shell


def _from(ran: Ran, setting: str) -> list[str]:
    """Return the value and the origin of a setting in `racks show`, as words."""
    assert ran.status == 0, ran.stderr
    return next(line.split()[1:] for line in ran.stdout.splitlines() if line.split()[0] == setting)


def test_the_table_and_the_json_of_racks_agree(bare: Shell) -> None:
    (bare.home / "config.toml").write_text(
        'default_rack = "b"\n[racks.a]\nregion = "eu-west-1"\ncluster = "a-ecs"\n[racks.b]\n'
    )

    described = bare.json("rackctl racks -o json")
    table = bare("rackctl racks").stdout.splitlines()[1:]

    known_from = str(bare.home / "config.toml")
    assert described == [
        {"name": "a", "current": False, "cluster": "a-ecs", "region": "eu-west-1", "known_from": known_from},
        {"name": "b", "current": True, "cluster": "b", "region": None, "known_from": known_from},
    ]
    assert [line.split() for line in table] == [
        ["a", "a-ecs", "eu-west-1", known_from],
        ["*", "b", "b", known_from],
    ]


@pytest.mark.parametrize(
    ("variables", "setting", "shown"),
    [
        ({"AWS_REGION": "eu-west-1"}, "region", ["eu-west-1", "AWS_REGION"]),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "region", ["eu-west-2", "AWS_DEFAULT_REGION"]),
        (
            {"RACKCTL_REGION": "eu-west-3", "AWS_REGION": "eu-west-1"},
            "region",
            ["eu-west-3", "RACKCTL_REGION"],
        ),
        ({}, "region", ["not", "set"]),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "endpoint_url", ["http://127.0.0.1:1", "AWS_ENDPOINT_URL"]),
        ({}, "host_key_check", ["first-use", "default"]),
        ({}, "bucket", ["unknown"]),
        ({"RACKCTL_BUCKET": "one"}, "bucket", ["one", "RACKCTL_BUCKET"]),
    ],
)
def test_racks_show_prints_every_setting_in_force_with_its_origin(
    bare: Shell, variables: dict[str, str], setting: str, shown: list[str]
) -> None:
    assert _from(bare("rackctl racks show prod", AWS_MAX_ATTEMPTS="1", **variables), setting) == shown


def test_a_region_from_the_aws_config_file_is_shown_with_that_file(bare: Shell) -> None:
    path = bare.home / "aws-config"
    path.write_text("[profile work]\nregion = ap-south-1\n")

    ran = bare("rackctl racks show prod", AWS_CONFIG_FILE=str(path), AWS_PROFILE="work")

    assert _from(ran, "region") == ["ap-south-1", str(path)]
    assert _from(ran, "profile") == ["work", "AWS_PROFILE"]


def test_racks_show_verify_prints_the_account_and_caller_that_boto3_sees(shell: Shell) -> None:
    told = boto3_client(shell, "sts").get_caller_identity()

    described = shell.json("rackctl -r local racks show --verify -o json")

    assert described["caller"] == {"account": told["Account"], "arn": told["Arn"]}
    assert described["settings"]["ssh_port"] == {"value": "2222", "source": "tag", "from": "tag rackctl:ssh-port"}
    assert described["settings"]["jump"] == {"value": None, "source": "unset", "from": "not set"}
    assert _from(shell("rackctl -r local racks show --verify"), "account")[0] == told["Account"]
    assert "caller" not in shell.json("rackctl -r local racks show -o json")


def test_racks_show_verify_prints_the_settings_even_if_the_credentials_are_invalid(bare: Shell) -> None:
    ran = bare("rackctl racks show prod --verify", AWS_REGION="eu-west-1")

    assert ran.status == 4
    assert "region           eu-west-1  AWS_REGION" in ran.stdout
    assert ran.stderr.count("no AWS credentials") == 2


def test_racks_find_lists_the_cluster_of_the_local_rack(shell: Shell) -> None:
    (found,) = shell.json("rackctl racks find -o json")
    table = shell("rackctl racks find").stdout.splitlines()

    assert (found["cluster"], found["instances"], found["owner"], found["lacks"]) == ("local", 3, None, [])
    assert found["ready"]
    assert found["cluster_arn"] == boto3_client(shell, "ecs").list_clusters()["clusterArns"][0]
    assert table[0].split() == ["CLUSTER", "INSTANCES", "GROUPS", "OWNER", "LACKS"]
    assert table[1].split() == ["local", "3", "local-instances", "unknown", "nothing"]


def test_racks_find_needs_no_rack_but_a_region(bare: Shell) -> None:
    ran = bare("rackctl racks find")

    assert (ran.status, ran.stdout) == (4, "")
    assert "no AWS region is set" in ran.stderr


def test_a_rack_that_does_not_exist_names_the_near_one(shell: Shell) -> None:
    ran = shell('eval "$(rackctl local env)"; rackctl -r locla instances')

    assert ran.status == 3
    assert "did you mean local?" in ran.stderr


def test_racks_show_of_an_unknown_rack_exits_with_three(shell: Shell) -> None:
    for words in ("racks show nowhere", "-r nowhere racks show"):
        ran = shell(f'eval "$(rackctl local env)"; rackctl {words}')

        assert (ran.status, ran.stdout) == (3, "")
        assert 'no ECS cluster "nowhere"' in ran.stderr


def test_no_command_of_a_config_file_that_others_can_write_is_run(bare: Shell) -> None:
    config = bare.home / "config.toml"
    config.write_text('[racks.prod]\nproxy_command = "touch ran"\n')
    config.chmod(0o666)

    ran = bare("rackctl instances ssh i-0123456789abcdef0 true")

    assert ran.status == 2
    assert ran.stderr == (f"rackctl: {config} can be written by other users (mode 0666)\n  chmod go-w {config}\n")
    assert not (bare.home / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_state_directory_of_another_user_is_refused(bare: Shell) -> None:
    (bare.home / "state" / "local").mkdir(parents=True)
    os.chown(bare.home / "state", 4711, -1)

    ran = bare("rackctl instances")

    assert ran.status == 2
    assert f"{bare.home}/state belongs to user 4711" in ran.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"RACKCTL_STATE_DIR": "x" * 300}, "File name too long"),
        ({"RACKCTL_CONFIG": "x" * 300}, "File name too long"),
        ({"RACKCTL_CONFIG": "/dev/zero"}, "/dev/zero is not a regular file"),
        ({"RACKCTL_RACK": "-o"}, 'RACKCTL_RACK is "-o": a rack\'s name'),
        ({"RACKCTL_RACK": "a\nb"}, 'RACKCTL_RACK is "a\\nb": a rack\'s name'),
        ({"RACKCTL_BUCKET": "my bucket"}, 'RACKCTL_BUCKET is "my bucket": it must have letters'),
        (
            {"RACKCTL_BUCKET_OWNER": "12345678901"},
            'RACKCTL_BUCKET_OWNER is "12345678901": it must be an AWS account id',
        ),
        ({"RACKCTL_KMS_KEY": "a key"}, "RACKCTL_KMS_KEY is"),
        ({"RACKCTL_CLUSTER": "a cluster"}, "RACKCTL_CLUSTER is"),
        ({"RACKCTL_SSH_PORT": "٢٢"}, "RACKCTL_SSH_PORT is"),
        ({"RACKCTL_PREFIX": "a\x1b[2J"}, 'RACKCTL_PREFIX is "a\\x1b[2J": '),
        ({"RACKCTL_PROFILE": "a\nb"}, "RACKCTL_PROFILE is"),
    ],
)
def test_an_invalid_variable_is_named(bare: Shell, changes: dict[str, str], says: str) -> None:
    ran = bare("rackctl instances", **{"RACKCTL_RACK": "prod", **changes})

    assert (ran.status, ran.stdout) == (2, "")
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_the_list_is_printed_with_stdin_or_stderr_closed(shell: Shell, closed: str) -> None:
    assert shell(f"rackctl instances -o id {closed}").stdout.split() == shell.ids()
    assert shell(f"rackctl -r nowhere instances {closed}").status == 4


def test_a_closed_stdout_behaves_like_dev_null(shell: Shell) -> None:
    ran = shell("rackctl -r local instances >&-; echo $?; rackctl --help >&-; echo $?")
    assert (ran.stdout, ran.stderr) == ("0\n0\n", "")
    assert shell("rackctl -r local instances >&- 2>&- <&-").status == 0
