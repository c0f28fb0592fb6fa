"""Keyrolls on the local rack, with real logins and with each kind of fault."""

from __future__ import annotations

import json
import re
import signal
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.local.rolls import SOON, Observer, Rolls, assert_ssh_works_on_each, fails, start
from tests.ssh.person import Person

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

# Each of these is over two seconds, for it is a roll with real logins; a fault adds what the roll waits for.
pytestmark = pytest.mark.timeout(300)


# A whole roll


@pytest.mark.parametrize(("instances", "batch"), [(3, 1), (50, 5)])
def test_every_instance_has_the_new_key_and_no_service_falls_short(
    start_local_rack: Callable[..., LocalRackProcess], instances: int, batch: int
) -> None:
    rolls = Rolls(start_local_rack(instances=instances))
    rolls.process.seed_service("busy", desired=instances, memory=128)
    rolls.process.seed_service("half", desired=6, memory=64, minimum_percent=50, maximum_percent=100)
    before = rolls.group

    events = start(rolls, RollOptions(batch=batch))

    (key,) = set(rolls.keys_of_instances())
    assert events[-1].message == f"every instance has key {key}"
    rolls.assert_given_back(instances)
    assert rolls.key_pairs() == [key]
    after = rolls.group
    assert (after.min_size, after.max_size) == (before.min_size, before.max_size)
    assert_ssh_works_on_each(rolls)


def test_ssh_works_on_old_and_new_instances_in_the_middle(rolls: Rolls) -> None:
    seen: list[set[str]] = []
    for event in rolls.roll.start(SOON):
        if event.phase in {"ready", "draining"}:
            assert_ssh_works_on_each(rolls)
            seen.append(set(rolls.keys_of_instances()))
    assert max(map(len, seen)) == 2


def test_a_rack_without_a_key_gets_its_first(start_local_rack: Callable[..., LocalRackProcess]) -> None:
    rolls = Rolls(start_local_rack(key=False))

    start(rolls)

    assert rolls.key_pairs() == rolls.keys.names() == [rolls.key_in_use()]
    assert_ssh_works_on_each(rolls)


def test_a_mixed_instances_policy_and_its_overrides_name_the_new_version(rolls: Rolls) -> None:
    (ref,) = rolls.group.launch_templates
    specification = {"LaunchTemplateId": ref.launch_template_id, "Version": "1"}
    rolls.process.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name,
        MixedInstancesPolicy={
            "LaunchTemplate": {
                "LaunchTemplateSpecification": specification,
                "Overrides": [
                    {"InstanceType": "t3.small", "LaunchTemplateSpecification": specification},
                    {"InstanceType": "t3.medium"},
                ],
            },
            "InstancesDistribution": {"OnDemandBaseCapacity": 1},
        },
    )

    start(rolls)

    policy: Any = rolls.group.mixed_instances_policy
    template = policy["LaunchTemplate"]
    assert template["LaunchTemplateSpecification"]["Version"] == "2"
    assert [o["InstanceType"] for o in template["Overrides"]] == ["t3.small", "t3.medium"]
    assert template["Overrides"][0]["LaunchTemplateSpecification"]["Version"] == "2"
    assert policy["InstancesDistribution"]["OnDemandBaseCapacity"] == 1
    rolls.assert_given_back(3)


# Faults of the APIs


def test_a_roll_comes_through_though_each_service_throttles(rolls: Rolls) -> None:
    for service in ("autoscaling", "ec2", "ecs", "kms", "s3"):
        rolls.process.faults.add("throttle", f"{service}:*", count=2)

    start(rolls)

    assert len(rolls.process.faults) == 0
    rolls.assert_given_back(3)


def test_a_roll_comes_through_though_the_answer_to_each_changing_call_is_lost(rolls: Rolls) -> None:
    start(rolls)
    for call in sorted(set(rolls.process.actions(mutating=True))):
        rolls.process.faults.add("drop-after", call, count=2)

    start(rolls)

    rolls.assert_given_back(3)


def test_a_roll_comes_through_though_aws_fails_now_and_then(rolls: Rolls) -> None:
    for service in ("ec2", "ecs", "autoscaling", "s3"):
        rolls.process.faults.add("error", f"{service}:*", code="InternalError", status=500, probability=0.1, count=15)

    start(rolls)
    rolls.process.faults.clear()  # what is left of them is not for the test's own questions

    rolls.assert_given_back(3)


def test_an_expired_login_stops_the_roll_and_resume_continues_it_after_a_new_one(rolls: Rolls) -> None:
    events = rolls.roll.start(SOON)
    next(event for event in events if event.phase == "drained")
    rolls.process.faults.add("error", "*:*", code="ExpiredToken", status=400)
    with pytest.raises(RollIncomplete, match="credentials have expired") as caught:
        list(events)
    assert "keyroll resume --rack local" in caught.value.hint

    rolls.process.faults.clear()
    # The lock could not be released either.
    rolls.roll.unlock(force=True)
    list(rolls.roll.resume())

    rolls.assert_given_back(3)


# Faults of the world


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("no-capacity", "do not have sufficient t3.small capacity"),
        ("registration-failed", r"REGISTRATION_FAILED\): no room in the cluster"),
    ],
)
def test_a_new_instance_that_cannot_take_tasks_stops_the_roll_with_nothing_drained(
    rolls: Rolls, condition: str, says: str
) -> None:
    old = set(rolls.process.ids())
    rolls.process.set_condition(condition, "no room in the cluster" if condition == "registration-failed" else "")

    error = fails(rolls, RollIncomplete, says)

    assert "3 are left; nothing is left draining" in str(error)
    assert "ecs:UpdateContainerInstancesState" not in rolls.process.actions()
    assert old <= set(rolls.process.ids())
    rolls.process.clear_condition(condition)
    list(rolls.roll.abort())
    assert set(rolls.process.ids()) == old
    rolls.assert_given_back(3)


def test_a_new_instance_that_refuses_the_key_rolls_back(rolls: Rolls) -> None:
    old, key = set(rolls.process.ids()), rolls.key_in_use()
    rolls.process.set_condition("key-refused")

    fails(rolls, RackctlError, "refused the new key.* rolled back; nothing is changed")

    assert set(rolls.process.ids()) == old
    assert rolls.key_in_use() == key
    rolls.assert_given_back(3)


def test_a_roll_finishes_although_an_instance_is_terminated_by_ec2(rolls: Rolls) -> None:
    vanished = ""
    for event in rolls.roll.start(SOON):
        if not vanished and event.phase == "draining":
            vanished = event.ec2_instance_id
            rolls.process.befall("vanish", vanished)

    assert vanished not in rolls.process.ids()
    rolls.assert_given_back(3)


# The command


def test_of_two_keyrolls_at_once_exactly_one_starts(rolls: Rolls) -> None:
    first, second = rolls.command(), rolls.command()
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: (*process.communicate(), process.returncode), (first, second)))

    (won,) = [s for s in said if s[2] == 0]
    (lost,) = [s for s in said if s[2] != 0]
    assert won[0] == "Rebooting instances...\n"
    assert lost[2] == 1
    assert lost[0] == ""
    assert re.search(r"holds the keyroll of rack \"local\", started at \S+Z, last heartbeat \d+ s ago", lost[1])
    rolls.assert_given_back(3)


def test_a_signal_stops_at_a_safe_point_and_names_the_commands_that_continue(rolls: Rolls) -> None:
    rolls.process.set_condition("stuck-drain")
    process = rolls.command("-o", "json")
    assert process.stdout
    events = []
    with Observer(rolls.process) as observer:
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["phase"] == "draining":
                process.send_signal(signal.SIGTERM)
                break
        out, err = process.communicate()
    events += map(json.loads, out.splitlines())

    assert process.returncode == 143
    assert (events[-1]["event"], events[-1]["exit_status"]) == ("failed", 143)
    assert "rackctl instances keyroll resume --rack local" in err
    assert "rackctl instances keyroll abort --rack local" in err
    assert rolls.statuses() == {"ACTIVE"}
    assert observer.broken_promises == []
    rolls.process.clear_condition("stuck-drain")
    resumed = rolls.command("resume")
    assert resumed.communicate()[0] == "Rebooting instances...\n"
    assert resumed.returncode == 0
    rolls.assert_given_back(3)


def test_status_distinguishes_a_dead_roll_from_a_live_one(rolls: Rolls) -> None:
    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(rolls.command("status", "-o", "json").communicate()[0])
        return found

    assert status() == {"state": "none"}
    rolls.process.set_condition("stuck-drain")
    process = rolls.command("-o", "json", "--reason", "a test")
    assert process.stdout
    for line in process.stdout:
        if json.loads(line)["phase"] == "draining":
            break
    live = status()
    process.kill()
    process.communicate()
    dead = status()

    assert (live["state"], dead["state"]) == ("running", "dead")
    assert (live["reason"], live["total"], live["left"]) == ("a test", 3, 3)
    assert str(process.pid) in live["owner"]
    assert [group["surge"] for group in dead["groups"]] == [1]
    rolls.process.clear_condition("stuck-drain")
    assert rolls.command("abort").communicate()[0] == ""
    rolls.assert_given_back(3)


def test_plan_changes_nothing_and_exits_with_1_if_the_roll_is_blocked(rolls: Rolls) -> None:
    before = rolls.changes()
    fine = rolls.command("plan")
    out, _ = fine.communicate()
    assert fine.returncode == 0
    assert 'A keyroll of rack "local" would replace 3 instances' in out
    assert rolls.changes() == before

    rolls.aws.autoscaling.suspend_processes(rolls.group.auto_scaling_group_name, ["Terminate"])
    refused = rolls.command("plan", "-o", "json")
    out, _ = refused.communicate()
    assert refused.returncode == 1
    plan = json.loads(out)
    assert plan["refused"]
    assert plan["total"] == 3
    assert "Terminate" in plan["refusals"][0]["reason"]


def test_the_plan_tries_the_bucket_and_the_kms_key(rolls: Rolls) -> None:
    s3 = rolls.process.client("s3")
    s3.create_bucket(Bucket="far-away", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    stored = list(rolls.rack.store.keys(""))

    for setting, value, said in (
        ("RACKCTL_KMS_KEY", "alias/nope", "KMS key alias/nope does not exist in this account and region"),
        ("RACKCTL_BUCKET", "no-such-bucket", "The specified bucket does not exist"),
        ("RACKCTL_BUCKET", "far-away", "the local rack is in us-east-1, not in eu-west-1"),
    ):
        plan = rolls.command("plan", env={**rolls.process.environment, setting: value})
        assert said in "".join(plan.communicate())
        assert plan.returncode != 0
    for action in ("kms:Encrypt", "kms:Decrypt", "s3:PutObject"):
        rolls.process.faults.add("deny", action)
        plan = rolls.command("plan")
        assert f"the IAM permission that is missing: {action}" in "".join(plan.communicate())
        assert plan.returncode == 1
        rolls.process.faults.clear()

    assert list(rolls.rack.store.keys("")) == stored


def test_a_closed_stdout_stops_the_roll_at_a_safe_point(rolls: Rolls) -> None:
    process = rolls.command("-o", "json")
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None

    _, err = process.communicate()

    assert process.returncode == 128 + signal.SIGPIPE
    assert "keyroll resume" in err
    assert rolls.statuses() == {"ACTIVE"}


def echoes(person: Person) -> bool:
    """Return whether the terminal echoes its input."""
    return bool(termios.tcgetattr(person.inner)[3] & termios.ECHO)


def test_on_a_terminal_the_view_is_live_and_shows_nothing_that_is_typed_and_ctrl_c_stops_it(rolls: Rolls) -> None:
    rolls.process.set_condition("stuck-drain")
    command = [sys.executable, "-m", "tests.local.fast", f"{rolls.clock.speed}", "instances", "keyroll"]

    with Person(command, rolls.process.environment, size=(110, 30)) as person:
        person.expect("Rebooting instances...")
        person.expect("WAITS FOR")
        person.expect("draining.*1 task left")
        person.expect("0 of 3 replaced")
        assert not echoes(person)
        person.type("ghost\r")
        person.expect("0 of 3 replaced")
        person.type("\x03")
        person.expect("stopped by SIGINT.*Replaced 0 of 3 instances")
        person.expect("keyroll resume")
        status = person.wait()
        assert echoes(person)

    assert status == 130
    assert b"ghost" not in person.seen
    assert b"^C" not in person.seen
    rolls.process.clear_condition("stuck-drain")
    list(rolls.roll.abort())
    rolls.assert_given_back(3)
