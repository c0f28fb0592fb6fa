"""A botocore client as the product makes it, whose requests are answered before they reach a socket."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSResponse

from rackctl.aws.session import Aws, Credentials

if TYPE_CHECKING:
    from collections.abc import Callable


class Body(BytesIO):
    """As much of urllib3's response as botocore reads."""

    def stream(self) -> Any:
        yield self.read()


def aws_answering(
    answer: Callable[[Any], tuple[int, dict[str, str], bytes]], *, endpoint_url: str | None = "http://127.0.0.1:1"
) -> Aws:
    """Make an AWS whose every request is given to ``answer``, which returns a status, headers and a body."""

    def respond(request: Any, **_: object) -> AWSResponse:
        status, headers, body = answer(request)
        return AWSResponse(request.url, status, headers, Body(body))

    return Aws(region="us-east-1", endpoint_url=endpoint_url, credentials=Credentials("x", "x"), send=respond)
