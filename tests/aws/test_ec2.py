from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.aws.answers import aws_answering

if TYPE_CHECKING:
    from rackctl.aws.session import Aws

Answer = tuple[int, dict[str, str], bytes]


def output(text: str) -> Answer:
    encoded = base64.b64encode(text.encode()).decode()
    return 200, {}, f"<R><requestId>1</requestId><instanceId>i-1</instanceId><output>{encoded}</output></R>".encode()


def refusal(code: str) -> Answer:
    body = f"<Response><Errors><Error><Code>{code}</Code></Error></Errors><RequestID>1</RequestID></Response>"
    return 400, {}, body.encode()


def aws_with_console(latest: Answer, kept: Answer) -> tuple[Aws, list[bool]]:
    asked: list[bool] = []

    def answer(request: Any) -> Answer:
        asked.append("Latest=true" in request.body)
        return latest if asked[-1] else kept

    return aws_answering(answer), asked


def test_console_output_is_the_newest_that_the_instance_wrote() -> None:
    """``Latest`` is "the latest console output for the instance", for those built on Nitro (GetConsoleOutput)."""
    aws, asked = aws_with_console(output("-----BEGIN SSH HOST KEY KEYS-----\r\n"), output("old"))

    assert aws.ec2.console_output("i-1") == "-----BEGIN SSH HOST KEY KEYS-----\r\n"
    assert asked == [True]


@pytest.mark.parametrize(
    "latest", [output(""), refusal("UnsupportedOperation"), refusal("InvalidParameterCombination")]
)
def test_kept_console_output_is_returned_if_there_is_no_latest(latest: Answer) -> None:
    aws, asked = aws_with_console(latest, output("kept"))

    assert aws.ec2.console_output("i-1") == "kept"
    assert asked == [True, False]


NETWORK = "<networkInterfaceSet><item><ipv6AddressesSet><item>{}</item></ipv6AddressesSet></item></networkInterfaceSet>"


@pytest.mark.parametrize(
    ("document", "address"),
    [
        ("<ipv6Address>2001:db8::1</ipv6Address>", "2001:db8::1"),
        (
            NETWORK.format("<ipv6Address>2001:db8::2</ipv6Address>"),
            "2001:db8::2",
        ),
        ("", ""),
    ],
)
def test_an_ipv6_only_instance_has_its_ipv6_address_and_no_other(document: str, address: str) -> None:
    body = (
        "<R><reservationSet><item><instancesSet><item><instanceId>i-1</instanceId><launchTime>2026-01-02T03:04:05Z"
        f"</launchTime><instanceState><name>running</name></instanceState>{document}</item></instancesSet></item>"
        "</reservationSet><requestId>1</requestId></R>"
    )

    aws = aws_answering(lambda _: (200, {}, body.encode()))
    (found,) = aws.ec2.instances_by_id(["i-1"])

    assert (found.private_ip, found.public_ip, found.ipv6_address) == ("", "", address)
