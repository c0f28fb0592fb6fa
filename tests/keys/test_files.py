"""Private keys in files, as ssh-keygen and openssl write them, are read as OpenSSH reads them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import UsageError
from rackctl.keys.files import read_key_file
from rackctl.ssh.paramiko_patches import load_private_key

if TYPE_CHECKING:
    from pathlib import Path

WRONG = "wrong"


def made(path: Path, *options: str, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-N", passphrase, "-f", path, *options], check=True)
    return path


def silent(prompt: str) -> bytes:
    raise AssertionError(prompt)


def answering(*answers: str) -> tuple[list[str], object]:
    asked: list[str] = []
    left = list(answers)

    def ask(prompt: str) -> bytes:
        asked.append(prompt)
        return left.pop(0).encode()

    return asked, ask


FORMS = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "1024"),
    "ecdsa": ("-t", "ecdsa"),
    "rsa-pkcs1": ("-t", "rsa", "-b", "1024", "-m", "PEM"),
    "rsa-pkcs8": ("-t", "rsa", "-b", "1024", "-m", "PKCS8"),
    "ecdsa-sec1": ("-t", "ecdsa", "-m", "PEM"),
}


@pytest.mark.parametrize("passphrase", ["", "pass phrase"])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS.keys())
def test_each_form_that_ssh_keygen_writes_is_read(options: tuple[str, ...], passphrase: str, tmp_path: Path) -> None:
    path = made(tmp_path / "key", *options, passphrase=passphrase)
    before = (path.read_bytes(), path.stat())
    asked, ask = answering(passphrase)

    key = read_key_file(str(path), ask)  # type: ignore[arg-type]

    assert key.public_key == " ".join((tmp_path / "key.pub").read_text().split()[:2])
    assert key.private_key.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert load_private_key(key.private_key).get_base64() == key.public_key.split()[1]
    assert asked == ([f"Passphrase of {path}: "] if passphrase else [])
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before[0], before[1].st_mtime_ns)


def test_an_encrypted_pkcs8_key_of_openssl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", "pass:secret", "-out", path],
        check=True,
        capture_output=True,
    )

    assert read_key_file(str(path), lambda _: b"secret").public_key.startswith("ssh-ed25519 ")


def test_a_file_with_the_line_ends_of_windows_is_read(tmp_path: Path) -> None:
    path = made(tmp_path / "key", "-t", "rsa", "-b", "1024", "-m", "PEM")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert read_key_file(str(path), silent).public_key.startswith("ssh-rsa ")


@pytest.mark.parametrize("form", ["ed25519", "rsa-pkcs1", "rsa-pkcs8"])
def test_the_prompt_for_a_passphrase_appears_three_times(form: str, tmp_path: Path) -> None:
    path = str(made(tmp_path / "key", *FORMS[form], passphrase="right one"))

    asked, ask = answering(WRONG, WRONG, "right one")
    assert read_key_file(path, ask).key_name == path  # type: ignore[arg-type]
    assert len(asked) == 3

    asked, ask = answering(WRONG, WRONG, WRONG, "right one")
    with pytest.raises(UsageError, match=r"could not decrypt .* with a passphrase"):
        read_key_file(path, ask)  # type: ignore[arg-type]
    assert len(asked) == 3


def test_an_empty_passphrase_gives_up(tmp_path: Path) -> None:
    path = str(made(tmp_path / "key", "-t", "ed25519", passphrase="right one"))
    asked, ask = answering("")

    with pytest.raises(UsageError, match="could not decrypt"):
        read_key_file(path, ask)  # type: ignore[arg-type]
    assert len(asked) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_that_others_can_read_is_refused_as_by_ssh(mode: int, tmp_path: Path) -> None:
    """ssh(1), FILES: "ssh will simply ignore a private key file if it is accessible by others"."""
    path = made(tmp_path / "key", "-t", "ed25519")
    path.chmod(mode)
    ran = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "UNPROTECTED PRIVATE KEY FILE" in ran.stderr

    with pytest.raises(UsageError, match=f"mode {mode:04o}") as caught:
        read_key_file(str(path), silent)

    assert caught.value.hint == f"chmod 600 {path}"


def test_a_pipe_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, made(tmp_path / "key", "-t", "ed25519").read_bytes())
    os.close(writing)

    assert read_key_file(f"/dev/fd/{reading}", silent).public_key.startswith("ssh-ed25519 ")
    os.close(reading)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a private key"),
        (b"hello", "is not a private key"),
        (b"ssh-ed25519 AAAA me@here\n", "is a public key"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "is in PuTTY's format"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "cannot|can use"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "can use"),
        (b"x" * (1024 * 1024 + 1), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_not_a_private_key_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(content)

    with pytest.raises(UsageError, match=says) as caught:
        read_key_file(str(path), silent)
    assert str(path) in str(caught.value)


def test_a_dsa_key_is_refused(tmp_path: Path) -> None:
    """Neither EC2 nor OpenSSH takes one (OpenSSH 7.0: ssh-dss is off)."""
    path = tmp_path / "key"
    path.touch(0o600)
    for command in (["dsaparam", "-genkey", "2048"],):
        path.write_bytes(subprocess.run(["openssl", *command], check=True, capture_output=True).stdout)

    with pytest.raises(UsageError, match="neither an Ed25519, an RSA nor an ECDSA key"):
        read_key_file(str(path), silent)


@pytest.mark.parametrize(("name", "says"), [("", "is empty"), ("/nowhere/key", "No such file"), ("/tmp", "directory")])
def test_a_file_that_cannot_be_read_is_named(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_key_file(name, silent)


def test_the_private_half_shows_in_no_representation(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(read_key_file(str(made(tmp_path / "key", "-t", "ed25519")), silent))
