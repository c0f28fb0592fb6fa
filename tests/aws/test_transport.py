"""Connections to AWS: verified as botocore verifies them, shared, and reused."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.tls import bundle, context, issue

from rackctl.aws.errors import Silent, Unanswered
from rackctl.aws.session import Aws, Credentials
from rackctl.errors import UsageError
from tests.aws.documents import answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(ThreadingHTTPServer):
    """Answers as ECS and EC2; remembers its connections and what was asked, and may hang up after each answer."""

    hangs_up = False
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.connections = 0
        self.asked: list[str] = []

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that hangs up."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        operation = (self.headers.get("X-Amz-Target") or ".DescribeInstances").rpartition(".")[2]
        status, headers, body = answer("ecs" if "X-Amz-Target" in self.headers else "ec2", operation)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.server.hangs_up

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(directory: Path | None = None) -> Iterator[tuple[Server, str]]:
    with Server() as server:
        if directory:
            server.socket = context(directory).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server, f"{'https' if directory else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates of an authority that is in the user's bundle."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle(tmp_path)))
    issue(tmp_path)
    return tmp_path


def aws_at(url: str) -> Aws:
    return Aws(region="us-east-1", endpoint_url=url, credentials=Credentials("x", "x"))


def test_calls_of_all_services_share_the_connections_that_were_opened_ahead(certified: Path) -> None:
    with serving(certified) as (server, url):
        aws = aws_at(url)
        for _ in range(3):
            assert aws.ecs.cluster("c").tags == {"x": "x"}
            assert list(aws.ec2.instances_by_id(["i-0"]))

        assert server.connections <= 2  # one a client


def test_a_client_made_later_connects_nowhere_while_a_connection_to_its_endpoint_is_idle(certified: Path) -> None:
    with serving(certified) as (server, url):
        aws = aws_at(url)
        assert aws.ecs.cluster("c")
        aws.client("kms")
        for thread in threading.enumerate():
            if thread.name.startswith("connect 127.0.0.1"):
                thread.join()

        assert server.connections == 1


_THREADS_AT_THE_IMPORT_OF_BOTOCORE = """
import sys, threading
from rackctl.aws.session import Aws

class Finder:
    def find_spec(self, name, *_):
        if name == "botocore":
            print(*(thread.name for thread in threading.enumerate()), sep="\\n")
            sys.meta_path.remove(self)

sys.meta_path.insert(0, Finder())
Aws(region="us-east-1", endpoint_url=sys.argv[1]).client("ecs")
"""


def test_the_first_connection_is_being_opened_when_botocore_is_imported(certified: Path) -> None:
    assert certified
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "127.0.0.1:{1}".format(*silent.getsockname())
        command = [sys.executable, "-c", _THREADS_AT_THE_IMPORT_OF_BOTOCORE, f"https://{address}"]
        threads = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert f"connect {address}" in threads.splitlines()


@pytest.mark.parametrize("setting", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "ca_bundle"])
def test_the_users_bundle_is_taken_from_wherever_botocore_takes_it(
    certified: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    if setting.isupper():
        monkeypatch.setenv(setting, str(bundle(certified)))
    else:
        (certified / "config").write_text(f"[default]\nca_bundle = {bundle(certified)}\n", encoding="utf-8")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(certified / "config"))

    with serving(certified) as (_, url):
        assert aws_at(url).ecs.cluster("c").tags == {"x": "x"}


def test_a_server_whose_authority_is_not_in_the_bundle_is_not_spoken_to(
    certified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")

    with serving(certified) as (server, url):
        with pytest.raises(Unanswered, match="cannot verify the TLS certificate of https://127") as caught:
            aws_at(url).ecs.cluster("c")
        assert server.asked == []

    assert "AWS_CA_BUNDLE" in caught.value.hint


def test_a_server_of_another_name_than_its_certificates_is_not_spoken_to(certified: Path) -> None:
    with serving(certified) as (server, url):
        with pytest.raises(Unanswered, match="cannot verify the TLS certificate"):
            aws_at(url.replace("127.0.0.1", "localhost")).ecs.cluster("c")
        assert server.asked == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_cannot_be_read_is_named(
    certified: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = certified / "wrong.pem"
    if content:
        wrong.write_text(content, encoding="utf-8")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(wrong))

    with serving(certified) as (_, url), pytest.raises(UsageError, match=r"wrong\.pem"):
        aws_at(url).ecs.cluster("c")


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again(certified: Path) -> None:
    with serving(certified) as (server, url):
        server.hangs_up = True
        aws = aws_at(url)
        for _ in range(3):
            assert aws.ecs.cluster("c")

        assert server.connections == 3


def test_a_proxy_is_spoken_to_by_botocore_itself(certified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")

    with serving() as (proxy, url):
        monkeypatch.setenv("http_proxy", url)
        assert aws_at("http://ecs.example").ecs.cluster("c").tags == {"x": "x"}

        assert proxy.asked == ["http://ecs.example/"]
        assert proxy.connections == 1


def test_connections_that_were_opened_ahead_and_not_needed_are_closed(certified: Path) -> None:
    """An open socket that is collected is a ResourceWarning, which fails the test."""
    with serving(certified) as (server, url):
        for _ in range(5):
            aws_at(url).client("ecs")
        while server.connections < 5:
            time.sleep(0.01)
    gc.collect()


def test_an_endpoint_where_nothing_listens_cannot_be_reached(certified: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unanswered, match="cannot be reached for ecs:DescribeClusters") as caught:
            aws_at(f"http://127.0.0.1:{closed.getsockname()[1]}").ecs.cluster("c")

    assert not isinstance(caught.value, Silent)
