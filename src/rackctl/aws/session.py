"""One rack's way to AWS: credentials, region and endpoint; clients made when first used; errors translated."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rackctl.aws.errors import Where, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.aws.autoscaling import AutoScaling
    from rackctl.aws.ec2 import Ec2
    from rackctl.aws.ecs import Ecs
    from rackctl.aws.kms import Kms
    from rackctl.aws.s3 import S3

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 20
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Credentials:
    """A pair of keys that a rack brings along itself, as the local rack does."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


class Aws:
    """The services of one account and region.

    ``region``, ``profile`` and ``endpoint_url`` are found as any AWS SDK finds them where they are None.
    ``notify`` gets one sentence, once, when AWS has to be asked again. Making one asks AWS nothing and
    imports nothing; it may be shared by threads.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        credentials: Credentials | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        # botocore reads AWS_DEFAULT_REGION alone; AWS's other SDKs read this one, and before that.
        self._region = region or os.environ.get("AWS_REGION") or None
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._credentials = credentials
        self._retries = _RetryReport(notify)
        self._making = threading.RLock()

    @cached_property
    def _session(self) -> Any:
        # boto3's own session adds resources and file transfers to this one, and a tenth to the time of a list.
        import botocore.session

        from rackctl.aws.models import SlicedLoader
        from rackctl.aws.parsing import ParserFactory

        given = self._credentials
        with translated(self._where("session")):
            session = botocore.session.Session(profile=self._profile)
            session.register_component("data_loader", SlicedLoader(session.get_config_variable("data_path")))
            session.register_component("response_parser_factory", ParserFactory())
            if given:
                session.set_credentials(given.access_key_id, given.secret_access_key)
        return session

    @property
    def region(self) -> str:
        """The region in force, or an empty string when none is set anywhere."""
        return self._region or str(self._session.get_config_variable("region") or "")

    @property
    def endpoint_url(self) -> str:
        """The endpoint that was asked for in place of AWS's own, or an empty string."""
        return self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")

    @cached_property
    def ec2(self) -> Ec2:
        from rackctl.aws.ec2 import Ec2

        return Ec2(self.client("ec2"))

    @cached_property
    def ecs(self) -> Ecs:
        from rackctl.aws.ecs import Ecs

        return Ecs(self.client("ecs"))

    @cached_property
    def autoscaling(self) -> AutoScaling:
        from rackctl.aws.autoscaling import AutoScaling

        return AutoScaling(self.client("autoscaling"))

    @cached_property
    def s3(self) -> S3:
        from rackctl.aws.s3 import S3

        return S3(self.client("s3"))

    @cached_property
    def kms(self) -> Kms:
        from rackctl.aws.kms import Kms

        return Kms(self.client("kms"))

    def client(self, service: str) -> Client:
        """Make the client of a service; `Client` is what the service modules call AWS through."""
        from botocore.config import Config

        # botocore's session is not safe to make clients from in two threads.
        with self._making, translated(self._where(service)):
            configured = self._session.get_config_variable
            mode, attempts = configured("retry_mode"), configured("max_attempts")
            client = self._session.create_client(
                service,
                region_name=self._region,
                endpoint_url=self._endpoint_url,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    max_pool_connections=16,
                    retries={
                        "mode": "standard" if mode in {None, "legacy"} else mode,
                        "total_max_attempts": int(attempts or ATTEMPTS),
                    },
                    user_agent_extra="rackctl",
                ),
            )
            self._retries.watch(client.meta.events)
        return Client(client, self._where(service))

    def _where(self, service: str) -> Where:
        return Where(service, lambda: self.region, self.endpoint_url)


class Client:
    """One service's botocore client; calling it is calling AWS."""

    def __init__(self, client: Any, where: Where) -> None:
        self._client = client
        self._where = where

    def __call__(self, operation: str, /, *, resource: str = "", **parameters: Any) -> dict[str, Any]:
        """Call an operation by its Python name and give the answer as botocore parsed it.

        ``resource`` says for an error message what it was asked of. Raises RackctlError.
        """
        where = replace(self._where, action=self._client.meta.method_to_api_mapping[operation], resource=resource)
        with translated(where):
            answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
            return answer

    def pages(self, operation: str, /, *, resource: str = "", **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of an answer, asking for each when the one before has been used.

        The token's name is the one that botocore's own paginator definitions give. Raises RackctlError.
        """
        paging = self._client.get_paginator(operation)._pagination_cfg  # noqa: SLF001 - its pages() hides the errors' place
        sent, received = paging["input_token"], paging["output_token"]
        while True:
            page = self(operation, resource=resource, **parameters)
            yield page
            if not page.get(received):
                return
            parameters = {**parameters, sent: page[received]}


class _RetryReport:
    """Says, once, that AWS has to be asked again and why; botocore itself retries in silence."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._said = False
        self._reasons: dict[int, str] = {}

    def watch(self, events: Any) -> None:
        events.register("needs-retry", self._remember_reason)
        events.register("before-send", self._report)

    def _remember_reason(self, *, response: Any, caught_exception: Exception | None, **_: Any) -> None:
        if caught_exception is not None:
            reason = "no answer" if "imeout" in type(caught_exception).__name__ else "no connection"
        else:
            reason = response[1].get("Error", {}).get("Code") or f"HTTP status {response[0].status_code}"
        self._reasons[threading.get_ident()] = reason

    def _report(self, *, request: Any, event_name: str, **_: Any) -> None:
        # botocore numbers what it sends: "attempt=2; max=5".
        numbered = request.headers.get("amz-sdk-request", b"attempt=1")
        if self._said or numbered.split(b";")[0] == b"attempt=1":
            return
        self._said = True
        endpoint, operation = event_name.removeprefix("before-send.").split(".", 1)
        call = f"{endpoint.replace('-', '')}:{operation}"  # as IAM names it: autoscaling, not auto-scaling
        reason = self._reasons.get(threading.get_ident(), "no usable answer")
        self._notify(f"AWS ({call}): {reason}; asking again")
