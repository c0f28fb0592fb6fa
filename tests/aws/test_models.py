from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import botocore
import botocore.loaders
import botocore.session
import pytest
from botocore import xform_name
from botocore.config import Config
from botocore.loaders import Loader
from botocore.model import ServiceModel
from tools.cut_models import endpoints_slice, service_slice

import rackctl.aws
from rackctl.aws.client import _PAGE_TOKENS
from rackctl.aws.models import KEPT, SLICES, SlicedLoader
from tests.aws.operations import SERVICES, ask, methods, service_of

REMEDY = "name it in KEPT of rackctl/aws/models and run `make models`"
# Called by botocore itself on a client of ours.
BOTOCORES_OWN = {("s3", "CreateSession")}
# Read by botocore itself, of answers to calls of ours.
BOTOCORES_MEMBERS = {("s3", "ListObjectsV2"): {"EncodingType"}}


@cache
def whole(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def sliced(service: str) -> ServiceModel:
    return ServiceModel(SlicedLoader(None).load_service_model(service, "service-2"), service)


def source(module: str) -> ast.Module:
    return ast.parse(Path(rackctl.aws.__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))


def nodes(service: str) -> list[ast.AST]:
    """The code of all modules that call a service."""
    return [node for module in SERVICES if service_of(module) == service for node in ast.walk(source(module))]


def paged(service: str) -> set[str]:
    """The operations of which a service's modules read pages."""
    return {
        str(node.args[0].value)
        for node in nodes(service)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("._call.pages")
        if isinstance(node.args[0], ast.Constant)
    }


def called(service: str) -> set[str]:
    """The operations that a service's modules call, by their Python names: ``self._call("x")``, ``….pages("x")``."""
    return {
        str(node.args[0].value)
        for node in nodes(service)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("._call", "._call.pages", "._ask", "._change"))
        and isinstance(node.args[0], ast.Constant)
    }


def kept(service: str) -> set[str]:
    return {xform_name(name) for name in KEPT[service] if (service, name) not in BOTOCORES_OWN}


def test_every_service_module_is_looked_at() -> None:
    calling = {
        path.stem
        for path in Path(rackctl.aws.__file__).parent.glob("*.py")
        if re.search(r"self\._call(\.pages)?\(", path.read_text(encoding="utf-8"))
    }

    assert calling == {*SERVICES}
    # STS is read whole, since botocore's providers of credentials call it too.
    assert {service_of(module) for module in SERVICES} == {*KEPT, "sts"}


@pytest.mark.parametrize("service", KEPT)
def test_each_operation_that_is_called_is_in_the_slice_and_no_other(service: str) -> None:
    assert called(service), "no call was found: have they another form?"
    assert called(service) - kept(service) == set(), REMEDY
    assert kept(service) - called(service) == set(), "no longer called: take it out of KEPT and run `make models`"


@pytest.mark.parametrize("service", KEPT)
def test_each_member_that_is_kept_is_one_that_a_service_module_names(service: str) -> None:
    # Some are read by a function of another service's module.
    named = {node.value for name in SERVICES for node in ast.walk(source(name)) if isinstance(node, ast.Constant)}
    token = _PAGE_TOKENS.get(service, ("", ""))[1]

    for operation, paths in KEPT[service].items():
        used = named | {token} | BOTOCORES_MEMBERS.get((service, operation), set())
        unused = {path for path in paths if not set(path.split(".")) <= used}
        assert unused == set() or (service, operation) in BOTOCORES_OWN, operation


@pytest.mark.parametrize("service", [service for service in KEPT if paged(service)])
def test_the_page_tokens_are_those_of_botocores_paginators(service: str) -> None:
    paginators = Loader().load_service_model(service, "paginators-1")["pagination"]

    named = {xform_name(name): (p["input_token"], p["output_token"]) for name, p in paginators.items()}
    assert {named[operation] for operation in paged(service)} == {_PAGE_TOKENS[service]}


class Answering:
    """Stands for a `Client`: answers each call with every member filled that a model has."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._names = {xform_name(name): name for name in model.operation_names}

    def __call__(self, operation: str, read: Any = lambda _: None, /, *, resource: str = "", **parameters: Any) -> Any:
        if operation not in self._names:
            pytest.fail(f"{operation} is not in the slice: {REMEDY}")
        shape = self._model.operation_model(self._names[operation]).output_shape
        # botocore adds this to every answer; no model has it.
        metadata = {"HTTPHeaders": {"date": "Fri, 02 Jan 2026 03:04:05 GMT"}}
        return read({**(filled(shape, operation) if shape else {}), "ResponseMetadata": metadata})

    def pages(self, operation: str, read: Any, /, *, resource: str = "", **parameters: Any) -> Any:
        yield self(operation, read, **parameters)


def filled(shape: Any, path: str) -> Any:
    """Return a value of a shape, with all of its members, that depends only on its place in the answer."""
    match shape.type_name:
        case "structure":
            return {name: filled(member, f"{path}.{name}") for name, member in shape.members.items()}
        case "list":
            return [filled(shape.member, f"{path}[]")]
        case "map":
            return {"key": filled(shape.value, f"{path}{{}}")}
        case "string" | "character":
            return path
        case "boolean":
            return True
        case "timestamp":
            return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=len(path))
        case "blob":
            return BytesIO(path.encode()) if shape.serialization.get("streaming") else path.encode()
        case _:
            return len(path) + 1


def outcome(module: str, method: str, model: ServiceModel) -> Any:
    """Return the result of a method for a full answer: its value, or its error, in words."""
    try:
        return ask(SERVICES[module](Answering(model)), method)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - compared with the other's
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("module", "method"), methods())
def test_each_method_makes_the_same_of_a_slice_as_of_the_whole_model(module: str, method: str) -> None:
    service = service_of(module)
    expected = outcome(module, method, whole(service))

    assert not str(expected).startswith(("KeyError", "TypeError", "AttributeError")), expected
    assert outcome(module, method, sliced(service)) == expected, REMEDY


def members(shape: Any, seen: tuple[str, ...] = ()) -> set[str]:
    """Each path to a member of a shape, lists and maps stepped through; a shape within itself is not entered again."""
    if shape.name in seen:
        return set()
    match shape.type_name:
        case "structure":
            below = {name: members(member, (*seen, shape.name)) for name, member in shape.members.items()}
            return {*below, *(f"{name}.{path}" for name, paths in below.items() for path in paths)}
        case "list":
            return members(shape.member, seen)
        case "map":
            return members(shape.value, seen)
        case _:
            return set()


def test_launch_template_data_is_kept_whole_as_it_is_sent_and_as_it_is_answered() -> None:
    """A new version is compared with its source member by member: one that the slice lost would be lost unseen."""

    def data(model: ServiceModel) -> tuple[set[str], set[str]]:
        sent = model.operation_model("CreateLaunchTemplateVersion").input_shape.members["LaunchTemplateData"]
        answered = model.operation_model("DescribeLaunchTemplateVersions").output_shape
        version = answered.members["LaunchTemplateVersions"].member
        return members(sent), members(version.members["LaunchTemplateData"])

    assert data(sliced("ec2")) == data(whole("ec2"))
    assert all("BlockDeviceMappings.Ebs.SnapshotId" in paths for paths in data(sliced("ec2")))


@pytest.mark.parametrize("operation", sorted(KEPT["s3"].keys() - {"CreateSession", "CreateBucket"}))
def test_each_call_of_s3_can_name_the_account_that_the_bucket_must_belong_to(operation: str) -> None:
    assert "ExpectedBucketOwner" in sliced("s3").operation_model(operation).input_shape.members


def is_subset(part: Any, of: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(of, dict) and all(key in of and is_subset(value, of[key]) for key, value in part.items())
    if isinstance(part, list) and part and isinstance(part[0], dict):
        return len(part) == len(of) and all(map(is_subset, part, of))
    return bool(part == of)


@pytest.mark.parametrize("service", KEPT)
def test_a_slice_is_a_subset_of_the_model_it_was_cut_from(service: str) -> None:
    loader = SlicedLoader(None)
    version = Loader().determine_latest_version(service, "service-2")
    slice_, path = loader.load_data_with_path(f"{service}/{version}/service-2")

    assert path.startswith(str(SLICES))
    assert is_subset(slice_, Loader().load_service_model(service, "service-2"))


def test_the_endpoints_are_a_subset_and_count_as_botocores_own() -> None:
    loader = SlicedLoader(None)
    slice_, path = loader.load_data_with_path("endpoints")

    assert loader.is_builtin_path(path)
    for part, of in zip(slice_["partitions"], Loader().load_data("endpoints")["partitions"], strict=True):
        assert is_subset(part, of)


def test_the_slices_are_up_to_date_with_the_installed_botocore() -> None:
    assert SLICES.is_dir(), f"there are no slices for botocore {botocore.__version__}: run `make models`"
    full = Loader()
    # A slice is read by itself here: to what it loads, botocore adds the "extras" of its own directory.
    loader = Loader([str(SLICES)], include_default_search_paths=False, include_default_extras=False)
    assert loader.load_data("endpoints") == endpoints_slice(full.load_data("endpoints"))
    for service, operations in KEPT.items():
        cut = service_slice(full.load_service_model(service, "service-2"), operations)
        assert loader.load_service_model(service, "service-2") == cut, "stale: run `make models`"


def test_a_path_that_the_model_does_not_have_is_refused() -> None:
    model = Loader().load_service_model("kms", "service-2")

    with pytest.raises(KeyError):
        service_slice(model, {"Decrypt": ("Plaintxt",)})


def client(service: str, loader: Loader) -> Any:
    session = botocore.session.Session()
    session.register_component("data_loader", loader)
    return session.create_client(
        service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x", config=Config()
    )


def test_without_slices_for_the_installed_botocore_its_whole_models_serve() -> None:
    made = client("ecs", SlicedLoader(None, SLICES.with_name("botocore-0.0")))

    assert made.meta.service_model.operation_names == whole("ecs").operation_names


def test_a_users_own_models_come_before_the_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "models" / "ecs" / "2014-11-13"
    directory.mkdir(parents=True)
    (directory / "service-2.json").write_text('{"metadata": {"serviceId": "mine"}}', encoding="utf-8")
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))

    loader = SlicedLoader("$MODELS")

    assert loader.load_service_model("ecs", "service-2") == {"metadata": {"serviceId": "mine"}}
    assert loader.load_service_model("kms", "service-2")["operations"].keys() == KEPT["kms"].keys()


@pytest.mark.parametrize("service", [*KEPT, "sts"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"])
def test_a_client_finds_the_endpoint_that_it_finds_with_whole_models(service: str, region: str) -> None:
    def endpoint(loader: Loader) -> tuple[str, str, str]:
        session = botocore.session.Session()
        session.register_component("data_loader", loader)
        made = session.create_client(service, region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
        return made.meta.endpoint_url, made.meta.region_name, made._request_signer.region_name

    assert endpoint(SlicedLoader(None)) == endpoint(Loader())


def test_sts_keeps_what_botocore_needs_to_assume_a_role() -> None:
    assert hasattr(client("sts", SlicedLoader(None)), "assume_role_with_web_identity")
