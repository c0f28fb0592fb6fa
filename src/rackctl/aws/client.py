"""One service's botocore client, and what is said when AWS has to be asked again."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rackctl.aws.errors import Where, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Client:
    """One service's botocore client; calling it is calling AWS."""

    def __init__(self, client: Any, where: Where) -> None:
        self._client = client
        self._where = where

    def __call__(self, operation: str, /, *, resource: str = "", **parameters: Any) -> dict[str, Any]:
        """Call an operation by its Python name and give the answer as botocore parsed it.

        ``resource`` says for an error message what it was asked of. Raises RackctlError.
        """
        where = replace(self._where, action=self._client.meta.method_to_api_mapping[operation], resource=resource)
        with translated(where):
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
            return answer

    def pages(self, operation: str, /, *, resource: str = "", **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of an answer, asking for each when the one before has been used.

        The token's name is the one that botocore's own paginator definitions give. Raises RackctlError.
        """
        paging = self._client.get_paginator(operation)._pagination_cfg  # noqa: SLF001 - its pages() hides the errors' place
        sent, received = paging["input_token"], paging["output_token"]
        while True:
            page = self(operation, resource=resource, **parameters)
            yield page
            if not page.get(received):
                return
            parameters = {**parameters, sent: page[received]}


class RetryReport:
    """Says, once, that AWS has to be asked again and why; botocore itself retries in silence."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._said = False
        self._reasons: dict[int, str] = {}

    def watch(self, events: Any) -> None:
        events.register("needs-retry", self._remember_reason)
        events.register("before-send", self._report)

    def _remember_reason(self, *, response: Any, caught_exception: Exception | None, **_: Any) -> None:
        if caught_exception is not None:
            reason = "no answer" if "imeout" in type(caught_exception).__name__ else "no connection"
        else:
            reason = response[1].get("Error", {}).get("Code") or f"HTTP status {response[0].status_code}"
        self._reasons[threading.get_ident()] = reason

    def _report(self, *, request: Any, event_name: str, **_: Any) -> None:
        # botocore numbers what it sends: "attempt=2; max=5".
        numbered = request.headers.get("amz-sdk-request", b"attempt=1")
        if self._said or numbered.split(b";")[0] == b"attempt=1":
            return
        self._said = True
        endpoint, operation = event_name.removeprefix("before-send.").split(".", 1)
        call = f"{endpoint.replace('-', '')}:{operation}"  # as IAM names it: autoscaling, not auto-scaling
        reason = self._reasons.get(threading.get_ident(), "no usable answer")
        self._notify(f"AWS ({call}): {reason}; asking again")
