"""The local rack's HTTP endpoint: who may ask, what goes wrong on purpose, and who answers."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
import traceback
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl

from rackctl.local.api import Answer
from rackctl.local.faults import THROTTLING, Fault, Faults
from rackctl.local.moto_services import refusal
from rackctl.local.signature import Claim, Request, Verifier, claim_of
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from rackctl.local.api import Api
    from rackctl.local.moto_services import MotoServices

# The service name that calls to the rack itself, not to a service of AWS, are signed for.
CONTROL: Final = "rackctl-local"
_MOST_BODY: Final = 64 * 2**20
_CALLS_KEPT: Final = 20_000


@dataclass
class Call:
    """A call as it is remembered. ``status`` is None while it is under way, and stays so if nobody got an answer."""

    number: int
    at: float
    service: str
    action: str
    parameters: dict[str, str]
    mutating: bool
    faults: list[str] = field(default_factory=list)
    carried_out: bool = False
    status: int | None = None
    error: str = ""


class CallLog:
    """The latest calls, in the order they came."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_CALLS_KEPT)
        self._number = 0
        self._lock = threading.Lock()

    def add(self, service: str, action: str, parameters: dict[str, str], *, mutating: bool) -> Call:
        with self._lock:
            self._number += 1
            call = Call(self._number, time.time(), service, action, parameters, mutating)
            self._calls.append(call)
            return call

    def since(self, number: int) -> list[dict[str, Any]]:
        """Give the calls after one's number."""
        with self._lock:
            return [asdict(call) for call in self._calls if call.number > number]


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class Caller(Protocol):
    """Who waits for an answer."""

    def is_gone(self, seconds: float) -> bool:
        """Wait so long at most for the caller to hang up, and tell whether it has."""


class Endpoint:
    """Answers requests, each as AWS would: checked first, then spoilt if a fault says so, then carried out.

    ``turn`` gives the context in which the world may be touched, one at a time. ``controls`` are the calls to the
    rack itself by name.
    """

    def __init__(
        self,
        api: Api,
        moto: MotoServices,
        verifier: Verifier,
        *,
        region: str,
        turn: Callable[[], AbstractContextManager[None]],
        controls: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._api = api
        self._moto = moto
        self._verifier = verifier
        self._region = region
        self._turn = turn
        self._controls = controls
        self.faults = Faults(self._all_calls)
        self.calls = CallLog()
        self._stopping = threading.Event()

    def _all_calls(self) -> list[str]:
        return [
            f"{service}:{operation}"
            for services in (self._api, self._moto)
            for service in services.SERVICES
            for operation in services.operations(service)
        ]

    def remember(self) -> None:
        """Keep how the world is, while some answers are to be late. The caller has the turn."""
        seconds = max((fault.seconds for fault in self.faults if fault.kind == "late"), default=0.0)
        if seconds:
            self._api.past.remember(seconds)
        else:
            self._api.past.forget()

    def stop(self) -> None:
        """Let go of the calls that are being held."""
        self._stopping.set()

    def knows(self, head: Request) -> bool:
        """Tell whether it is worth reading a request's body: whether it claims to come from who may ask."""
        try:
            return head.header("origin") is None and claim_of(head).access_key_id == self._verifier.access_key_id
        except Refused:
            return False

    def respond(self, request: Request, caller: Caller) -> Answer:
        """Answer a request. Raises Dropped."""
        if request.header("origin") is not None:
            return Answer(403, {"Content-Type": "text/plain"}, b"The local rack answers no browsers.\n")
        claim = None
        try:
            claim = claim_of(request)
            request = self._verifier.verify(request, claim, now=time.time())
            self._check_scope(claim)
        except Refused as refused:
            service = claim.service if claim else _service_by_looks(request)
            return self._refuse(service, in_words_of(service, refused))
        if claim.service == CONTROL:
            return self._control(request)
        if claim.service not in self._api.SERVICES | self._moto.SERVICES:
            there_are = ", ".join(sorted(self._api.SERVICES | self._moto.SERVICES))
            message = f'the local rack has no service "{claim.service}"; it has {there_are}'
            return refusal(_service_by_looks(request), Refused("UnknownService", message, 400))
        return self._call(claim.service, request, caller)

    def _check_scope(self, claim: Claim) -> None:
        if claim.region != self._region:
            raise Refused(
                "SignatureDoesNotMatch",
                f"Credential should be scoped to a valid region: the local rack is in {self._region}, "
                f"not in {claim.region}.",
                403,
            )

    def _refuse(self, service: str, refused: Refused) -> Answer:
        if service in self._api.SERVICES:
            return self._api.refuse(service, refused)
        return refusal(service, refused)

    def _call(self, service: str, request: Request, caller: Caller) -> Answer:
        # STS and the query services take their parameters from a GET's query as well.
        body = request.body or (request.query.encode() if service in {"ec2", "autoscaling"} else b"")
        headers = request.header_map()
        if service in self._api.SERVICES:
            action = self._api.action_of(service, headers, body)
            mutating = not self._api.is_read(action)
        else:
            action = self._moto.action_of(service, request)
            mutating = not self._moto.is_read(action)
        call = self.calls.add(service, action, loggable(service, request), mutating=mutating)
        faults = self.faults.befalling(f"{service}:{action}", mutating=mutating)
        call.faults = [fault.kind for fault in faults]
        answer = self._spoilt_before(service, faults, caller)
        if answer is None:
            late = max((fault.seconds for fault in faults if fault.kind == "late"), default=0.0)
            answer = self._carried_out(service, request, headers, body, late=late if not mutating else 0.0)
            call.carried_out = answer.status < 300
            self._spoil_after(faults, caller)
        call.status = answer.status
        if answer.status >= 400:
            found = re.search(rb'<Code>([\w.]+)</Code>|"__type": ?"(?:[\w.]+#)?([\w.]+)"', answer.body)
            call.error = (found[1] or found[2]).decode() if found else ""
        return answer

    def _carried_out(
        self, service: str, request: Request, headers: Mapping[str, str], body: bytes, *, late: float
    ) -> Answer:
        try:
            with self._turn():
                if service in self._api.SERVICES:
                    if late:
                        return self._api.respond_late(service, headers, body, seconds=late)
                    return self._api.respond(service, headers, body)
                return self._moto.respond(service, request)
        except Exception:  # noqa: BLE001 - the daemon goes on, and its log says what happened
            traceback.print_exc()
            message = "An error in the local rack itself: see its log."
            return self._refuse(service, Refused("InternalFailure", message, 500))

    def _spoilt_before(self, service: str, faults: Sequence[Fault], caller: Caller) -> Answer | None:
        for fault in faults:
            match fault.kind:
                case "delay":
                    self._stopping.wait(fault.seconds)
                case "throttle":
                    return self._refuse(service, Refused(*THROTTLING[service]))
                case "error":
                    message = "The local rack was asked to answer this."
                    return self._refuse(service, Refused(fault.code, message, fault.status))
                case "drop-before":
                    raise Dropped
                case "hang-before":
                    self._hold(caller)
        return None

    def _spoil_after(self, faults: Sequence[Fault], caller: Caller) -> None:
        for fault in faults:
            if fault.kind == "drop-after":
                raise Dropped
            if fault.kind == "hang-after":
                self._hold(caller)

    def _hold(self, caller: Caller) -> None:
        while not self._stopping.is_set() and not caller.is_gone(0.1):
            pass
        raise Dropped

    def _control(self, request: Request) -> Answer:
        try:
            asked = json.loads(request.body)
            control = self._controls.get(asked["call"])
            if control is None:
                raise validation_error(f"the local rack knows no control call {asked['call']}")
            result = control(**asked.get("arguments", {}))
        except Refused as refused:
            return refusal("json", refused)
        except (KeyError, TypeError, ValueError) as error:
            return refusal("json", validation_error(f"{type(error).__name__}: {error}"))
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(result).encode())


def _service_by_looks(request: Request) -> str:
    """Guess a protocol from a request that does not tell its service."""
    content_type = request.header("content-type") or ""
    if request.header("x-amz-target") or "json" in content_type:
        return "json"
    return "query" if "x-www-form-urlencoded" in content_type or "Action=" in request.query else "s3"


# How the services name one and the same refusal; what is not here they name as the query protocol does.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_JSON_WORDS: Final = {
    "MissingAuthenticationToken": ("MissingAuthenticationTokenException", 400),
    "InvalidClientTokenId": ("UnrecognizedClientException", 400),
    "SignatureDoesNotMatch": ("InvalidSignatureException", 400),
    "IncompleteSignature": ("IncompleteSignatureException", 400),
    "RequestTimeTooSkewed": ("InvalidSignatureException", 400),
}
_EC2_WORDS: Final = {
    "InvalidClientTokenId": ("AuthFailure", 401),
    "SignatureDoesNotMatch": ("AuthFailure", 401),
    "RequestTimeTooSkewed": ("RequestExpired", 400),
}
_QUERY_WORDS: Final = {"RequestTimeTooSkewed": ("SignatureDoesNotMatch", 403)}
_S3_WORDS: Final = {
    "MissingAuthenticationToken": ("AccessDenied", 403),
    "InvalidClientTokenId": ("InvalidAccessKeyId", 403),
    "IncompleteSignature": ("AuthorizationHeaderMalformed", 400),
    "RequestExpired": ("AccessDenied", 403),
}


def in_words_of(service: str, refused: Refused) -> Refused:
    """Give a refusal of a signature by the code that a service has for it."""
    words = {
        "ec2": _EC2_WORDS,
        "s3": _S3_WORDS,
        "autoscaling": _QUERY_WORDS,
        "sts": _QUERY_WORDS,
        "query": _QUERY_WORDS,
    }
    code, status = words.get(service, _JSON_WORDS).get(refused.code, (refused.code, refused.status))
    return Refused(code, refused.message, status)


_SECRET: Final = re.compile(
    r"plaintext|blob|material|userdata|token|secret|password|signature|credential|^x-amz", re.IGNORECASE
)
_LONGEST_TEXT: Final = 300


def loggable(service: str, request: Request) -> dict[str, str]:
    """Give those parameters of a request that say what it is about and are no secrets."""
    if service == "s3":
        bucket, _, key = request.path.lstrip("/").partition("/")
        found = {"Bucket": bucket, "Key": key}
        for header in ("if-match", "if-none-match"):
            if value := request.header(header):
                found[header] = value
        return {name: value for name, value in found.items() if value}
    if (request.body or b"").lstrip().startswith(b"{"):
        try:
            document = json.loads(request.body)
        except ValueError:
            return {}
        pairs = [(k, v if isinstance(v, str) else json.dumps(v)) for k, v in document.items()]
    else:
        pairs = parse_qsl(request.body.decode("latin-1") or request.query)
    return {
        name: value[:_LONGEST_TEXT]
        for name, value in pairs
        if not _SECRET.search(name) and name not in {"Action", "Version"}
    }


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
                self.close_connection = True  # its body stays unread
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
        """Say at once that the body may come: S3's clients wait a second for that word."""
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
        # A HEAD's answer tells the length of what it does not send.
        given = {name.lower(): value for name, value in answer.headers.items()}.get("content-length")
        bodiless = self.command == "HEAD" or answer.status in {204, 304}
        if answer.status not in {204, 304}:
            self.send_header("Content-Length", (given if bodiless and given else None) or str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not bodiless:
            self.wfile.write(answer.body)

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
        """Say nothing: the call log has it."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_port = False
    endpoint: Endpoint

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service who 127.0.0.1 is.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""
        import sys

        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class HttpServer:
    """Serves an endpoint on 127.0.0.1, on the wished-for port if it is free."""

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
