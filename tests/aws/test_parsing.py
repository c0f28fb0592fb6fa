from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from xml.sax.saxutils import escape

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import EC2QueryParser, JSONParser, ResponseParserError
from botocore.utils import parse_timestamp
from hypothesis import given
from hypothesis import strategies as st

from rackctl.aws.models import KEPT, SlicedLoader
from rackctl.aws.parsing import ParserFactory, timestamp


def model(service: str, loader: Loader) -> ServiceModel:
    return ServiceModel(loader.load_service_model(service, "service-2"), service)


WHOLE = model("ec2", Loader())
SLICED = model("ec2", SlicedLoader(None))
ANSWERING = [name for name in KEPT["ec2"] if WHOLE.operation_model(name).output_shape]


def xml(shape: Any, path: str) -> str:
    """Write a shape with every member, lists with two, in the XML of EC2's protocol."""
    match shape.type_name:
        case "structure":
            return "".join(
                f"<{tag}>{xml(member, f'{path}.{name}')}</{tag}>"
                for name, member in shape.members.items()
                for tag in [member.serialization.get("name", name)]
            )
        case "list":
            return "".join(f"\n<item>{xml(shape.member, f'{path}[{n}]')}</item>" for n in range(2))
        case "boolean":
            return "true" if len(path) % 2 else "false"
        case "timestamp":
            return f"2026-01-02T03:04:{len(path) % 60:02}.000Z"
        case "integer" | "long" | "float" | "double":
            return str(len(path))
        case "blob":
            return "eHl6"
        case _:
            return "" if len(path) % 7 == 0 else escape(f"{path} & <é>")


def answer(operation: str, body: str | None = None) -> dict[str, Any]:
    if body is None:
        body = xml(WHOLE.operation_model(operation).output_shape, operation)
    document = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<{operation}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">\n'
        f"<requestId>r-1</requestId>{body}</{operation}Response>"
    )
    return {"status_code": 200, "headers": {}, "body": document.encode()}


@pytest.mark.parametrize("service", [WHOLE, SLICED], ids=["whole", "sliced"])
@pytest.mark.parametrize("operation", ANSWERING)
def test_ec2s_answers_are_read_to_what_botocore_reads(operation: str, service: ServiceModel) -> None:
    shape = service.operation_model(operation).output_shape

    read = ParserFactory().create_parser("ec2").parse(answer(operation), shape)

    assert read == EC2QueryParser().parse(answer(operation), shape)
    assert read["ResponseMetadata"]["RequestId"] == "r-1"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<reservationSet/>",
        "<reservationSet><item/></reservationSet>",
        (
            "<reservationSet><item><instancesSet><item><tagSet/><placement/><keyName/></item></instancesSet></item>"
            "</reservationSet><nextToken>t</nextToken>"
        ),
        "<unknown><item><reservationSet><item/></reservationSet><unknown/></item></unknown><nextToken>t</nextToken>",
        "<nextToken>a&amp;b<!-- c -->&#8364;</nextToken>",
    ],
)
def test_what_is_empty_or_unknown_is_read_as_botocore_reads_it(body: str) -> None:
    shape = SLICED.operation_model("DescribeInstances").output_shape

    read = ParserFactory().create_parser("ec2").parse(answer("DescribeInstances", body), shape)

    assert read == EC2QueryParser().parse(answer("DescribeInstances", body), shape)


def test_an_error_is_left_to_botocore() -> None:
    body = (
        b"<Response><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors>"
        b"<RequestID>r-2</RequestID></Response>"
    )
    response = {"status_code": 401, "headers": {}, "body": body}
    shape = SLICED.operation_model("DescribeInstances").output_shape

    read = ParserFactory().create_parser("ec2").parse(response, shape)

    assert read["Error"] == {"Code": "AuthFailure", "Message": "no"}
    assert read["ResponseMetadata"]["RequestId"] == "r-2"


@pytest.mark.parametrize("body", [b"", b"<html>", b"<a><b></a>", b"gateway timeout"])
def test_what_is_not_xml_is_refused_as_botocore_refuses_it(body: bytes) -> None:
    response = {"status_code": 200, "headers": {}, "body": body}
    shape = SLICED.operation_model("DescribeInstances").output_shape

    with pytest.raises(ResponseParserError, match="invalid XML"):
        ParserFactory().create_parser("ec2").parse(response, shape)


def test_an_answer_without_a_shape_is_read() -> None:
    response = answer("DeleteKeyPair", "<return>true</return>")

    assert ParserFactory().create_parser("ec2").parse(response, None)["ResponseMetadata"]["RequestId"] == "r-1"


def test_every_answer_of_ec2_is_made_of_what_the_parser_reads() -> None:
    parser = ParserFactory().create_parser("ec2")
    shapes = [shape for name in WHOLE.operation_names if (shape := WHOLE.operation_model(name).output_shape)]

    assert [shape.name for shape in shapes if parser._root(shape) is None] == []


def document(shape: Any, path: str) -> Any:
    """Write a shape with every member, lists with two and a null, as the JSON protocol has it."""
    match shape.type_name:
        case "structure":
            return {
                member.serialization.get("name", name): document(member, f"{path}.{name}")
                for name, member in list(shape.members.items())[: 1 if shape.is_tagged_union else None]
            }
        case "list":
            return [document(shape.member, f"{path}[]"), None, document(shape.member, f"{path}[.]")]
        case "map":
            return {"key": document(shape.value, f"{path}.value")}
        case "boolean":
            return len(path) % 2 == 0
        case "timestamp":
            return 1767322990.5 + len(path)
        case "integer" | "long" | "float" | "double":
            return len(path)
        case "blob":
            return "eHl6"
        case _:
            return path


@pytest.mark.parametrize("loader", [Loader(), SlicedLoader(None)], ids=["whole", "sliced"])
@pytest.mark.parametrize(
    ("service", "operation"), [(service, name) for service in ("ecs", "kms") for name in KEPT[service]]
)
def test_json_answers_are_read_to_what_botocore_reads(service: str, operation: str, loader: Loader) -> None:
    shape = model(service, loader).operation_model(operation).output_shape
    full = document(model(service, Loader()).operation_model(operation).output_shape, operation)
    for body in (full, {}, dict.fromkeys(full), {"unknown": [full]}):
        response = {"status_code": 200, "headers": {}, "body": json.dumps(body).encode()}

        assert ParserFactory().create_parser("json").parse(response, shape) == JSONParser().parse(response, shape)


def test_an_error_in_json_is_left_to_botocore() -> None:
    response = {"status_code": 400, "headers": {}, "body": b'{"__type": "x#ClusterNotFoundException", "message": "no"}'}

    read = ParserFactory().create_parser("json").parse(response, None)

    assert read["Error"] == {"Code": "ClusterNotFoundException", "Message": "no"}


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)), st.sampled_from([0, 90, -480]))
def test_times_are_what_botocore_reads_and_in_utc(moment: datetime, minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    for written in (
        aware.isoformat(),
        aware.isoformat(timespec="milliseconds"),
        aware.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        aware.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        aware.timestamp(),
        int(aware.timestamp()),
        str(int(aware.timestamp())),
    ):
        read = timestamp(written)

        assert read == parse_timestamp(written)
        assert read.tzinfo is UTC


def test_what_is_no_time_is_refused_as_botocore_refuses_it() -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        timestamp("This is no time")
