"""Deploy the templates on stock moto's CloudFormation, and print the resulting resources as JSON.

A process of its own: moto keeps one state for the whole process, which other tests use.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from typing import Any

import boto3
from moto import mock_aws

from rackctl.adopt.templates import template

REGION = "us-east-1"


def client(service: str) -> Any:
    return boto3.client(service, REGION, aws_access_key_id="x", aws_secret_access_key="x")


def deployed(kind: Any, name: str, **parameters: str) -> dict[str, Any]:
    """Create a stack; give its outputs and the types of its resources."""
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=template(kind, "cloudformation"),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def store() -> dict[str, Any]:
    outputs = deployed("store", "prod-store", Cluster="prod")
    encryption = client("s3").get_bucket_encryption(Bucket=outputs["Bucket"])["ServerSideEncryptionConfiguration"]
    aliases = client("kms").list_aliases()["Aliases"]
    return {
        "outputs": outputs,
        "encryption": encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"],
        "rotates": client("kms").get_key_rotation_status(KeyId=outputs["Key"])["KeyRotationEnabled"],
        "aliases": {alias["AliasName"]: alias["TargetKeyId"] for alias in aliases if "rackctl" in alias["AliasName"]},
    }


def rack() -> dict[str, Any]:
    ec2, ecs, autoscaling, iam = map(client, ("ec2", "ecs", "autoscaling", "iam"))
    ec2.create_key_pair(KeyName="ops")
    subnets = ec2.describe_subnets()["Subnets"][:2]
    outputs = deployed(
        "rack",
        "prod",
        Vpc=subnets[0]["VpcId"],
        Subnets=",".join(subnet["SubnetId"] for subnet in subnets),
        KeyName="ops",
        SshSource="198.51.100.0/24",
    )
    (group,) = autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    (version,) = ec2.describe_launch_template_versions(LaunchTemplateId=group["LaunchTemplate"]["LaunchTemplateId"])[
        "LaunchTemplateVersions"
    ]
    (security_group,) = ec2.describe_security_groups(GroupIds=[outputs["SecurityGroup"]])["SecurityGroups"]
    (role,) = iam.list_roles()["Roles"]
    image = client("ssm").get_parameter(Name="/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id")[
        "Parameter"
    ]["Value"]
    return {
        "outputs": outputs,
        "clusters": ecs.list_clusters()["clusterArns"],
        "group": {"tags": {tag["Key"]: tag["Value"] for tag in group["Tags"]}, "instances": len(group["Instances"])},
        "data": version["LaunchTemplateData"],
        "ingress": security_group["IpPermissions"],
        "policies": {
            # moto answers with Python's way to write a dictionary.
            name: ast.literal_eval(iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name)["PolicyDocument"])
            for name in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        },
        "image": image,
    }


if __name__ == "__main__":
    # moto says of bucket policies and capacity providers that it does not support them.
    warnings.simplefilter("ignore")
    with mock_aws():
        json.dump({"store": store(), "rack": rack()}, sys.stdout, default=str)
