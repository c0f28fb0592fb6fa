from __future__ import annotations

from tests.local_rack import local_rack, own_local_rack, start_local_rack

__all__ = ["local_rack", "own_local_rack", "start_local_rack"]
