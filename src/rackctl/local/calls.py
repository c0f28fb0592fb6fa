"""The log of API calls, without secrets."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from rackctl.local.signature import Request

_CALLS_KEPT: Final = 20_000


@dataclass
class Call:
    """A logged call. ``status`` is None until the response, or if the client got none.

    ``needs`` are the IAM actions that it needs, if a policy is in force.
    """

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
    needs: list[str] = field(default_factory=list)


class CallLog:
    """The latest calls, in the order of arrival."""

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
        """Return the calls with a higher number."""
        with self._lock:
            return [asdict(call) for call in self._calls if call.number > number]


_SECRET: Final = re.compile(
    r"plaintext|blob|material|userdata|token|secret|password|signature|credential|^x-amz", re.IGNORECASE
)
_LONGEST_TEXT: Final = 300


def loggable(service: str, request: Request) -> dict[str, str]:
    """Return the parameters that identify a request's resources, without secrets."""
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
