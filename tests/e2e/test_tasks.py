"""The tasks of docs/tasks.md, each run as it is written there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import boto3_client, eventually

if TYPE_CHECKING:
    from tests.e2e.conftest import Ran, Shell

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "tasks.md").read_text("utf-8")
TASKS = dict(re.findall(r"^### (.+)\n\n```sh\n(.*)\n```$", TEXT, re.MULTILINE))
ID = r"i-[0-9a-f]{17}"

# The whole stdout of each task, as a pattern; each other task has its own test.
SHOWS = {
    "List the instances": rf"ID +AGENT +STATUS .*\n({ID} +on +active .*\n){{3}}",
    "Find the instances whose agent is off": "",
    "Find the instances with the most reserved memory": rf"ID +ZONE +MEM\n({ID} .*\n)+",
    "Count the instances of each zone": r"( +\d us-east-1[a-c]\n)+",
    "Find the oldest instance": rf"{ID}\n",
    "See everything about one instance": rf"ID +{ID}\n(.*\n)+TASK .*\n(.*\n)+",
    "List the images that run on an instance": r"(example/[a-z-]+:\d+\n)+",
    "See the settings of the rack and their origins": r"SETTING +VALUE +FROM\nrack +local .*\n(.*\n)+",
    "Run a command on an instance": r"CONTAINER ID .*\n(.*\n)*.*amazon-ecs-agent.*\n(.*\n)*",
    "Run a command on every instance": rf"({ID}: .* up .*\n){{3}}",
    "List the instances on which a command fails": "",
    "See what a termination would do": rf"Would drain and terminate {ID} \(active\); .*\n(  .*\n)+",
    "See what a keyroll would do, and what forbids it": r"(.*\n)+",
}
CHANGES = {
    "Copy a directory to an instance",
    "Fetch a file from an instance",
    "Let ssh, scp and Ansible reach the instances by id",
    "Forget the pinned host key of an instance",
    "Take an instance out for an hour of maintenance, with its tasks moved away first",
    "Put an instance back into service",
    "See the past rolls: when, by whom, why, and how they ended",
    "Replace an instance, with its tasks moved away first",
    "Replace the instances of one zone, one after the other",
    "Replace every instance, with a new SSH key",
}


def do(shell: Shell, task: str, **environment: str) -> Ran:
    ran = shell(f"set -o pipefail; {TASKS[task]}", ID=shell.ids()[0], **environment)
    assert ran.status == 0, ran
    return ran


def test_each_task_is_one_command_or_pipe_and_is_run_here() -> None:
    assert TEXT.count("\n### ") == len(TASKS)
    assert set(TASKS) == SHOWS.keys() | CHANGES
    assert [task for task, command in TASKS.items() if "\n" in command or ";" in command or "&" in command] == []


@pytest.mark.parametrize("task", SHOWS)
def test_a_task_that_shows_something_shows_it(shell: Shell, task: str) -> None:
    assert re.fullmatch(SHOWS[task], do(shell, task).stdout)


def test_a_directory_is_copied_to_an_instance(shell: Shell) -> None:
    (shell.home / "site").mkdir()
    (shell.home / "site" / "index.html").write_text("hello")

    do(shell, "Copy a directory to an instance")

    assert shell(f"rackctl instances ssh {shell.ids()[0]} cat site/index.html").stdout == "hello"


def test_a_file_is_fetched_from_an_instance(shell: Shell) -> None:
    do(shell, "Fetch a file from an instance")

    assert (shell.home / "hostname").read_bytes() == Path("/etc/hostname").read_bytes()


def test_the_openssh_configuration_has_a_host_for_each_instance(shell: Shell) -> None:
    do(shell, "Let ssh, scp and Ansible reach the instances by id")

    assert re.findall(rf"^Host ({ID})", (shell.home / "rack.conf").read_text(), re.MULTILINE) == shell.ids()


def test_a_pinned_host_key_is_forgotten(shell: Shell) -> None:
    shell(f"rackctl instances ssh {shell.ids()[0]} true")

    assert "forgot SHA256:" in do(shell, "Forget the pinned host key of an instance").stderr


# Over two seconds: a drain, sixty times faster than on AWS.
def test_an_instance_is_taken_out_with_its_tasks_moved_away_and_is_put_back(hurried: Shell) -> None:
    first, *others = hurried.ids()
    arns = boto3_client(hurried, "ecs").list_services(cluster="local", schedulingStrategy="DAEMON")["serviceArns"]

    def active() -> list[str]:
        return hurried("rackctl instances -o id --filter status=active").stdout.split()

    do(hurried, "Take an instance out for an hour of maintenance, with its tasks moved away first")

    left = hurried.json(f"rackctl instances show -o json {first}")["tasks"]
    assert {task["service"] for task in left} <= {arn.rpartition("/")[2] for arn in arns}
    assert active() == others
    do(hurried, "Put an instance back into service")
    assert active() == [first, *others]


# Over two seconds: an instance is replaced, sixty times faster than on AWS.
def test_the_history_shows_operator_kind_time_and_reason_of_each_roll(hurried: Shell) -> None:
    assert hurried(f"rackctl instances replace --reason 'a worn disk' {hurried.ids()[0]}").status == 0

    shown = do(hurried, "See the past rolls: when, by whom, why, and how they ended").stdout

    assert re.fullmatch(r"STARTED .*\n20\d\d-\d\d-\d\d \d\d:\d\d +replace +finished +1 of 1 .*a worn disk\n", shown)


# Over two seconds: instances are replaced, sixty times faster than on AWS.
@pytest.mark.parametrize(
    ("task", "replaced"),
    [
        ("Replace an instance, with its tasks moved away first", "the first"),
        ("Replace the instances of one zone, one after the other", "those of the zone"),
        ("Replace every instance, with a new SSH key", "all"),
    ],
)
def test_a_task_that_replaces_instances_replaces_those_and_no_others(hurried: Shell, task: str, replaced: str) -> None:
    before = {i["id"]: i["zone"] for i in hurried.json("rackctl instances -o json")}
    gone = {
        "the first": {min(before)},
        "those of the zone": {id_ for id_, zone in before.items() if zone == "us-east-1a"},
        "all": set(before),
    }[replaced]

    do(hurried, task)

    ready = hurried("rackctl instances -o id --filter status=active --filter agent_connected=true").stdout.split()
    assert set(before) - set(ready) == gone
    assert len(ready) == len(before)


# Over two seconds: a keyroll of three instances, sixty times faster than on AWS.
def test_the_commands_of_the_example_for_github_actions_plan_and_roll(hurried: Shell) -> None:
    steps = re.findall(r"^ +(?:- )?run: (rackctl .*)$", (DOCS / "ci.md").read_text("utf-8"), re.MULTILINE)
    before = set(hurried.ids())

    ran = [hurried(step, REASON="scheduled", RACKCTL_RACK="local") for step in steps]

    assert [(r.status, r.stderr) for r in ran if r.status] == []
    assert [" ".join(step.split()[1:4]) for step in steps] == [
        "doctor", "instances keyroll plan", "doctor --as keyroll", "instances keyroll --reason",
    ]  # fmt: skip
    eventually(lambda: before.isdisjoint(hurried.ids()), "the end of the last old instance")
    assert len(hurried.ids()) == len(before)
