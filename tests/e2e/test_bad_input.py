"""Errors before or at the first call to AWS: a sentence, the documented exit status, no change, no traceback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Ran, Shell


def _is_refusal(ran: Ran, status: int, *words: str) -> None:
    assert ran.status == status, ran
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in ran.stderr


def test_an_error_without_a_rack_lists_the_ways_to_select_one(bare: Shell) -> None:
    _is_refusal(bare("rackctl instances"), 2, "--rack", "RACKCTL_RACK", "default_rack", "rackctl local up")


def test_an_unknown_rack_is_not_found(shell: Shell) -> None:
    _is_refusal(
        shell('eval "$(rackctl local env)"; rackctl -r nowhere instances'),
        3,
        'no ECS cluster "nowhere"',
        "rackctl racks",
    )


def test_no_region_says_how_to_set_one(bare: Shell) -> None:
    _is_refusal(bare("rackctl -r prod instances"), 4, "region", "--region")


def test_missing_credentials_are_an_access_error_that_names_their_sources(bare: Shell) -> None:
    _is_refusal(bare("rackctl -r prod --region eu-west-1 instances"), 4, "credentials")


def test_invalid_credentials_are_an_access_error(shell: Shell) -> None:
    given = settings(shell)
    _is_refusal(
        shell(
            "rackctl -r local instances",
            AWS_ENDPOINT_URL=given["AWS_ENDPOINT_URL"],
            AWS_REGION=given["AWS_REGION"],
            AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE",
            AWS_SECRET_ACCESS_KEY="wrong",
            RACKCTL_STATE_DIR=str(shell.home / "elsewhere"),
        ),
        4,
        "credentials",
    )


def test_an_unreachable_endpoint_is_named(bare: Shell) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ran = bare(
            f"rackctl -r prod --region eu-west-1 --endpoint-url {url} instances",
            AWS_ACCESS_KEY_ID="a",
            AWS_SECRET_ACCESS_KEY="b",
            AWS_MAX_ATTEMPTS="1",
        )
    _is_refusal(ran, 1, url)


def test_a_typo_in_the_config_file_is_named_with_its_line(bare: Shell) -> None:
    (bare.home / "config.toml").write_text('[racks.prod]\nregoin = "eu-west-1"\n')
    _is_refusal(bare("rackctl instances"), 2, "config.toml, line 2", "regoin", "did you mean region")


@pytest.mark.parametrize("command", ["terminate", "ssh"])
def test_an_empty_variable_for_an_id_does_nothing(shell: Shell, command: str) -> None:
    before = shell.ids()
    _is_refusal(shell(f'rackctl instances {command} "$id"'), 2, "empty", "unset")
    assert shell.ids() == before


def test_terminate_takes_ids_only_and_ssh_names_the_kinds_of_names(shell: Shell) -> None:
    _is_refusal(shell("rackctl instances terminate web-1"), 2, '"web-1" is not an instance id')
    _is_refusal(shell("rackctl instances ssh web-1"), 3, "no instance has web-1 as its address, DNS name or Name tag")


@pytest.mark.parametrize("command", ["terminate", "ssh"])
def test_an_id_that_does_not_exist_is_not_found(shell: Shell, command: str) -> None:
    _is_refusal(
        shell(f"rackctl instances {command} i-0123456789abcdef0"), 3, "i-0123456789abcdef0", "rackctl instances"
    )


def test_terminate_does_not_take_the_start_of_an_id(shell: Shell) -> None:
    before = shell.ids()
    _is_refusal(shell(f"rackctl instances terminate {before[0][:8]}"), 2, "is not an instance id")
    assert shell.ids() == before


def test_an_id_of_another_rack_is_refused(changing: Shell) -> None:
    script = """
        eval "$(rackctl local env)"
        python - <<'PYTHON'
import boto3
boto3.client("ecs").create_cluster(clusterName="other")
PYTHON
        rackctl -r other instances terminate "$(rackctl -r local instances -o id | head -n 1)"
    """
    _is_refusal(changing(script), 3, 'not an instance of rack "other"', "Rack=local")


def test_an_unknown_filter_names_the_known_ones(shell: Shell) -> None:
    _is_refusal(shell("rackctl instances --filter colour=red"), 2, "colour", "agent_connected")


def test_an_unknown_command_suggests_the_nearest(bare: Shell) -> None:
    _is_refusal(bare("rackctl instances terminat i-1"), 2, "did you mean `rackctl instances terminate`?")


def test_an_empty_rack_variable_is_refused(shell: Shell) -> None:
    _is_refusal(shell("rackctl instances", RACKCTL_RACK=""), 2, "RACKCTL_RACK is empty")


@pytest.mark.parametrize("command", ["rackctl --help", "rackctl instances --help", "rackctl instances -r local"])
def test_an_output_that_cannot_be_written_is_an_error(shell: Shell, command: str) -> None:
    _is_refusal(shell(f"{command} >/dev/full"), 1, "cannot write the output: No space left on device")
