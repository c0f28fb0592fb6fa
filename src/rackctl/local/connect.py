"""Connect to an instance behind the local rack's gateway: ``python -m rackctl.local.connect GATEWAY HOST PORT``.

A proxy command: its standard input and output are the connection. The first line to the gateway is the host's address;
the host itself authenticates the client.
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
        pass  # the other direction fails too, and reports the error


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
