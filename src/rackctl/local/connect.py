"""Connects to an instance that has no address of its own: ``python -m rackctl.local.connect GATEWAY HOST PORT``.

A proxy command: its standard input and output are the connection. The gateway takes the host's address in a line
of its own; who may log in is the host's business.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def main(gateway: str, host: str, port: str) -> int:
    try:
        connection = socket.create_connection(("127.0.0.1", int(gateway)))
        connection.sendall(f"{host} {port}\n".encode())
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := connection.recv(65536):
            _write(data)
    except OSError as error:
        sys.stderr.write(f"rackctl: the local rack's gateway: {error.strerror}\n")
        return 1
    return 0


def _send(connection: socket.socket) -> None:
    try:
        while data := os.read(0, 65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other direction ends too, and says why


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
