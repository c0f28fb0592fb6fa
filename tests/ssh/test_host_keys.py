"""Pinned host keys, those in the console output, and each policy of --host-key-check."""

from __future__ import annotations

import base64
import multiprocessing
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import AccessDenied, RackctlError, SshError
from rackctl.ssh.host_keys import HostKey, HostKeyCheck, HostKeyFile, Mode, read_console

if TYPE_CHECKING:
    from pathlib import Path

A, B = "i-0a0000000000000aa", "i-0b0000000000000bb"


def make_key(kind: str, seed: int) -> HostKey:
    """Make the bytes of a public key; no more of it is looked at here."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + (32).to_bytes(4, "big") + bytes([seed]) * 32
    return HostKey(kind, base64.b64encode(blob).decode())


ED25519, OTHER = make_key("ssh-ed25519", 1), make_key("ssh-ed25519", 2)
ECDSA = make_key("ecdsa-sha2-nistp256", 3)

# As cloud-init's cc_keys_to_console writes it, with what else happens on a console.
AMAZON_LINUX_2 = f"""\
[   12.345678] cloud-init[3330]: Cloud-init v. 19.3 running 'modules:final'\r
ci-info: no authorized ssh keys fingerprints found for user ec2-user.\r
ec2: \r
ec2: #############################################################\r
ec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r
ec2: 256 {ECDSA.fingerprint} no comment (ECDSA)\r
[   13.000001] random: crng init done\r
ec2: 256 {ED25519.fingerprint} no comment (ED25519)\r
ec2: -----END SSH HOST KEY FINGERPRINTS-----\r
ec2: #############################################################\r
-----BEGIN SSH HOST KEY KEYS-----\r
{ECDSA.key_type} {ECDSA.encoded} \r
[   13.100001] IPv6: ADDRCONF(NETDEV_UP): eth0: link is not ready\r
{ED25519.key_type} {ED25519.encoded} root@ip-10-0-0-1\r
-----END SSH HOST KEY KEYS-----\r
"""
AMAZON_LINUX_2023 = f"""\
<14>Nov  1 10:00:00 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----
<14>Nov  1 10:00:00 cloud-init: 256 {ED25519.fingerprint} root@ip-10-0-0-1 (ED25519)
<14>Nov  1 10:00:00 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----
"""


def test_a_key_has_its_type_and_the_fingerprint_that_openssh_prints(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    kind, encoded, _ = path.with_suffix(".pub").read_text().split(" ", 2)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout

    key = HostKey.of(base64.b64decode(encoded))

    assert key == HostKey(kind, encoded)
    assert key.fingerprint == listed.split()[1]


def test_console_output_of_amazon_linux_2() -> None:
    found = read_console(AMAZON_LINUX_2)

    assert found.keys == (ECDSA, ED25519)
    assert found.fingerprints == {ECDSA.fingerprint, ED25519.fingerprint}


def test_console_output_of_amazon_linux_2023() -> None:
    found = read_console(AMAZON_LINUX_2023)

    assert found.keys == ()
    assert found.include(ED25519)
    assert not found.include(OTHER)


def test_the_last_complete_block_counts() -> None:
    newer = AMAZON_LINUX_2023.replace(ED25519.fingerprint, OTHER.fingerprint)
    cut_off = AMAZON_LINUX_2023.partition("-----END")[0]

    assert read_console(AMAZON_LINUX_2023 + newer).fingerprints == {OTHER.fingerprint}
    assert read_console(newer + cut_off).fingerprints == {OTHER.fingerprint}


@pytest.mark.parametrize(
    "output",
    [
        "",
        "login: ",
        AMAZON_LINUX_2023.partition("-----END")[0],
        "-----BEGIN SSH HOST KEY KEYS-----\nssh-ed25519 AAAA\nssh-rsa not!base64\n-----END SSH HOST KEY KEYS-----",
    ],
)
def test_console_output_without_host_keys(output: str) -> None:
    assert not read_console(output)


def test_a_key_with_a_wrong_type_name_is_ignored() -> None:
    text = f"-----BEGIN SSH HOST KEY KEYS-----\nssh-rsa {ED25519.encoded}\n-----END SSH HOST KEY KEYS-----\n"

    assert not read_console(text)


def test_pins_are_kept_by_instance_in_a_file_that_openssh_can_read(tmp_path: Path) -> None:
    file = HostKeyFile(tmp_path / "state")

    file.pin(A, [ED25519, ECDSA])
    file.pin(B, [OTHER])

    assert file.pinned(A) == [ED25519, ECDSA]
    assert file.pinned(B) == [OTHER]
    found = subprocess.run(["ssh-keygen", "-F", A, "-f", file.path], check=True, capture_output=True, text=True).stdout
    assert [line for line in found.splitlines() if line[0] != "#"] == file.path.read_text().splitlines()[:2]


def test_the_file_is_the_users_own(tmp_path: Path) -> None:
    file = HostKeyFile(tmp_path / "state")
    file.pin(A, [ED25519])

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_other_lines_of_the_file_are_kept(tmp_path: Path) -> None:
    file = HostKeyFile(tmp_path)
    file.path.write_text(f"# mine\n@revoked * ssh-rsa AAAA\n\n{A} {ED25519.key_type} {ED25519.encoded} comment\n")
    file.pin(B, [OTHER])

    assert file.pinned(A) == [ED25519]
    assert file.forget(A) == [ED25519]
    assert file.forget(A) == []
    expected = f"# mine\n@revoked * ssh-rsa AAAA\n\n{B} {OTHER.key_type} {OTHER.encoded}\n"
    assert file.path.read_text() == expected


def pin_some(directory: Path, first: int) -> None:
    for number in range(first, first + 25):
        HostKeyFile(directory).pin(f"i-{number:017x}", [ED25519])


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=pin_some, args=(tmp_path, first)) for first in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0

    numbers = [*range(25), *range(100, 125)]
    assert all(HostKeyFile(tmp_path).pinned(f"i-{number:017x}") == [ED25519] for number in numbers)


def test_an_unusable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "host_keys").mkdir()
    file = HostKeyFile(tmp_path)

    with pytest.raises(RackctlError, match="host_keys is not a regular file"):
        file.pinned(A)
    (tmp_path / "file").write_text("")
    with pytest.raises(RackctlError, match=r"cannot make the directory .*: Not a directory"):
        HostKeyFile(tmp_path / "file" / "state").pin(A, [ED25519])


class Contact:
    """A check of an instance's host key, and what was said and asked meanwhile."""

    def __init__(self, file: HostKeyFile, mode: Mode, console: str | RackctlError = "") -> None:
        self.said: list[str] = []
        self.asked = 0

        def console_output() -> str:
            self.asked += 1
            if isinstance(console, RackctlError):
                raise console
            return console

        self.check = HostKeyCheck(A, file, mode, console_output=console_output, notify=self.said.append)


@pytest.fixture
def file(tmp_path: Path) -> HostKeyFile:
    return HostKeyFile(tmp_path)


def test_of_two_first_connections_with_different_keys_the_second_is_refused(file: HostKeyFile) -> None:
    quicker, slower = Contact(file, "first-use"), Contact(file, "first-use")
    quicker.check.accept(ED25519)

    with pytest.raises(SshError, match="host key mismatch for"):
        slower.check.accept(OTHER)
    assert file.pinned(A) == [ED25519]
    assert slower.said == []


def test_a_pinned_key_is_accepted_without_asking_aws(file: HostKeyFile) -> None:
    file.pin(A, [ED25519])
    contact = Contact(file, "strict")

    contact.check.accept(ED25519)

    assert (contact.asked, contact.said) == (0, [])
    assert contact.check.preferred_types == ["ssh-ed25519"]


@pytest.mark.parametrize("damaged", ["AAA", "é", "AAAA\x1b[31m"])
def test_a_damaged_pin_is_refused_and_can_be_removed(file: HostKeyFile, damaged: str) -> None:
    file.path.write_text(f"{A} ssh-ed25519 {damaged}\n", encoding="utf-8")

    with pytest.raises(SshError, match=r"is unreadable \(ssh-ed25519\)"):
        Contact(file, "first-use").check.accept(ED25519)
    assert [key.fingerprint for key in file.forget(A)] == ["unreadable"]
    assert file.pinned(A) == []


@pytest.mark.parametrize("mode", ["strict", "first-use"])
@pytest.mark.parametrize("presented", [OTHER, ECDSA], ids=["same type", "another type"])
def test_a_changed_key_is_refused_with_both_fingerprints_and_the_remedy(
    file: HostKeyFile, mode: Mode, presented: HostKey
) -> None:
    file.pin(A, [ED25519])

    with pytest.raises(SshError) as caught:
        Contact(file, mode, AMAZON_LINUX_2).check.accept(presented)

    assert presented.fingerprint in str(caught.value)
    assert ED25519.fingerprint in str(caught.value)
    assert f"rackctl instances forget-host-key {A}" in caught.value.hint
    assert file.pinned(A) == [ED25519]


@pytest.mark.parametrize("mode", ["strict", "first-use"])
@pytest.mark.parametrize("console", [AMAZON_LINUX_2, AMAZON_LINUX_2023], ids=["2", "2023"])
def test_first_connection_is_checked_against_the_console_output(file: HostKeyFile, mode: Mode, console: str) -> None:
    contact = Contact(file, mode, console)

    contact.check.accept(ED25519)

    assert (contact.asked, contact.said) == (1, [])
    assert ED25519 in file.pinned(A)


def test_all_keys_that_the_console_output_has_are_pinned(file: HostKeyFile) -> None:
    Contact(file, "strict", AMAZON_LINUX_2).check.accept(ED25519)

    assert set(file.pinned(A)) == {ED25519, ECDSA}


@pytest.mark.parametrize("mode", ["strict", "first-use"])
@pytest.mark.parametrize("console", [AMAZON_LINUX_2, AMAZON_LINUX_2023], ids=["2", "2023"])
def test_first_connection_that_contradicts_the_console_output_is_refused(
    file: HostKeyFile, mode: Mode, console: str
) -> None:
    with pytest.raises(SshError, match="its console output shows") as caught:
        Contact(file, mode, console).check.accept(OTHER)

    assert OTHER.fingerprint in str(caught.value)
    assert ED25519.fingerprint in str(caught.value)
    assert file.pinned(A) == []


def test_first_use_trusts_a_key_without_console_output_and_reports_it(file: HostKeyFile) -> None:
    contact = Contact(file, "first-use")
    contact.check.accept(ED25519)

    assert len(contact.said) == 1
    assert f"{A}: trusting its host key {ED25519.fingerprint}" in contact.said[0]
    assert file.pinned(A) == [ED25519]


def test_first_use_reports_why_the_console_output_was_not_used(file: HostKeyFile) -> None:
    contact = Contact(file, "first-use", AccessDenied("AWS denied ec2:GetConsoleOutput"))
    contact.check.accept(ED25519)

    assert "AWS denied ec2:GetConsoleOutput" in contact.said[0]


def test_strict_refuses_a_key_without_console_output(file: HostKeyFile) -> None:
    with pytest.raises(SshError, match="console output shows none") as caught:
        Contact(file, "strict").check.accept(ED25519)

    assert "--host-key-check first-use" in caught.value.hint
    assert file.pinned(A) == []


def test_off_accepts_any_key_and_pins_none(file: HostKeyFile) -> None:
    file.pin(A, [ED25519])
    contact = Contact(file, "off", AMAZON_LINUX_2)

    contact.check.accept(OTHER)

    assert (contact.asked, contact.said, file.pinned(A)) == (0, [], [ED25519])
