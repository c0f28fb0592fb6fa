"""`racks policy` enforced: each role's commands pass under its policy, and need each of its actions.

The local rack evaluates the policy: actions and resources by moto's IAM, which is not ours; the conditions by
rackctl.local.iam_policy, whose rules are IAM's: tests/local/test_iam_policy.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.policies import ROLES, grants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.local_rack import LocalRackProcess


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


class Typist:
    """Types commands at a rack, whose user has a policy or everything."""

    def __init__(self, rack: LocalRackProcess) -> None:
        self.rack = rack
        self.name = rack.rack.name

    def __call__(self, *words: str) -> Ran:
        return Ran(
            subprocess.run(
                ["rackctl", "--rack", self.name, *words],
                env=self.rack.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
                stdin=subprocess.DEVNULL,
            )
        )

    def policy(self, role: str) -> dict[str, Any]:
        """Print a role's policy, with all permissions."""
        self.rack.set_policy(None)
        printed = self("racks", "policy", "--for", role)
        assert printed.status == 0, printed.stderr
        document: dict[str, Any] = json.loads(printed.stdout)
        return document

    def needs(self, commands: Iterable[tuple[str, ...]], policy: dict[str, Any]) -> set[str]:
        """Type commands, which must succeed under a policy; give the IAM actions that they needed."""
        self.rack.set_policy(policy)
        before = (self.rack.calls() or [{"number": 0}])[-1]["number"]
        for words in commands:
            ran = self(*words)
            assert ran.status == 0, f"{words}: {ran.stderr}"
            assert "denied" not in ran.stderr, f"{words}: {ran.stderr}"
        self.rack.set_policy(None)
        return {action for call in self.rack.calls(since=before) for action in call["needs"]}


def actions_of(policy: dict[str, Any]) -> set[str]:
    return {action for statement in policy["Statement"] for action in listed(statement["Action"])}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a policy that does not allow an action."""
    statements = [{**s, "Action": [a for a in listed(s["Action"]) if a != action]} for s in policy["Statement"]]
    return {**policy, "Statement": [statement for statement in statements if statement["Action"]]}


@pytest.fixture
def typist(own_local_rack: LocalRackProcess) -> Typist:
    return Typist(own_local_rack)


def reading(typist: Typist, role: str) -> list[tuple[str, ...]]:
    """The commands of a role that change nothing which another run of them would miss."""
    id_ = typist.rack.ids()[0]
    listing: list[tuple[str, ...]] = [("instances", "-o", "json"), ("racks", "show")]
    commands: dict[str, list[tuple[str, ...]]] = {
        "list": listing,
        "show": [*listing, ("instances", "show", id_)],
        # The host key, which is in the console's output, is asked for at the first connection.
        "ssh": [*listing, ("instances", "forget-host-key", id_), ("instances", "ssh", id_, "true")],
        "find": [("racks", "find")],
    }
    return commands[role]


@pytest.mark.parametrize("role", ["list", "show", "ssh", "find"])
def test_a_role_s_commands_pass_under_its_policy_and_each_action_that_is_removed_is_named(
    typist: Typist, role: str
) -> None:
    """Over two seconds: the commands, once for each action."""
    provided(typist)
    policy, commands = typist.policy(role), reading(typist, role)

    needed = typist.needs(commands, policy)

    assert actions_of(policy) - needed == set()
    for action in sorted(needed):
        typist.rack.set_policy(without(policy, action))
        said = []
        for words in commands:
            said.append(typist(*words))
            if action in said[-1].stderr + said[-1].stdout:
                break
        else:
            pytest.fail(f"without {action}: {[ran.stderr for ran in said]}")
        assert {ran.status for ran in said} <= {0, 4}
    # With the action back, they pass again: it was that alone.
    typist.needs(commands, policy)


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


def numbered(typist: Typist) -> None:
    """Have the group name its template's version by a number, and the template tag what it launches."""
    ec2, autoscaling = typist.rack.client("ec2"), typist.rack.client("autoscaling")
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    template = group["LaunchTemplate"]["LaunchTemplateId"]
    made = ec2.create_launch_template_version(
        LaunchTemplateId=template,
        SourceVersion=group["LaunchTemplate"]["Version"],
        LaunchTemplateData={"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]},
    )
    autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"],
        LaunchTemplate={
            "LaunchTemplateId": template,
            "Version": str(made["LaunchTemplateVersion"]["VersionNumber"]),
        },
    )


def provided(typist: Typist) -> None:
    """Give the cluster a capacity provider of its group."""
    ecs, autoscaling = typist.rack.client("ecs"), typist.rack.client("autoscaling")
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    ecs.create_capacity_provider(
        name="provider",
        autoScalingGroupProvider={
            "autoScalingGroupArn": group["AutoScalingGroupARN"],
            "managedScaling": {"status": "DISABLED"},
            "managedDraining": "DISABLED",
        },
    )
    ecs.put_cluster_capacity_providers(
        cluster=typist.name, capacityProviders=["provider"], defaultCapacityProviderStrategy=[]
    )


# Looked for only where an instance is not registered; moved only for groups that name $Default; for another engine.
ELSEWHERE = {
    "ecs:ListClusters",
    "ec2:ModifyLaunchTemplate",
    *(action for grant in ROLES["keyroll"].parts["refresh"] for action in grant.actions),
}


def test_a_keyroll_and_its_abort_pass_under_its_policy_and_need_all_of_it(typist: Typist) -> None:
    """Over two seconds: a keyroll that is aborted, and a whole one."""
    numbered(typist)
    provided(typist)
    policy = typist.policy("keyroll")
    typist.rack.set_policy(without(policy, "autoscaling:TerminateInstanceInAutoScalingGroup"))
    stopped = typist("instances", "keyroll")
    assert stopped.status == 6
    assert "autoscaling:TerminateInstanceInAutoScalingGroup" in stopped.stderr

    needed = typist.needs(
        [
            *reading(typist, "ssh"),
            ("instances", "keyroll", "status"),
            ("instances", "keyroll", "abort"),
            ("instances", "keyroll", "plan"),
            ("instances", "keyroll"),
        ],
        policy,
    )

    assert needed <= actions_of(policy)
    assert actions_of(policy) - needed == ELSEWHERE


# Only an abort deletes template versions: the test above. `make chaos` tries all, any other run each fourth.
CHANGES = sorted(
    {
        action
        for grant in grants("keyroll")
        for action in grant.actions
        if not re.search(r":(Describe|List|Get)", action)
    }
    - ELSEWHERE
    - {"ec2:DeleteLaunchTemplateVersions", "ssm:GetParameters"}
)


@pytest.mark.parametrize("action", CHANGES if os.environ.get("RACKCTL_CHAOS") == "all" else CHANGES[::4])
def test_a_keyroll_without_one_action_that_changes_something_names_it_and_can_be_rolled_back(
    typist: Typist, action: str
) -> None:
    """Over two seconds: a keyroll for each action."""
    numbered(typist)
    policy = typist.policy("keyroll")
    typist.rack.set_policy(without(policy, action))

    said = [typist("instances", "keyroll", "plan"), typist("instances", "keyroll")]
    if said[-1].status == 6:
        said.append(typist("instances", "keyroll", "abort"))
    typist.rack.set_policy(policy)
    if said[-1].status == 6:
        rolled_back = typist("instances", "keyroll", "abort")
        assert rolled_back.status == 0, rolled_back.stderr

    assert any(action in ran.stderr + ran.stdout for ran in said), [ran.stderr for ran in said]
    assert "There is no roll" in typist("instances", "keyroll", "status").stdout
