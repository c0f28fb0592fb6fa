"""Slices of botocore's models of AWS's APIs: what rackctl uses.

A botocore model describes a whole service. EC2's has 760 operations, of which rackctl calls a dozen; DescribeInstances
returns some 300 members for each instance, of which rackctl reads ten. Most of a boto3 program's time goes into reading
the model and building the answers. So the directory beside this file holds slices of the models, in the layout of
botocore's own data: the operations of `KEPT`, with all parameters and with the members of their answers that are named
there. ``make models`` cuts them again.

The directory is named after the minor version of botocore that it was cut from. If another one is installed, that
directory is missing and botocore uses its own whole models: slower, and otherwise the same. (Newer models of the same
minor version only add members: AWS changes an API version in no other way.)

The rules for endpoints, and all of STS, are still read from botocore's own data: its providers of credentials call STS
too.
"""

from __future__ import annotations

import os
from pathlib import Path

import botocore
from botocore.loaders import Loader

_KEY = tuple(f"KeyMetadata.{name}" for name in ("Arn", "Description", "KeyManager", "KeySpec", "KeyState", "KeyUsage"))

# For each service and operation, the members of the answer that are kept, as paths. A path leads through a list or a
# map to its elements; its last member is kept whole.
KEPT: dict[str, dict[str, tuple[str, ...]]] = {
    "autoscaling": {
        "DescribeAutoScalingGroups": (
            "NextToken",
            "AutoScalingGroups.AutoScalingGroupName",
            "AutoScalingGroups.AutoScalingGroupARN",
            "AutoScalingGroups.AvailabilityZones",
            "AutoScalingGroups.MinSize",
            "AutoScalingGroups.MaxSize",
            "AutoScalingGroups.DesiredCapacity",
            "AutoScalingGroups.DesiredCapacityType",
            "AutoScalingGroups.DefaultInstanceWarmup",
            "AutoScalingGroups.Instances",
            "AutoScalingGroups.SuspendedProcesses.ProcessName",
            "AutoScalingGroups.LaunchTemplate",
            "AutoScalingGroups.LaunchConfigurationName",
            # UpdateAutoScalingGroup sends it back whole.
            "AutoScalingGroups.MixedInstancesPolicy",
            "AutoScalingGroups.WarmPoolSize",
            "AutoScalingGroups.Tags",
        ),
        "DescribeAutoScalingInstances": (
            "NextToken",
            "AutoScalingInstances.InstanceId",
            "AutoScalingInstances.AutoScalingGroupName",
            "AutoScalingInstances.AvailabilityZone",
            "AutoScalingInstances.LifecycleState",
            "AutoScalingInstances.LaunchTemplate",
            "AutoScalingInstances.LaunchConfigurationName",
        ),
        "DescribeLifecycleHooks": ("LifecycleHooks",),
        "CancelInstanceRefresh": ("InstanceRefreshId",),
        "DescribeInstanceRefreshes": (
            "InstanceRefreshes.InstanceRefreshId",
            "InstanceRefreshes.Status",
            "InstanceRefreshes.StatusReason",
            "InstanceRefreshes.PercentageComplete",
            "InstanceRefreshes.InstancesToUpdate",
            "InstanceRefreshes.Preferences",
            "InstanceRefreshes.DesiredConfiguration",
        ),
        "RollbackInstanceRefresh": ("InstanceRefreshId",),
        "StartInstanceRefresh": ("InstanceRefreshId",),
        "DescribeLaunchConfigurations": (
            "NextToken",
            "LaunchConfigurations.LaunchConfigurationName",
            "LaunchConfigurations.KeyName",
        ),
        "DescribeScalingActivities": (
            "NextToken",
            "Activities.ActivityId",
            "Activities.Description",
            "Activities.StatusCode",
            "Activities.StatusMessage",
            "Activities.StartTime",
        ),
        "ResumeProcesses": (),
        "SetDesiredCapacity": (),
        "SuspendProcesses": (),
        "TerminateInstanceInAutoScalingGroup": (),
        "UpdateAutoScalingGroup": (),
    },
    "cloudformation": {
        "DescribeStackResources": ("StackResources.PhysicalResourceId", "StackResources.ResourceType"),
    },
    "cloudwatch": {
        "DescribeAlarms": (
            "NextToken",
            "MetricAlarms.AlarmName",
            "MetricAlarms.StateValue",
            "MetricAlarms.StateReason",
            "CompositeAlarms.AlarmName",
            "CompositeAlarms.StateValue",
            "CompositeAlarms.StateReason",
        ),
    },
    "ec2": {
        "CreateLaunchTemplateVersion": ("LaunchTemplateVersion.VersionNumber",),
        "DeleteKeyPair": (),
        "DeleteLaunchTemplateVersions": ("UnsuccessfullyDeletedLaunchTemplateVersions",),
        "DescribeInstances": (
            "NextToken",
            "Reservations.Instances.ImageId",
            "Reservations.Instances.InstanceId",
            "Reservations.Instances.InstanceType",
            "Reservations.Instances.Ipv6Address",
            "Reservations.Instances.KeyName",
            "Reservations.Instances.LaunchTime",
            "Reservations.Instances.NetworkInterfaces.Attachment.AttachTime",
            "Reservations.Instances.NetworkInterfaces.Attachment.DeviceIndex",
            "Reservations.Instances.NetworkInterfaces.Ipv6Addresses.Ipv6Address",
            "Reservations.Instances.Placement.AvailabilityZone",
            "Reservations.Instances.Platform",
            "Reservations.Instances.PrivateDnsName",
            "Reservations.Instances.PrivateIpAddress",
            "Reservations.Instances.PublicDnsName",
            "Reservations.Instances.PublicIpAddress",
            "Reservations.Instances.State.Name",
            "Reservations.Instances.SubnetId",
            "Reservations.Instances.Tags",
        ),
        "DescribeKeyPairs": (
            "KeyPairs.CreateTime",
            "KeyPairs.KeyFingerprint",
            "KeyPairs.KeyName",
            "KeyPairs.KeyPairId",
            "KeyPairs.PublicKey",
            "KeyPairs.Tags",
        ),
        "DescribeLaunchTemplateVersions": (
            "NextToken",
            "LaunchTemplateVersions.LaunchTemplateId",
            "LaunchTemplateVersions.LaunchTemplateName",
            "LaunchTemplateVersions.VersionNumber",
            "LaunchTemplateVersions.VersionDescription",
            # A new version is compared with its source, member by member.
            "LaunchTemplateVersions.LaunchTemplateData",
        ),
        "DescribeLaunchTemplates": (
            "NextToken",
            "LaunchTemplates.LaunchTemplateId",
            "LaunchTemplates.LaunchTemplateName",
            "LaunchTemplates.DefaultVersionNumber",
            "LaunchTemplates.LatestVersionNumber",
            "LaunchTemplates.Tags",
        ),
        "GetConsoleOutput": ("Output",),
        "ImportKeyPair": (),
        "ModifyLaunchTemplate": (),
    },
    "ecs": {
        "DescribeCapacityProviders": (
            "nextToken",
            "failures",
            "capacityProviders.name",
            "capacityProviders.status",
            "capacityProviders.autoScalingGroupProvider",
        ),
        "DescribeClusters": (
            "failures",
            "clusters.clusterArn",
            "clusters.status",
            "clusters.registeredContainerInstancesCount",
            "clusters.capacityProviders",
            "clusters.tags",
        ),
        "DescribeContainerInstances": (
            "failures",
            "containerInstances.containerInstanceArn",
            "containerInstances.ec2InstanceId",
            "containerInstances.status",
            "containerInstances.statusReason",
            "containerInstances.agentConnected",
            "containerInstances.runningTasksCount",
            "containerInstances.pendingTasksCount",
            "containerInstances.registeredResources.name",
            "containerInstances.registeredResources.integerValue",
            "containerInstances.remainingResources.name",
            "containerInstances.remainingResources.integerValue",
            "containerInstances.registeredAt",
            "containerInstances.versionInfo.agentVersion",
        ),
        "DescribeServices": (
            "failures",
            "services.serviceName",
            "services.schedulingStrategy",
            "services.status",
            "services.desiredCount",
            "services.runningCount",
            "services.deploymentConfiguration.minimumHealthyPercent",
            "services.deploymentConfiguration.maximumPercent",
            "services.deployments.status",
            "services.deployments.rolloutState",
            "services.events.createdAt",
            "services.events.message",
        ),
        "DescribeTasks": (
            "failures",
            "tasks.taskArn",
            "tasks.lastStatus",
            "tasks.desiredStatus",
            "tasks.group",
            "tasks.containerInstanceArn",
            "tasks.containers.name",
            "tasks.containers.image",
            "tasks.containers.lastStatus",
            "tasks.containers.networkBindings.hostPort",
            "tasks.containers.networkBindings.containerPort",
            "tasks.containers.networkBindings.protocol",
        ),
        "ListClusters": ("nextToken", "clusterArns"),
        "ListContainerInstances": ("nextToken", "containerInstanceArns"),
        "ListServices": ("nextToken", "serviceArns"),
        "ListTasks": ("nextToken", "taskArns"),
        "StopTask": (),
        "TagResource": (),
        "UpdateContainerInstancesState": ("failures",),
    },
    "iam": {
        "GetRole": ("Role.Arn",),
        "SimulatePrincipalPolicy": (
            "Marker",
            "EvaluationResults.EvalActionName",
            "EvaluationResults.EvalDecision",
            "EvaluationResults.MatchedStatements.SourcePolicyId",
            "EvaluationResults.MissingContextValues",
            "EvaluationResults.OrganizationsDecisionDetail.AllowedByOrganizations",
            "EvaluationResults.PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary",
            "EvaluationResults.ResourceSpecificResults.EvalResourceName",
            "EvaluationResults.ResourceSpecificResults.EvalResourceDecision",
            "EvaluationResults.ResourceSpecificResults.MatchedStatements.SourcePolicyId",
            "EvaluationResults.ResourceSpecificResults.MissingContextValues",
            "EvaluationResults.ResourceSpecificResults.PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary",
        ),
    },
    "kms": {
        "CreateAlias": (),
        "CreateKey": _KEY,
        "Decrypt": ("KeyId", "Plaintext"),
        "DescribeKey": _KEY,
        "EnableKeyRotation": (),
        "Encrypt": ("KeyId", "CiphertextBlob"),
        "GetKeyRotationStatus": ("KeyRotationEnabled",),
        "ListAliases": ("NextMarker", "Aliases.AliasName", "Aliases.TargetKeyId"),
        "ListKeys": ("NextMarker", "Keys.KeyArn"),
    },
    "s3": {
        "CreateBucket": (),
        # botocore itself calls this operation for a directory bucket.
        "CreateSession": ("Credentials",),
        "DeleteObject": (),
        "GetBucketEncryption": ("ServerSideEncryptionConfiguration",),
        "GetBucketPolicy": ("Policy",),
        "GetBucketVersioning": ("Status",),
        "GetObject": ("Body", "ETag", "LastModified"),
        "GetPublicAccessBlock": ("PublicAccessBlockConfiguration",),
        # botocore itself calls this operation too, to find a bucket of another region.
        "HeadBucket": ("BucketRegion",),
        # botocore decodes keys only if the answer has an EncodingType.
        "ListObjectsV2": ("EncodingType", "NextContinuationToken", "Contents.Key", "Contents.Size"),
        "PutBucketEncryption": (),
        "PutBucketPolicy": (),
        "PutBucketVersioning": (),
        "PutObject": ("ETag",),
        "PutPublicAccessBlock": (),
    },
}

# Services by the names of their endpoints: rackctl's, and those that botocore's providers of credentials call.
ENDPOINTS = (*KEPT, "monitoring", "oidc", "portal.sso", "signin", "sts")

SLICES = Path(__file__).with_name("botocore-" + ".".join(botocore.__version__.split(".")[:2]))


class SlicedLoader(Loader):  # type: ignore[misc]  # botocore has no types
    """botocore's loader; it reads the user's data first, then the slices, then botocore's own data.

    ``data_path`` is botocore's setting of that name (AWS_DATA_PATH). ``slices`` need not exist.
    """

    def __init__(self, data_path: str | None, slices: Path = SLICES) -> None:
        users = [
            str(Path(os.path.expandvars(path)).expanduser()) for path in (data_path or "").split(os.pathsep) if path
        ]
        super().__init__(users)
        self._slices = str(slices)
        self.search_paths.insert(self.search_paths.index(self.BUILTIN_DATA_PATH), self._slices)
        self._services: list[str] = []

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 - botocore's signature
        """Return the names of all services that have a directory.

        botocore would search all 440 directories for the type, only to refuse unknown names.
        """
        if not self._services:
            self._services = sorted(
                {entry.name for place in self._potential_locations() for entry in os.scandir(place)}
            )
        return self._services

    def is_builtin_path(self, path: str) -> bool:
        """Return True for the slices too: for data that is not built in, botocore resolves endpoints the old way."""
        return bool(super().is_builtin_path(path)) or path.startswith(self._slices)


def regions() -> dict[str, str]:
    """Map the regions that botocore knows to their descriptions."""
    partitions = SlicedLoader(None).load_data("endpoints")["partitions"]
    return {name: region["description"] for partition in partitions for name, region in partition["regions"].items()}
