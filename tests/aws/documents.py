"""Answers of AWS with every member of a service's model, in the service's protocol.

Only the lists of failures are empty.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit
from xml.sax.saxutils import escape

from botocore.model import ServiceModel

from rackctl.aws.models import SlicedLoader

Answer = tuple[int, dict[str, str], bytes]
_FAILURES = {"failures", "UnsuccessfullyDeletedLaunchTemplateVersions"}
_WHEN = "2026-01-02T03:04:05Z"


@cache
def model(service: str) -> ServiceModel:
    return ServiceModel(SlicedLoader(None).load_service_model(service, "service-2"), service)


def answer(service: str, operation: str, *, token: str = "") -> Answer:
    """Return a whole answer to an operation, by its AWS name; ``token`` is the page token that it names."""
    shape = model(service).operation_model(operation).output_shape
    match model(service).resolved_protocol:
        case "json":
            body = json.dumps(_json(shape, token) if shape else {})
            return 200, {"x-amzn-RequestId": "1", "Content-Type": "application/x-amz-json-1.1"}, body.encode()
        case "ec2":
            inner = "<requestId>1</requestId>" + (_xml(shape, token, item="item") if shape else "<return>true</return>")
        case "query":
            result = _xml(shape, token, item="member") if shape else ""
            inner = f"<{operation}Result>{result}</{operation}Result>" if shape else ""
            inner += "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        case _:
            return _s3(operation, shape, token)
    return 200, {"Content-Type": "text/xml"}, f"<{operation}Response>{inner}</{operation}Response>".encode()


def _s3(operation: str, shape: Any, token: str) -> Answer:
    headers = {"x-amz-request-id": "1", "Date": "Fri, 02 Jan 2026 03:04:05 GMT", "ETag": '"1"'}
    if operation == "GetObject":
        return 200, {**headers, "Last-Modified": "Fri, 02 Jan 2026 03:04:00 GMT", "Content-Length": "4"}, b"body"
    if operation == "GetBucketPolicy":
        return 200, headers, b'{"Version": "2012-10-17", "Statement": []}'
    if operation in {"ListObjectsV2", "GetBucketVersioning"}:
        return 200, headers, f"<Result>{_xml(shape, token, item='')}</Result>".encode()
    if operation in {"GetBucketEncryption", "GetPublicAccessBlock"}:
        # The root is the one member of the output: https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketEncryption.html
        return 200, headers, _xml(shape, token, item="").encode()
    if operation == "HeadBucket":
        return 200, {**headers, "x-amz-bucket-region": "us-east-1"}, b""
    return (204 if operation == "DeleteObject" else 200), headers, b""


def _xml(shape: Any, token: str, *, item: str, name: str = "") -> str:
    match shape.type_name:
        case "structure":
            written = ""
            for member, inside in members_of(shape):
                tag = inside.serialization.get("name", member)
                if inside.type_name == "list" and inside.serialization.get("flattened"):
                    written += f"<{tag}>{_xml(inside.member, token, item=item)}</{tag}>"
                else:
                    written += f"<{tag}>{_xml(inside, token, item=item, name=member)}</{tag}>"
            return written
        case "list":
            return f"<{item}>{_xml(shape.member, token, item=item)}</{item}>"
        case _:
            return escape(str(_scalar(shape, name, token))).replace("True", "true")


def _json(shape: Any, token: str, name: str = "") -> Any:
    match shape.type_name:
        case "structure":
            return {member: _json(inside, token, member) for member, inside in members_of(shape)}
        case "list":
            return [_json(shape.member, token)]
        case "map":
            return {"key": _json(shape.value, token)}
        case "timestamp":
            return 1767322990.5
        case _:
            return _scalar(shape, name, token)


def members_of(shape: Any) -> list[tuple[str, Any]]:
    return [(name, inside) for name, inside in shape.members.items() if name not in _FAILURES]


def _scalar(shape: Any, name: str, token: str) -> Any:
    match shape.type_name:
        case "boolean":
            return True
        case "timestamp":
            return _WHEN
        case "integer" | "long" | "float" | "double":
            return 1
        case "blob":
            return "eHl6"
        case _ if name == "Arn":
            return "arn:aws:kms:us-east-1:123456789012:key/x"
        case _ if name == "clusterArn":
            return "arn:aws:ecs:us-east-1:123456789012:cluster/x"
        case _:
            return token if name in {"NextToken", "nextToken", "NextContinuationToken", "Marker", "NextMarker"} else "x"


def operation_of(service: str, request: Any) -> str:
    """Name the operation that a request of botocore's asks for."""
    if target := request.headers.get("X-Amz-Target"):
        return str(target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
    if service == "s3":
        return _s3_operation_of(request.method, urlsplit(request.url))
    return str(request.body).partition("Action=")[2].partition("&")[0]


_OF_BUCKET = {
    "encryption": "BucketEncryption",
    "policy": "BucketPolicy",
    "publicAccessBlock": "PublicAccessBlock",
    "versioning": "BucketVersioning",
}


def _s3_operation_of(method: str, url: SplitResult) -> str:
    verb = method.capitalize()
    if "list-type=2" in url.query:
        return "ListObjectsV2"
    if named := _OF_BUCKET.get(url.query.partition("=")[0]):
        return f"{verb}{named}"
    if url.path.count("/") == 1:
        return {"HEAD": "HeadBucket", "PUT": "CreateBucket"}[method]
    return f"{verb}Object"
