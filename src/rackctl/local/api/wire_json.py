"""The JSON protocol of ECS and Systems Manager."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from rackctl.local.api.wire import Answer, Operation, Protocol, Raw
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping


class JsonProtocol(Protocol):
    """JSON 1.1: https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html."""

    content_type = "application/x-amz-json-1.1"

    def action(self, headers: Mapping[str, str], body: bytes) -> str:  # noqa: ARG002 - other protocols read it
        target, _, action = headers.get("x-amz-target", "").partition(".")
        return action if target == self.model.metadata["targetPrefix"] else ""

    def _parameters(self, operation: Operation, body: bytes) -> dict[str, Any]:  # noqa: ARG002 - others need it
        try:
            given = json.loads(body or b"{}")
        except ValueError:
            raise Refused("SerializationException", "The request body is not JSON") from None
        if not isinstance(given, dict):
            raise Refused("SerializationException", "The request body is not a JSON object")
        # null and absent are the same in this protocol.
        return {name: value for name, value in given.items() if value is not None}

    def answer(self, operation: Operation, result: Mapping[str, Any]) -> Answer:  # noqa: ARG002 - others need it
        members = ",".join(f"{json.dumps(name)}:{_json_member(value)}" for name, value in result.items())
        return self._http(200, f"{{{members}}}", str(uuid.uuid4()))

    def fragment(self, value: Mapping[str, Any]) -> Raw:
        """Serialise a structure for the lists of later results."""
        return Raw(json.dumps(value, separators=(",", ":")))

    def refuse(self, refused: Refused) -> Answer:
        body = json.dumps({"__type": refused.code, "message": refused.message})
        answer = self._http(refused.status, body, str(uuid.uuid4()))
        return Answer(answer.status, {**answer.headers, "x-amzn-ErrorType": refused.code}, answer.body)

    def _http(self, status: int, body: str, request_id: str) -> Answer:
        return Answer(status, {"Content-Type": self.content_type, "x-amzn-RequestId": request_id}, body.encode())

    def no_action(self) -> Refused:
        return Refused("MissingAuthenticationTokenException", "The request names no operation of this service.", 403)

    def unknown_action(self, action: str) -> Refused:
        return Refused("UnknownOperationException", f"The local rack does not support operation {action}.")

    def missing(self, path: str) -> Refused:
        return Refused("InvalidParameterException", f"{path} cannot be null or empty.")

    def invalid(self, path: str, value: object, reason: str) -> Refused:
        return Refused("InvalidParameterException", f"{path} is invalid: {reason} (given: {value}).")

    def mistaken(self, report: str) -> Refused:
        return Refused("InvalidParameterException", report)

    def token_reused(self) -> Refused:
        return Refused("ConflictException", "The client token was given with other parameters before.")


def _json_member(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Raw):
        return f"[{','.join(value)}]"
    return json.dumps(value, separators=(",", ":"))
