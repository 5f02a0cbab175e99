"""A web server that answers every request with one page, to be fetched through forwarded ports."""

from __future__ import annotations

import random
import socket

from tests.bed.targets import Target

PAGE = random.Random("page").randbytes(1_000_000)


def serve_page() -> Target:
    return Target(_answer)


def _answer(connection: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        chunk = connection.recv(65536)
        if not chunk:
            return  # somebody only looked whether the port is open
        request += chunk
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + PAGE)
