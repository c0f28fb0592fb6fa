from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.local.hosts.machines import Rack, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import paramiko


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    made = Rack(tmp_path_factory.mktemp("state"), gateway=False)
    yield made
    made.close()


@pytest.fixture
def own_rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, gateway=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def transport(rack: Rack) -> Iterator[paramiko.Transport]:
    connected = rack.connect()
    yield connected
    connected.close()


@pytest.fixture
def channel(transport: paramiko.Transport) -> Iterator[paramiko.Channel]:
    opened = transport.open_session(timeout=10)
    opened.settimeout(20)
    yield opened
    opened.close()


@pytest.fixture
def shell(channel: paramiko.Channel) -> paramiko.Channel:
    """A login shell on a terminal, at its prompt."""
    channel.get_pty("xterm", 91, 31)
    channel.invoke_shell()
    until(channel, r"\]\$ ")
    return channel
