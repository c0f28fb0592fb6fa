"""A convox v2 rack, deployed on stock moto: cluster and key are found by the rack's stack.

The envelope is made as convox makes it (convox/rack, provider/aws/keys.go: KMS GenerateDataKey, NaCl secretbox), by
boto3 and PyNaCl alone.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer
from nacl.secret import SecretBox
from nacl.utils import random

from rackctl.keys.files import read_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator

# The resources of convox's own template that its racks are found by (provider/aws/formation/rack.json).
TEMPLATE = {
    "Resources": {
        "Cluster": {"Type": "AWS::ECS::Cluster"},
        "EncryptionKey": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": {"Version": "2012-10-17"}}},
        "Settings": {"Type": "AWS::S3::Bucket"},
    }
}


class Convox:
    """An account with the stack of a convox rack, ``prod``."""

    def __init__(self, endpoint: str, directory: Path) -> None:
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RACKCTL_"))},
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "RACKCTL_BUCKET": "keys",
            "RACKCTL_CONFIG": "/dev/null",
            "RACKCTL_STATE_DIR": str(directory),
        }
        self._session = boto3.Session("x", "x", region_name="us-east-1")
        self._endpoint = endpoint
        self.client("cloudformation").create_stack(StackName="prod", TemplateBody=json.dumps(TEMPLATE))
        self.environment["RACKCTL_KMS_KEY"] = self.client("kms").create_key()["KeyMetadata"]["KeyId"]
        self.client("s3").create_bucket(Bucket="keys")
        self.pair = self.client("ec2").create_key_pair(KeyName="prod-keypair-1234")
        self.seal(self.pair["KeyMaterial"].encode())

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self._endpoint)

    def resource(self, logical_id: str) -> str:
        found = self.client("cloudformation").describe_stack_resources(StackName="prod", LogicalResourceId=logical_id)
        physical_id: str = found["StackResources"][0]["PhysicalResourceId"]
        return physical_id

    def seal(self, secret: bytes) -> None:
        key = self.client("kms").generate_data_key(KeyId=self.resource("EncryptionKey"), NumberOfBytes=32)
        nonce = random(24)
        envelope = {
            "c": SecretBox(key["Plaintext"]).encrypt(secret, nonce).ciphertext,
            "k": key["CiphertextBlob"],
            "n": nonce,
        }
        self.put({name: base64.b64encode(value).decode() for name, value in envelope.items()})

    def put(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.client("s3").put_object(Bucket=self.resource("Settings"), Key="instance-key", Body=body)

    def run(self, *words: str, rack: str = "prod") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("rackctl")), "--rack", rack, "instances", *words],
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def convox(moto: str, tmp_path: Path) -> Iterator[Convox]:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    yield Convox(moto, state)
    urlopen(Request(f"{moto}/moto-api/reset", method="POST")).close()


def test_the_key_of_a_convox_rack_is_stored_and_shown(convox: Convox, tmp_path: Path) -> None:
    file = tmp_path / "pem"
    file.touch(0o600)
    file.write_text(convox.pair["KeyMaterial"])

    ran = convox.run("keys", "import", "--convox")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("stored key prod-keypair-1234, generation ")
    assert f"its cluster is {convox.resource('Cluster')}" in ran.stderr
    shown = convox.run("keys", "show", "prod-keypair-1234")
    assert " ".join(shown.stdout.split()[:2]) == read_key_file(str(file), lambda _: b"").public_key
    assert convox.run("keys", "import", "--convox").stdout == ran.stdout.replace("stored", "already stored:", 1)


def test_the_rack_is_named_by_its_stack(convox: Convox) -> None:
    """By a command that describes the cluster: moto lists the instances of a cluster that does not exist."""
    listed = convox.run("keys", "list")

    assert (listed.returncode, listed.stdout.split()) == (0, ["KEY", "GENERATION", "AGE", "INSTANCES"])
    assert listed.stderr.count(f"its cluster is {convox.resource('Cluster')}") == 1
    named = convox.run("keys", "list", "--cluster", convox.resource("Cluster"))
    assert (named.returncode, named.stderr) == (0, "")


def test_a_name_that_neither_a_cluster_nor_a_convox_stack_has_is_an_error(convox: Convox) -> None:
    convox.client("cloudformation").create_stack(
        StackName="other", TemplateBody=json.dumps({"Resources": {"Cluster": {"Type": "AWS::ECS::Cluster"}}})
    )

    for rack in ("none", "other"):
        ran = convox.run("keys", "list", rack=rack)
        assert (ran.returncode, ran.stdout) == (3, "")
        assert f'there is no ECS cluster "{rack}"' in ran.stderr


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "is not a key that convox has stored"),
        ({"c": "AAAA"}, "is not a key that convox has stored"),
        ({"c": "%", "k": "", "n": ""}, "is not a key that convox has stored"),
    ],
)
def test_an_object_that_is_not_a_convox_envelope_is_named_in_the_error(
    convox: Convox, document: object, says: str
) -> None:
    convox.put(document)

    ran = convox.run("keys", "import", "--convox")

    assert ran.returncode == 1
    assert says in ran.stderr
    assert "/instance-key" in ran.stderr


def test_an_envelope_that_was_altered_does_not_open(convox: Convox) -> None:
    settings = convox.resource("Settings")
    stored = json.loads(convox.client("s3").get_object(Bucket=settings, Key="instance-key")["Body"].read())
    convox.put({**stored, "n": base64.b64encode(bytes(24)).decode()})

    ran = convox.run("keys", "import", "--convox")

    assert ran.returncode == 1
    assert "was not sealed under its data key" in ran.stderr
    assert convox.client("s3").list_objects_v2(Bucket="keys").get("Contents", []) == []


def test_another_key_than_ec2s_is_not_stored(convox: Convox) -> None:
    convox.seal(convox.client("ec2").create_key_pair(KeyName="gone")["KeyMaterial"].encode())
    convox.client("ec2").delete_key_pair(KeyName="gone")

    ran = convox.run("keys", "import", "--convox")

    assert ran.returncode == 3
    assert "EC2 has no key pair in this region with the key in s3://" in ran.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--convox", "file"], "contradict each other"), ([], "no key given"), (["--name", "", "f"], "empty")],
)
def test_keys_import_needs_a_file_or_convox(convox: Convox, words: list[str], says: str) -> None:
    ran = convox.run("keys", "import", *words)

    assert ran.returncode == 2
    assert says in ran.stderr
