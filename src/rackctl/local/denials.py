"""The IAM actions that each call needs, and each service's message if one is missing.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Final

from rackctl.local.iam_policy import Need
from rackctl.local.moto_services import ACCOUNT_ID
from rackctl.local.s3_operations import S3_ACTIONS
from rackctl.local.world.base import USER, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rackctl.local.moto_services import MotoServices
    from rackctl.local.signature import Request
    from rackctl.local.world import World
    from rackctl.local.world.key_pairs import KeyPair

CALLER: Final = f"arn:aws:iam::{ACCOUNT_ID}:user/{USER}"
_CREATES_WITH_TAGS: Final = frozenset({"RunInstances", "ImportKeyPair", "CreateLaunchTemplate"})
_ROLE: Final = f"arn:aws:iam::{ACCOUNT_ID}:role/ecsInstanceRole"
_OF_ANY_RESOURCE: Final = frozenset(
    {"ListServices", "ListClusters", "ListTaskDefinitions", "CreateCluster"} | {"CreateKey", "ListKeys", "ListAliases"}
)


class Denials:
    def __init__(self, world: World, moto: MotoServices) -> None:
        self._world = world
        self._moto = moto

    def needs(self, service: str, action: str, asked: Mapping[str, Any], request: Request) -> Iterator[Need]:
        """Return the IAM actions that a call needs, in the order in which AWS checks them."""
        for need in self._needs(service, action, asked, request):
            yield need._replace(context={**need.context, "aws:RequestedRegion": self._world.region})

    def _needs(self, service: str, action: str, asked: Mapping[str, Any], request: Request) -> Iterator[Need]:
        if service == "s3":
            yield from self._of_s3(action, request)
        elif service == "autoscaling":
            yield Need(f"autoscaling:{action}", self._group(action, asked))
            yield from self._behind_a_group(action, asked)
        elif service == "kms":
            yield from self._of_kms(action, asked)
        elif service == "ec2":
            yield from self._of_ec2(action, asked)
        elif service == "ecs":
            yield Need(f"ecs:{action}", self._of_ecs(action, asked), self._cluster_of(asked))
        elif service == "iam":
            yield Need(f"iam:{action}", str(asked.get("PolicySourceArn") or self._role(asked)))
        elif service == "cloudwatch":
            yield Need(f"cloudwatch:{action}", self._arn("cloudwatch", "alarm:*"))
        elif service == "ssm":
            name = str(asked.get("Name") or (asked.get("Names") or ["*"])[0])
            yield Need(f"ssm:{action}", self._arn("ssm", f"parameter/{name.lstrip('/')}"))

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self._world.region}:{ACCOUNT_ID}:{resource}"

    @staticmethod
    def _role(asked: Mapping[str, Any]) -> str:
        return f"arn:aws:iam::{ACCOUNT_ID}:role/{asked.get('RoleName', '*')}"

    def _of_s3(self, action: str, request: Request) -> Iterator[Need]:
        bucket, _, key = request.path.lstrip("/").partition("/")
        resource = f"arn:aws:s3:::{bucket}{'/' if key else ''}{key}" if bucket else "*"
        context = {"s3:ResourceAccount": self._moto.owner_of(bucket)} if bucket and action != "CreateBucket" else {}
        yield Need(f"s3:{S3_ACTIONS.get(action, action)}", resource, context)
        if request.header("if-match") and action in {"PutObject", "DeleteObject"}:
            yield Need("s3:GetObject", resource, context)
        encrypted = self._moto.encryption_key(action, bucket, key, request.header_map())
        if encrypted:
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html#encryption-context
            context = {
                "kms:ViaService": f"s3.{self._world.region}.amazonaws.com",
                "kms:EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{bucket}",
            }
            yield Need("kms:Decrypt" if action == "GetObject" else "kms:GenerateDataKey", encrypted, context)

    def _of_kms(self, action: str, asked: Mapping[str, Any]) -> Iterator[Need]:
        if action in _OF_ANY_RESOURCE:
            yield Need(f"kms:{action}", "*")
            return
        context = {f"kms:EncryptionContext:{k}": str(v) for k, v in (asked.get("EncryptionContext") or {}).items()}
        if action in {"CreateAlias", "UpdateAlias", "DeleteAlias"}:
            yield Need(f"kms:{action}", self._arn("kms", str(asked.get("AliasName", "alias/"))))
            asked = {"KeyId": asked.get("TargetKeyId") or asked.get("AliasName")}
        for name in ("ReEncryptFrom", "ReEncryptTo") if action == "ReEncrypt" else (action,):
            yield Need(f"kms:{name}", self._moto.key_arn(asked), context)

    def _group(self, action: str, asked: Mapping[str, Any]) -> str:
        instance = self._world.ec2.instances.get(asked.get("InstanceId", ""))
        name = asked.get("AutoScalingGroupName") or (instance.group if instance else "")
        group = self._world.autoscaling.groups.get(name)
        if action.startswith("Describe"):
            return "*"
        return (
            group.arn if group else self._arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name or '*'}")
        )

    def _behind_a_group(self, action: str, asked: Mapping[str, Any]) -> Iterator[Need]:
        """Return the needs of Auto Scaling's check that the caller may launch from a group's templates."""
        if action in {"CreateAutoScalingGroup", "UpdateAutoScalingGroup", "StartInstanceRefresh"}:
            for specification in _specifications(asked):
                yield from self._of_template(specification)

    def _of_template(self, specification: Mapping[str, str], *, role: str = "") -> Iterator[Need]:
        """Return the needs of a launch from a template. Auto Scaling's refusal names the template in any case."""
        try:
            template = self._world.ec2.find_template(
                specification.get("LaunchTemplateId"), specification.get("LaunchTemplateName")
            )
            data = template.resolve(specification.get("Version", "$Default")).data
        except Refused:
            return  # the call's own refusal names it
        resource = self._arn("ec2", f"launch-template/{template.launch_template_id}")
        named = role or resource
        of_ec2 = {"ec2:Region": self._world.region, "ec2:LaunchTemplate": resource}
        yield Need("ec2:RunInstances", resource, of_ec2)
        if "TagSpecifications" in data:
            created = {**of_ec2, "ec2:CreateAction": "RunInstances"}
            yield Need("ec2:CreateTags", self._arn("ec2", "instance/*"), created, resource)
        if "IamInstanceProfile" in data:
            yield Need("iam:PassRole", _ROLE, {"iam:PassedToService": "ec2.amazonaws.com"}, named)

    def _of_ec2(self, action: str, asked: Mapping[str, Any]) -> Iterator[Need]:
        if pair := self._key_pair_by_id(asked):
            # By the reference, the ARN of a key pair has its name. AWS does not say whether that holds for a call with
            # the id: here it needs the permission for both ARNs.
            by_name = {**asked, "KeyName": pair.key_name}
            yield from self._of_ec2(action, {key: value for key, value in by_name.items() if key != "KeyPairId"})
            asked = {**by_name, "KeyPairId": pair.key_pair_id}
        resource = self._ec2_resource(action, asked)
        requested = {
            f"aws:RequestTag/{tag['Key']}": str(tag.get("Value", ""))
            for specification in asked.get("TagSpecifications", ())
            for tag in specification.get("Tags", ())
        }
        named = {"ec2:KeyPairName": str(asked["KeyName"])} if asked.get("KeyName") else {}
        context = {"ec2:Region": self._world.region, **named, **self._resource_tags(resource, asked), **requested}
        yield Need(f"ec2:{action}", resource, context)
        if action in _CREATES_WITH_TAGS and asked.get("TagSpecifications"):
            yield Need("ec2:CreateTags", resource, {**context, "ec2:CreateAction": action})
        if action == "RunInstances" and asked.get("LaunchTemplate"):
            yield from self._of_template(asked["LaunchTemplate"], role=_ROLE)

    def _key_pair_by_id(self, asked: Mapping[str, Any]) -> KeyPair | None:
        pairs = self._world.ec2.key_pairs.values()
        return next((pair for pair in pairs if pair.key_pair_id == asked.get("KeyPairId")), None)

    def _resource_tags(self, resource: str, asked: Mapping[str, Any]) -> dict[str, str]:
        """Return the tags of the resource that a call names, as condition keys."""
        pair = self._world.ec2.key_pairs.get(asked.get("KeyName", ""))
        try:
            tags = pair.tags if pair else self._world.ec2.tags_of(resource.rpartition("/")[2])
        except Refused:
            return {}
        return {f"aws:ResourceTag/{key}": str(value) for key, value in tags.items()}

    def _ec2_resource(self, action: str, asked: Mapping[str, Any]) -> str:
        if action.startswith("Describe"):
            return "*"
        if ids := asked.get("InstanceIds") or [asked[name] for name in ("InstanceId",) if name in asked]:
            return self._arn("ec2", f"instance/{ids[0]}")
        if template := asked.get("LaunchTemplateId"):
            return self._arn("ec2", f"launch-template/{template}")
        if name := asked.get("KeyPairId") or asked.get("KeyName"):
            return self._arn("ec2", f"key-pair/{name}")
        return self._arn("ec2", "instance/*" if action == "RunInstances" else "*/*")

    def _cluster_of(self, asked: Mapping[str, Any]) -> dict[str, str]:
        """Return the cluster that a call of ECS names, as a condition key."""
        cluster = str(asked.get("cluster") or "")
        return {"ecs:cluster": self._arn("ecs", f"cluster/{cluster.rpartition('/')[2]}")} if cluster else {}

    def _of_ecs(self, action: str, asked: Mapping[str, Any]) -> str:
        if action in _OF_ANY_RESOURCE:
            return "*"
        if arn := asked.get("resourceArn"):
            return str(arn)
        if action == "DescribeCapacityProviders":
            return self._arn("ecs", f"capacity-provider/{(asked.get('capacityProviders') or ['*'])[0]}")
        cluster = str(asked.get("cluster") or (asked.get("clusters") or ["default"])[0]).rpartition("/")[2]
        kinds = {"containerInstances": "container-instance", "tasks": "task", "services": "service"}
        kinds |= {"containerInstance": "container-instance", "task": "task", "service": "service"}
        for name, kind in kinds.items():
            if named := asked.get(name):
                first = named if isinstance(named, str) else named[0]
                return self._arn("ecs", f"{kind}/{cluster}/{first.rpartition('/')[2]}")
        if action == "ListTasks":
            return self._arn("ecs", f"container-instance/{cluster}/*")
        return self._arn("ecs", f"cluster/{cluster}")


def denial(service: str, need: Need) -> Refused:
    """Return a service's refusal of a call because of a missing action, with the service's code and message."""
    action, resource = need.action, need.named or need.resource
    quoted = f'"{resource}"' if service == "s3" else resource
    text = (
        f"User: {CALLER} is not authorized to perform: {action} on resource: {quoted} because no identity-based policy "
        f"allows the {action} action"
    )
    if service == "autoscaling" and not action.startswith("autoscaling:"):
        return Refused(
            "AccessDenied", f"You are not authorized to use launch template: {resource.rpartition('/')[2]}", 403
        )
    match service:
        case "ec2":
            sealed = base64.b64encode(hashlib.sha512(text.encode()).digest() * 3).decode()
            before, after = (
                "You are not authorized to perform this operation.",
                "Encoded authorization failure message:",
            )
            return Refused("UnauthorizedOperation", f"{before} {text}. {after} {sealed}", 403)
        case "cloudwatch" | "ecs" | "kms" | "ssm":
            return Refused("AccessDeniedException", text, 400)
        case _:
            return Refused("AccessDenied", text, 403)


def _specifications(document: Any) -> Iterator[Mapping[str, str]]:
    if isinstance(document, dict):
        if "LaunchTemplateId" in document or "LaunchTemplateName" in document:
            yield document
        for value in document.values():
            yield from _specifications(value)
    elif isinstance(document, list):
        for value in document:
            yield from _specifications(value)
