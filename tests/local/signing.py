"""Requests signed by hand, validly or not, and sent unchanged."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.local_rack import LocalRackProcess


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def says(self, code: str) -> bool:
        """Return whether it is an error by this code, in whichever protocol."""
        return self.status >= 400 and (
            f"<Code>{code}</Code>" in self.body.decode() or f'"{code}"' in self.body.decode()
        )


# A call of each service, as its clients make it.
CALLS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "ec2": ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"},
            b"Action=DescribeInstances&Version=2016-11-15"),
    "autoscaling": ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"},
                    b"Action=DescribeAutoScalingGroups&Version=2011-01-01"),
    "ecs": ("POST", "/", {"Content-Type": "application/x-amz-json-1.1",
                          "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}, b"{}"),
    "kms": ("POST", "/", {"Content-Type": "application/x-amz-json-1.1",
                          "X-Amz-Target": "TrentService.ListKeys"}, b"{}"),
    "sts": ("POST", "/", {"Content-Type": "application/x-www-form-urlencoded"},
            b"Action=GetCallerIdentity&Version=2011-06-15"),
    "s3": ("GET", "/", {}, b""),
}  # fmt: skip


def signed(  # noqa: PLR0917 - a request, in its order
    rack: LocalRackProcess,
    service: str,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    key_id: str | None = None,
    secret: str | None = None,
    region: str | None = None,
    at: datetime | None = None,
) -> dict[str, str]:
    """Return the headers of a request, signed as botocore does, but by any clock and with any key."""
    given = rack.description
    credentials = Credentials(key_id or given.access_key_id, secret or given.secret_access_key)
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    signer: Any = kind(credentials, service, region or given.region)
    request = AWSRequest(method, given.endpoint_url + target, dict(headers), body)
    request.context["timestamp"] = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}


def send(rack: LocalRackProcess, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
    connection = http.client.HTTPConnection(rack.description.endpoint_url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        return Response(response.status, dict(response.headers.items()), response.read())
    finally:
        connection.close()


def call(rack: LocalRackProcess, service: str, **signing: Any) -> Response:
    """Make the sample call of a service."""
    method, target, headers, body = CALLS[service]
    return send(rack, method, target, signed(rack, service, method, target, headers, body, **signing), body)
