"""The first host key of a server with which only OpenSSH has a key exchange in common."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from rackctl.errors import SshError
from rackctl.ssh.host_keys import HostKey

if TYPE_CHECKING:
    from rackctl.ssh.host_keys import HostKeyCheck
    from rackctl.ssh.reach import Target

_TIMEOUT = 30


def pin_by_keyscan(target: Target, check: HostKeyCheck) -> None:
    """Check and pin the host key that ``ssh-keyscan`` prints. Raises SshError.

    ssh-keyscan does not verify that the server has the private key. Use this only before a connection of OpenSSH's own
    client, which verifies that and accepts the pinned key alone.
    """
    try:
        scanned = subprocess.run(
            ["ssh-keyscan", "-T", str(_TIMEOUT), "-p", str(target.port), "--", target.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise SshError(
            f"cannot run `ssh-keyscan`: {error.strerror}", hint="install the OpenSSH client (openssh-client)"
        ) from error
    # Each line is a host and a key as in known_hosts; comments are on stderr.
    keys = [HostKey(*words[1:3]) for words in map(str.split, scanned.stdout.decode("ascii", "replace").splitlines())]
    preferred = sorted(keys, key=lambda key: (key.key_type not in check.preferred_types, key.key_type != "ssh-ed25519"))
    if not preferred:
        raise SshError(f"{target}: `ssh-keyscan` printed no host key")
    check.accept(preferred[0])
