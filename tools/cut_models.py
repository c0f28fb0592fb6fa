"""Cut the slices of `KEPT` out of the installed botocore's models: ``make models``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.loaders import Loader

from rackctl.aws.models import ENDPOINTS, KEPT, SLICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Model = dict[str, Any]


def main() -> None:
    """Write all slices, and remove those of other versions."""
    for old in SLICES.parent.glob("botocore-*"):
        shutil.rmtree(old)
    whole = Loader()
    SLICES.mkdir()
    _write("endpoints", endpoints_slice(whole.load_data("endpoints")))
    for service, kept in KEPT.items():
        directory = Path(service) / whole.determine_latest_version(service, "service-2")
        _write(directory / "service-2", service_slice(whole.load_service_model(service, "service-2"), kept))


def _write(name: str | Path, cut: Model) -> None:
    path = SLICES / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cut, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.stat().st_size:8,} bytes  {path.relative_to(SLICES.parent)}")


def endpoints_slice(model: Model) -> Model:
    """Cut the list of endpoints down to the services that are called."""
    return {
        **model,
        "partitions": [
            {
                **partition,
                "services": {name: partition["services"][name] for name in ENDPOINTS if name in partition["services"]},
            }
            for partition in model["partitions"]
        ],
    }


def service_slice(model: Model, kept: Mapping[str, Iterable[str]]) -> Model:
    """Cut a service's ``service-2`` down to some operations, and their answers to some paths.

    Shapes are shared: a member that one operation keeps is kept for all, and all parameters are kept. Raises KeyError
    for an operation or a path that the service does not have.
    """
    shapes: Model = model["shapes"]
    operations = {name: model["operations"][name] for name in sorted(kept)}
    whole: set[str] = set()
    members: dict[str, set[str]] = {}

    def keep_whole(name: str) -> None:
        if name not in whole:
            whole.add(name)
            for reference in _references(shapes[name]).values():
                keep_whole(reference)

    def keep(name: str, path: list[str]) -> None:
        if not path:
            return keep_whole(name)
        references = _references(shapes[name])
        if "members" in shapes[name]:
            members.setdefault(name, set()).add(path[0])
            return keep(references[path[0]], path[1:])
        members.setdefault(name, set())
        if "key" in references:
            keep_whole(references["key"])
        return keep(references.get("member") or references["value"], path)

    for name, operation in operations.items():
        for sent in filter(None, (operation.get("input"), *operation.get("errors", ()))):
            keep_whole(sent["shape"])
        if "output" in operation:
            members.setdefault(operation["output"]["shape"], set())
            for path in kept[name]:
                keep(operation["output"]["shape"], path.split("."))
    cut = {
        name: shapes[name] if name in whole else _members_cut(shapes[name], members[name])
        for name in sorted(whole | members.keys())
    }
    rest = {key: value for key, value in model.items() if key not in {"operations", "shapes", "documentation"}}
    # The rest is small, and botocore needs the documentation of clientContextParams.
    return {**rest, **_without_prose({"operations": operations, "shapes": cut})}


def _references(shape: Model) -> dict[str, str]:
    """Map the members of a shape to the names of their shapes."""
    parts = shape.get("members") or {part: shape[part] for part in ("member", "key", "value") if part in shape}
    return {name: part["shape"] for name, part in parts.items()}


def _members_cut(shape: Model, kept: set[str]) -> Model:
    if "members" not in shape:
        return shape
    return {**shape, "members": {name: member for name, member in shape["members"].items() if name in kept}}


def _without_prose(model: Any) -> Any:
    """Drop documentation and enumerated values, which botocore never checks; members of those names stay."""
    match model:
        case dict():
            return {
                key: _without_prose(value)
                for key, value in model.items()
                if not (key == "documentation" and isinstance(value, str))
                and not (key == "enum" and isinstance(value, list))
            }
        case list():
            return [_without_prose(value) for value in model]
        case _:
            return model


if __name__ == "__main__":
    main()
