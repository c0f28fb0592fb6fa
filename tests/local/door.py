"""The local rack's HTTP endpoint in this process: a world of three instances, S3 and KMS, and AWS's clients of them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
from botocore.config import Config

from rackctl.local.api import Api
from rackctl.local.endpoint import Endpoint
from rackctl.local.http_server import HttpServer
from rackctl.local.moto_services import MotoServices
from rackctl.local.signature import Verifier
from tests.local.api.clients import new_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.local.faults import Fault

KEY_ID, SECRET = "LOCALRACKTEST", "secret"
CLUSTER = "rack"
GROUP = "rack-instances"


class Door:
    """An endpoint that is open. ``bucket`` and ``alias`` are the rack's own, ``others`` another account's."""

    def __init__(self) -> None:
        self.world = new_world()
        self.world.seed(CLUSTER, 3)
        self.world.advance(self.world.now + 1)
        self.moto = MotoServices("us-east-1")
        made = uuid4().hex[:12]
        self.bucket, self.others = f"rackctl-{made}", f"rackctl-others-{made}"
        self.alias, self.others_alias = f"alias/rackctl-{made}", f"alias/others-{made}"
        self.moto.create_bucket_and_key(self.bucket, self.alias)
        self.moto.create_another_account_s(self.others, self.others_alias)
        self._lock = threading.RLock()
        self.endpoint = Endpoint(
            Api(self.world),
            self.moto,
            Verifier(KEY_ID, SECRET),
            region="us-east-1",
            turn=self._turn,
            controls={},
        )
        self._server = HttpServer()
        self._server.start(self.endpoint)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            yield
            self.endpoint.remember()

    def close(self) -> None:
        self._server.close()

    def pass_time(self, seconds: float) -> None:
        with self._turn():
            self.world.advance(self.world.now + seconds)

    def client(self, service: str, **config: Any) -> Any:
        """Make a client of plain boto3, which tries everything once."""
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self._server.port}",
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 20, **config}),
        )

    def fault(self, kind: str, pattern: str, **details: Any) -> Fault:
        with self._turn():
            return self.endpoint.faults.add(kind, pattern, **details)

    def arns(self) -> list[str]:
        """Return the container instances' ARNs as they are, in the order of a list."""
        return sorted(self.world.ecs.clusters[CLUSTER].registrations)
