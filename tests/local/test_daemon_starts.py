"""Starting local racks: again, at the same time, side by side, and where a start must fail."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RackctlError, UsageError
from rackctl.local import control, network
from rackctl.local.state import Options, StateDir
from rackctl.local_rack import find_local_rack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.local_rack import LocalRackProcess

    Start = Callable[..., LocalRackProcess]

BUCKET = "rackctl-local-123456789012"


def test_a_second_start_finds_the_first(own_local_rack: LocalRackProcess) -> None:
    found = control.start(own_local_rack.directory, Options(instances=7))

    assert not found.started
    assert found.rack == own_local_rack.description
    assert len(own_local_rack.ids()) == 3


def test_of_many_starts_at_once_one_starts_the_rack(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: control.start(tmp_path, Options(key=False)), range(4)))
    control.down(tmp_path)

    assert [up.started for up in found].count(True) == 1
    assert len({up.rack.pid for up in found}) == 1


# Longer than two seconds: three racks start.
def test_racks_side_by_side_have_their_own_networks_endpoints_and_keys(start_local_rack: Start) -> None:
    with ThreadPoolExecutor(3) as pool:
        racks = list(pool.map(lambda _: start_local_rack(key=False), range(3)))

    statuses = [rack.control("status") for rack in racks]
    assert len({rack.description.endpoint_url for rack in racks}) == 3
    assert len({status["network"] for status in statuses}) == 3
    assert len({id_ for rack in racks for id_ in rack.ids()}) == 9
    racks[0].down()
    assert len(racks[1].ids()) == 3
    stranger = control.Control(
        type(racks[1].description)(**{**vars_of(racks[1]), "secret_access_key": racks[2].credentials.secret_access_key})
    )
    with pytest.raises(UsageError, match="signature"):
        stranger("status")


def vars_of(rack: LocalRackProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((rack.state.root / "rack.json").read_bytes())
    return found


def test_a_network_belongs_to_one_rack_at_a_time() -> None:
    first = network.claim("127.120", 22120)  # which no rack of another test begins with
    second = network.claim(first.prefix, first.ssh_port)
    assert first.claim is not None
    assert second.claim is not None

    first.claim.close()
    third = network.claim(first.prefix, first.ssh_port)

    assert second.prefix != first.prefix == third.prefix
    for one in (second, third):
        assert one.claim
        one.claim.close()


def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "local").symlink_to(tmp_path / "target")

    with pytest.raises(UsageError, match="local is a symbolic link"):
        control.start(tmp_path, Options())


def test_a_daemon_that_dies_at_its_start_shows_its_log(tmp_path: Path) -> None:
    StateDir(tmp_path).make()
    (tmp_path / "local" / "docker.sock").mkdir()  # where it wants to listen

    with pytest.raises(RackctlError, match="did not start") as caught:
        control.start(tmp_path, Options(key=False))

    assert "docker.sock" in caught.value.hint
    assert "Traceback" in (tmp_path / "local" / "daemon.log").read_text()
    assert find_local_rack(tmp_path) is None
