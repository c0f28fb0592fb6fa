"""A proxy command: ``python -m tests.ssh.relay HOST PORT`` carries bytes between its standard streams and a server."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading


def main() -> None:
    sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))

    def carry_in() -> None:
        while data := os.read(0, 65536):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    threading.Thread(target=carry_in, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            os.write(1, data)


if __name__ == "__main__":
    main()
