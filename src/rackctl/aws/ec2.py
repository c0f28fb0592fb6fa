"""EC2: instances, key pairs, launch templates."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rackctl.aws.errors import AwsError
from rackctl.model import Instance, KeyPair, LaunchTemplate, LaunchTemplateRef, LaunchTemplateVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from rackctl.aws.client import Client, Document

# A filter takes at most 200 values.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
_FILTER_VALUES = 200
_PAGE = 1000

# Every state except `terminated`, which EC2 reports for about an hour.
_EXISTING = ("pending", "running", "shutting-down", "stopping", "stopped")


class Ec2:
    def __init__(self, call: Client) -> None:
        self._call = call

    def instances_tagged(self, tags: Mapping[str, str]) -> Iterator[Instance]:
        """Yield the instances that have all these tags and are not terminated."""
        filters = {f"tag:{key}": [value] for key, value in tags.items()}
        yield from self._instances({**filters, "instance-state-name": _EXISTING})

    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        """Yield the instances with these ids that EC2 still reports, in any state.

        The ids are in a filter: one unknown id in ``InstanceIds`` would fail the whole call.
        """
        for start in range(0, len(ec2_instance_ids), _FILTER_VALUES):
            yield from self._instances({"instance-id": ec2_instance_ids[start : start + _FILTER_VALUES]})

    def _instances(self, filters: Mapping[str, Iterable[str]]) -> Iterator[Instance]:
        asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
        for page in self._call.pages("describe_instances", _instances_of, Filters=asked, MaxResults=_PAGE):
            yield from page

    def console_output(self, ec2_instance_id: str) -> str:
        """Return the output that an instance has written to its console; empty while EC2 has none."""
        # Of a Nitro instance, the latest output; of other types, and long after the boot, the output that EC2 has kept.
        try:
            if latest := self._console_output(ec2_instance_id, Latest=True):
                return latest
        except AwsError as error:
            if error.code not in {"UnsupportedOperation", "InvalidParameterCombination"}:
                raise
        return self._console_output(ec2_instance_id)

    def _console_output(self, ec2_instance_id: str, **latest: bool) -> str:
        return self._call(
            "get_console_output",
            lambda answer: str(answer.get("Output", "")),  # botocore has decoded the base64
            resource=ec2_instance_id,
            InstanceId=ec2_instance_id,
            **latest,
        )

    def instances_with_key(self, key_names: Sequence[str]) -> Iterator[Instance]:
        """Yield the instances of any rack that were launched with one of these key pairs and are not terminated."""
        for start in range(0, len(key_names), _FILTER_VALUES):
            yield from self._instances(
                {"key-name": key_names[start : start + _FILTER_VALUES], "instance-state-name": _EXISTING}
            )

    # Key pairs

    def key_pair(self, key_name: str) -> KeyPair | None:
        """Describe a key pair with its public key; None if there is none of this name."""
        try:
            pairs = self._call(
                "describe_key_pairs",
                _key_pairs,
                resource=f"key pair {key_name}",
                KeyNames=[key_name],
                IncludePublicKey=True,
            )
        except AwsError as error:
            if error.code == "InvalidKeyPair.NotFound":
                return None
            raise
        return next(iter(pairs), None)

    def key_pairs(self) -> list[KeyPair]:
        """Describe every key pair of the account and region, with its public key."""
        return self._call("describe_key_pairs", _key_pairs, IncludePublicKey=True)

    def key_pairs_tagged(self, tags: Mapping[str, str]) -> list[KeyPair]:
        """Describe the key pairs that have all these tags, without their public keys."""
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
        return self._call("describe_key_pairs", _key_pairs, Filters=filters)

    def import_key_pair(self, key_name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Import a public key into EC2 as a key pair. If a pair of this name has the same key, that is no error."""
        try:
            self._call("import_key_pair", resource=f"key pair {key_name}", **_to_import(key_name, public_key, tags))
        except AwsError as error:
            # If the first answer was lost, the retried call finds its own key pair.
            there = self.key_pair(key_name) if error.code == "InvalidKeyPair.Duplicate" else None
            if there is None or there.public_key != public_key:
                raise

    def require_key_pair_permissions(
        self, key_name: str, key_pair_id: str, public_key: str, tags: Mapping[str, str]
    ) -> None:
        """Have EC2 check the permissions to delete a key pair by its id and to import one. Raises AccessDenied.

        With DryRun EC2 changes nothing, and always answers with an error.
        """
        asked: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("delete_key_pair", {"KeyPairId": key_pair_id}),
            ("import_key_pair", _to_import(key_name, public_key, tags)),
        )
        for operation, parameters in asked:
            try:
                self._call(operation, resource=f"key pair {key_name}", DryRun=True, **parameters)
            except AwsError as error:
                if error.code not in {"DryRunOperation", "InvalidKeyPair.Duplicate"}:
                    raise

    def delete_key_pair(self, key_name: str, key_pair_id: str = "") -> None:
        """Delete a key pair. If it does not exist, that is no error.

        With an id, only that pair is deleted, not another one that has its name by now.
        """
        which = {"KeyPairId": key_pair_id} if key_pair_id else {"KeyName": key_name}
        try:
            self._call("delete_key_pair", resource=f"key pair {key_name}", **which)
        except AwsError as error:
            if error.code != "InvalidKeyPair.NotFound":
                raise

    # Launch templates

    def launch_templates(self, launch_template_ids: Sequence[str]) -> list[LaunchTemplate]:
        """Describe launch templates by id."""
        if not launch_template_ids:
            return []  # EC2 would describe all templates for no ids
        pages = self._call.pages(
            "describe_launch_templates",
            lambda page: [_launch_template(document) for document in page["LaunchTemplates"]],
            resource=", ".join(launch_template_ids),
            LaunchTemplateIds=list(launch_template_ids),
        )
        return [template for page in pages for template in page]

    def launch_template_version(
        self, named: LaunchTemplateRef, *, resolve_image: bool = False
    ) -> LaunchTemplateVersion:
        """Describe the current version of a group's launch template, named by a number, ``$Latest`` or ``$Default``.

        With ``resolve_image``, EC2 resolves an SSM parameter that names the image (``resolve:ssm:``) to its id.
        """
        which = (
            {"LaunchTemplateId": named.launch_template_id}
            if named.launch_template_id
            else {"LaunchTemplateName": named.launch_template_name}
        )
        return self._call(
            "describe_launch_template_versions",
            lambda answer: _versions(answer)[0],
            resource=f"launch template {named.launch_template_name or named.launch_template_id}",
            Versions=[named.version],
            ResolveAlias=resolve_image,
            **which,
        )

    def newest_and_default_versions(self) -> list[LaunchTemplateVersion]:
        """Describe ``$Latest`` and ``$Default`` of every launch template of the account and region."""
        pages = self._call.pages("describe_launch_template_versions", _versions, Versions=["$Latest", "$Default"])
        return [version for page in pages for version in page]

    def launch_template_versions_from(self, launch_template_id: str, lowest: int) -> list[LaunchTemplateVersion]:
        """Describe the versions of a launch template, from a number up."""
        pages = self._call.pages(
            "describe_launch_template_versions",
            _versions,
            resource=f"launch template {launch_template_id}",
            LaunchTemplateId=launch_template_id,
            MinVersion=str(lowest),
        )
        return [version for page in pages for version in page]

    def create_launch_template_version(
        self, launch_template_id: str, source: int, changes: Mapping[str, Any], *, description: str
    ) -> int:
        """Create a launch template version from another one with some members of its data replaced; return its number.

        EC2 copies the source except the SnapshotId of a block device mapping, which must be among the "new launch
        template version parameters" (CreateLaunchTemplateVersion, SourceVersion).
        """
        return self._call(
            "create_launch_template_version",
            lambda answer: int(answer["LaunchTemplateVersion"]["VersionNumber"]),
            resource=f"launch template {launch_template_id}",
            LaunchTemplateId=launch_template_id,
            SourceVersion=str(source),
            VersionDescription=description,
            LaunchTemplateData=dict(changes),
            ClientToken=uuid.uuid4().hex,  # one for all retries: after a lost answer no second version is created
        )

    def set_default_version(self, launch_template_id: str, version_number: int) -> None:
        """Set the default version of a launch template."""
        self._call(
            "modify_launch_template",
            resource=f"launch template {launch_template_id}",
            LaunchTemplateId=launch_template_id,
            DefaultVersion=str(version_number),
        )

    def delete_launch_template_versions(self, launch_template_id: str, version_numbers: Sequence[int]) -> None:
        """Delete up to 200 versions of a launch template. Versions that do not exist are no error."""
        failures = self._call(
            "delete_launch_template_versions",
            lambda answer: [
                (failed.get("VersionNumber"), failed.get("ResponseError", {}))
                for failed in answer.get("UnsuccessfullyDeletedLaunchTemplateVersions", ())
            ],
            resource=f"launch template {launch_template_id}",
            LaunchTemplateId=launch_template_id,
            Versions=[str(number) for number in version_numbers],
        )
        for number, error in failures:
            if error.get("Code") != "launchTemplateVersionDoesNotExist":
                raise AwsError(
                    f"EC2 did not delete version {number} of launch template "
                    f"{launch_template_id}: {error.get('Message') or error.get('Code')}",
                    code=error.get("Code", ""),
                )


def _instances_of(page: Document) -> list[Instance]:
    return [_instance(document) for reservation in page["Reservations"] for document in reservation["Instances"]]


def _instance(document: Document) -> Instance:
    return Instance(
        ec2_instance_id=document["InstanceId"],
        state=document["State"]["Name"],
        launch_time=document["LaunchTime"],
        instance_type=document.get("InstanceType", ""),
        availability_zone=document.get("Placement", {}).get("AvailabilityZone", ""),
        private_ip=document.get("PrivateIpAddress", ""),
        public_ip=document.get("PublicIpAddress", ""),
        ipv6_address=_ipv6_address(document),
        key_name=document.get("KeyName", ""),
        tags=tags_of(document),
        platform=document.get("Platform", ""),
        private_dns_name=document.get("PrivateDnsName", ""),
        public_dns_name=document.get("PublicDnsName", ""),
        attach_time=_attach_time(document),
        image_id=document.get("ImageId", ""),
        subnet_id=document.get("SubnetId", ""),
    )


def _attach_time(document: Document) -> datetime | None:
    """Return the time at which the primary network interface was attached; it is never detached."""
    attachments = (interface.get("Attachment", {}) for interface in document.get("NetworkInterfaces", ()))
    return next((a.get("AttachTime") for a in attachments if a.get("DeviceIndex") == 0), None)


def _ipv6_address(document: Document) -> str:
    """Return the primary IPv6 address, else the first one of the network interfaces."""
    if primary := document.get("Ipv6Address"):
        return str(primary)
    interfaces = document.get("NetworkInterfaces", ())
    return next((str(a["Ipv6Address"]) for i in interfaces for a in i.get("Ipv6Addresses", ())), "")


def _key_pairs(answer: Document) -> list[KeyPair]:
    return [_key_pair(document) for document in answer["KeyPairs"]]


def _key_pair(document: Document) -> KeyPair:
    return KeyPair(
        key_name=document["KeyName"],
        public_key=" ".join(document.get("PublicKey", "").split()[:2]),
        tags=tags_of(document),
        key_pair_id=document.get("KeyPairId", ""),
        created=document.get("CreateTime"),
        fingerprint=document.get("KeyFingerprint", ""),
    )


def _to_import(key_name: str, public_key: str, tags: Mapping[str, str]) -> dict[str, Any]:
    named = {"KeyName": key_name, "PublicKeyMaterial": public_key.encode("ascii")}
    if not tags:
        return named
    specified = [{"Key": key, "Value": value} for key, value in tags.items()]
    return {**named, "TagSpecifications": [{"ResourceType": "key-pair", "Tags": specified}]}


def _launch_template(document: Document) -> LaunchTemplate:
    return LaunchTemplate(
        launch_template_id=document["LaunchTemplateId"],
        launch_template_name=document["LaunchTemplateName"],
        default_version_number=document["DefaultVersionNumber"],
        latest_version_number=document["LatestVersionNumber"],
        tags=tags_of(document),
    )


def _versions(answer: Document) -> list[LaunchTemplateVersion]:
    return [_version(document) for document in answer["LaunchTemplateVersions"]]


def _version(document: Document) -> LaunchTemplateVersion:
    return LaunchTemplateVersion(
        launch_template_id=document["LaunchTemplateId"],
        launch_template_name=document.get("LaunchTemplateName", ""),
        version_number=document["VersionNumber"],
        description=document.get("VersionDescription", ""),
        data=document.get("LaunchTemplateData", {}),
    )


def tags_of(document: Document) -> dict[str, str]:
    """Return the tags of an EC2 or Auto Scaling document as a mapping."""
    return {tag["Key"]: tag.get("Value", "") for tag in document.get("Tags", ())}
