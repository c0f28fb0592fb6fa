"""A key pair renewed under its name over HTTP: boto3 reads what was made as it was, OpenSSH logs in to old instances.

Sources: botocore's model of EC2 (DescribeKeyPairs, DeleteKeyPair, ImportKeyPair) and Auto Scaling (SuspendProcesses),
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html. What was made is read by plain
boto3, and the logins with the old key in a file are OpenSSH's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.local.kept import NAME, KeptRolls
from tests.local.rolls import SPEED, start, texts
from tests.local_rack import needs_openssh

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local_rack import LocalRackProcess


@pytest.fixture(params=["template", "configuration"])
def rolls(request: pytest.FixtureRequest, start_local_rack: Callable[..., LocalRackProcess]) -> KeptRolls:
    return KeptRolls(start_local_rack(speed=SPEED), configuration=request.param == "configuration")


@pytest.mark.timeout(300)
@needs_openssh
def test_all_instances_are_new_and_templates_and_groups_are_unchanged(rolls: KeptRolls, tmp_path: Path) -> None:
    # Over two seconds: a whole roll, watched by OpenSSH.
    before, pair, old = rolls.made(), rolls.pair(), set(rolls.process.ids())
    key = rolls.write_key(tmp_path)
    refused: list[str] = []
    logins = 0
    over = threading.Event()

    def log_in() -> None:
        nonlocal logins
        while not over.is_set():
            for instance in rolls.aws.ec2.instances_by_id(sorted(old)):
                if instance.state == "running" and not rolls.openssh_logs_in(key, instance.private_ip):
                    (now,) = rolls.aws.ec2.instances_by_id([instance.ec2_instance_id])
                    if now.state == "running":
                        refused.append(instance.ec2_instance_id)
                logins += 1

    watcher = threading.Thread(target=log_in, daemon=True)
    watcher.start()
    events = start(rolls)
    over.set()
    watcher.join()

    assert rolls.made() == before
    assert not old & set(rolls.process.ids())
    assert (refused, logins > 3) == ([], True)
    after = rolls.pair()
    assert after["KeyPairId"] != pair["KeyPairId"]
    assert after["PublicKey"] != pair["PublicKey"]
    assert after["Tags"] == pair["Tags"]
    assert f"the new key of key pair {NAME}" in events[-1].message
    rolls.assert_given_back(3)
    rolls.assert_each_lets_in_a_stored_key()
    new = next(iter(rolls.aws.ec2.instances_tagged({"Rack": rolls.rack.name})))
    assert not rolls.openssh_logs_in(key, new.private_ip)


@pytest.mark.timeout(300)
def test_nothing_is_launched_with_the_old_key_while_ec2_still_takes_it_for_the_new_one(
    start_local_rack: Callable[..., LocalRackProcess],
) -> None:
    # Over two seconds: a whole roll.
    rolls = KeptRolls(start_local_rack(speed=SPEED), configuration=False)
    rolls.process.set_condition("key-pairs-late", "15")

    start(rolls)

    rolls.assert_given_back(3)
    activities = rolls.autoscaling.describe_scaling_activities()["Activities"]
    assert [a for a in activities if a["StatusCode"] == "Failed"] == []
    rolls.assert_each_lets_in_a_stored_key()
    assert list(rolls.keys.public_keys(NAME).values()) == [rolls.pair()["PublicKey"]]


@pytest.mark.timeout(300)
def test_a_lost_answer_to_a_deletion_or_an_import_makes_no_difference(
    start_local_rack: Callable[..., LocalRackProcess],
) -> None:
    # Over two seconds: a whole roll.
    rolls = KeptRolls(start_local_rack(speed=SPEED), configuration=False)
    before = rolls.made()
    for call in ("ec2:DeleteKeyPair", "ec2:ImportKeyPair"):
        # The first of each is a dry run.
        rolls.process.faults.add("drop-after", call, skip=1, count=1)

    said = texts(start(rolls))

    assert rolls.made() == before
    assert "imported key pair ops with the new public key" in said
    rolls.assert_given_back(3)
    rolls.assert_each_lets_in_a_stored_key()
