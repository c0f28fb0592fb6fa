"""The local rack's HTTP server on loopback: reads requests whole, writes responses."""

from __future__ import annotations

import select
import socket
import sys
import threading
import traceback
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final

from rackctl.local.api import Answer
from rackctl.local.endpoint import Dropped, Endpoint
from rackctl.local.moto_services import refusal
from rackctl.local.signature import Request
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BODY: Final = 64 * 2**20


class _Handler(BaseHTTPRequestHandler):
    """Reads requests whole, and writes answers whole; connections are kept alive."""

    protocol_version = "HTTP/1.1"
    server_version = "rackctl-local"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 300
    server: _Server

    def _respond(self) -> None:
        request = Request(self.command, self.path, [(name, value.strip()) for name, value in self.headers.items()])
        try:
            if self.server.endpoint.knows(request):
                request = replace(request, body=self._body())
            else:
                self.close_connection = True  # the request's body stays unread
            answer = self.server.endpoint.respond(request, self)
        except Dropped:
            self._drop()
        except ValueError as error:
            self.close_connection = True
            self._write(Answer(400, {"Content-Type": "text/plain"}, f"{error}\n".encode()))
        except Exception:  # noqa: BLE001 - the daemon goes on, and its log says what happened
            traceback.print_exc()
            self._write(refusal("json", Refused("InternalFailure", "An error in the local rack: see its log.", 500)))
        else:
            self._write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _respond  # noqa: N815 - http.server's names

    def handle_expect_100(self) -> bool:
        """Flush the 100 Continue at once: S3 clients wait up to a second for it."""
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= _MOST_BODY:
            raise ValueError(f"the local rack takes at most {_MOST_BODY} bytes")
        return self.rfile.read(length)

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while size := int(self.rfile.readline(32).partition(b";")[0], 16):
            total += size
            if not 0 < size <= total <= _MOST_BODY:
                raise ValueError(f"the local rack takes at most {_MOST_BODY} bytes")
            yield self.rfile.read(size)
            self.rfile.readline(3)
        while self.rfile.readline(1000).strip():
            pass

    def _write(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "connection", "server", "date", "transfer-encoding"}:
                self.send_header(name, value)
        # The Content-Length of an answer to HEAD is that of the body that is not sent.
        given = {name.lower(): value for name, value in answer.headers.items()}.get("content-length")
        bodiless = self.command == "HEAD" or answer.status in {204, 304}
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", (given if bodiless and given else None) or str(len(answer.body)))
        if answer.way == "two-dates":
            self.send_header("Date", self.date_time_string())
        if answer.way == "cut":
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if bodiless:
            return
        match answer.way:
            case "cut":
                self.wfile.write(answer.body[: len(answer.body) // 2])
            case "drip":
                self._drip(answer)
            case _:
                self.wfile.write(answer.body)

    def _drip(self, answer: Answer) -> None:
        for at in range(len(answer.body)):
            self.wfile.write(answer.body[at : at + 1])
            self.wfile.flush()
            if self.is_gone(answer.seconds) or self.server.endpoint.is_stopping:
                self._drop()
                return

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def is_gone(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Log nothing: the call log has the request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_port = False
    endpoint: Endpoint

    def server_bind(self) -> None:
        # HTTPServer's own method looks up the name of 127.0.0.1.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that closed the connection."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class HttpServer:
    """Serves an endpoint on 127.0.0.1, on the preferred port if it is free."""

    def __init__(self, *, wished_port: int = 0) -> None:
        try:
            self._server = _Server(("127.0.0.1", wished_port), _Handler)
        except OSError:
            self._server = _Server(("127.0.0.1", 0), _Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def start(self, endpoint: Endpoint) -> None:
        self._server.endpoint = endpoint
        self._thread.start()

    def close(self) -> None:
        self._server.endpoint.stop()
        self._server.shutdown()
        self._server.server_close()
