"""One rack's way to AWS: credentials, region and endpoint; clients made when first used; errors translated."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rackctl.aws.client import DEADLINE, Client, RetryNotice
from rackctl.aws.errors import Where, translated
from rackctl.aws.transport import CONNECT_TIMEOUT, READ_TIMEOUT, Transport
from rackctl.clock import SystemClock
from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.aws.autoscaling import AutoScaling
    from rackctl.aws.cloudformation import CloudFormation
    from rackctl.aws.cloudwatch import CloudWatch
    from rackctl.aws.ec2 import Ec2
    from rackctl.aws.ecs import Ecs
    from rackctl.aws.iam import Iam
    from rackctl.aws.kms import Kms
    from rackctl.aws.s3 import S3
    from rackctl.aws.sts import Sts
    from rackctl.clock import Clock

ATTEMPTS = 5
# In seconds. A network may have endpoints for all services of a rack and none for STS.
_STS_DEADLINE = 10.0
# https://docs.aws.amazon.com/general/latest/gr/rande.html#regional-endpoints; S3's name the bucket.
_AT_REGION = {"autoscaling", "ec2", "ecs", "kms"}
_COMMERCIAL_REGION = re.compile(r"(?!cn-)[a-z]{2}-[a-z]+-[0-9]+")
_ELSEWHERE = {"AWS_PROFILE", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT"} | {
    f"AWS_ENDPOINT_URL_{service}" for service in ("AUTO_SCALING", "EC2", "ECS", "KMS")
}
# What botocore takes for a number as it stands.
_NUMBERS = {
    "csm_port": "AWS_CSM_PORT",
    "max_attempts": "AWS_MAX_ATTEMPTS",
    "metadata_service_num_attempts": "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "metadata_service_timeout": "AWS_METADATA_SERVICE_TIMEOUT",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A pair of keys that a rack brings along itself, as the local rack does."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


class Aws:
    """The services of one account and region.

    ``region``, ``profile`` and ``endpoint_url`` are found as any AWS SDK finds them where they are None.
    ``notify`` gets a sentence, at most once a minute, when AWS has to be asked again. ``deadline`` is the seconds that
    a call may take with all its retries. ``send`` handles botocore's event ``before-send`` in place of a Transport.
    Making one asks AWS nothing and imports nothing; it may be shared by threads.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        credentials: Credentials | None = None,
        notify: Callable[[str], None] = lambda _: None,
        clock: Clock | None = None,
        deadline: float = DEADLINE,
        send: Callable[..., Any] | None = None,
    ) -> None:
        # botocore reads AWS_DEFAULT_REGION alone; AWS's other SDKs read this one, and before that.
        self._region = region or os.environ.get("AWS_REGION") or None
        self._profile = profile
        self._endpoint_url = endpoint_url
        self._credentials = credentials
        self._retries = RetryNotice(notify, clock or SystemClock())
        self._deadline = deadline
        self._given_send = send
        # By what is known before botocore has read its own settings.
        self._early = Transport(os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE", ""))
        self._making = threading.RLock()

    @cached_property
    def _core(self) -> Any:
        """The botocore session under boto3's, which alone tells settings and takes a loader of models."""
        import botocore.session

        from rackctl.aws.models import SlicedLoader
        from rackctl.aws.timestamps import parse_timestamp

        with translated(Where("session")):
            core = botocore.session.Session(profile=self._profile)
            for name, variable in _NUMBERS.items():
                try:
                    core.get_config_variable(name)
                except ValueError:
                    raise UsageError(
                        f"{variable} is not a whole number",
                        hint=f"correct the environment variable, or {name} in the AWS config file",
                    ) from None
            core.register_component("data_loader", SlicedLoader(core.get_config_variable("data_path")))
            core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=parse_timestamp)
        return core

    @cached_property
    def _session(self) -> Any:
        import boto3

        given = self._credentials
        return boto3.Session(
            botocore_session=self._core,
            region_name=self._region,
            aws_access_key_id=given.access_key_id if given else None,
            aws_secret_access_key=given.secret_access_key if given else None,
        )

    @cached_property
    def _send(self) -> Callable[..., Any]:
        if self._given_send:
            return self._given_send
        bundle = self._core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE", "")
        return self._early if self._early.ca_bundle == bundle else Transport(bundle)

    def _connect_ahead(self, service: str) -> None:
        """Begin to connect to the endpoint that a service most likely has, while botocore is being imported."""
        region = self._region or os.environ.get("AWS_DEFAULT_REGION", "")
        if self._given_send:
            return
        if self.endpoint_url:
            with suppress(ValueError):  # botocore says what is wrong with it
                self._early.open(self.endpoint_url)
        elif service in _AT_REGION and _COMMERCIAL_REGION.fullmatch(region) and not _ELSEWHERE & os.environ.keys():
            self._early.open(f"https://{service}.{region}.amazonaws.com")

    @property
    def region(self) -> str:
        """The region in force, or an empty string when none is set anywhere."""
        return self._region or str(self._session.region_name or "")

    @property
    def endpoint_url(self) -> str:
        """The endpoint that was asked for in place of AWS's own, or an empty string."""
        return self._endpoint_url or os.environ.get("AWS_ENDPOINT_URL", "")

    @cached_property
    def cloudformation(self) -> CloudFormation:
        from rackctl.aws.cloudformation import CloudFormation

        return CloudFormation(self.client("cloudformation"))

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
    def iam(self) -> Iam:
        from rackctl.aws.iam import Iam

        return Iam(self.client("iam"))

    @cached_property
    def cloudwatch(self) -> CloudWatch:
        from rackctl.aws.cloudwatch import CloudWatch

        return CloudWatch(self.client("cloudwatch"))

    @cached_property
    def s3(self) -> S3:
        from rackctl.aws.s3 import S3

        return S3(self.client("s3"))

    @cached_property
    def kms(self) -> Kms:
        from rackctl.aws.kms import Kms

        return Kms(self.client("kms"))

    @cached_property
    def sts(self) -> Sts:
        from rackctl.aws.sts import Sts

        # Only the name of the caller is asked of it, which nothing must wait for.
        return Sts(self.client("sts", deadline=min(self._deadline, _STS_DEADLINE)))

    def client(self, service: str, *, deadline: float | None = None) -> Client:
        """Make the client of a service; `Client` is what the service modules call AWS through."""
        # Before anything of botocore is imported, as `translated` does.
        self._connect_ahead(service)

        from botocore.config import Config

        # botocore's session is not safe to make clients from in two threads.
        with self._making, translated(Where(service)):
            configured = self._core.get_config_variable
            mode, attempts = configured("retry_mode"), configured("max_attempts")
            client = self._session.client(
                service,
                endpoint_url=self._endpoint_url,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT,
                    read_timeout=READ_TIMEOUT,
                    max_pool_connections=16,
                    retries={
                        "mode": "standard" if mode in {None, "legacy"} else mode,
                        "total_max_attempts": ATTEMPTS if attempts is None else attempts,
                    },
                    user_agent_extra="rackctl",
                ),
            )
            self._retries.watch(client.meta.events)
            client.meta.events.register_last("before-send", self._send)
            credentials = self._session.get_credentials()
        return Client(
            client,
            Where(service, client.meta.endpoint_url),
            prepare=credentials.get_frozen_credentials if credentials else lambda: None,
            deadline=self._deadline if deadline is None else deadline,
        )
