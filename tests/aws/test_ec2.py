from __future__ import annotations

import base64

from tests.aws.answers import aws_answering


def test_console_output_is_the_text_that_the_instance_wrote() -> None:
    encoded = base64.b64encode(b"-----BEGIN SSH HOST KEY KEYS-----\r\n").decode()
    body = f"<R><instanceId>i-1</instanceId><output>{encoded}</output></R>".encode()

    aws = aws_answering(lambda _: (200, {}, body))

    assert aws.ec2.console_output("i-1") == "-----BEGIN SSH HOST KEY KEYS-----\r\n"
