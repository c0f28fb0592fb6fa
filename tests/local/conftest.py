from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.local.door import Door
from tests.local.rolls import Rolls
from tests.local_rack import local_rack, own_local_rack, start_local_rack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.local_rack import LocalRackProcess

__all__ = ["local_rack", "own_local_rack", "start_local_rack"]


@pytest.fixture
def rolls(own_local_rack: LocalRackProcess) -> Rolls:
    return Rolls(own_local_rack)


@pytest.fixture
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()
