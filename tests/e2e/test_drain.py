"""`rackctl instances drain` and `undrain` on a local rack, with boto3 as the witness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import boto3_client, eventually

if TYPE_CHECKING:
    from tests.e2e.conftest import Shell


def registered(shell: Shell) -> dict[str, Any]:
    """Return the registrations by instance id, as boto3 says."""
    ecs = boto3_client(shell, "ecs")
    arns = ecs.list_container_instances(cluster="local")["containerInstanceArns"]
    found = ecs.describe_container_instances(cluster="local", containerInstances=arns)["containerInstances"]
    return {c["ec2InstanceId"]: c for c in found}


def statuses(shell: Shell) -> dict[str, str]:
    return {id_: found["status"] for id_, found in registered(shell).items()}


def services_there(shell: Shell, ec2_instance_id: str) -> set[str]:
    """Return the groups of the tasks on an instance that have not stopped, as boto3 says."""
    ecs = boto3_client(shell, "ecs")
    arn = registered(shell)[ec2_instance_id]["containerInstanceArn"]
    arns = [
        task
        for status in ("RUNNING", "STOPPED")
        for task in ecs.list_tasks(cluster="local", containerInstance=arn, desiredStatus=status)["taskArns"]
    ]
    found = ecs.describe_tasks(cluster="local", tasks=arns)["tasks"] if arns else []
    return {task["group"] for task in found if task["lastStatus"] != "STOPPED"}


# Over two seconds: a drain, sixty times faster than on AWS.
def test_an_instance_is_drained_shown_as_draining_and_takes_tasks_again(changing: Shell) -> None:
    first, second, third = changing.ids()
    would = changing(f"rackctl instances drain --dry-run {first}").stdout
    assert would.startswith(f"Would drain {first} (active)\n  ")
    assert set(statuses(changing).values()) == {"ACTIVE"}

    ran = changing(f"rackctl instances drain --wait {first[:12]}")

    assert ran.status == 0, ran.stderr
    assert ran.stdout == f'Set instance "{first}" to DRAINING\nDrained instance "{first}"\n'
    assert f"rackctl: {first}: drained" in ran.stderr
    assert services_there(changing, first) <= {"service:log-agent"}
    assert statuses(changing) == {first: "DRAINING", second: "ACTIVE", third: "ACTIVE"}
    assert changing("rackctl instances -o id --filter status=draining").stdout.split() == [first]

    ran = changing("rackctl instances -o id --filter status=draining | xargs -r rackctl instances undrain")

    assert (ran.status, ran.stdout) == (0, f'Set instance "{first}" to ACTIVE\n')
    assert set(statuses(changing).values()) == {"ACTIVE"}
    assert changing.ids() == [first, second, third]


# Over two seconds: a signal arrives while it waits.
def test_an_interrupted_drain_leaves_the_instances_draining_and_names_the_command_that_undoes_it(
    changing: Shell,
) -> None:
    first, second, third = changing.ids()
    assert changing("rackctl local faults add stuck-drain").status == 0

    ran = changing(f"timeout --foreground -s INT 4 rackctl instances drain --wait {first} {second}; echo status=$?")

    assert ran.stdout.splitlines()[:2] == [f'Set instance "{id_}" to DRAINING' for id_ in (first, second)]
    assert ran.stdout.splitlines()[-1] in {"status=124", "status=130"}
    assert "not drained: " in ran.stderr
    assert "(still DRAINING)" in ran.stderr
    assert statuses(changing) == {first: "DRAINING", second: "DRAINING", third: "ACTIVE"}

    (undo,) = [line.split("`")[1] for line in ran.stderr.splitlines() if "instances undrain" in line]
    assert changing(undo).status == 0
    assert set(statuses(changing).values()) == {"ACTIVE"}


# Over two seconds: a keyroll, sixty times faster than on AWS, is waited for until it drains.
def test_an_instance_that_a_keyroll_drains_cannot_be_undrained_meanwhile(changing: Shell) -> None:
    assert changing("rackctl local faults add stuck-drain").status == 0
    changing("rackctl instances keyroll > roll.log 2>&1 & echo $! > roll.pid")
    eventually(lambda: "DRAINING" in statuses(changing).values(), "the drain", seconds=60)
    (held,) = [id_ for id_, status in statuses(changing).items() if status == "DRAINING"]

    ran = changing(f"rackctl instances undrain {held}")

    assert ran.status == 1
    assert f"is replacing {held}" in ran.stderr
    assert "rackctl instances keyroll status" in ran.stderr
    assert statuses(changing)[held] == "DRAINING"
    changing("rackctl local faults clear; kill -TERM $(cat roll.pid)")
    eventually(lambda: "continue with" in changing("cat roll.log").stdout, "the end of the roll")
    assert "DRAINING" not in statuses(changing).values()
