"""The policy of a keyroll enforced: a roll passes under it, and needs each of its actions: see test_policies.py."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from rackctl.keys import generate
from rackctl.policies import ROLES, grants
from tests.local.typist import Typist, actions_of, kept, launch_with, provided, reading, without

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess


@pytest.fixture
def typist(own_local_rack: LocalRackProcess) -> Typist:
    return Typist(own_local_rack)


def numbered(typist: Typist) -> None:
    """Have the group name its template's version by a number, and the template tag what it launches."""
    launch_with(typist, {"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}]})


def of_a_keyroll(typist: Typist, policy: dict[str, Any]) -> set[str]:
    """Roll, and give the IAM actions that it needed. Now and then an answer leaves out the members of the group."""
    for id_, skip in product(typist.rack.ids(), range(8, 64, 8)):
        # Auto Scaling is asked for them by their ids then.
        typist.rack.faults.add("incomplete", "autoscaling:DescribeAutoScalingGroups", which=id_, skip=skip, count=1)
    return typist.needs([("instances", "keyroll")], policy)


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
        ],
        policy,
    ) | of_a_keyroll(typist, policy)

    assert needed <= actions_of(policy)
    assert actions_of(policy) - needed == ELSEWHERE


@pytest.mark.timeout(300)
def test_a_keyroll_under_kept_names_passes_under_a_policy_that_lets_it_change_those_pairs_and_no_template(
    typist: Typist,
) -> None:
    """Over two seconds: a keyroll.

    DryRun, in botocore's model of EC2: "If you have the required permissions, the error response is DryRunOperation.
    Otherwise, it is UnauthorizedOperation."
    """
    provided(typist)
    kept(typist)
    policy, ec2 = typist.policy("keyroll"), typist.rack.client("ec2")
    (pair,) = ec2.describe_key_pairs(KeyNames=["ops"])["KeyPairs"]

    def outcome(method: str, **asked: Any) -> str:
        with pytest.raises(ClientError) as caught:
            getattr(ec2, method)(DryRun=True, **asked)
        return str(caught.value.response["Error"]["Code"])

    typist.rack.set_policy(policy)
    own = generate("own", created=datetime.now(UTC)).public_key.encode()
    may = {
        name: (
            outcome("delete_key_pair", KeyName=name),
            outcome("import_key_pair", KeyName=name, PublicKeyMaterial=own),
        )
        for name in ("ops", "ops2", "local-keypair-20260101T000000Z")
    }
    # A deletion that is repeated since its answer was lost is of a pair that is gone: nothing says whose it was.
    typist.rack.faults.add("drop-after", "ec2:DeleteKeyPair", skip=1, count=1)
    needed = typist.needs([*reading(typist, "ssh"), ("instances", "keyroll", "plan")], policy)
    needed |= of_a_keyroll(typist, policy)

    assert may.pop("ops") == ("DryRunOperation", "DryRunOperation")
    assert set(may.values()) == {("UnauthorizedOperation", "UnauthorizedOperation")}
    assert needed <= actions_of(policy)
    assert actions_of(policy) - needed == ELSEWHERE - {"ec2:ModifyLaunchTemplate"}
    (after,) = ec2.describe_key_pairs(KeyNames=["ops"])["KeyPairs"]
    assert (after["KeyPairId"] != pair["KeyPairId"], after["Tags"]) == (True, pair["Tags"])


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


ALL = os.environ.get("RACKCTL_CHAOS") == "all"
OF_KEPT = ["ec2:CreateTags", "ec2:DeleteKeyPair", "ec2:ImportKeyPair", "autoscaling:SuspendProcesses"]
WITHOUT = [
    *((numbered, action) for action in (CHANGES if ALL else CHANGES[::4])),
    *((kept, action) for action in (*OF_KEPT, *(["autoscaling:ResumeProcesses"] if ALL else []))),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("launching", "action"), WITHOUT)
def test_a_keyroll_without_one_action_that_changes_something_names_it_and_can_be_rolled_back(
    typist: Typist, launching: Callable[[Typist], None], action: str
) -> None:
    """Over two seconds: a keyroll for each action."""
    launching(typist)
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
