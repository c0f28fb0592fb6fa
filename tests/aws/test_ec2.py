from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import boto3
from botocore.awsrequest import AWSResponse

from rackctl.aws.ec2 import Ec2
from rackctl.aws.errors import Where
from rackctl.aws.session import Client


class _Body(BytesIO):
    """As much of urllib3's response as botocore reads."""

    def stream(self) -> Any:
        yield self.read()


def test_console_output_is_the_text_that_the_instance_wrote() -> None:
    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    encoded = base64.b64encode(b"-----BEGIN SSH HOST KEY KEYS-----\r\n").decode()

    def answer(request: Any, **_: object) -> AWSResponse:
        body = f"<R><instanceId>i-1</instanceId><output>{encoded}</output></R>".encode()
        return AWSResponse(request.url, 200, {}, _Body(body))

    client.meta.events.register("before-send", answer)
    ec2 = Ec2(Client(client, Where("ec2", lambda: "us-east-1")))
    assert ec2.console_output("i-1") == "-----BEGIN SSH HOST KEY KEYS-----\r\n"
