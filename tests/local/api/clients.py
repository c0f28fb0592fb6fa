"""boto3 clients that call an API without a socket."""

from __future__ import annotations

import json
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel

from rackctl.local.api import Api
from rackctl.local.world import World

if TYPE_CHECKING:
    from rackctl.local.api import Answer

NOW = 1_780_000_000.0
ED25519 = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKDfqTd6JfxpmXMbmOZNXAgYkDpFm8tV7oZLSYdOR6rA test"


def new_world() -> World:
    return World(region="us-east-1", account_id="123456789012", now=NOW, seed=1)


class Rack:
    """A world, its API and AWS's clients of it. ``answers`` are all that were given, oldest first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.api = Api(world)
        self.answers: list[Answer] = []
        self.ec2 = self._client("ec2")
        self.autoscaling = self._client("autoscaling")
        self.ecs = self._client("ecs")
        self.iam = self._client("iam")
        self.ssm = self._client("ssm")

    def pass_time(self, seconds: float) -> None:
        self.world.advance(self.world.now + seconds)

    def _client(self, service: str) -> Any:
        client = boto3.client(
            service,
            region_name=self.world.region,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            # Requests that AWS would refuse must reach it: the client's own checks are not tested here.
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )

        def send(request: Any, event_name: str, **_: object) -> AWSResponse:
            text = {name: v.decode() if isinstance(v, bytes) else v for name, v in request.headers.items()}
            body = request.body.encode() if isinstance(request.body, str) else request.body or b""
            answer = self.api.respond(service, text, body)
            self.answers.append(answer)
            if service == "ecs" and answer.status == 200:
                # botocore skips what it does not know; a misspelt member must not pass.
                _assert_known(_model("ecs").operation_model(event_name.rpartition(".")[2]).output_shape, answer.body)
            return AWSResponse(request.url, answer.status, answer.headers, _Body(answer.body))

        client.meta.events.register("before-send", send)
        return client


class _Body(BytesIO):
    """As much of urllib3's response as botocore reads."""

    def stream(self, *_: object, **__: object) -> Any:
        yield self.read()


@cache
def _model(service: str) -> Any:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _assert_known(shape: Any, body: bytes) -> None:
    def walk(shape: Any, value: Any, path: str) -> None:
        if shape.type_name == "structure":
            for name, part in value.items():
                assert name in shape.members, f"{path}.{name} is no member of {shape.name}"
                walk(shape.members[name], part, f"{path}.{name}")
        elif shape.type_name == "list":
            for part in value:
                walk(shape.member, part, path)
        else:
            kinds = {"string": str, "boolean": bool, "integer": int, "long": int, "double": float}
            assert isinstance(value, kinds.get(shape.type_name, object)), path

    walk(shape, json.loads(body), "")


def refusal(call: Any, **parameters: object) -> tuple[str, str]:
    """Return the code and the message with which a call is refused."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]
