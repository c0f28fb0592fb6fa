"""Private keys from memory."""

from __future__ import annotations

import io
from typing import Any

from rackctl.ssh.paramiko_patches.library import paramiko


def load_private_key(openssh_pem: bytes) -> paramiko.PKey:
    """Load an unencrypted private key in OpenSSH's format.

    An RSA key is not checked for being made of primes, which takes a quarter of a second at 4,096 bits: it was checked
    when it was read from its file, or made by rackctl, and KMS has authenticated it. Raises ValueError for what is no
    such key.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key: Any = load_ssh_private_key(openssh_pem, None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, RSAPrivateKey):
            return paramiko.RSAKey(key=key)
        if isinstance(key, EllipticCurvePrivateKey):
            return paramiko.ECDSAKey(file_obj=io.StringIO(openssh_pem.decode("ascii")))
        return paramiko.Ed25519Key(file_obj=io.StringIO(openssh_pem.decode("ascii")))
    except (paramiko.SSHException, TypeError) as error:
        raise ValueError(str(error)) from error
