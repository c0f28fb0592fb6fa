"""`rackctl instances show` as it is typed, on an AWS in memory."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from rackctl.cli.show import _text
from rackctl.details import Details, Event
from rackctl.errors import AccessDenied
from rackctl.model import (
    Container,
    LaunchTemplateRef,
    PortBinding,
    ScalingActivity,
    Service,
    ServiceEvent,
    Task,
)
from rackctl.rack_instance import RackInstance
from tests.cli.test_instances import run
from tests.fakes.aws import FakeAws
from tests.test_instances import WHEN, A, B, ec2, ecs, group, member, rack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

WEB = Container("web", "example/web:42", "RUNNING", (PortBinding(32768, 80), PortBinding(32769, 443)))
SIDECAR = Container("proxy", "example/proxy:1", "RUNNING")


def task(name: str, service: str = "web") -> Task:
    return Task(
        f"arn:aws:ecs:us-east-1:1:task/prod/{name}",
        "RUNNING",
        "RUNNING",
        group=f"service:{service}" if service else "family:job",
        container_instance_arn=f"arn:{A}",
        containers=(WEB, SIDECAR),
    )


def one_instance() -> FakeAws:
    found = replace(
        ec2(A, Name="web-1"), instance_type="t3.small", availability_zone="us-east-1a", private_ip="10.0.0.9"
    )
    own = replace(member(A), launch_template=LaunchTemplateRef("lt-1", "prod", "7"))
    aws = rack_of(found, ec2(B), registered=(ecs(A), ecs(B)))
    aws.groups_by_name["group"] = group(own, member(B), availability_zones=("us-east-1a", "us-east-1b"))
    aws.tasks = {t.task_arn: t for t in (task("1111"), task("2222", ""))}
    started = ServiceEvent(WHEN + timedelta(minutes=2), "(service web) has reached a steady state.")
    aws.services_by_name["web"] = Service("web", "REPLICA", 2, 2, 50, 200, events=(started,))
    aws.scaling_activities = [
        ScalingActivity("1", f"Launching a new EC2 instance: {A}", "Successful", WHEN),
        ScalingActivity("2", f"Launching a new EC2 instance: {B}", "Successful", WHEN),
    ]
    return aws


def test_an_instance_is_shown_with_its_group_tasks_and_events() -> None:
    result = run(one_instance(), "instances", "show", A[:8])

    assert result.exit_code == 0, result.output
    facts, tasks, events = result.stdout.split("\n\n")
    for name, value in (
        ("Name", "web-1"),
        ("Status", "active (EC2 running, ECS ACTIVE)"),
        ("Memory", "292 of 1000 MiB reserved"),
        ("Addresses", "10.0.0.9 (private)"),
        ("Group", "group (InService)"),
        ("Capacity", "desired 2, minimum 0, maximum 9"),
        ("Group zones", "us-east-1a and us-east-1b"),
        ("Template", "prod version 7"),
    ):
        assert dict(re.split(r" {2,}", line, maxsplit=1) for line in facts.splitlines())[name] == value
    assert [line.split() for line in tasks.splitlines()] == [
        ["TASK", "SERVICE", "STATUS", "CONTAINER", "PORTS", "IMAGE"],
        ["2222", "RUNNING", "web", "32768->80/tcp,", "32769->443/tcp", "example/web:42"],
        ["proxy", "example/proxy:1"],
        ["1111", "web", "RUNNING", "web", "32768->80/tcp,", "32769->443/tcp", "example/web:42"],
        ["proxy", "example/proxy:1"],
    ]
    assert [" ".join(line.split()).partition("ago ")[2] for line in events.splitlines()[1:]] == [
        "service web (service web) has reached a steady state.",
        f"group group Launching a new EC2 instance: {A} (Successful)",
    ]


def test_a_long_event_is_wrapped_below_itself_to_fit_into_the_terminal() -> None:
    words = "(service web) was unable to place a task because no container instance met all of its requirements."
    found = Details(RackInstance(A), events=(Event(WHEN, "service web", words),))

    lines = _text(found, WHEN, 60).split("\n\n")[1].splitlines()[1:]

    assert len(lines) > 1
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()) == f"now service web {words}"


def test_its_json_has_the_fields_of_the_list_and_those_of_the_rest() -> None:
    aws = one_instance()
    (listed,) = json.loads(run(aws, "instances", "-o", "json", "--filter", f"id={A}").stdout)

    shown = json.loads(run(aws, "instances", "show", "-o", "json", A).stdout)

    assert {name: shown[name] for name in listed} == listed
    assert shown["launch_template"] == {"id": "lt-1", "version": "7"}
    assert shown["group_capacity"] == {"min": 0, "desired": 2, "max": 9}
    assert [(t["service"], [c["image"] for c in t["containers"]]) for t in shown["tasks"]] == [
        (None, ["example/web:42", "example/proxy:1"]),
        ("web", ["example/web:42", "example/proxy:1"]),
    ]
    assert shown["tasks"][0]["containers"][0]["ports"][0] == {"host": 32768, "container": 80, "protocol": "tcp"}
    assert [event["source"] for event in shown["events"]] == ["service web", "group group"]


def test_a_task_that_is_stopping_is_shown_and_one_that_has_stopped_is_not() -> None:
    aws = one_instance()
    arns = list(aws.tasks)
    aws.tasks[arns[0]] = replace(aws.tasks[arns[0]], desired_status="STOPPED")
    aws.tasks[arns[1]] = replace(aws.tasks[arns[1]], desired_status="STOPPED", last_status="STOPPED")

    shown = json.loads(run(aws, "instances", "show", "-o", "json", A).stdout)

    assert [found["arn"] for found in shown["tasks"]] == [arns[0]]


class Denied(FakeAws):
    def tasks_on(self, cluster: str, container_instance_arn: str, desired_status: str) -> list[str]:
        raise AccessDenied("AWS refused ecs:ListTasks", hint="add it to your policy")


def test_a_denied_action_is_named_and_the_other_details_are_shown() -> None:
    aws = one_instance()
    denied = Denied(**{name: getattr(aws, name) for name in aws.__dataclass_fields__})

    result = run(denied, "instances", "show", A)

    assert result.exit_code == 0
    assert result.stderr == "rackctl: AWS refused ecs:ListTasks (add it to your policy)\n"
    assert "group (InService)" in result.stdout
    assert "TASK" not in result.stdout


def test_an_instance_of_no_group_that_is_not_registered_has_no_tasks() -> None:
    aws = rack_of(ec2(A), groups_by_name={})

    result = run(aws, "instances", "show", A)

    assert result.exit_code == 0
    assert "Status    unregistered (EC2 running, not registered with ECS)" in result.stdout
    assert "TASK" not in result.stdout


def test_control_characters_in_container_names_are_escaped() -> None:
    aws = one_instance()
    hostile = replace(task("x"), containers=(Container("\x1b[2J", "\x1b]0;t\x07"),))
    aws.tasks = {hostile.task_arn: hostile}

    shown: Sequence[str] = run(aws, "instances", "show", A, color=True).stdout.splitlines()

    assert all(line.isprintable() for line in shown)
    assert any(r"\x1b[2J" in line for line in shown)


def test_an_unknown_id_is_not_found() -> None:
    assert run(one_instance(), "instances", "show", "i-0123456789abcdef0").exit_code == 3
