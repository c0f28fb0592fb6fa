"""Surprising behaviour of AWS, and the evidence that a roll needs, over AWS's APIs and with real processes.

tests/roll/test_evidence.py and test_trust.py have the same and more in a world in memory; here are the cases that
depend on HTTP, the parsing of answers, or signals.
"""

from __future__ import annotations

import base64
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RackctlError
from rackctl.keys import generate
from tests.local.rolls import SOON, Observer, Rolls, start, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

# Each of these is over two seconds, for it is a roll with real logins.
pytestmark = pytest.mark.timeout(300)

DISKS = [
    {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3"}},
    {"DeviceName": "/dev/xvdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0", "Encrypted": True}},
]
THEIRS = "rackctl-local-210987654321"


def tag(rolls: Rolls, **tags: str) -> None:
    ecs = rolls.process.client("ecs")
    [arn] = [a for a in ecs.list_clusters()["clusterArns"] if a.endswith("/local")]
    ecs.tag_resource(
        resourceArn=arn, tags=[{"key": f"rackctl:{k.replace('_', '-')}", "value": v} for k, v in tags.items()]
    )


def put(rolls: Rolls, key: str, document: dict[str, Any]) -> None:
    """Store an object under the rack's prefix, as a caller with `s3:PutObject` can."""
    rolls.process.client("s3").put_object(
        Bucket=rolls.rack["bucket"], Key=f"{rolls.rack['prefix']}/{key}", Body=json.dumps(document).encode()
    )


def user_data_of(rolls: Rolls) -> dict[str, Any]:
    (ref,) = rolls.group.launch_templates
    [version] = rolls.process.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=ref.launch_template_id, Versions=[ref.version]
    )["LaunchTemplateVersions"]
    data: dict[str, Any] = version["LaunchTemplateData"]
    return data


def with_disks(rolls: Rolls) -> None:
    """Have the group launch from a version that has a volume made from a snapshot."""
    (ref,) = rolls.group.launch_templates
    ec2, autoscaling = rolls.process.client("ec2"), rolls.process.client("autoscaling")
    made = ec2.create_launch_template_version(
        LaunchTemplateId=ref.launch_template_id, SourceVersion="1", LaunchTemplateData={"BlockDeviceMappings": DISKS}
    )["LaunchTemplateVersion"]["VersionNumber"]
    autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=rolls.group.auto_scaling_group_name,
        LaunchTemplate={"LaunchTemplateId": ref.launch_template_id, "Version": str(made)},
    )


# Launch templates and groups


def test_the_snapshots_of_a_launch_template_are_in_the_version_with_the_new_key(rolls: Rolls) -> None:
    """CreateLaunchTemplateVersion.SourceVersion, in botocore's EC2 model: "Snapshots applied to the block device
    mapping are ignored when creating a new version unless they are explicitly included."
    """
    with_disks(rolls)
    old = rolls.key_in_use()

    start(rolls)

    assert rolls.key_in_use() != old
    assert user_data_of(rolls)["BlockDeviceMappings"] == DISKS
    rolls.assert_given_back(3)


def test_each_changing_call_on_a_busy_group_is_retried(rolls: Rolls) -> None:
    """ResourceContentionFault, in botocore's Auto Scaling model: "You already have a pending update to an Amazon EC2
    Auto Scaling resource".
    """
    for action in (
        "UpdateAutoScalingGroup",
        "SuspendProcesses",
        "ResumeProcesses",
        "SetDesiredCapacity",
        "TerminateInstanceInAutoScalingGroup",
    ):
        rolls.process.faults.add("error", f"autoscaling:{action}", code="ResourceContention", status=400, count=2)

    start(rolls)

    assert len(rolls.process.faults) == 0
    rolls.assert_given_back(3)


def test_an_external_instance_is_left_alone(rolls: Rolls) -> None:
    """ContainerInstance.ec2InstanceId, in botocore's ECS model: "For external instances, this value is the Amazon Web
    Services Systems Manager managed instance ID."
    """
    rolls.process.set_condition("external-instance")

    [left] = [left for left in rolls.roll.plan(SOON).left_alone if left.ec2_instance_id.startswith("mi-")]
    start(rolls)

    assert "ECS Anywhere" in left.reason
    assert not any("mi-" in str(call) for call in rolls.process.calls() if call["service"] == "ec2")


# Registrations and clusters


def test_an_instance_with_a_dead_registration_is_drained_like_the_others(rolls: Rolls) -> None:
    """amazon-ecs-agent issue 782: a RegisterContainerInstance that is retried leaves two registrations."""
    twice = rolls.process.ids()[0]
    rolls.process.befall("registered-twice", twice)

    assert any(f"{twice} has 2 registrations" in warning for warning in rolls.roll.plan(SOON).warnings)
    events = start(rolls)

    assert twice in [event.ec2_instance_id for event in events if event.phase == "drained"]
    assert set(rolls.keys_of_instances()) == {rolls.key_in_use()}


# One answer that is wrong


@pytest.mark.parametrize(
    ("kind", "action", "count"),
    [
        ("incomplete", "ecs:DescribeContainerInstances", 2),
        ("empty", "autoscaling:DescribeAutoScalingGroups", 1),
    ],
)
def test_instances_that_some_answers_leave_out_during_a_roll_do_not_count_as_gone(
    rolls: Rolls, kind: str, action: str, count: int
) -> None:
    drained: list[str] = []
    with Observer(rolls.process) as observer:
        for event in rolls.roll.start(SOON):
            if event.phase == "draining" and not drained:
                rolls.process.faults.add(kind, action, count=count)
            if event.phase == "drained":
                drained.append(event.ec2_instance_id)

    assert observer.broken_promises == []
    assert len(set(drained)) == 3
    rolls.assert_given_back(3)


# Whom a roll believes


def test_s3_conflicts_at_the_journals_writes_are_waited_out(rolls: Rolls) -> None:
    """PutObject.IfMatch, in botocore's S3 model: "On a 409 failure you should fetch the object's ETag and retry"."""
    rolls.process.faults.add("conflict", "s3:PutObject", probability=0.3, count=8)
    rolls.process.faults.add("conflict", "s3:DeleteObject", count=2)

    start(rolls)

    rolls.assert_given_back(3)


def test_a_planted_journal_is_not_followed(rolls: Rolls) -> None:
    """`s3:PutObject` on the prefix does not suffice to control a roll: the journal is sealed by KMS."""
    group, other = rolls.group, "local-keypair-20990101T000000Z"
    record = {
        "auto_scaling_group_name": group.auto_scaling_group_name, "total": 3, "desired_capacity": 1, "surge": 2,
        "auto_scaling_group_arn": group.auto_scaling_group_arn, "templates": [], "suspended": ["AZRebalance"],
        "pending": None, "deleted": False,
    }  # fmt: skip
    real = next(rolls.roll.start(SOON))  # a journal in today's form, which its holder has left
    assert real.kind == "lock"
    stored = json.loads(rolls.rack.store.get(f"{rolls.rack['prefix']}/roll.json").body)  # type: ignore[union-attr]
    stored["journal"] |= {"key_name": other, "owner": None, "groups": {group.auto_scaling_group_name: record}}
    stored["sealed_key"] = base64.b64encode(b"not sealed").decode()
    put(rolls, "roll.json", stored)
    before = rolls.changes()

    with pytest.raises(RackctlError):
        list(rolls.roll.resume())

    assert rolls.changes() == before
    assert rolls.group.desired_capacity == 3
    assert other not in rolls.key_pairs()


def test_a_key_planted_under_the_new_keys_name_is_not_imported(rolls: Rolls) -> None:
    events = rolls.roll.start(SOON)
    next(events)
    journal = json.loads(rolls.rack.store.get(f"{rolls.rack['prefix']}/roll.json").body)["journal"]  # type: ignore[union-attr]
    name, old = journal["key_name"], rolls.key_in_use()
    theirs = generate(name, created=rolls.clock.now())
    put(
        rolls,
        f"keys/{name}/20260101T000000Z.json",
        {
            "version": 3, "key_name": name, "type": "ed25519", "public_key": theirs.public_key,
            "fingerprint": theirs.fingerprint, "created": "2026-01-01T00:00:00+00:00", "imported": None,
            "reason": "",
            "private_key": base64.b64encode(theirs.private_key).decode(),
        },
    )  # fmt: skip

    with pytest.raises(RackctlError):
        list(events)

    assert rolls.key_pairs() == [old]
    assert set(rolls.keys_of_instances()) == {old}
    assert rolls.key_in_use() == old


@pytest.mark.parametrize("what", ["bucket", "kms_key"])
def test_a_bucket_or_kms_key_of_another_account_that_a_tag_names_is_refused(
    start_local_rack: Callable[..., LocalRackProcess], what: str
) -> None:
    """GetObject.ExpectedBucketOwner, in botocore's S3 model: "If the account ID that you provide does not match the
    actual owner of the bucket, the request fails with the HTTP status code 403 Forbidden".
    """
    rolls = Rolls(start_local_rack())
    kms = rolls.process.client("kms")
    key = kms.describe_key(KeyId=f"alias/{THEIRS}")["KeyMetadata"]["Arn"]
    tag(rolls, **{what: THEIRS if what == "bucket" else key})
    del rolls.process.__dict__["rack"]
    rolls = Rolls(rolls.process)
    before = rolls.changes()

    with pytest.raises(RackctlError, match=r"210987654321"):
        list(rolls.roll.start(SOON))

    assert rolls.changes() == before
    assert rolls.process.client("s3").list_objects_v2(Bucket=THEIRS).get("Contents", []) == []


def test_a_process_that_was_stopped_and_lost_the_roll_changes_nothing_more(rolls: Rolls) -> None:
    rolls.process.set_condition("slow-boot", "3")
    process = rolls.command("-o", "json")
    assert process.stdout
    for line in process.stdout:
        if json.loads(line)["event"] == "surge":
            break
    process.send_signal(signal.SIGSTOP)
    rolls.process.clear_condition("slow-boot")
    with Observer(rolls.process) as observer:
        rolls.roll.unlock(force=True)
        said = texts(list(rolls.roll.resume()))
        ended = rolls.process.calls()[-1]["number"]
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate()

    # Requests that it sent before it was stopped are answered; a write of the journal is refused.
    made = [c for c in rolls.process.calls(since=ended, mutating=True) if (c["status"] or 200) < 400]
    assert [call["action"] for call in made] == []
    assert process.returncode == 6, said
    assert "was removed while" in err or "was taken from this process" in err
    assert observer.broken_promises == []
    rolls.assert_given_back(3)
