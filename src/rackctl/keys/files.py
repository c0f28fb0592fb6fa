"""Private keys in files, for a login or for the store.

As in OpenSSH, a file that other users can read is refused. The key is kept in memory only; the file is not changed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rackctl.errors import UsageError
from rackctl.keys import forbid_core_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes as PrivateKey

# OpenSSH's MAX_KEY_FILE_SIZE and NumberOfPasswordPrompts.
_LARGEST = 1024 * 1024
_PROMPTS = 3
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key from a file, unencrypted, in OpenSSH's format; also a source of keys with this one alone.

    ``key_name`` is the path; ``public_key`` is ``TYPE BASE64``.
    """

    key_name: str
    public_key: str
    private_key: bytes = field(repr=False)

    def candidates(self, _name: str, _launched: datetime, /) -> Iterator[KeyFile]:
        """Yield this key, for any instance."""
        yield self


def read_key_file(path: str, ask: Callable[[str], bytes]) -> KeyFile:
    """Read a private key in OpenSSH's format or in PEM (PKCS#1, SEC 1, PKCS#8).

    If the key is encrypted, ``ask`` is called with a prompt for the passphrase. Raises UsageError, and the errors of
    ``ask``.
    """
    return key_of(path, _read(path), ask)


def key_of(path: str, data: bytes, ask: Callable[[str], bytes]) -> KeyFile:
    """Return the private key in the contents of a file. Raises as `read_key_file` does."""
    from cryptography.hazmat.primitives import serialization

    forbid_core_files()
    private = _opened(path, data.replace(b"\r\n", b"\n"), ask)
    return KeyFile(
        key_name=path,
        public_key=_public_half(private),
        private_key=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ),
    )


def _read(path: str) -> bytes:
    if not path:
        raise UsageError("the name of the key file is empty", hint="is a variable in your script unset?")
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as it was typed
            found = os.fstat(file.fileno())
            # OpenSSH's rule (sshkey_perm_ok): the mode of another user's file is not checked.
            if found.st_uid == os.getuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsageError(
                    f"{path} is readable or writable by other users (mode {stat.S_IMODE(found.st_mode):04o}): "
                    "rackctl does not use it, nor would ssh",
                    hint=f"chmod 600 {path}",
                )
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"cannot read the key file {path}: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than 1 MiB", hint="check that this is the right file")
    return data


def _opened(path: str, data: bytes, ask: Callable[[str], bytes]) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        try:
            return _loaded(path, data, None)
        except TypeError:
            return _decrypted(path, data, ask)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is not a private key that rackctl can use: {error}") from error


def _decrypted(path: str, data: bytes, ask: Callable[[str], bytes]) -> PrivateKey:
    for _ in range(_PROMPTS):
        passphrase = ask(f"Passphrase of {path}: ")
        if not passphrase:
            break
        try:
            return _loaded(path, data, passphrase)
        except ValueError:
            continue  # cryptography raises the same error for a wrong passphrase and for damage
    raise UsageError(f"could not decrypt {path} with a passphrase", hint="try it with `ssh-keygen -y -f FILE`")


def _loaded(path: str, data: bytes, passphrase: bytes | None) -> PrivateKey:
    """Load a private key. Raises TypeError if a passphrase is missing, ValueError, UnsupportedAlgorithm, UsageError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if _OPENSSH in data:
        key: object = serialization.load_ssh_private_key(data, passphrase)
    elif b"-----BEGIN " in data and b"PRIVATE KEY-----" in data:
        key = serialization.load_pem_private_key(data, passphrase)
    elif data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        raise UsageError(f"{path} is a public key", hint="name the file of the private key, without .pub")
    elif data.startswith(b"PuTTY-User-Key-File"):
        raise UsageError(f"{path} is in PuTTY's format", hint=f"convert it: puttygen {path} -O private-openssh -o FILE")
    else:
        raise UsageError(f"{path} is not a private key", hint="OpenSSH's format and PEM are read")
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} is neither an Ed25519, an RSA nor an ECDSA key")
    return key


def _public_half(private: PrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    encoded = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return encoded.decode("ascii")
