"""Read dataclasses from JSON, each value of the type that its field says: a journal may have been edited by hand."""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rackctl import model

T = TypeVar("T")


@cache
def _hints(kind: type) -> dict[str, Any]:
    # Modules that start fast import the types of `rackctl.model` for type checkers alone.
    return get_type_hints(kind, localns=vars(model))


def read(kind: type[T], document: Any) -> T:
    """Return a dataclass from a JSON object. Raises TypeError or ValueError for what is none of its kind."""
    found: T = _read(kind, document, "it")
    return found


def _read(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        fields = _hints(kind)
        if unknown := _of(dict, value, name).keys() - fields.keys():
            raise TypeError(f"{name} has the unknown field {min(unknown)}")
        return kind(**{field: _read(fields[field], of_it, field) for field, of_it in value.items()})
    if origin is UnionType:  # with None
        [other] = set(arguments) - {NoneType}
        return None if value is None else _read(other, value, name)
    if origin in {list, tuple}:
        return origin(_read(arguments[0], one, name) for one in _of(list, value, name))
    if origin is dict:
        return {_of(str, key, name): _read(arguments[1], one, name) for key, one in _of(dict, value, name).items()}
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name} is {value!r}")
        return value
    return value if kind is Any else _of(kind, value, name)


def _of(kind: type, value: Any, name: str) -> Any:
    # JSON tells no whole float from an integer, and a boolean is an integer to Python.
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{name} is {value!r}")
    return value
