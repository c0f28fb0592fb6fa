"""A login by a rack's settings, and the proof that a roll makes of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import NotFound
from rackctl.ssh.login import Proof, connect, prove, start_proof
from tests.ssh.entry import ID, KEY_NAME, invocation
from tests.ssh.servers import Host, hosting, sending
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.ssh.connect import Identity
    from rackctl.ssh.login import Keys
    from tests.ssh.sshd import Sshd


class Scene:
    """A rack of one instance, which an sshd is."""

    def __init__(self, server: Sshd, state: Path, *, port: int | None = None, key: Path | None = None) -> None:
        self.state = state
        made = invocation({"key": str(key or server.key), "port": port or server.port, "user": server.user})
        self.rack: Rack = made.rack
        self.keys: Keys = made.keys
        self.instance: Instance = next(made.rack.aws.ec2.instances_by_id([ID]))

    def prove(self, timeout: float = 30) -> Proof:
        return prove(self.rack, self.keys, self.instance, state_directory=self.state, timeout=timeout)

    def start_proof(self, timeout: float = 30) -> Callable[[], Proof | None]:
        return start_proof(self.rack, self.keys, self.instance, state_directory=self.state, timeout=timeout)


def test_connects_by_the_racks_settings(sshd: Sshd, tmp_path: Path) -> None:
    said: list[str] = []
    scene = Scene(sshd, tmp_path)

    with connect(scene.rack, scene.keys, scene.instance, state_directory=tmp_path, notify=said.append) as made:
        assert made.target.ec2_instance_id == ID
    assert "trusting its host key" in said[0]


def test_proof_accepted(sshd: Sshd, tmp_path: Path) -> None:
    assert Scene(sshd, tmp_path).prove() == Proof("accepted")


def test_proof_refused_if_the_server_refuses_the_key(sshd: Sshd, tmp_path: Path) -> None:
    proof = Scene(sshd, tmp_path, key=sshd.directory / "host_ed25519").prove()

    assert proof == Proof("refused", f"key {KEY_NAME}, user {sshd.user}, 127.0.0.1 port {sshd.port}")


def test_proof_accepted_if_a_second_method_is_required(sshd: Sshd, tmp_path: Path) -> None:
    more = {"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"}
    with running(sshd.directory, **more) as server:
        assert Scene(server, tmp_path).prove().outcome == "accepted"


def test_proof_unreachable_if_the_host_key_mismatches(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "host_keys").write_text(f"{ID} ssh-ed25519 AAAA\n")

    proof = Scene(sshd, tmp_path).prove()

    assert proof.outcome == "unreachable"
    assert "host key" in proof.detail


def test_proof_unreachable_if_the_connection_is_closed(sshd: Sshd, tmp_path: Path) -> None:
    with sending(b"SSH-2.0-OpenSSH_9.9\r\n") as port:
        proof = Scene(sshd, tmp_path, port=port).prove()

    assert proof.outcome == "unreachable"


class Refusing(Host):
    """Refuses logins in a way of its own."""

    def __init__(self, how: str) -> None:
        self.how = how

    def login(self) -> int:
        if self.how == "pam":
            # sshd sends what pam_nologin says as a banner, and closes the connection (auth2.c, do_pam_account).
            self.banner("System is booting up. Unprivileged users are not permitted to log in yet.\n")
            self.transport.close()
        elif self.how == "disconnect":
            self.disconnect("Too many authentication failures")
        else:
            self.transport.close()
        return 2


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("pam", "System is booting up. Unprivileged users are not permitted to log in yet."),
        ("disconnect", "Too many authentication failures"),
        ("close", "closed the connection during the login"),
    ],
)
def test_proof_unreachable_with_the_reason_if_the_login_is_cut_off(
    sshd: Sshd, tmp_path: Path, how: str, says: str
) -> None:
    with hosting(sshd, lambda: Refusing(how)) as server:
        proof = Scene(server, tmp_path).prove()

    assert proof.outcome == "unreachable"
    assert says in proof.detail


def test_proof_unreachable_at_its_timeout(sshd: Sshd, tmp_path: Path) -> None:
    with sending(then_close=False) as port:
        proof = Scene(sshd, tmp_path, port=port).prove(timeout=0.2)

    assert proof.outcome == "unreachable"
    assert "within 0.2 s" in proof.detail


def test_a_started_proof_is_polled_without_blocking(sshd: Sshd, tmp_path: Path) -> None:
    fetching, go_on = threading.Event(), threading.Event()
    scene = Scene(sshd, tmp_path)
    stored = scene.keys

    class Slow:
        def candidates(self, name: str, launched: datetime, /) -> Iterator[Identity]:
            fetching.set()
            assert go_on.wait(30)
            yield from stored.candidates(name, launched)

    scene.keys = Slow()
    poll = scene.start_proof()
    assert fetching.wait(30)
    assert poll() is None
    go_on.set()

    assert until_there(poll) == Proof("accepted")


def test_a_started_proof_ends_at_its_timeout(sshd: Sshd, tmp_path: Path) -> None:
    with sending(then_close=False) as port:
        poll = Scene(sshd, tmp_path, port=port).start_proof(timeout=0.2)
        assert until_there(poll).outcome == "unreachable"


def test_a_proof_raises_if_the_key_cannot_be_fetched(sshd: Sshd, tmp_path: Path) -> None:
    class Empty:
        def candidates(self, name: str, launched: datetime, /) -> Iterator[Identity]:
            yield from ()
            raise NotFound(name)

    scene = Scene(sshd, tmp_path)
    scene.keys = Empty()
    with pytest.raises(NotFound):
        scene.prove()
    with pytest.raises(NotFound):
        until_there(scene.start_proof())


def until_there(poll: Callable[[], Proof | None]) -> Proof:
    for _ in range(3000):
        if (proof := poll()) is not None:
            return proof
        threading.Event().wait(0.01)
    raise AssertionError("there was no proof")
