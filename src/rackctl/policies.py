"""The IAM permissions of each command: the one source of `racks policy`, of docs/permissions.md and of its tests.

Pure: no function here calls AWS. Names in angle brackets stand for a rack's own names: `Facts.named`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_CLUSTER = "arn:aws:ecs:<region>:<account>:cluster/<cluster>"
_REGISTRATIONS = "arn:aws:ecs:<region>:<account>:container-instance/<cluster>/*"
_TASKS = "arn:aws:ecs:<region>:<account>:task/<cluster>/*"
_SERVICES = "arn:aws:ecs:<region>:<account>:service/<cluster>/*"
_PROVIDERS = "arn:aws:ecs:<region>:<account>:capacity-provider/*"
_GROUP = "arn:aws:autoscaling:<region>:<account>:autoScalingGroup:*:autoScalingGroupName/<group>"
_STACK = "arn:aws:cloudformation:<region>:<account>:stack/<rack>/*"
_INSTANCES = "arn:aws:ec2:<region>:<account>:instance/*"
_OWN_KEY_PAIRS = "arn:aws:ec2:<region>:<account>:key-pair/<rack>-keypair-*"
_KEY_PAIRS = "arn:aws:ec2:<region>:<account>:key-pair/*"
_KEY_PAIR = "arn:aws:ec2:<region>:<account>:key-pair/<key pair>"
_TEMPLATE = "arn:aws:ec2:<region>:<account>:launch-template/<launch template>"
_BUCKET = "arn:aws:s3:::<bucket>"
_KEY = "arn:aws:kms:<region>:<account>:key/<key>"
_ANY_KEY = "arn:aws:kms:<region>:<account>:key/*"
_BUCKETS_KEY = "arn:aws:kms:<region>:<account>:key/<bucket's key>"

# The operator and the value of each condition key.
_CONDITIONS = {
    "aws:RequestTag/Rack": ("StringEquals", "<rack>"),
    "aws:ResourceTag/Rack": ("StringEquals", "<rack>"),
    "aws:ResourceTag/aws:autoscaling:groupName": ("StringEquals", "<group>"),
    "ec2:KeyPairName": ("StringEquals", "<key pair>"),
    "ec2:LaunchTemplate": ("ArnEquals", "arn:aws:ec2:<region>:<account>:launch-template/<numbered template>"),
    "ec2:Region": ("StringEquals", "<region>"),
    "ecs:cluster": ("ArnEquals", _CLUSTER),
    "iam:PassedToService": ("StringEquals", "ec2.amazonaws.com"),
    "kms:EncryptionContext:rackctl:rack": ("StringEquals", "<rack>"),
    "kms:ViaService": ("StringEquals", "s3.<region>.amazonaws.com"),
    "s3:ResourceAccount": ("StringEquals", "<bucket owner>"),
}
_BY_ACTION = {"ec2:CreateAction": "StringEquals"}


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on a resource, under a condition: a condition key, or ``KEY=VALUE``.

    The actions are not needed if the rack has no value for a name in angle brackets in the resource or the condition,
    or for the one that ``needs`` gives.
    """

    actions: tuple[str, ...]
    resource: str = "*"
    condition: str = ""
    needs: str = ""

    @property
    def condition_key(self) -> str:
        return self.condition.partition("=")[0]

    @property
    def names(self) -> set[str]:
        """The names in angle brackets of the resource, the condition and ``needs``."""
        values = [value for keys in self.conditions.values() for value in keys.values()]
        return {name for text in (self.resource, *values, self.needs) for name in re.findall(r"<[^>]+>", text)}

    @property
    def conditions(self) -> dict[str, dict[str, str]]:
        """Return the condition in the form of a policy, names in angle brackets included."""
        key, _, value = self.condition.partition("=")
        if not key:
            return {}
        operator, value = (_BY_ACTION[key], value) if value else _CONDITIONS[key]
        return {operator: {key: value}}


@dataclass(frozen=True, slots=True)
class Role:
    """The permissions of a command. ``includes`` are other roles; ``parts`` are for an option or a kind of rack."""

    commands: tuple[str, ...]
    grants: tuple[Grant, ...]
    includes: tuple[str, ...] = ()
    parts: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)


def _grant(actions: str, resource: str = "*", condition: str = "", needs: str = "") -> Grant:
    service, _, names = actions.partition(":")
    return Grant(tuple(f"{service}:{name}" for name in names.split()), resource, condition, needs)


_DRAIN = (
    _grant("ecs:UpdateContainerInstancesState ListTasks", _REGISTRATIONS, "ecs:cluster"),
    _grant("ecs:DescribeTasks", _TASKS, "ecs:cluster"),
    _grant("ecs:DescribeServices", _SERVICES, "ecs:cluster"),
)
_IMAGE_PARAMETER = _grant("ssm:GetParameters", "arn:aws:ssm:<region>:*:parameter/<image parameter>")
_STORE_WITH_KMS = (_grant("kms:GenerateDataKey Decrypt", _BUCKETS_KEY, "kms:ViaService"),)
_BUCKET_SETTINGS = (
    "GetBucketVersioning GetEncryptionConfiguration GetBucketPublicAccessBlock GetBucketPolicy ListBucket"
)

ROLES: dict[str, Role] = {
    "list": Role(
        ("instances",),
        (
            _grant("ecs:DescribeClusters ListContainerInstances", _CLUSTER),
            _grant("ecs:DescribeContainerInstances", _REGISTRATIONS, "ecs:cluster"),
            _grant("ec2:DescribeInstances", "*", "ec2:Region"),
        ),
        parts={
            "outdated": (
                _grant("autoscaling:DescribeAutoScalingGroups"),
                _grant("ec2:DescribeLaunchTemplateVersions", "*", "ec2:Region"),
                _IMAGE_PARAMETER,
            )
        },
    ),
    "show": Role(
        ("instances show",),
        (
            _grant("autoscaling:DescribeAutoScalingInstances DescribeAutoScalingGroups DescribeScalingActivities"),
            _grant("ecs:ListTasks", _REGISTRATIONS, "ecs:cluster"),
            _grant("ecs:DescribeTasks", _TASKS, "ecs:cluster"),
            _grant("ecs:DescribeServices", _SERVICES, "ecs:cluster"),
        ),
        includes=("list",),
    ),
    "ssh": Role(
        ("instances ssh", "run", "ssh-agent", "ssh-config"),
        (
            _grant("s3:ListBucket", _BUCKET, "s3:ResourceAccount"),
            _grant("s3:GetObject", f"{_BUCKET}/<prefix>/keys/*", "s3:ResourceAccount"),
            _grant("kms:Decrypt", _KEY, "kms:EncryptionContext:rackctl:rack"),
            _grant("ec2:GetConsoleOutput", _INSTANCES, "aws:ResourceTag/aws:autoscaling:groupName"),
        ),
        includes=("list",),
        parts={"encrypted": (_grant("kms:Decrypt", _BUCKETS_KEY, "kms:ViaService"),)},
    ),
    "keys": Role(
        ("instances keys",),
        (
            _grant("s3:ListBucket", _BUCKET, "s3:ResourceAccount"),
            _grant("s3:GetObject PutObject DeleteObject", f"{_BUCKET}/<prefix>/keys/*", "s3:ResourceAccount"),
            _grant("s3:GetObject", f"{_BUCKET}/<prefix>/roll.json", "s3:ResourceAccount"),
            _grant("kms:Encrypt Decrypt", _KEY, "kms:EncryptionContext:rackctl:rack"),
            _grant("ec2:DescribeKeyPairs", "*", "ec2:Region"),
        ),
        includes=("list",),
        parts={
            "convox": (
                _grant(
                    "cloudformation:DescribeStackResources", "arn:aws:cloudformation:<region>:<account>:stack/<rack>/*"
                ),
                _grant("s3:GetObject", "arn:aws:s3:::<settings bucket>/instance-key", "s3:ResourceAccount"),
                _grant("kms:Decrypt", "arn:aws:kms:<region>:<account>:key/<convox key>"),
            ),
            "encrypted": _STORE_WITH_KMS,
        },
    ),
    "drain": Role(
        ("instances drain", "undrain"),
        (
            _grant("autoscaling:DescribeAutoScalingInstances"),
            *_DRAIN,
            _grant("s3:GetObject", f"{_BUCKET}/<prefix>/roll.json", "s3:ResourceAccount"),
            _grant("s3:ListBucket", _BUCKET, "s3:ResourceAccount"),
        ),
        includes=("list",),
        parts={"encrypted": (_grant("kms:Decrypt", _BUCKETS_KEY, "kms:ViaService"),)},
    ),
    "history": Role(
        ("instances history",),
        (
            _grant("s3:GetObject", f"{_BUCKET}/<prefix>/*", "s3:ResourceAccount"),
            _grant("s3:ListBucket", _BUCKET, "s3:ResourceAccount"),
        ),
        includes=("list",),
        parts={"encrypted": (_grant("kms:Decrypt", _BUCKETS_KEY, "kms:ViaService"),)},
    ),
    "terminate": Role(
        ("instances terminate",),
        (
            _grant("autoscaling:DescribeAutoScalingInstances DescribeAutoScalingGroups DescribeScalingActivities"),
            _grant("autoscaling:TerminateInstanceInAutoScalingGroup", _GROUP),
        ),
        includes=("list",),
        parts={"drain": _DRAIN},
    ),
    "keyroll": Role(
        ("instances keyroll",),
        (
            _grant("s3:GetObject PutObject DeleteObject", f"{_BUCKET}/<prefix>/*", "s3:ResourceAccount"),
            _grant("kms:Encrypt", _KEY, "kms:EncryptionContext:rackctl:rack"),
            _grant("ec2:DescribeKeyPairs DescribeLaunchTemplates DescribeLaunchTemplateVersions", "*", "ec2:Region"),
            _grant("ec2:ImportKeyPair", _OWN_KEY_PAIRS, "aws:RequestTag/Rack", needs="<new key pair>"),
            _grant("ec2:CreateTags", _OWN_KEY_PAIRS, "ec2:CreateAction=ImportKeyPair", needs="<new key pair>"),
            _grant("ec2:DeleteKeyPair", _OWN_KEY_PAIRS, "aws:ResourceTag/Rack"),
            _grant("ec2:CreateLaunchTemplateVersion ModifyLaunchTemplate DeleteLaunchTemplateVersions", _TEMPLATE),
            _grant("autoscaling:DescribeInstanceRefreshes DescribeLaunchConfigurations DescribeLifecycleHooks"),
            _grant("autoscaling:SetDesiredCapacity SuspendProcesses ResumeProcesses", _GROUP),
            _grant("autoscaling:UpdateAutoScalingGroup", _GROUP, needs="<new key pair>"),
            _grant("ecs:ListClusters"),
            _grant("ecs:ListServices", "*", "ecs:cluster"),
            _grant("ecs:DescribeCapacityProviders", _PROVIDERS),
        ),
        includes=("list", "show", "ssh", "drain", "terminate"),
        parts={
            "refresh": (
                _grant("autoscaling:StartInstanceRefresh CancelInstanceRefresh RollbackInstanceRefresh", _GROUP),
            ),
            "numbered": (
                _grant("ec2:RunInstances", "*", "ec2:LaunchTemplate"),
                _grant("ec2:CreateTags", _INSTANCES, "ec2:CreateAction=RunInstances", needs="<tagging template>"),
                _grant("iam:PassRole", "arn:aws:iam::<account>:role/<instance role>", "iam:PassedToService"),
                _IMAGE_PARAMETER,
            ),
            "kept": (
                _grant("ec2:DeleteKeyPair ImportKeyPair", _KEY_PAIR),
                # A key pair is deleted by its id. AWS does not say whether its ARN then has the id or the name, so the
                # condition is on the name.
                _grant("ec2:DeleteKeyPair", _KEY_PAIRS, "ec2:KeyPairName"),
                _grant("ec2:CreateTags", _KEY_PAIR, "ec2:CreateAction=ImportKeyPair"),
            ),
            "encrypted": _STORE_WITH_KMS,
        },
    ),
    "stop-standalone": Role(
        ("instances keyroll --stop-standalone", "instances drain --stop-standalone"),
        (_grant("ecs:StopTask", _TASKS, "ecs:cluster"),),
    ),
    # If the resource is narrower, CloudWatch leaves composite alarms out of its answer.
    "alarm": Role(("instances keyroll --alarm", "instances replace --alarm"), (_grant("cloudwatch:DescribeAlarms"),)),
    "doctor": Role(
        ("doctor",),
        (
            _grant(f"s3:{_BUCKET_SETTINGS}", _BUCKET, "s3:ResourceAccount"),
            _grant("s3:GetObject", f"{_BUCKET}/<prefix>/*", "s3:ResourceAccount"),
            _grant("s3:PutObject", f"{_BUCKET}/<prefix>/write-check", "s3:ResourceAccount"),
            _grant("kms:DescribeKey GetKeyRotationStatus", _KEY),
            _grant("kms:Encrypt", _KEY, "kms:EncryptionContext:rackctl:rack"),
            _grant("ec2:DescribeKeyPairs DescribeLaunchTemplates DescribeLaunchTemplateVersions", "*", "ec2:Region"),
            _grant("autoscaling:DescribeInstanceRefreshes DescribeLaunchConfigurations DescribeLifecycleHooks"),
            _grant("ecs:ListClusters"),
            _grant("ecs:ListServices", "*", "ecs:cluster"),
            _grant("ecs:DescribeCapacityProviders", _PROVIDERS),
        ),
        includes=("show", "ssh"),
        parts={
            "as": (
                _grant("iam:SimulatePrincipalPolicy", "arn:aws:iam::<account>:user/<caller>"),
                _grant("iam:SimulatePrincipalPolicy GetRole", "arn:aws:iam::<account>:role/<caller's role>"),
            ),
            "encrypted": _STORE_WITH_KMS,
        },
    ),
    "find": Role(
        ("racks find",),
        (
            _grant("ecs:ListClusters"),
            _grant("ecs:DescribeClusters ListContainerInstances", "arn:aws:ecs:<region>:<account>:cluster/*"),
            _grant("ecs:DescribeContainerInstances", "arn:aws:ecs:<region>:<account>:container-instance/*/*"),
            _grant("ecs:DescribeCapacityProviders", _PROVIDERS),
            _grant("autoscaling:DescribeAutoScalingGroups"),
            _grant("ec2:DescribeInstances", "*", "ec2:Region"),
            _grant("s3:ListBucket", _BUCKET, "s3:ResourceAccount"),
        ),
    ),
    "adopt": Role(
        ("racks adopt",),
        (
            _grant("ecs:DescribeClusters TagResource", _CLUSTER),
            _grant(f"s3:{_BUCKET_SETTINGS}", _BUCKET, "s3:ResourceAccount"),
            _grant("kms:DescribeKey GetKeyRotationStatus", _ANY_KEY),
        ),
        parts={
            "create": (
                _grant("s3:CreateBucket", _BUCKET),
                _grant(
                    "s3:PutBucketVersioning PutEncryptionConfiguration PutBucketPublicAccessBlock PutBucketPolicy",
                    _BUCKET,
                    "s3:ResourceAccount",
                ),
                _grant("kms:CreateKey ListKeys ListAliases"),
                _grant("kms:CreateAlias", "arn:aws:kms:<region>:<account>:alias/<alias>"),
                _grant("kms:CreateAlias EnableKeyRotation", _ANY_KEY),
            )
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A rack's own names: for each name in angle brackets its values, one, several or none."""

    named: Mapping[str, Sequence[str]]
    partition: str = "aws"

    def fill(self, text: str) -> list[str]:
        """Return a text once for each combination of its names' values; nothing if a name has no value."""
        names = re.findall(r"<[^>]+>", text)
        filled = []
        for values in product(*(self.named.get(name, ()) for name in names)):
            one = text
            for name, value in zip(names, values, strict=True):
                one = one.replace(name, value, 1)
            filled.append(one.replace("arn:aws:", f"arn:{self.partition}:", 1))
        return filled


def grants(role: str) -> list[Grant]:
    """Return all grants of a role: those of the roles that it includes, its own, and those of its parts."""
    found = ROLES[role]
    inherited = [grant for name in found.includes for grant in grants(name)]
    return list(dict.fromkeys((*inherited, *found.grants, *(g for part in found.parts.values() for g in part))))


def policy(roles: Iterable[str], facts: Facts) -> dict[str, Any]:
    """Return the least IAM policy for some roles on a rack."""
    statements: dict[str, tuple[list[str], list[str], dict[str, dict[str, list[str]]]]] = {}
    for grant in dict.fromkeys(grant for role in roles for grant in grants(role)):
        resources = facts.fill(grant.resource)
        conditions = {
            operator: {key: facts.fill(value) for key, value in values.items()}
            for operator, values in grant.conditions.items()
        }
        lacking = any(not values for keys in conditions.values() for values in keys.values())
        if not resources or lacking or (grant.needs and not facts.named.get(grant.needs)):
            continue
        actions, _, _ = statements.setdefault(repr((resources, conditions)), ([], resources, conditions))
        actions += [action for action in grant.actions if action not in actions]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": _one_or_all(actions),
                "Resource": _one_or_all(resources),
                **({"Condition": _bare(conditions)} if conditions else {}),
            }
            for actions, resources, conditions in _covered(list(statements.values()))
        ],
    }


_Statement = tuple[list[str], list[str], dict[str, dict[str, list[str]]]]


def _covered(statements: list[_Statement]) -> Iterator[_Statement]:
    """Yield the statements without the actions that another one allows under the same condition, and no less widely."""
    for actions, resources, conditions in statements:
        kept = [
            action
            for action in actions
            if not any(
                action in others and other is not resources and same == conditions and _includes(other, resources)
                for others, other, same in statements
            )
        ]
        if kept:
            yield kept, resources, conditions


def _includes(wider: Sequence[str], narrower: Sequence[str]) -> bool:
    """Return whether each resource begins as another one that ends in an asterisk does."""
    return all(any(w != n and w.endswith("*") and n.startswith(w[:-1]) for w in wider) for n in narrower)


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _bare(conditions: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, str | list[str]]]:
    return {operator: {k: _one_or_all(v) for k, v in keys.items()} for operator, keys in conditions.items()}
