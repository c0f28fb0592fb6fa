"""One service's boto3 client: calls with a deadline, checked responses, and notices of retries."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from rackctl.aws.errors import Silent, Where, has_request_id, not_awss, translated
from rackctl.background import in_background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.clock import Clock

T = TypeVar("T")
Document = dict[str, Any]

# Seconds for a call with its retries; a service that works answers sooner.
DEADLINE = 60.0
# Seconds between two notices of retries.
_NOTICE_INTERVAL = 60.0

# By service, the members of the request and of the response that hold the page token.
_PAGE_TOKENS = {
    "autoscaling": ("NextToken", "NextToken"),
    "cloudwatch": ("NextToken", "NextToken"),
    "ec2": ("NextToken", "NextToken"),
    "ecs": ("nextToken", "nextToken"),
    "iam": ("Marker", "Marker"),
    "kms": ("Marker", "NextMarker"),
    "s3": ("ContinuationToken", "NextContinuationToken"),
}


@dataclass
class _Call:
    """The state of one call, for the handlers of botocore's events."""

    over: bool = False
    received: str = ""  # the status and content type of the last response
    body: Any = b""  # a stream, if the operation returns one
    reason: str = ""  # why botocore retries the call


_CALL: ContextVar[_Call] = ContextVar("_CALL")


class Client:
    """One service's boto3 client; calling it is calling AWS.

    Only ``read`` reads a response. If a member is missing from it or has another type, the response is not AWS's, and
    Unanswered is raised.
    """

    def __init__(
        self, client: Any, where: Where, *, prepare: Callable[[], object] = lambda: None, deadline: float = DEADLINE
    ) -> None:
        self._client = client
        self._where = where
        self._prepare = prepare
        self._deadline = deadline
        client.meta.events.register_first("before-send", _before_send)
        client.meta.events.register("before-parse", _before_parse)

    @overload
    def __call__(
        self, operation: str, read: Callable[[Document], T], /, *, resource: str = "", **parameters: Any
    ) -> T: ...
    @overload
    def __call__(self, operation: str, /, *, resource: str = "", **parameters: Any) -> None: ...
    def __call__(
        self,
        operation: str,
        read: Callable[[Document], Any] = lambda _: None,
        /,
        *,
        resource: str = "",
        **parameters: Any,
    ) -> Any:
        """Call an operation by its Python name, and return ``read`` of the response that botocore parsed.

        ``resource`` names its resource in error messages. Raises RackctlError.
        """
        where = replace(self._where, action=self._client.meta.method_to_api_mapping[operation], resource=resource)
        call = _Call()

        def ask() -> Any:
            _CALL.set(call)
            with translated(where):
                try:
                    answer = getattr(self._client, operation)(**parameters)
                    if not has_request_id(answer["ResponseMetadata"]):
                        raise not_awss(where, f"{call.received}, no request id")
                    return read(answer)
                except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                    if not call.received:
                        raise
                    if hasattr(call.body, "close"):
                        call.body.close()
                    raise not_awss(where, f"{call.received}, {_flaw(error)}") from error

        # No deadline applies to fetching credentials, which may prompt for an MFA code.
        with translated(where):
            self._prepare()
        return _within(self._deadline, call, ask, where)

    def pages(
        self, operation: str, read: Callable[[Document], T], /, *, resource: str = "", **parameters: Any
    ) -> Iterator[T]:
        """Yield ``read`` of each page, fetching a page when the one before has been used.

        Raises RackctlError, also for a repeated page token, which would never end.
        """
        sent, received = _PAGE_TOKENS[self._where.service]
        seen: set[str] = set()
        while True:
            page, token = self(
                operation,
                lambda answer: (read(answer), str(answer.get(received) or "")),
                resource=resource,
                **parameters,
            )
            yield page
            if not token:
                return
            if token in seen:
                action = self._client.meta.method_to_api_mapping[operation]
                raise not_awss(replace(self._where, action=action, resource=resource), "a page token that repeats")
            seen.add(token)
            parameters[sent] = token


def _within(seconds: float, call: _Call, ask: Callable[[], T], where: Where) -> T:
    """Return the result of ``ask``, run in a thread; raise Silent if it takes longer.

    A socket's timeout ends neither a response that comes a byte at a time nor a look-up of a name. An abandoned call
    sends no further request.
    """
    result = in_background(ask, f"aws {where}")
    try:
        return result.result(timeout=seconds)
    except TimeoutError:
        if result.done():
            raise
        raise Silent(f"{where.endpoint} did not complete its response to {where} within {seconds:g} s") from None
    finally:
        call.over = True


def _flaw(error: Exception) -> str:
    """Describe the flaw of a response that could not be read."""
    return f"no {error.args[0]}" if isinstance(error, KeyError) else f"unreadable ({type(error).__name__}: {error})"


class _CallOverError(Exception):
    """Raised in place of a request of an abandoned call; it is never reported."""


def _before_send(**_: Any) -> None:
    if _CALL.get().over:
        raise _CallOverError


def _before_parse(*, response_dict: Document, **_: Any) -> None:
    content_type = response_dict["headers"].get("content-type", "no content type")
    call = _CALL.get()
    call.received = f"HTTP status {response_dict['status_code']}, {content_type}"
    call.body = response_dict["body"]


class RetryNotice:
    """Reports a call's retry and its reason, at most once a minute; botocore itself retries silently."""

    def __init__(self, notify: Callable[[str], None], clock: Clock) -> None:
        self._notify = notify
        self._clock = clock
        self._silent_until = 0.0
        self._lock = threading.Lock()

    def watch(self, events: Any) -> None:
        """Report the retries of the client that has this event emitter."""
        events.register("needs-retry", self._remember_reason)
        events.register("before-send", self._report)

    def _remember_reason(self, *, response: Any, caught_exception: Exception | None, **_: Any) -> None:
        if caught_exception is not None:
            reason = "no answer" if "imeout" in type(caught_exception).__name__ else "no connection"
        else:
            reason = response[1].get("Error", {}).get("Code") or f"HTTP status {response[0].status_code}"
        _CALL.get().reason = reason

    def _report(self, *, request: Any, event_name: str, **_: Any) -> None:
        # botocore numbers the attempts: "attempt=2; max=5".
        numbered = request.headers.get("amz-sdk-request", b"attempt=1")
        if numbered.split(b";")[0] == b"attempt=1":
            return
        with self._lock:
            now = self._clock.monotonic()
            if now < self._silent_until:
                return
            self._silent_until = now + _NOTICE_INTERVAL
        endpoint, operation = event_name.removeprefix("before-send.").split(".", 1)
        call = f"{endpoint.replace('-', '')}:{operation}"  # IAM's name of the service: autoscaling, not auto-scaling
        self._notify(f"AWS ({call}): {_CALL.get().reason or 'no usable answer'}; retrying")
