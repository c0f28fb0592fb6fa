"""STS: who is asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rackctl.aws.session import Client


class Sts:
    def __init__(self, call: Client) -> None:
        self._call = call

    def caller_arn(self) -> str:
        """Give the ARN of whoever the credentials belong to."""
        return str(self._call("get_caller_identity")["Arn"])
