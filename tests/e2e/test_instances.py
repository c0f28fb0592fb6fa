from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from tests.e2e.conftest import boto3_client, eventually, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.e2e.conftest import Shell

HEADER = "ID AGENT STATUS STARTED PS CPU MEM"
ROW = re.compile(r"i-[0-9a-f]{17}  on     active  (1 hour|\d+ minutes) ago +\d+ +\d+\.\d\d% +\d+\.\d\d%")


def test_the_list_is_the_mirrored_documents_table(shell: Shell) -> None:
    ran = shell("rackctl instances -r local")
    header, *rows = ran.stdout.splitlines()
    assert header.split() == HEADER.split()
    assert len(rows) >= 3
    assert any(ROW.fullmatch(row) for row in rows), rows
    assert ran.stderr == ""


def test_using_the_local_rack_without_selecting_it_is_noted_on_stderr(shell: Shell) -> None:
    ran = shell("rackctl instances -o id")
    assert "local rack" in ran.stderr
    assert "local rack" not in ran.stdout


def test_an_empty_rack_prints_the_header_alone(changing: Shell) -> None:
    _aws(changing)[1].create_cluster(clusterName="empty")
    script = 'eval "$(rackctl local env)"; rackctl instances -r empty'
    ran = changing(script)
    assert ran.status == 0
    assert ran.stdout.split() == HEADER.split()
    assert changing.json(f"{script} -o json") == []


def test_the_list_goes_through_awk(shell: Shell) -> None:
    ran = shell("rackctl instances -r local | awk 'NR > 1 { print $1 }'")
    assert ran.stdout.split() == shell.ids()


def test_the_ids_go_through_xargs(shell: Shell) -> None:
    ran = shell("rackctl instances -o id -r local | xargs -n1 echo id")
    assert ran.stdout.splitlines() == [f"id {id_}" for id_ in shell.ids()]


def test_a_pipe_that_closes_early_is_no_error(shell: Shell) -> None:
    ran = shell("rackctl instances -r local | head -1; exit ${PIPESTATUS[1]}")
    assert ran.status == 0
    assert ran.stdout.split() == HEADER.split()
    assert ran.stderr == ""


@pytest.mark.parametrize("columns", [20, 80])
def test_a_terminal_shows_the_same_table_at_any_width(shell: Shell, columns: int) -> None:
    status, drawn = shell.on_terminal("rackctl instances -r local 2>/dev/null", columns=columns)
    assert status == 0
    assert drawn.replace("\r\n", "\n").splitlines()[0].split() == HEADER.split()


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_no_color_and_dumb_terminals_get_no_escape_sequences(shell: Shell, term: str) -> None:
    _, drawn = shell.on_terminal("NO_COLOR=1 rackctl instances -r local", term=term)
    assert "\x1b" not in drawn


def test_watching_redraws_in_place_on_a_terminal_and_ends_on_interrupt(shell: Shell) -> None:
    script = "timeout --foreground -s INT 2 rackctl instances -r local --watch 0.2; echo status=$?"
    _, drawn = shell.on_terminal(script)
    assert drawn.count("\x1b[H") > 1
    assert "status=124" in drawn or "status=130" in drawn
    assert "Traceback" not in drawn


@pytest.mark.parametrize("columns", [20, 40, 69, 80])
def test_watching_wraps_long_lines_and_cuts_nothing_off(shell: Shell, columns: int) -> None:
    script = "timeout --foreground -s INT 2 rackctl instances -r local --watch 9"
    _, drawn = shell.on_terminal(script, columns=columns)
    for id_ in shell.ids():
        assert re.search(rf"{id_}  on     active  .* ago .*\d%(\x1b\[K)?\r\n", drawn), drawn


def test_watching_counts_the_lines_that_do_not_fit_the_terminal(shell: Shell) -> None:
    script = "timeout --foreground -s INT 2 rackctl instances -r local --watch 9"
    _, drawn = shell.on_terminal(script, rows=4)
    assert re.search(r"… and \d more\x1b\[K\r\n\x1b\[J", drawn), drawn
    assert drawn.split("\x1b[J")[0].count("\n") == 3


# Over two seconds: it watches for two, and is looked at after one.
@pytest.mark.parametrize("signal", ["INT", "TERM", "HUP"])
def test_watching_turns_the_terminals_echo_off_and_restores_it(shell: Shell, signal: str) -> None:
    script = f"""
        echo_is() {{ stty -a < /dev/tty | grep -o -- '-*\\becho\\b' | sed "s/^/$1:/"; }}
        (sleep 1.2; echo_is during) &
        timeout --foreground -s {signal} 2.5 rackctl instances -r local --watch 9
        wait; echo_is after
    """
    _, drawn = shell.on_terminal(script)
    assert "during:-echo" in drawn
    assert "after:echo" in drawn


# Over two seconds: the watching must go on for a while.
def test_watching_in_the_background_is_not_stopped_by_the_terminal(shell: Shell) -> None:
    """termios(3): a background process that calls tcsetattr is sent SIGTTOU, which stops it."""
    script = "set -m; rackctl instances -r local --watch 0.3 & sleep 2.5; ps -o stat= -p $! | sed s/^/state:/; kill $!"
    _, drawn = shell.on_terminal(script)
    assert drawn.count("\x1b[H") > 1
    assert "state:T" not in drawn
    assert "state:" in drawn


def test_problems_are_coloured_on_a_terminal_only(changing: Shell) -> None:
    _, ecs = _aws(changing)
    arn = ecs.list_container_instances(cluster="local")["containerInstanceArns"][0]
    ecs.update_container_instances_state(cluster="local", containerInstances=[arn], status="DRAINING")
    assert "\x1b[33mdraining\x1b[0m" in changing.on_terminal("rackctl instances -r local")[1]
    for script in ("NO_COLOR=1 rackctl instances -r local", "rackctl instances -r local | cat"):
        drawn = changing.on_terminal(script)[1]
        assert "draining" in drawn
        assert "\x1b" not in drawn


def test_wide_fits_the_terminal_and_names_the_columns_it_leaves_out(shell: Shell) -> None:
    _, drawn = shell.on_terminal("rackctl instances -r local -o wide", columns=100)
    note = next(line for line in drawn.splitlines() if line.startswith("rackctl:"))
    assert "too wide for this terminal: " in note
    assert all(len(line) <= 100 for line in drawn.splitlines() if line != note)
    piped = shell("rackctl instances -r local -o wide").stdout.splitlines()[0]
    assert piped.split()[7:] == [
        "NAME", "TYPE", "ZONE", "OUTDATED", "PRIVATE", "PUBLIC", "KEY", "AGENT", "VERSION", "TEMPLATE", "IMAGE",
    ]  # fmt: skip


def _aws(shell: Shell) -> tuple[Any, Any]:
    given: Mapping[str, str] = settings(shell)
    session = boto3.session.Session(
        given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"], region_name=given["AWS_REGION"]
    )
    url = given["AWS_ENDPOINT_URL"]
    return session.client("ec2", endpoint_url=url), session.client("ecs", endpoint_url=url)


def _seen_by_boto3(ec2: Any, ecs: Any) -> dict[str, tuple[Any, ...]]:
    """Put together from boto3's own answers what the list says of each instance."""
    arns = ecs.list_container_instances(cluster="local")["containerInstanceArns"]
    described = ecs.describe_container_instances(cluster="local", containerInstances=arns)["containerInstances"]
    registered = {c["ec2InstanceId"]: (c["status"], c["agentConnected"], c["runningTasksCount"]) for c in described}
    filters = [
        {"Name": "tag:Rack", "Values": ["local"]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]},
    ]
    seen = {}
    for reservation in ec2.describe_instances(Filters=filters)["Reservations"]:
        for i in reservation["Instances"]:
            ours = registered.get(i["InstanceId"], (None, False, None))
            seen[i["InstanceId"]] = (i["State"]["Name"], i["PrivateIpAddress"], *ours)
    return seen


def _seen_by_rackctl(shell: Shell) -> dict[str, tuple[Any, ...]]:
    keys = ("ec2_state", "private_ip", "ecs_status", "agent_connected", "running_tasks")
    return {
        i["id"]: tuple(i[key] for key in keys)
        for i in shell.json("rackctl instances -o json")
        if i["ec2_state"] != "terminated"
    }


# Over two seconds: an instance ends and another boots, sixty times faster than on AWS.
def test_boto3_and_rackctl_agree_before_during_and_after_a_terminate(changing: Shell) -> None:
    ec2, ecs = _aws(changing)

    def agree() -> bool:
        # The world moves between the two looks: what differs at one moment is the same at another.
        before = _seen_by_boto3(ec2, ecs)
        ours = _seen_by_rackctl(changing)
        return ours == before or ours == _seen_by_boto3(ec2, ecs)

    eventually(agree, "agreement before")
    gone = changing.ids()[0]
    ran = changing(f"rackctl instances terminate -r local {gone}")
    assert (ran.status, ran.stdout) == (0, f'Successfully sent terminate to instance "{gone}"\n'), ran.stderr
    eventually(agree, "agreement during")
    again = changing(f"rackctl instances terminate -r local {gone}")
    assert again.status in {0, 3}
    assert "already" in again.stderr

    def replaced() -> bool:
        listed = changing.json("rackctl instances -o json --filter status=active --filter agent_connected=true")
        return len(listed) == 3 and gone not in {i["id"] for i in listed}

    eventually(replaced, "the replacement")
    eventually(agree, "agreement after")


# Over two seconds, for the same reason.
def test_terminate_waits_until_the_replacement_can_take_tasks(changing: Shell) -> None:
    gone = changing.ids()[0]
    ran = changing(f"rackctl instances terminate -r local --drain --wait {gone}")
    assert ran.status == 0, ran.stderr
    assert ran.stdout == f'Successfully sent terminate to instance "{gone}"\n'
    assert "drained" in ran.stderr
    new = re.search(r"(i-[0-9a-f]{17}): in service", ran.stderr)
    assert new is not None, ran.stderr
    listed = {i["id"]: i for i in changing.json("rackctl instances -o json")}
    assert listed[new[1]]["status"] == "active"
    assert listed[new[1]]["agent_connected"] is True


# Over two seconds: two instances are drained and replaced, one after the other, sixty times faster than on AWS.
def test_two_instances_are_replaced_one_after_the_other_as_a_dry_run_says(changing: Shell) -> None:
    first, second, kept = changing.ids()
    would = changing(f"rackctl instances terminate --drain --dry-run {first} {second}").stdout
    assert [f"Would drain and terminate {id_} (active); group " in would for id_ in (first, second, kept)] == [
        True, True, False,
    ]  # fmt: skip
    images = changing(f"rackctl instances ssh {first} docker ps --format '{{{{.Image}}}}'").stdout.split()
    assert [image for image in images if image not in would] == ["amazon/amazon-ecs-agent:latest"]
    assert changing.ids() == [first, second, kept]

    ran = changing(f"rackctl instances terminate --drain {first} {second}")

    assert ran.status == 0, ran.stderr
    assert ran.stdout.splitlines() == [f'Successfully sent terminate to instance "{id_}"' for id_ in (first, second)]
    new = set(re.findall(r"(i-[0-9a-f]{17}): in service", ran.stderr))
    active = changing("rackctl instances -o id --filter status=active --filter agent_connected=true").stdout.split()
    assert len(new) == 2
    assert set(active) == {kept, *new}


def test_ssh_runs_a_command_and_passes_its_status_and_streams(shell: Shell) -> None:
    command = "docker ps; wc -c; echo apart >&2; exit 7"
    ran = shell(f"rackctl instances ssh -r local {shell.ids()[0]} '{command}'", stdin="12345")
    assert ran.status == 7, ran
    assert "CONTAINER ID" in ran.stdout
    assert "amazon-ecs-agent" in ran.stdout
    assert ran.stdout.split()[-1] == "5"
    assert ran.stderr.splitlines()[-1] == "apart"


def test_outdated_instances_are_those_that_replace_would_replace(changing: Shell) -> None:
    ec2, autoscaling = boto3_client(changing, "ec2"), boto3_client(changing, "autoscaling")
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    template = group["LaunchTemplate"]["LaunchTemplateId"]
    assert changing("rackctl instances -o id --filter outdated=true").stdout == ""

    made = ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"ImageId": "ami-0123456789abcdef0"}
    )
    autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"],
        LaunchTemplate={
            "LaunchTemplateId": template,
            "Version": str(made["LaunchTemplateVersion"]["VersionNumber"]),
        },
    )

    outdated = changing("rackctl instances -o id --filter outdated=true").stdout.split()
    plan = changing.json("rackctl instances replace plan -o json")
    assert outdated == changing.ids() == sorted(plan["groups"][0]["replace"])
    instances = ec2.describe_instances(InstanceIds=outdated)["Reservations"]
    images = {i["InstanceId"]: i["ImageId"] for reservation in instances for i in reservation["Instances"]}
    listed = changing.json("rackctl instances -o json")
    assert {i["id"]: i["image_id"] for i in listed} == images
    assert {i["launch_template_version"] for i in listed} == {1}
    assert all(0 < i["age"] < 7200 for i in listed)
