from __future__ import annotations

import base64

import pytest

from tests.aws.answers import aws_answering


def test_console_output_is_the_text_that_the_instance_wrote() -> None:
    encoded = base64.b64encode(b"-----BEGIN SSH HOST KEY KEYS-----\r\n").decode()
    body = f"<R><instanceId>i-1</instanceId><output>{encoded}</output></R>".encode()

    aws = aws_answering(lambda _: (200, {}, body))

    assert aws.ec2.console_output("i-1") == "-----BEGIN SSH HOST KEY KEYS-----\r\n"


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
        "</reservationSet></R>"
    )

    aws = aws_answering(lambda _: (200, {}, body.encode()))
    (found,) = aws.ec2.instances_by_id(["i-1"])

    assert (found.private_ip, found.public_ip, found.ipv6_address) == ("", "", address)
