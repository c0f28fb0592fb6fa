"""Reading answers faster than botocore does, to the same result.

Of the time that botocore takes to read a list of instances, most goes into three things, which are done otherwise here:
it builds a tree of every element of EC2's XML before it looks for what the model names, it looks each member of each
document up in the model, and it has dateutil guess the format of each time. This is given to botocore where it
provides for it, in the factory of its parsers; errors, and any shape that is not plain structures, lists and scalars,
are left to botocore's own parsers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from botocore.parsers import EC2QueryParser, JSONParser, ResponseParserFactory
from botocore.utils import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class ParserFactory(ResponseParserFactory):  # type: ignore[misc]  # botocore has no types
    def __init__(self) -> None:
        super().__init__()
        self.set_parser_defaults(timestamp_parser=timestamp)
        # Made once, since they remember the shapes they have seen; botocore asks for a parser at every call.
        self._ours = {"ec2": _Ec2Parser(timestamp), "json": _JsonParser(timestamp)}

    def create_parser(self, protocol_name: str) -> Any:
        """Give the parser of a protocol, as botocore's clients ask for it."""
        return self._ours.get(protocol_name) or super().create_parser(protocol_name)


def timestamp(value: str | float) -> datetime:
    """Read a time in any of the formats of AWS's protocols, as an aware datetime in UTC."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if "T" in value:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    parsed: datetime = parse_timestamp(value)
    return parsed.astimezone(UTC)


class _NotPlainError(Exception):
    """A shape that is not made of plain structures, lists and scalars."""


class _JsonParser(JSONParser):  # type: ignore[misc]  # botocore has no types
    def __init__(self, timestamp_parser: Callable[[str | float], datetime]) -> None:
        super().__init__(timestamp_parser)
        self._readers: dict[str, Callable[[Any], Any] | None] = {}

    def _handle_structure(self, shape: Any, value: Any) -> Any:
        if shape.name not in self._readers:
            try:
                self._readers[shape.name] = self._reader(shape)
            except _NotPlainError:
                self._readers[shape.name] = None
        read = self._readers[shape.name]
        return super()._handle_structure(shape, value) if read is None else read(value)

    def _reader(self, shape: Any) -> Callable[[Any], Any] | None:
        """Make what reads a value of a shape; None for one that JSON has as it is to be."""
        match shape.type_name:
            case "structure" if not shape.is_tagged_union and not shape.is_document_type:
                members = [
                    (member.serialization.get("name", name), name, self._reader(member))
                    for name, member in shape.members.items()
                ]
                return partial(_structure, members)
            case "list":
                item = self._reader(shape.member)
                return partial(_list, item) if item else None
            case "structure" | "map":
                raise _NotPlainError
            case "timestamp" | "blob":
                return partial(getattr(self, f"_handle_{shape.type_name}"), shape)
            case _:
                return None


def _structure(members: Sequence[tuple[str, str, Callable[[Any], Any] | None]], value: Any) -> Any:
    if value is None:
        return None
    read: dict[str, Any] = {}
    for written, name, reader in members:
        found = value.get(written)
        if found is not None:
            read[name] = reader(found) if reader else found
    return read


def _list(item: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    return [None if value is None else item(value) for value in values]


class _Node:
    """What an XML element is read as: a structure of ``fields`` (by element), a list of ``item``, or a scalar."""

    __slots__ = ("fields", "item", "name", "scalar")

    def __init__(self, name: str) -> None:
        self.name = name
        self.fields: dict[str, _Node] = {}
        self.item: _Node | None = None
        self.scalar: Callable[[str], Any] | None = None


class _Ec2Parser(EC2QueryParser):  # type: ignore[misc]  # botocore has no types
    def __init__(self, timestamp_parser: Callable[[str | float], datetime]) -> None:
        super().__init__(timestamp_parser)
        self._roots: dict[str, _Node | None] = {}

    def _do_parse(self, response: Mapping[str, Any], shape: Any) -> Any:
        root = self._root(shape) if shape is not None else None
        if root is None:
            return super()._do_parse(response, shape)
        try:
            parsed = _read(response["body"], root)
        except expat.ExpatError:
            return super()._do_parse(response, shape)  # which complains in botocore's words
        if _REQUEST_ID in parsed:
            parsed["ResponseMetadata"] = {"RequestId": parsed.pop(_REQUEST_ID)}
        return parsed

    def _root(self, shape: Any) -> _Node | None:
        if shape.name not in self._roots:
            try:
                root = self._node(shape, "")
                root.fields[_REQUEST_ID] = _Node(_REQUEST_ID)
                root.fields[_REQUEST_ID].scalar = str
            except _NotPlainError:
                root = None
            self._roots[shape.name] = root
        return self._roots[shape.name]

    def _node(self, shape: Any, name: str) -> _Node:
        node = _Node(name)
        match shape.type_name:
            case "structure" if not shape.is_tagged_union:
                node.fields = {
                    self._member_key_name(member, key): self._node(member, key) for key, member in shape.members.items()
                }
            case "list" if not shape.serialization.get("flattened"):
                node.item = self._node(shape.member, "")
            case "structure" | "list" | "map":
                raise _NotPlainError
            case "string":
                node.scalar = str
            case scalar:
                node.scalar = partial(getattr(self, f"_handle_{scalar}"), shape)
        return node


_REQUEST_ID = "requestId"


def _read(xml: bytes, root: _Node) -> dict[str, Any]:
    """Read a document, element by element, into what its root is to be; what that has no place for is passed over."""
    answer: dict[str, Any] = {}
    above: list[tuple[_Node, Any]] = []
    node = root
    into: Any = answer
    text: list[str] = []
    known: dict[str, str] = {}
    passed_over = -1  # how many elements deep; the outermost element is the root's own

    def start(tag: str, _: object) -> None:
        nonlocal node, into, passed_over
        if passed_over:
            passed_over += 1
            return
        child = node.item or node.fields.get(tag)
        if child is None:
            passed_over = 1
            return
        above.append((node, into))
        if child.scalar is None:
            made: Any = {} if child.item is None else []
            if node.item is None:
                into[child.name] = made
            else:
                into.append(made)
            into = made
        else:
            text.clear()
        node = child

    def end(_: str) -> None:
        nonlocal node, into, passed_over
        if passed_over:
            passed_over -= 1
            return
        if not above:
            return
        if node.scalar is not None:
            # One copy of what is repeated in every document: tags, types, zones, states.
            written = "".join(text)
            value = node.scalar(known.setdefault(written, written))
            if above[-1][0].item is None:
                into[node.name] = value
            else:
                into.append(value)
        node, into = above.pop()

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.Parse(xml, True)
    return answer
