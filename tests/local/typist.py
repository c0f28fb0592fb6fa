"""Commands on a local rack whose user has only a policy, and the IAM actions that they needed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rackctl.keys import generate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.local_rack import LocalRackProcess


class Ran:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


class Typist:
    """Runs commands, with a clock as fast as the rack's, on a rack whose user has a policy, or all permissions."""

    def __init__(self, rack: LocalRackProcess) -> None:
        self.rack = rack
        self.name = rack.rack.name

    def __call__(self, *words: str) -> Ran:
        return Ran(
            subprocess.run(
                [sys.executable, "-m", "tests.local.fast", f"{self.rack.options.speed}", "--rack", self.name, *words],
                env=self.rack.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
                stdin=subprocess.DEVNULL,
            )
        )

    def policy(self, *roles: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
        """Print the policy of some roles, with all permissions."""
        self.rack.set_policy(None)
        printed = self(*options, "racks", "policy", *(word for role in roles for word in ("--for", role)))
        assert printed.status == 0, printed.stderr
        document: dict[str, Any] = json.loads(printed.stdout)
        return document

    def needs(self, commands: Iterable[tuple[str, ...]], policy: dict[str, Any]) -> set[str]:
        """Run commands, which must succeed under a policy; return the IAM actions that they needed."""
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


def provided(typist: Typist) -> None:
    """Create a capacity provider of the cluster's group."""
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


def reading(typist: Typist, role: str) -> list[tuple[str, ...]]:
    """The commands of a role that change nothing which another run of them would miss."""
    id_ = typist.rack.ids()[0]
    listing: list[tuple[str, ...]] = [("instances", "-o", "json"), ("racks", "show")]
    ssh = [("instances", "forget-host-key", id_), ("instances", "ssh", id_, "true")]
    commands: dict[str, list[tuple[str, ...]]] = {
        "list": listing,
        "show": [*listing, ("instances", "show", id_)],
        # The host key, which is in the console's output, is asked for at the first connection.
        "ssh": [*listing, *ssh],
        "find": [("racks", "find")],
        "history": [*listing, ("instances", "history")],
        "doctor": [("doctor", "--as", "ssh"), ("instances", "show", id_), *ssh],
    }
    return commands[role]


def kept(typist: Typist) -> None:
    """Have the group launch with a key pair that rackctl did not name."""
    key = generate("ops", created=datetime.now(UTC))
    typist.rack.client("ec2").import_key_pair(
        KeyName="ops",
        PublicKeyMaterial=key.public_key.encode(),
        TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "team", "Value": "ops"}]}],
    )
    launch_with(typist, {"KeyName": "ops"})


def launch_with(typist: Typist, data: dict[str, Any]) -> None:
    """Have the group name by its number a version of its template that differs in this."""
    ec2, autoscaling = typist.rack.client("ec2"), typist.rack.client("autoscaling")
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    template = group["LaunchTemplate"]["LaunchTemplateId"]
    made = ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion=group["LaunchTemplate"]["Version"], LaunchTemplateData=data
    )
    autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=group["AutoScalingGroupName"],
        LaunchTemplate={
            "LaunchTemplateId": template,
            "Version": str(made["LaunchTemplateVersion"]["VersionNumber"]),
        },
    )
