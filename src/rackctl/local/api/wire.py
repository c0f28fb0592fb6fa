"""AWS's protocols: parsing requests and writing responses by botocore's models of the services."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rackctl.local.world.base import Refused

# botocore has no type hints; these are its OperationModel and Shape.
Operation: TypeAlias = Any
Shape: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. ``way`` is how it is sent: whole, or "cut", "drip" or "two-dates"."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    way: str = ""
    seconds: float = 0.0


class Raw(str):
    """A part of a response that is serialised already."""

    __slots__ = ()


class Fragments:
    """A cache of serialised parts; a part is valid while the version of its source is the same."""

    _MOST: Final = 50_000

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Raw]] = {}

    def get(self, key: str, version: object, make: Callable[[], Raw]) -> Raw:
        kept = self._kept.get(key)
        if kept is not None and kept[0] == version:
            return kept[1]
        if len(self._kept) >= self._MOST:  # most of the parts belong to resources that no longer exist
            self._kept.clear()
        made = make()
        self._kept[key] = (version, made)
        return made


class Protocol(ABC):
    """The protocol of one service: parses requests and writes responses by its model."""

    content_type: str

    def __init__(self, service: str, methods: frozenset[str]) -> None:
        """Load a service's model with the operations that have one of these methods (snake case)."""
        self.model = _model(service, methods)

    @abstractmethod
    def action(self, headers: Mapping[str, str], body: bytes) -> str:
        """Return a request's operation; empty if it names none. Header names are in lower case."""

    def read(self, action: str, body: bytes) -> tuple[Operation, dict[str, Any]]:
        """Return a request's operation and its parameters by their names in the model. Raises Refused."""
        if not action:
            raise self.no_action()
        if action not in self.model.operation_names:
            raise self.unknown_action(action)
        operation = self.model.operation_model(action)
        parameters = self._parameters(operation, body)
        if operation.input_shape is not None:
            self._check(operation.input_shape, parameters, "")
            problems = ParamValidator().validate(parameters, operation.input_shape)
            if problems.has_errors():
                raise self.mistaken(problems.generate_report().replace("\n", "; "))
        return operation, parameters

    @abstractmethod
    def _parameters(self, operation: Operation, body: bytes) -> dict[str, Any]: ...

    @abstractmethod
    def answer(self, operation: Operation, result: Mapping[str, Any]) -> Answer: ...

    @abstractmethod
    def refuse(self, refused: Refused) -> Answer: ...

    @abstractmethod
    def no_action(self) -> Refused: ...

    @abstractmethod
    def unknown_action(self, action: str) -> Refused: ...

    @abstractmethod
    def missing(self, path: str) -> Refused: ...

    @abstractmethod
    def invalid(self, path: str, value: object, reason: str) -> Refused: ...

    @abstractmethod
    def mistaken(self, report: str) -> Refused: ...

    @abstractmethod
    def token_reused(self) -> Refused: ...

    def _check(self, shape: Shape, value: Any, path: str) -> None:
        """Validate parameters against the model."""
        match shape.type_name:
            case "structure" if isinstance(value, dict):
                for name in shape.required_members:
                    if name not in value:
                        raise self.missing(f"{path}.{name}".lstrip("."))
                for name, part in value.items():
                    if name in shape.members:
                        self._check(shape.members[name], part, f"{path}.{name}".lstrip("."))
            case "list" if isinstance(value, list):
                self._check_size(shape, len(value), value, path)
                for number, part in enumerate(value, 1):
                    self._check(shape.member, part, f"{path}.{number}")
            case "string" if isinstance(value, str):
                self._check_size(shape, len(value), value, path)
                if shape.enum and value not in shape.enum:
                    raise self.invalid(path, value, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
            case "integer" | "long" if isinstance(value, int):
                self._check_size(shape, value, value, path)

    def _check_size(self, shape: Shape, size: int, value: object, path: str) -> None:
        what = "value" if isinstance(value, int) else "length"
        if size < shape.metadata.get("min", size):
            least = shape.metadata["min"]
            raise self.invalid(path, value, f"Member must have {what} greater than or equal to {least}")
        if size > shape.metadata.get("max", size):
            most = shape.metadata["max"]
            raise self.invalid(path, value, f"Member must have {what} less than or equal to {most}")


@cache
def _model(service: str, methods: frozenset[str]) -> Any:
    """Load a service's model with some operations and their shapes: EC2's whole model takes 60 MB."""
    document = Loader().load_service_model(service, "service-2")
    names = {xform_name(name): name for name in document["operations"]}
    kept = {names[method]: document["operations"][names[method]] for method in sorted(methods)}
    shapes: dict[str, Any] = {}
    ahead = [model[part]["shape"] for model in kept.values() for part in ("input", "output") if part in model]
    while ahead:
        name = ahead.pop()
        if name in shapes:
            continue
        shape = shapes[name] = document["shapes"][name]
        ahead += [member["shape"] for member in shape.get("members", {}).values()]
        ahead += [shape[part]["shape"] for part in ("member", "key", "value") if part in shape]
    return ServiceModel({"metadata": document["metadata"], "operations": kept, "shapes": shapes}, service)
