from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.prompt import Prompt
from tests.fakes.world import Scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def typed(tmp_path: Path) -> Prompt:
    """Return a prompt at a rack of three instances."""
    return Prompt(Scene(3), tmp_path)
