"""Servers that send invalid or slow HTTP, or none: each call ends as unanswered."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import Silent, Unanswered
from rackctl.aws.session import Aws, Credentials
from rackctl.errors import RackctlError, Timeout
from tests.aws.documents import answer
from tests.aws.operations import ask, calls_of
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A call of each protocol, and of S3 the one whose body is read bit by bit.
CALLS = [
    ("ecs", "cluster", "DescribeClusters"),
    ("ec2", "instances_by_id", "DescribeInstances"),
    ("autoscaling", "all_groups", "DescribeAutoScalingGroups"),
    ("s3", "get", "GetObject"),
    ("kms", "decrypt", "Decrypt"),
]


@pytest.fixture(autouse=True)
def _ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Pass each connection to ``serve`` once a request has arrived on it; yield the server's address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=handle, args=(connection,), daemon=True).start()

        def handle(connection: socket.socket) -> None:
            with connection, connection.makefile("rb") as request, suppress(OSError):
                length = 0
                while (line := request.readline().strip().lower()) != b"":
                    length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
                request.read(length)
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield "http://{}:{}".format(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)


def asking(url: str, service: str, method: str, *, deadline: float = 20) -> object:
    aws = Aws(region="us-east-1", endpoint_url=url, credentials=Credentials("x", "x"), deadline=deadline)
    return ask(calls_of(aws, service), method)


def head(operation: str, service: str, *lines: str) -> tuple[bytes, bytes]:
    """The head of a right answer with these header lines, and its body."""
    _, headers, body = answer(service, operation)
    given = {line.partition(":")[0].lower() for line in lines}
    kept = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in given]
    return "\r\n".join(["HTTP/1.1 200 OK", *kept, *lines, "", ""]).encode(), body


@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_a_right_answer_over_a_socket_is_read(service: str, method: str, operation: str) -> None:
    start, body = head(operation, service)

    with serving(lambda connection: connection.sendall(start + body)) as url:
        assert asking(url, service, method) is not None


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
    ],
    ids=lambda reply: str(reply[:40]),
)
@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_an_incomplete_http_response_is_unanswered(service: str, method: str, operation: str, reply: bytes) -> None:
    with serving(lambda connection: connection.sendall(reply)) as url, pytest.raises(Unanswered) as caught:
        asking(url, service, method)

    assert f"{service}:{operation}" in str(caught.value)
    assert url in str(caught.value)


@pytest.mark.parametrize("cut", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_a_body_that_ends_early_is_unanswered(service: str, method: str, operation: str, cut: float) -> None:
    _, whole = head(operation, service)
    start, body = head(operation, service, f"Content-Length: {len(whole)}")

    with (
        serving(lambda connection: connection.sendall(start + body[: int(len(body) * cut)])) as url,
        pytest.raises(Unanswered, match=f"{service}:{operation}"),
    ):
        asking(url, service, method)


@pytest.mark.parametrize("cut", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_a_body_that_ends_early_behind_a_proxy_is_unanswered(
    service: str, method: str, operation: str, cut: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy botocore sends by itself, and does not compare what it reads with the Content-Length."""
    _, whole = head(operation, service)
    start, body = head(operation, service, f"Content-Length: {len(whole)}")

    with serving(lambda connection: connection.sendall(start + body[: int(len(body) * cut)])) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(Unanswered, match=f"{service}:{operation}"):
            asking("http://aws.invalid", service, method)


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 1000000",
        "Content-Length: 2",
        "Content-Length: -5",
        "Content-Length: many",
        "Content-Length: 4\r\nContent-Length: 5",
        "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nDate: Fri, 02 Jan 2026 03:04:06 GMT",
        "Date: yesterday",
        "Content-Encoding: gzip",
        "Last-Modified: never",
        "Transfer-Encoding: chunked",
    ],
)
@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_a_header_that_is_wrong_is_no_error_in_rackctl_itself(
    service: str, method: str, operation: str, line: str
) -> None:
    start, body = head(operation, service, line)

    with serving(lambda connection: connection.sendall(start + body)) as url:
        try:
            asking(url, service, method)
        except RackctlError as error:
            refusal = error
        else:
            return
    assert isinstance(refusal, Unanswered), refusal


# Over two seconds in all: each waits for its deadline.
@pytest.mark.parametrize("where", ["before the response", "in the head", "in the body"])
@pytest.mark.parametrize(("service", "method", "operation"), CALLS)
def test_a_response_that_comes_a_byte_at_a_time_or_never_ends_at_the_deadline(
    service: str, method: str, operation: str, where: str
) -> None:
    start, _ = head(operation, service, "Content-Length: 100000")
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall({"before the response": b"", "in the head": start[:-10], "in the body": start}[where])
        while not done.wait(0.05):
            connection.sendall(b"" if where == "before the response" else b"x")

    with serving(drip) as url, pytest.raises(Silent, match=r"within 0\.5 s") as caught:
        asking(url, service, method, deadline=0.5)
    done.set()

    assert caught.value.exit_code == Timeout.exit_code
    assert f"{service}:{operation}" in str(caught.value)


def test_a_call_that_was_given_up_sends_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two seconds: botocore's second attempt would come up to two seconds after the first."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
    requests: list[float] = []

    def hang_up(_: socket.socket) -> None:
        requests.append(time.monotonic())

    with serving(hang_up) as url:
        with pytest.raises(Silent):
            asking(url, "ecs", "cluster", deadline=0.5)
        sent = len(requests)
        time.sleep(2.5)

        assert len(requests) == sent


def test_retries_are_reported_once_a_minute_for_all_calls_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    clock, notices = FakeClock(), list[str]()

    with serving(lambda _: None) as url:
        aws = Aws(
            region="us-east-1",
            endpoint_url=url,
            credentials=Credentials("x", "x"),
            notify=notices.append,
            clock=clock,
        )
        for _ in range(2):
            with pytest.raises(Unanswered):
                aws.ecs.cluster("c")
        assert notices == ["AWS (ecs:DescribeClusters): no connection; retrying"]
        clock.sleep(60)
        with pytest.raises(Unanswered):
            aws.kms.decrypt(b"x", {}, what="x")
        assert notices[1:] == ["AWS (kms:Decrypt): no connection; retrying"]
