"""A world behind its API, and real boto3 clients in front of it, with no socket in between."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

from rackctl.local.api import Answer, Api
from rackctl.local.world import World

NOW = 1_780_000_000.0


class _Body(BytesIO):
    """As much of urllib3's response as botocore reads."""

    def stream(self, *_: object, **__: object) -> Any:
        yield self.read()


@dataclass
class Rack:
    """A world, its API and AWS's own clients of it. ``answers`` are all the answers given, oldest first."""

    world: World
    api: Api
    answers: list[Answer]

    def pass_time(self, seconds: float) -> None:
        self.world.advance(self.world.now + seconds)

    def client(self, service: str) -> Any:
        client = boto3.client(
            service,
            region_name=self.world.region,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}),
        )
        client.meta.events.register("before-send", self._send)
        return client

    def _send(self, request: Any, **_: object) -> AWSResponse:
        service = request.url.split("//")[1].split(".")[0]
        headers = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
        }
        body = request.body or b""
        answer = self.api.respond(service, headers, body.encode() if isinstance(body, str) else body)
        self.answers.append(answer)
        return AWSResponse(request.url, answer.status, answer.headers, _Body(answer.body))

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    @property
    def autoscaling(self) -> Any:
        return self.client("autoscaling")

    @property
    def ecs(self) -> Any:
        return self.client("ecs")


def new_world(speed: float = 1.0) -> World:
    return World(region="us-east-1", account_id="123456789012", now=NOW, speed=speed, seed=1)


@pytest.fixture
def world() -> World:
    return new_world()


@pytest.fixture
def rack(world: World) -> Rack:
    return Rack(world, Api(world), [])


@pytest.fixture
def seeded(rack: Rack) -> Rack:
    """A rack that has run for an hour: a cluster and a group "rack-instances" of three, with services."""
    rack.world.seed("rack", 3)
    return rack


def refusal(call: Any, **parameters: object) -> tuple[str, str]:
    """Give the code and the message with which AWS's client says a call was refused."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]
