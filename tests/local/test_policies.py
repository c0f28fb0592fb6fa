"""`racks policy` enforced: each role's commands pass under its policy, and need each of its actions.

The local rack evaluates the policy: actions and resources by moto's IAM, which is not ours; the conditions by
rackctl.local.iam_policy, whose rules are IAM's: tests/local/test_iam_policy.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.keys import KeyStore, generate
from tests.local.typist import Typist, actions_of, kept, launch_with, provided, reading, without

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from tests.local_rack import LocalRackProcess


@pytest.fixture
def typist(own_local_rack: LocalRackProcess) -> Typist:
    return Typist(own_local_rack)


def assert_each_is_needed(
    typist: Typist,
    commands: Sequence[tuple[str, ...]],
    policy: dict[str, Any],
    *,
    prepare: Callable[[], object] = lambda: None,
    statuses: Collection[int] = (0, 4),
    but: Collection[str] = (),
) -> set[str]:
    """Check that commands pass under a policy, and that without one action the first that needs it names it.

    ``but`` are actions that another test removes from the same commands. Return what the policy has besides.
    """
    prepare()
    needed = typist.needs(commands, policy)
    for action in sorted(needed.difference(but)):
        typist.rack.set_policy(None)
        prepare()
        typist.rack.set_policy(without(policy, action))
        said = []
        for words in commands:
            said.append(typist(*words))
            if action in said[-1].stderr + said[-1].stdout:
                break
        else:
            pytest.fail(f"without {action}: {[ran.stderr for ran in said]}")
        assert {ran.status for ran in said[:-1]} <= {0}
        assert said[-1].status in statuses
    # With the action back, they pass again: it was that alone.
    typist.rack.set_policy(None)
    prepare()
    typist.needs(commands, policy)
    return actions_of(policy) - needed


@pytest.mark.parametrize("role", ["list", "show", "ssh", "find", "history"])
def test_a_role_s_commands_pass_under_its_policy_and_each_action_that_is_removed_is_named(
    typist: Typist, role: str
) -> None:
    """Over two seconds: the commands, once for each action."""
    provided(typist)
    if role == "history":
        assert typist("instances", "replace", typist.rack.ids()[0]).status == 0

    of_list = actions_of(typist.policy("list")) if role not in {"list", "find"} else ()
    assert assert_each_is_needed(typist, reading(typist, role), typist.policy(role), but=of_list) == set()


def test_a_list_needs_the_parameter_that_names_the_image_of_a_group(typist: Typist) -> None:
    """Whether an instance is outdated depends on the image that the parameter names now.

    Over two seconds: it takes a rack of its own.
    """
    parameter = "aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
    launch_with(typist, {"ImageId": f"resolve:ssm:/{parameter}"})
    policy = typist.policy("list")

    (statement,) = [s for s in policy["Statement"] if s["Action"] == "ssm:GetParameters"]
    assert statement["Resource"] == f"arn:aws:ssm:us-east-1:*:parameter/{parameter}"
    typist.rack.set_policy(policy)
    listed = typist("instances", "--columns", "id,outdated")
    assert (listed.status, listed.stderr) == (0, "")
    assert "yes" in listed.stdout


def test_a_policy_names_the_statements_that_it_lacks_if_a_groups_launches_cannot_be_read(typist: Typist) -> None:
    """Over two seconds: it takes a rack of its own."""
    typist.rack.set_policy(without(typist.policy("keyroll"), "ec2:DescribeLaunchTemplateVersions"))

    printed = typist("racks", "policy", "--for", "keyroll")

    assert printed.status == 0
    assert (
        "the policy lacks the statements for key pair, instance role, tags of new instances and image parameter "
        "of a group: cannot read what group local-instances launches from: AWS denied"
    ) in printed.stderr.replace(f"{typist.name}-instances", "local-instances")
    assert "iam:PassRole" not in printed.stdout


def test_doctor_needs_all_of_its_policy_and_names_a_missing_action(typist: Typist) -> None:
    """Over two seconds: all checks, once for each action."""
    provided(typist)
    kept(typist)
    policy = typist.policy("doctor")
    simulates = {"Effect": "Allow", "Action": "iam:SimulatePrincipalPolicy", "Resource": "arn:aws:iam::*:user/*"}
    policy["Statement"].append(simulates)

    left = assert_each_is_needed(typist, reading(typist, "doctor"), policy, statuses=(0, 1, 4))

    # Other clusters are looked through for an instance that is not registered with this one.
    assert left == {"ecs:ListClusters"}


def test_a_key_is_imported_shown_and_pruned_under_the_policy_of_keys_which_needs_all_of_it(
    typist: Typist, tmp_path: Path
) -> None:
    """Over two seconds: the commands, once for each action."""
    rack, ec2 = typist.rack.rack, typist.rack.client("ec2")
    store = KeyStore(rack)
    key = generate("spare", created=datetime.now(UTC))
    old = generate("spare", created=datetime.now(UTC) - timedelta(days=30))
    file = tmp_path / "spare.pem"
    file.touch(mode=0o600)
    file.write_bytes(key.private_key)
    ec2.import_key_pair(KeyName="spare", PublicKeyMaterial=key.public_key.encode())

    def an_older_one_is_stored() -> None:
        for generation in store.generations("spare"):
            store.delete("spare", generation)
        store.store(old)

    commands = [
        *reading(typist, "list"),
        ("instances", "keys", "import", str(file)),
        ("instances", "keys", "list"),
        ("instances", "keys", "show", "spare"),
        ("instances", "keys", "prune", "--yes"),
    ]
    of_list, policy = actions_of(typist.policy("list")), typist.policy("keys")
    left = assert_each_is_needed(typist, commands, policy, prepare=an_older_one_is_stored, but=of_list)

    # The keys of convox racks are in the bucket of a stack.
    assert left == {"cloudformation:DescribeStackResources"}


@pytest.mark.timeout(300)
def test_a_cluster_is_adopted_under_the_policy_of_an_adoption_which_needs_all_of_it(typist: Typist) -> None:
    """Over two seconds: a cluster for each action, since one that is a rack is not made one again."""
    numbers = count()
    ecs = typist.rack.client("ecs")

    def fresh() -> tuple[tuple[str, ...], dict[str, Any]]:
        typist.rack.set_policy(None)
        name = f"fresh-{next(numbers)}"
        ecs.create_cluster(clusterName=name)
        policy = typist.policy("adopt", options=("--cluster", name))
        return ("racks", "adopt", name, "--create", "--yes"), policy

    command, policy = fresh()
    needed = typist.needs([command], policy)
    # A repeated adoption checks the existing resources.
    needed |= typist.needs([command], policy)
    assert actions_of(policy) - needed == set()
    for action in sorted(needed):
        command, policy = fresh()
        typist.rack.set_policy(without(policy, action))
        ran = typist(*command)
        # Some are needed only to see what is there already.
        ran = typist(*command) if ran.status == 0 else ran
        assert (ran.status, action in ran.stderr) == (4, True), f"without {action}: {ran.stderr}"
        # With the action back, it goes on from there.
        typist.needs([command], policy)


def test_a_plan_with_an_alarm_needs_to_see_it(typist: Typist) -> None:
    typist.rack.client("cloudwatch").put_metric_alarm(
        AlarmName="errors", Namespace="prod", MetricName="errors", ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1, Period=60, Statistic="Sum", Threshold=1,
    )  # fmt: skip
    policy, plan = typist.policy("keyroll", "alarm"), ("instances", "keyroll", "plan", "--alarm", "errors")

    assert "cloudwatch:DescribeAlarms" in typist.needs([plan], policy)

    typist.rack.set_policy(without(policy, "cloudwatch:DescribeAlarms"))
    ran = typist(*plan)
    assert (ran.status != 0, "cloudwatch:DescribeAlarms" in ran.stdout + ran.stderr) == (True, True)


def test_stopping_a_standalone_task_needs_the_permission_to_stop_tasks(typist: Typist) -> None:
    """Over two seconds: two drains."""
    id_, ecs = typist.rack.ids()[0], typist.rack.client("ecs")
    ecs.register_task_definition(
        family="job", containerDefinitions=[{"name": "job", "image": "job", "memory": 64, "essential": True}]
    )
    (arn,) = [
        found["containerInstanceArn"]
        for found in ecs.describe_container_instances(
            cluster=typist.name,
            containerInstances=ecs.list_container_instances(cluster=typist.name)["containerInstanceArns"],
        )["containerInstances"]
        if found["ec2InstanceId"] == id_
    ]
    ecs.start_task(cluster=typist.name, taskDefinition="job", containerInstances=[arn])
    drain = ("instances", "drain", "--wait", "--stop-standalone", id_)
    policy = typist.policy("drain", "stop-standalone")
    typist.rack.set_policy(without(policy, "ecs:StopTask"))
    ran = typist(*drain)
    assert (ran.status, "ecs:StopTask" in ran.stderr) == (4, True), ran.stderr

    assert "ecs:StopTask" in typist.needs([drain], policy)


def test_an_instance_is_drained_under_the_policy_of_a_drain(typist: Typist) -> None:
    """Over two seconds: a drain."""
    id_, policy = typist.rack.ids()[0], typist.policy("drain")

    needed = typist.needs(
        [
            *reading(typist, "list"),
            ("instances", "drain", "--dry-run", id_),
            ("instances", "drain", "--wait", id_),
            ("instances", "undrain", id_),
        ],
        policy,
    )

    # An encrypted journal is opened only while there is one.
    assert actions_of(policy) - needed == {"kms:Decrypt"}
    for action in ("ecs:UpdateContainerInstancesState", "autoscaling:DescribeAutoScalingInstances"):
        typist.rack.set_policy(without(policy, action))
        ran = typist("instances", "drain", id_)
        assert (ran.status, action in ran.stderr) == (4, True), ran.stderr


def test_an_instance_is_terminated_under_the_policy_of_a_termination_and_needs_all_of_it(typist: Typist) -> None:
    """Over two seconds: terminations."""
    policy, (one, other, *_) = typist.policy("terminate"), typist.rack.ids()
    terminate = ("instances", "terminate", "--drain", "--wait")

    needed = typist.needs([*reading(typist, "list"), (*terminate, one)], policy)

    assert actions_of(policy) - needed == set()
    only_listed = {"ecs:DescribeClusters", "ec2:DescribeLaunchTemplateVersions"}
    for action in sorted(needed - only_listed):
        typist.rack.set_policy(without(policy, action))
        ran = typist(*terminate, other)
        assert action in ran.stderr, f"without {action}: {ran.stderr}"
        assert ran.status == 4 or other not in typist.rack.ids()
        typist.rack.set_policy(None)
        if other not in typist.rack.ids():
            other = typist.rack.ids()[0]
        typist("instances", "undrain", other)


def test_a_terminate_is_refused_under_the_policy_of_ssh(typist: Typist) -> None:
    typist.rack.set_policy(typist.policy("ssh"))
    before = typist.rack.ids()

    ran = typist("instances", "terminate", before[0])

    assert ran.status == 4
    assert "autoscaling:DescribeAutoScalingInstances" in ran.stderr
    assert typist.rack.ids() == before


def test_another_rack_s_cluster_is_out_of_reach_of_a_policy(typist: Typist) -> None:
    typist.rack.client("ecs").create_cluster(clusterName="other")
    typist.rack.set_policy(typist.policy("list"))

    ran = typist("--cluster", "other", "instances")

    assert ran.status == 4
    assert "ecs:ListContainerInstances" in ran.stderr
