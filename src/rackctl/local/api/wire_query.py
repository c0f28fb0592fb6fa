"""The query protocols of EC2 and Auto Scaling."""

from __future__ import annotations

import base64
import binascii
import html
import re
import uuid
from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from botocore.utils import parse_timestamp

from rackctl.local.api.wire import Answer, Operation, Protocol, Raw, Shape
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Appends a value's serialised parts to a list.
_Writer: TypeAlias = "Callable[[Any, list[str]], None]"

# Parameters of the protocol, beside those of the operation.
_NOT_PARAMETERS = re.compile(
    r"Action|Version|AWSAccessKeyId|Signature(Method|Version)?|SecurityToken|Timestamp|Expires|X-Amz-[\w-]+"
)


class _Query(Protocol):
    content_type = "text/xml;charset=UTF-8"

    def __init__(self, service: str, methods: frozenset[str]) -> None:
        super().__init__(service, methods)
        self.namespace = self.model.metadata["xmlNamespace"]
        self._wire_names: dict[str, dict[str, str]] = {}
        self._writers: dict[str, _Writer] = {}

    def action(self, headers: Mapping[str, str], body: bytes) -> str:  # noqa: ARG002 - other protocols read them
        return dict(_fields(body)).get("Action", "")

    # Requests: parameters such as Filter.1.Value.2=x form a tree of names and numbers, with a text at each leaf.

    def _parameters(self, operation: Operation, body: bytes) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, text in _fields(body):
            if _NOT_PARAMETERS.fullmatch(key):
                continue
            *branches, leaf = key.split(".")
            node = tree
            for branch in branches:
                node = node.setdefault(branch, {})
                if not isinstance(node, dict):
                    raise self.unknown(key)
            if leaf in node:
                raise self.unknown(key)
            node[leaf] = text
        if operation.input_shape is None:
            if tree:
                raise self.unknown(next(iter(tree)))
            return {}
        parameters: dict[str, Any] = self._read(operation.input_shape, tree, "")
        return parameters

    @abstractmethod
    def unknown(self, path: str) -> Refused: ...

    @abstractmethod
    def _wire_name(self, member: Shape, name: str) -> str: ...

    @abstractmethod
    def _list_node(self, shape: Shape, node: dict[str, Any], path: str) -> dict[str, Any]: ...

    def _read(self, shape: Shape, node: Any, path: str) -> Any:
        if shape.type_name == "structure":
            return self._read_structure(shape, node, path)
        if shape.type_name == "list":
            return self._read_list(shape, node, path)
        if not isinstance(node, str):
            raise self.unknown(f"{path}.{next(iter(node))}")
        return self._read_scalar(shape.type_name, node, path)

    def _read_structure(self, shape: Shape, node: Any, path: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            raise self.invalid(path, node, "it is a structure")
        names = self._wire_names.get(shape.name)
        if names is None:
            names = {self._wire_name(member, name): name for name, member in shape.members.items()}
            self._wire_names[shape.name] = names
        found = {}
        for wire_name, part in node.items():
            here = f"{path}.{wire_name}".lstrip(".")
            if wire_name not in names:
                raise self.unknown(here)
            found[names[wire_name]] = self._read(shape.members[names[wire_name]], part, here)
        return found

    def _read_list(self, shape: Shape, node: Any, path: str) -> list[Any]:
        if node == "":
            return []  # botocore's form of an empty list
        if not isinstance(node, dict):
            raise self.invalid(path, node, "it is a list")
        node = self._list_node(shape, node, path)
        for number in node:
            if not number.isdecimal():
                raise self.unknown(f"{path}.{number}")
        return [self._read(shape.member, node[number], f"{path}.{number}") for number in sorted(node, key=int)]

    def _read_scalar(self, kind: str, text: str, path: str) -> Any:
        try:
            match kind:
                case "integer" | "long":
                    return int(text)
                case "float" | "double":
                    return float(text)
                case "boolean":
                    return {"true": True, "false": False}[text.lower()]
                case "blob":
                    return base64.b64decode(text, validate=True)
                case "timestamp":
                    return parse_timestamp(text).timestamp()
                case _:
                    return text
        except (ValueError, KeyError, binascii.Error):
            raise self.invalid(path, text, f"it is no {kind}") from None

    # Responses

    def answer(self, operation: Operation, result: Mapping[str, Any]) -> Answer:
        request_id = str(uuid.uuid4())
        parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{operation.name}Response xmlns="{self.namespace}">']
        self._envelope(operation, result, request_id, parts)
        parts.append(f"</{operation.name}Response>")
        return self._http(200, "".join(parts), request_id)

    @abstractmethod
    def _envelope(self, operation: Operation, result: Mapping[str, Any], request_id: str, parts: list[str]) -> None: ...

    def fragment(self, shape_name: str, value: Mapping[str, Any]) -> Raw:
        """Serialise a structure for later results."""
        parts: list[str] = []
        self._writer(self.model.shape_for(shape_name))(value, parts)
        return Raw("".join(parts))

    def _writer(self, shape: Shape) -> _Writer:
        """Return the function that serialises values of a shape.

        It is built once, since walking botocore's models is slow.
        """
        writer = self._writers.get(shape.name)
        if writer is None:
            match shape.type_name:
                case "structure":
                    writer = self._structure_writer(shape)
                case "list":
                    writer = self._list_writer(shape)
                case "boolean":
                    writer = _write_boolean
                case "timestamp":
                    writer = self._write_time
                case _:
                    writer = _write_text
            self._writers[shape.name] = writer
        return writer

    def _structure_writer(self, shape: Shape) -> _Writer:
        members: dict[str, tuple[str, _Writer, str]] = {}

        def write(value: Any, parts: list[str]) -> None:
            if isinstance(value, Raw):
                parts.append(value)
                return
            for name, part in value.items():
                if part is None:
                    continue
                member = members.get(name)
                if member is None:
                    tag = shape.members[name].serialization.get("name", name)
                    member = members[name] = (f"<{tag}>", self._writer(shape.members[name]), f"</{tag}>")
                parts.append(member[0])
                member[1](part, parts)
                parts.append(member[2])

        return write

    def _list_writer(self, shape: Shape) -> _Writer:
        tag = shape.member.serialization.get("name", "member")
        before, after = f"<{tag}>", f"</{tag}>"
        write_item = self._writer(shape.member)

        def write(value: Iterable[Any], parts: list[str]) -> None:
            for part in value:
                parts.append(before)
                write_item(part, parts)
                parts.append(after)

        return write

    def _write_time(self, value: float, parts: list[str]) -> None:
        parts.append(self.time(value))

    @abstractmethod
    def time(self, at: float) -> str: ...

    def _http(self, status: int, body: str, request_id: str) -> Answer:
        return Answer(status, {"Content-Type": self.content_type, "x-amzn-RequestId": request_id}, body.encode())


class Ec2Protocol(_Query):
    """EC2's query protocol: https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html."""

    def _wire_name(self, member: Shape, name: str) -> str:
        if "queryName" in member.serialization:
            wire_name: str = member.serialization["queryName"]
            return wire_name
        written: str = member.serialization.get("name", name)
        return written[0].upper() + written[1:]

    def _list_node(self, shape: Shape, node: dict[str, Any], path: str) -> dict[str, Any]:  # noqa: ARG002
        return node

    def _envelope(self, operation: Operation, result: Mapping[str, Any], request_id: str, parts: list[str]) -> None:
        parts.append(f"<requestId>{request_id}</requestId>")
        if operation.output_shape is None:
            parts.append("<return>true</return>")
        else:
            self._writer(operation.output_shape)(result, parts)

    def time(self, at: float) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def refuse(self, refused: Refused) -> Answer:
        request_id = str(uuid.uuid4())
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{_xml_text(refused.code)}</Code><Message>{_xml_text(refused.message)}</Message>"
            f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
        return self._http(refused.status, body, request_id)

    def no_action(self) -> Refused:
        return Refused("MissingAction", "The request must contain the parameter Action")

    def unknown_action(self, action: str) -> Refused:
        return Refused(
            "InvalidAction",
            f"The action {action} is not valid for this web service: the local rack does not support it.",
        )

    def unknown(self, path: str) -> Refused:
        return Refused("UnknownParameter", f"The parameter {path} is not recognized")

    def missing(self, path: str) -> Refused:
        return Refused("MissingParameter", f"The request must contain the parameter {path}")

    def invalid(self, path: str, value: object, reason: str) -> Refused:
        return Refused("InvalidParameterValue", f"Value ({value}) for parameter {path} is invalid. {reason}.")

    def mistaken(self, report: str) -> Refused:
        return Refused("InvalidParameterValue", report)

    def token_reused(self) -> Refused:
        return Refused("IdempotentParameterMismatch", "The client token was given with other parameters before.")


class AutoScalingProtocol(_Query):
    """The query protocol: https://smithy.io/2.0/aws/protocols/aws-query-protocol.html."""

    content_type = "text/xml"

    def _wire_name(self, member: Shape, name: str) -> str:
        wire_name: str = member.serialization.get("name", name)
        return wire_name

    def _list_node(self, shape: Shape, node: dict[str, Any], path: str) -> dict[str, Any]:
        name = shape.member.serialization.get("name", "member")
        items = node.get(name)
        if not isinstance(items, dict) or len(node) > 1:
            raise self.unknown(f"{path}.{next(key for key in node if key != name or len(node) == 1)}")
        return items

    def _envelope(self, operation: Operation, result: Mapping[str, Any], request_id: str, parts: list[str]) -> None:
        if operation.output_shape is not None:
            parts.append(f"<{operation.name}Result>")
            self._writer(operation.output_shape)(result, parts)
            parts.append(f"</{operation.name}Result>")
        parts.append(f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>")

    def time(self, at: float) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def refuse(self, refused: Refused) -> Answer:
        request_id = str(uuid.uuid4())
        blamed = "Sender" if refused.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="{self.namespace}"><Error><Type>{blamed}</Type>'
            f"<Code>{_xml_text(refused.code)}</Code><Message>{_xml_text(refused.message)}</Message>"
            f"</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return self._http(refused.status, body, request_id)

    def no_action(self) -> Refused:
        return Refused("MissingAction", "The request must contain the parameter Action")

    def unknown_action(self, action: str) -> Refused:
        version = self.model.metadata["apiVersion"]
        return Refused(
            "InvalidAction",
            f"Could not find operation {action} for version {version}: the local rack does not support it.",
        )

    def unknown(self, path: str) -> Refused:
        return Refused("ValidationError", f"The parameter {path} is not recognized")

    def missing(self, path: str) -> Refused:
        return self.invalid(path, None, "Member must not be null")

    def invalid(self, path: str, value: object, reason: str) -> Refused:
        quoted = "null" if value is None else f"'{value}'"
        where = path[:1].lower() + path[1:]
        return Refused(
            "ValidationError",
            f"1 validation error detected: Value {quoted} at '{where}' failed to satisfy constraint: {reason}",
        )

    def mistaken(self, report: str) -> Refused:
        return Refused("ValidationError", report)

    def token_reused(self) -> Refused:
        return Refused("IdempotentParameterMismatch", "The client token was given with other parameters before.")


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


# Characters to escape, and those that XML 1.0 cannot represent even escaped.
_NOT_IN_XML = "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
_NOT_PLAIN = re.compile(f"[&<>]|{_NOT_IN_XML}")


def _xml_text(text: str) -> str:
    return re.sub(_NOT_IN_XML, "\ufffd", html.escape(text, quote=False)) if _NOT_PLAIN.search(text) else text


def _write_text(value: object, parts: list[str]) -> None:
    parts.append(_xml_text(str(value)))


def _write_boolean(value: object, parts: list[str]) -> None:
    parts.append("true" if value else "false")
