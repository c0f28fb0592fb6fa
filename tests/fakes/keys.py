"""The key store of a rack in a FakeAws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.keys import KeyStore
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.origin import GIVEN

if TYPE_CHECKING:
    from tests.fakes.aws import FakeAws


def store(aws: FakeAws, rack: str = "prod", **settings: str) -> KeyStore:
    given = {"bucket": "b", "kms_key": "alias/k", "prefix": "rackctl/prod", "cluster": "prod", **settings}
    values = {name: Value(value, GIVEN) for name, value in given.items() if value}
    return KeyStore(Rack(Value(rack, GIVEN), values, aws=aws))  # type: ignore[arg-type]
