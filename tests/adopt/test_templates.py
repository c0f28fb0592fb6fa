"""`racks template`: checked by cfn-lint against AWS's resource schemas, deployed on stock moto, parsed by python-hcl2.

Resources that moto's CloudFormation does not support (bucket policies, capacity providers), and settings that it does
not apply (versioning, a cluster's tags), are checked by cfn-lint only.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from policy_sentry.querying.actions import get_action_data

from rackctl.adopt.templates import template
from rackctl.cli.main import cli

ROOT = Path(__file__).parents[2]
STORE = {"Key", "Alias", "Bucket", "BucketPolicy"}


class Tagged(yaml.SafeLoader):  # type: ignore[misc]
    """Reads CloudFormation's short forms (!Ref, !Sub, !GetAtt) as their long ones."""


def _long(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value = (
        loader.construct_scalar(node)
        if isinstance(node, yaml.ScalarNode)
        else loader.construct_sequence(node)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_mapping(node)
    )
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


Tagged.add_multi_constructor("!", _long)


def read(kind: Any) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(template(kind, "cloudformation"), Loader=Tagged)
    return document


@pytest.mark.parametrize("kind", ["store", "rack"])
def test_cfn_lint_finds_nothing(kind: Any, tmp_path: Path) -> None:
    """Over two seconds: cfn-lint reads the schemas of all resources. https://github.com/aws-cloudformation/cfn-lint"""
    path = tmp_path / "template.yaml"
    path.write_text(template(kind, "cloudformation"), encoding="utf-8")

    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--format", "json", "--", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )

    findings = [f"{found['Rule']['Id']} {found['Message']}" for found in json.loads(done.stdout or "[]")]
    assert (findings, done.returncode) == ([], 0), done.stderr


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    """Over two seconds: moto imports all of its services."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.adopt.deploy"], capture_output=True, text=True, cwd=ROOT, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_store_is_deployed_with_a_named_rotated_key_that_encrypts_the_bucket(deployed: dict[str, Any]) -> None:
    store, outputs = deployed["store"], deployed["store"]["outputs"]

    assert store["encryption"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": outputs["Key"]}
    assert store["rotates"] is True
    assert store["aliases"]["alias/rackctl-prod"] == outputs["Key"].rpartition("/")[2]


def test_the_output_of_the_store_is_the_command_that_adopts_the_cluster(deployed: dict[str, Any]) -> None:
    outputs = deployed["store"]["outputs"]
    words = outputs["Adopt"].split()

    assert words == ["rackctl", "racks", "adopt", "prod", "--bucket", outputs["Bucket"], "--kms-key", outputs["Key"]]
    # It parses: the command fails for want of a region only.
    ran = CliRunner(env={"RACKCTL_STATE_DIR": "/nowhere", "RACKCTL_CONFIG": "/dev/null"}).invoke(
        cli, [*words[1:], "--help"]
    )
    assert ran.exit_code == 0


def test_the_rack_is_deployed_with_the_tags_by_which_its_store_is_found(deployed: dict[str, Any]) -> None:
    rack = deployed["rack"]

    tags = {tag["Key"]: tag["Value"] for tag in read("rack")["Resources"]["Cluster"]["Properties"]["Tags"]}

    assert [arn.rpartition("/")[2] for arn in rack["clusters"]] == [rack["outputs"]["Rack"]] == ["prod"]
    assert tags == {"rackctl:bucket": {"Ref": "Bucket"}, "rackctl:kms-key": {"Fn::GetAtt": "Key.Arn"}}
    assert rack["group"]["instances"] == 2
    assert rack["group"]["tags"]["Rack"] == "prod"


def test_the_instances_are_of_amazon_linux_2023_with_imds_v2_and_encrypted_volumes(deployed: dict[str, Any]) -> None:
    data = deployed["rack"]["data"]

    assert data["ImageId"] == deployed["rack"]["image"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert data["KeyName"] == "ops"
    assert "ECS_CLUSTER=prod" in base64.b64decode(data["UserData"]).decode()


def test_ssh_comes_from_the_stated_addresses_only(deployed: dict[str, Any]) -> None:
    (rule,) = deployed["rack"]["ingress"]
    source = read("rack")["Parameters"]["SshSource"]

    assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
    assert [found["CidrIp"] for found in rule["IpRanges"]] == ["198.51.100.0/24"]
    assert "Default" not in source
    assert re.fullmatch(source["AllowedPattern"], "10.0.0.0/8")
    assert not re.fullmatch(source["AllowedPattern"], "0.0.0.0/0")


def test_the_instance_role_has_actions_that_exist_on_resources_that_they_take(deployed: dict[str, Any]) -> None:
    """AWS's service authorization reference, by policy_sentry; each action that can be narrowed is."""
    statements = [s for policy in deployed["rack"]["policies"].values() for s in policy["Statement"]]
    assert statements

    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        for action in actions:
            service, name = action.split(":")
            reference = (get_action_data(service, name) or {})[service]
            types = {re.sub(r"\$\{\w+\}", "*", row["resource_arn_format"]) for row in reference} - {"*"}
            if action == "ssm:UpdateInstanceInformation":
                continue  # on any instance: its own id is not known to the role
            resource = statement["Resource"]
            assert (resource == "*") == (not types), f"{action} on {resource} takes {types}"
            assert resource == "*" or any(fnmatchcase(resource, type_) for type_ in types), action


def test_bucket_and_key_outlive_their_stack() -> None:
    for kind in ("store", "rack"):
        resources = read(kind)["Resources"]
        for name in ("Bucket", "Key"):
            assert resources[name]["DeletionPolicy"] == resources[name]["UpdateReplacePolicy"] == "Retain"


def test_the_store_of_a_rack_is_the_store_by_itself() -> None:
    alone, within = read("store")["Resources"], read("rack")["Resources"]

    as_in_rack = json.loads(json.dumps(alone).replace("${Cluster}", "${AWS::StackName}"))
    assert as_in_rack == {name: within[name] for name in STORE}


def test_the_bucket_is_versioned_private_encrypted_and_takes_tls_only() -> None:
    """The same as `racks adopt --create` makes: tests/local/test_adopt.py."""
    resources = read("store")["Resources"]
    bucket = resources["Bucket"]["Properties"]
    (deny,) = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_draining_is_managed() -> None:
    provider = read("rack")["Resources"]["CapacityProvider"]["Properties"]["AutoScalingGroupProvider"]

    assert provider["ManagedDraining"] == "ENABLED"


def test_terraform_s_store_is_the_same_as_cloudformation_s() -> None:
    import hcl2

    document = hcl2.loads(template("store", "terraform"))
    text = template("store", "terraform")
    resources = {
        kind.strip('"'): next(iter(named.values()))
        for block in document["resource"]
        for kind, named in block.items()
        if kind != "__is_block__"
    }

    assert set(resources) == {
        "aws_kms_key",
        "aws_kms_alias",
        "aws_s3_bucket",
        "aws_s3_bucket_versioning",
        "aws_s3_bucket_public_access_block",
        "aws_s3_bucket_server_side_encryption_configuration",
        "aws_s3_bucket_policy",
    }
    assert resources["aws_kms_key"]["enable_key_rotation"] is True
    for kind in ("aws_kms_key", "aws_s3_bucket"):
        assert resources[kind]["lifecycle"][0]["prevent_destroy"] is True
    blocks = resources["aws_s3_bucket_public_access_block"]
    assert [blocks[f"{word}_{what}"] for word in ("block", "ignore") for what in ("public_acls",)] == [True, True]
    assert (blocks["block_public_policy"], blocks["restrict_public_buckets"]) == (True, True)
    (versioning,) = resources["aws_s3_bucket_versioning"]["versioning_configuration"]
    assert versioning["status"].strip('"') == "Enabled"
    (rule,) = resources["aws_s3_bucket_server_side_encryption_configuration"]["rule"]
    (by_default,) = rule["apply_server_side_encryption_by_default"]
    assert rule["bucket_key_enabled"] is True
    assert by_default["sse_algorithm"].strip('"') == "aws:kms"
    assert '"aws:SecureTransport" = "false"' in text


def test_a_template_is_printed_without_a_rack_and_without_aws() -> None:
    runner = CliRunner(env={"RACKCTL_STATE_DIR": "/nowhere", "RACKCTL_CONFIG": "/dev/null"})

    assert runner.invoke(cli, ["racks", "template", "--for", "store"]).stdout == template("store", "cloudformation")
    ran = runner.invoke(cli, ["racks", "template", "--for", "rack", "--format", "terraform"])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "no template for a rack as terraform" in ran.stderr
