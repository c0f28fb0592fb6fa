"""Altered results: empty, incomplete, or the first page repeated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rackctl.local.api.wire import Answer, Raw

if TYPE_CHECKING:
    from rackctl.local.api.operations import Asked, Result

KINDS: Final = frozenset({"empty", "incomplete", "same-token"})
TOKEN: Final = "c2FtZS10b2tlbi1mb3ItZXZlcg=="  # noqa: S105 - a page's
# Failures of describe calls name the missing resource by its ARN.
_ARNS: Final = {
    "containerInstances": "containerInstanceArn",
    "tasks": "taskArn",
    "services": "serviceArn",
    "clusters": "clusterArn",
    "capacityProviders": "capacityProviderArn",
}


@dataclass(frozen=True, slots=True)
class Twist:
    """One alteration. ``which`` is the id, ARN or name that `incomplete` omits (default: the first item)."""

    kind: str
    which: str = ""

    def parameters(self, asked: Asked) -> Asked:
        """Return the call's parameters; if the token never changes, those of the first page."""
        if self.kind != "same-token":
            return asked
        return {name: value for name, value in asked.items() if value != TOKEN}

    def result(self, result: Result, members: Mapping[str, Any]) -> Result:
        """Alter a result; ``members`` are those of its shape in the model."""
        match self.kind:
            case "empty":
                return {
                    name: [] if isinstance(value, list) else value
                    for name, value in result.items()
                    if name.lower() != "nexttoken"
                }
            case "same-token":
                tokens = [name for name in members if name.lower() == "nexttoken"]
                return {**result, **dict.fromkeys(tokens, TOKEN)}
            case _:
                return self._incomplete(result)

    def _incomplete(self, result: Result) -> Result:
        if self.which:
            twisted = {name: self._without(value) for name, value in result.items()}
        else:
            twisted = {
                name: value[1:] if isinstance(value, list) and name != "failures" else value
                for name, value in result.items()
            }
        if "failures" not in result:
            return twisted
        for name in _ARNS.keys() & result.keys():
            left = [_arn(item, name) for item in twisted[name]]
            gone = [arn for item in result[name] if (arn := _arn(item, name)) not in left]
            failures = [{"arn": arn, "reason": "MISSING"} for arn in gone]
            twisted["failures"] = [*result["failures"], *failures]
        return twisted

    def _without(self, value: Any) -> Any:
        """Return a value without the list items that are, or have as a member, the value to leave out."""
        if isinstance(value, list):
            return [self._without(item) for item in value if not self._is(item)]
        if isinstance(value, Mapping):
            return {name: self._without(part) for name, part in value.items()}
        return value

    def _is(self, item: Any) -> bool:
        if isinstance(item, Raw):
            return f">{self.which}<" in item or f'"{self.which}"' in item
        if isinstance(item, Mapping):
            return any(value == self.which for value in item.values() if isinstance(value, str))
        return bool(item == self.which)

    def body(self, answer: Answer) -> Answer:
        """Alter a response of S3 or KMS that moto has serialised."""
        if answer.body.lstrip().startswith(b"{"):
            result = json.loads(answer.body)
            twisted = self.result(result, {"NextMarker": None} if "Truncated" in result else {})
            if self.kind == "same-token" and "Truncated" in result:
                twisted |= {"Truncated": True, "NextMarker": TOKEN}
            return replace(answer, body=json.dumps(twisted).encode())
        items = re.compile(rb"<(Contents|CommonPrefixes|Bucket)>.*?</\1>", re.DOTALL)
        if b"<ListBucketResult" not in answer.body and b"<ListAllMyBucketsResult" not in answer.body:
            return replace(answer, body=b"") if self.kind == "empty" else answer
        body = answer.body
        if self.kind == "empty":
            body = items.sub(b"", body)
        elif self.kind == "incomplete":
            found = [m for m in items.finditer(body) if self.which.encode() in m[0]]
            body = body[: found[0].start()] + body[found[0].end() :] if found else body
        else:
            token = f"<NextContinuationToken>{TOKEN}</NextContinuationToken>".encode()
            body = body.replace(b"<IsTruncated>false</IsTruncated>", b"<IsTruncated>true</IsTruncated>" + token)
        count = f"<KeyCount>{len(items.findall(body))}</KeyCount>".encode()
        return replace(answer, body=re.sub(rb"<KeyCount>\d+</KeyCount>", count, body))


def _arn(item: Any, name: str) -> str:
    document = json.loads(item) if isinstance(item, Raw) else item
    return str(document[_ARNS[name]])
