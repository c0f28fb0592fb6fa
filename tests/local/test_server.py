"""The endpoint: refused requests, injected faults, the call log."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from rackctl.local.api import Answer, Api
from rackctl.local.endpoint import Endpoint
from rackctl.local.moto_services import MotoServices
from rackctl.local.signature import Request, Verifier
from rackctl.local.world import World
from tests.local.signing import CALLS, call, send, signed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rackctl.local.api.twists import Twist
    from tests.local_rack import LocalRackProcess

BUCKET = "rackctl-local-123456789012"
ALIAS = "alias/rackctl-local"


def code(act: Callable[[], Any]) -> str:
    """Return the code of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        act()
    found: str = caught.value.response["Error"]["Code"]
    return found


# Authentication

UNSIGNED = {
    "ec2": "MissingAuthenticationToken",
    "autoscaling": "MissingAuthenticationToken",
    "ecs": "MissingAuthenticationToken",
    "kms": "MissingAuthenticationToken",
    "sts": "MissingAuthenticationToken",
    "s3": "AccessDenied",
}
UNKNOWN_KEY = {
    "ec2": "AuthFailure",
    "autoscaling": "InvalidClientTokenId",
    "ecs": "UnrecognizedClientException",
    "kms": "UnrecognizedClientException",
    "sts": "InvalidClientTokenId",
    "s3": "InvalidAccessKeyId",
}
WRONG_SECRET = {
    "ec2": "AuthFailure",
    "autoscaling": "SignatureDoesNotMatch",
    "ecs": "InvalidSignatureException",
    "kms": "InvalidSignatureException",
    "sts": "SignatureDoesNotMatch",
    "s3": "SignatureDoesNotMatch",
}
EXPIRED = {
    "ec2": "RequestExpired",
    "autoscaling": "SignatureDoesNotMatch",
    "ecs": "InvalidSignatureException",
    "kms": "InvalidSignatureException",
    "sts": "SignatureDoesNotMatch",
    "s3": "RequestTimeTooSkewed",
}


@pytest.mark.parametrize("service", CALLS)
def test_a_request_signed_with_the_rack_s_own_key_is_answered(local_rack: LocalRackProcess, service: str) -> None:
    assert call(local_rack, service).status == 200


@pytest.mark.parametrize("service", CALLS)
def test_an_unsigned_request_is_refused(local_rack: LocalRackProcess, service: str) -> None:
    method, target, headers, body = CALLS[service]

    response = send(local_rack, method, target, headers, body)

    assert response.says(UNSIGNED[service]) or response.says(f"{UNSIGNED[service]}Exception")


@pytest.mark.parametrize("service", CALLS)
def test_an_unknown_key_is_refused(local_rack: LocalRackProcess, service: str) -> None:
    assert call(local_rack, service, key_id="AKIAIOSFODNN7EXAMPLE").says(UNKNOWN_KEY[service])


@pytest.mark.parametrize("service", CALLS)
def test_a_wrong_secret_is_refused(local_rack: LocalRackProcess, service: str) -> None:
    assert call(local_rack, service, secret="wrong").says(WRONG_SECRET[service])


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_signature_of_another_time_is_refused(local_rack: LocalRackProcess, service: str, minutes: int) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)

    assert call(local_rack, service, at=at).says(EXPIRED[service])


def test_a_body_changed_after_signing_is_refused(local_rack: LocalRackProcess) -> None:
    method, target, headers, body = CALLS["ec2"]
    right = signed(local_rack, "ec2", method, target, headers, body)

    response = send(local_rack, method, target, right, body.replace(b"DescribeInstances", b"TerminateInstances"))

    assert response.says("AuthFailure")


def test_another_region_is_refused(local_rack: LocalRackProcess) -> None:
    response = call(local_rack, "ecs", region="eu-west-1")

    assert response.says("InvalidSignatureException")
    assert b"the local rack is in us-east-1" in response.body


def test_a_browser_is_refused_even_with_a_valid_signature(local_rack: LocalRackProcess) -> None:
    method, target, headers, body = CALLS["s3"]
    right = signed(local_rack, "s3", method, target, headers, body)

    asked = send(local_rack, method, target, {**right, "Origin": "https://example.com"})
    preflight = send(local_rack, "OPTIONS", "/", {"Origin": "null", "Access-Control-Request-Method": "POST"})

    assert (asked.status, preflight.status) == (403, 403)
    for response in (asked, preflight, send(local_rack, method, target, right)):
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_request_to_an_unknown_service_is_refused_by_name(local_rack: LocalRackProcess) -> None:
    with pytest.raises(
        ClientError, match='the local rack has no service "sqs"; it has autoscaling, cloudwatch, ec2, ecs'
    ):
        local_rack.client("sqs").list_queues()


def test_the_endpoint_listens_on_loopback_only(local_rack: LocalRackProcess) -> None:
    port = int(local_rack.description.endpoint_url.rpartition(":")[2])

    assert local_rack.description.endpoint_url == f"http://127.0.0.1:{port}"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_a_connection_serves_several_requests(local_rack: LocalRackProcess) -> None:
    import http.client

    connection = http.client.HTTPConnection(local_rack.description.endpoint_url.removeprefix("http://"))
    method, target, headers, body = CALLS["ecs"]
    statuses = []
    for _ in range(3):
        connection.request(method, target, body, signed(local_rack, "ecs", method, target, headers, body))
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()

    assert statuses == [200, 200, 200]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%ff%00?& HTTP/1.1\r\nAuthorization: \r\n\r\n",
    ],
)
def test_an_invalid_request_is_answered_with_an_error(local_rack: LocalRackProcess, raw: bytes) -> None:
    port = int(local_rack.description.endpoint_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()

    assert answer.split(b" ")[1][:1] == b"4" or b"Error code: 400" in answer
    assert call(local_rack, "sts").status == 200


def test_the_account_is_the_same_in_every_service(local_rack: LocalRackProcess) -> None:
    account = local_rack.client("sts").get_caller_identity()["Account"]

    assert f":{account}:" in local_rack.client("ecs").list_clusters()["clusterArns"][0]
    assert f":{account}:" in local_rack.client("kms").describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]


# Faults

READ: dict[str, Callable[[Any], Any]] = {
    "ec2": lambda client: client.describe_instances(),
    "autoscaling": lambda client: client.describe_auto_scaling_groups(),
    "ecs": lambda client: client.list_clusters(),
    "kms": lambda client: client.list_keys(),
    "sts": lambda client: client.get_caller_identity(),
    "s3": lambda client: client.list_buckets(),
}


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("ec2", "RequestLimitExceeded"),
        ("autoscaling", "Throttling"),
        ("ecs", "ThrottlingException"),
        ("kms", "ThrottlingException"),
        ("sts", "Throttling"),
        ("s3", "SlowDown"),
    ],
)
def test_throttle_with_a_count_throttles_that_many_calls(
    start_local_rack: Callable[..., LocalRackProcess], service: str, expected: str
) -> None:
    rack = start_local_rack(key=False)
    client = rack.client(service)
    rack.faults.add("throttle", f"{service}:*", count=2)

    assert [code(lambda: READ[service](client)) for _ in range(2)] == [expected, expected]
    READ[service](client)
    assert len(rack.faults) == 0


def test_errors_delays_and_lost_connections(start_local_rack: Callable[..., LocalRackProcess]) -> None:
    rack = start_local_rack(key=False)
    ecs, s3 = rack.client("ecs"), rack.client("s3")

    rack.faults.add("error", "ecs:list*", code="ServerException", status=500, count=1, skip=1)
    ecs.list_clusters()
    ecs.describe_clusters()
    assert code(ecs.list_clusters) == "ServerException"

    rack.faults.add("drop-before", "s3:PutObject", count=1)
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket=BUCKET, Key="dropped", Body=b"")
    assert code(lambda: s3.get_object(Bucket=BUCKET, Key="dropped")) == "NoSuchKey"

    rack.faults.add("drop-after", "s3:*", count=1, mutating=True)
    s3.list_buckets()
    with pytest.raises(ConnectionClosedError):
        s3.put_object(Bucket=BUCKET, Key="dropped", Body=b"carried out")
    assert s3.get_object(Bucket=BUCKET, Key="dropped")["Body"].read() == b"carried out"

    rack.faults.add("delay", "ecs:*", seconds=0.3, count=1)
    before = time.monotonic()
    ecs.list_clusters()
    assert time.monotonic() - before >= 0.3

    rack.faults.add("throttle", "*:*", probability=0.0)
    ecs.list_clusters()
    rack.faults.clear()
    assert len(rack.faults) == 0


@pytest.mark.parametrize(("kind", "written"), [("hang-before", False), ("hang-after", True)])
def test_a_held_call_ends_with_its_caller(
    start_local_rack: Callable[..., LocalRackProcess], kind: str, written: bool
) -> None:
    rack = start_local_rack(key=False)
    rack.faults.add(kind, "s3:PutObject", count=1)
    target = f"/{BUCKET}/held"
    headers = signed(rack, "s3", "PUT", target, {}, b"here")
    port = int(rack.description.endpoint_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() != "host")
        connection.sendall(
            f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}Content-Length: 4\r\n\r\nhere".encode()
        )
        held = rack.wait_for(lambda: [c for c in rack.calls() if c["faults"] == [kind]], "the held call")
        if written:
            rack.wait_for(lambda: rack.calls()[-1]["carried_out"], "its effect")

    assert held[0]["status"] is None
    s3 = rack.client("s3")
    if written:
        assert s3.get_object(Bucket=BUCKET, Key="held")["Body"].read() == b"here"
    else:
        assert code(lambda: s3.get_object(Bucket=BUCKET, Key="held")) == "NoSuchKey"


def test_calls_that_are_held_do_not_hold_up_others(start_local_rack: Callable[..., LocalRackProcess]) -> None:
    rack = start_local_rack(key=False)
    rack.faults.add("hang-before", "kms:*")
    kms = rack.client("kms")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(kms.list_keys)
        rack.wait_for(lambda: "kms:ListKeys" in rack.actions(), "the held call")

        assert rack.client("ecs").list_clusters()["clusterArns"]
        assert not held.done()
        rack.down()
        with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
            held.result()


class BrokenApi(Api):
    """An API with an error of its own."""

    def respond(self, service: str, headers: Mapping[str, str], body: bytes, twists: Sequence[Twist] = ()) -> Answer:
        raise ZeroDivisionError(service)


@pytest.mark.parametrize("service", ["ec2", "autoscaling", "ecs"])
def test_an_error_in_the_rack_itself_is_answered_in_the_service_s_format(
    local_rack: LocalRackProcess, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = local_rack.credentials
    endpoint = Endpoint(
        BrokenApi(World(region="us-east-1", account_id="123456789012", now=0.0)),
        MotoServices("us-east-1"),
        Verifier(own.access_key_id, own.secret_access_key),
        region="us-east-1",
        turn=nullcontext,
        controls={},
    )
    method, target, headers, body = CALLS[service]
    request = Request(method, target, list(signed(local_rack, service, method, target, headers, body).items()), body)
    host = ("Host", local_rack.description.endpoint_url.removeprefix("http://"))

    answer = endpoint.respond(replace(request, headers=[*request.headers, host]), Patient())

    assert answer.status == 500
    assert b"InternalFailure" in answer.body
    assert answer.body.startswith(b"{" if service == "ecs" else b"<")
    assert "ZeroDivisionError" in capsys.readouterr().err


class Patient:
    def is_gone(self, seconds: float) -> bool:
        return False


# The log of calls


def test_every_call_is_logged_without_its_secrets(start_local_rack: Callable[..., LocalRackProcess]) -> None:
    rack = start_local_rack(key=False)
    rack.client("kms").encrypt(KeyId=ALIAS, Plaintext=b"very-secret")
    rack.client("ecs").describe_clusters(clusters=["local"])
    rack.client("s3").put_object(Bucket=BUCKET, Key="x", Body=b"very-secret", IfNoneMatch="*")
    code(lambda: rack.client("ec2").terminate_instances(InstanceIds=["i-00000000"]))

    calls = rack.calls()

    assert [(f"{c['service']}:{c['action']}", c["mutating"], c["status"], c["error"]) for c in calls] == [
        ("kms:Encrypt", False, 200, ""),
        ("ecs:DescribeClusters", False, 200, ""),
        ("s3:PutObject", True, 200, ""),
        ("ec2:TerminateInstances", True, 400, "InvalidInstanceID.NotFound"),
    ]
    assert calls[0]["parameters"] == {"KeyId": ALIAS}
    assert calls[1]["parameters"] == {"clusters": '["local"]'}
    assert calls[2]["parameters"] == {"Bucket": BUCKET, "Key": "x", "if-none-match": "*"}
    assert calls[3]["parameters"] == {"InstanceId.1": "i-00000000"}
    assert "very-secret" not in json.dumps(calls)
    assert rack.calls(since=calls[2]["number"]) == calls[3:]
    assert rack.actions(mutating=True) == ["s3:PutObject", "ec2:TerminateInstances"]


def test_a_control_call_needs_the_rack_s_key_too(local_rack: LocalRackProcess) -> None:
    body = b'{"call": "status"}'
    unsigned = send(local_rack, "POST", "/", {"Content-Type": "application/json"}, body)
    for_another = signed(local_rack, "ecs", "POST", "/", {"Content-Type": "application/json"}, body)

    assert unsigned.status == 400
    assert b"up_since" not in send(local_rack, "POST", "/", for_another, body).body
