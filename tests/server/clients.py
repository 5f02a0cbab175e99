"""Clients of a bridge: plain HTTP requests, raw bytes, and `websockets` for whole tunnels."""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

LIMIT = 20.0  # seconds that any single wait may take
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def ask(
    url: str, path: str = "/", method: str = "GET", headers: Mapping[str, str] = UPGRADE, body: bytes = b""
) -> Answer:
    """Send one request to the bridge at ``url`` (ws://) and return its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=LIMIT)
    try:
        connection.request(method, path, body=body or None, headers=dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def dial(url: str, source: str = "127.0.0.1") -> socket.socket:
    """Connect to the bridge from the loopback address ``source``."""
    return socket.create_connection(("127.0.0.1", port_of(url)), timeout=LIMIT, source_address=(source, 0))


def ask_raw(url: str, data: bytes) -> Answer:
    """Send ``data`` as it is, and parse everything that comes back until the bridge hangs up."""
    with dial(url) as sock:
        sock.sendall(data)
        return read_answer(sock)


def read_answer(sock: socket.socket) -> Answer:
    data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)


def request_head(path: str = "/", headers: Mapping[str, str] = UPGRADE) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: bridge.test", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


class SharedTLS(ssl.SSLSocket):
    """A TLS connection that one thread may read and another write, like those of `websockets.sync`.

    Without a lock, what is sent while session tickets arrive can get lost (python/cpython issue 143756).
    """

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self._lock = threading.Lock()
        self.setblocking(False)  # so that the lock is not held while waiting

    def settimeout(self, value: float | None, /) -> None:
        if not hasattr(self, "_lock"):
            super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        while True:
            with self._lock:
                try:
                    return super().recv(buflen, flags)
                except (ssl.SSLWantReadError, BlockingIOError):
                    pass
            select.select([self], [], [], LIMIT)

    def sendall(self, data: Any, flags: int = 0) -> None:
        left = memoryview(data)
        while left:
            with self._lock:
                try:
                    left = left[super().send(left, flags) :]
                except ssl.SSLWantWriteError:
                    pass
            select.select([], [self], [], LIMIT)


def open_tunnel(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    sock: socket.socket | None = None,
) -> ClientConnection:
    """Open a tunnel with the `websockets` library; ``sock`` is connected to the bridge already."""
    if tls is not None:
        tls.sslsocket_class = SharedTLS
    return connect_websocket(
        url,
        sock=sock,
        additional_headers=headers,
        ssl=tls,
        server_hostname="localhost" if tls else None,
        compression=None,
        proxy=None,
        open_timeout=LIMIT,
        close_timeout=LIMIT,
    )


def assert_echo(tunnel: ClientConnection, data: bytes = b"hello") -> None:
    """The tunnel leads to an echo: what goes in comes out."""
    tunnel.send(data)
    assert_received(tunnel, data)


def assert_received(tunnel: ClientConnection, data: bytes) -> None:
    received = b""
    while len(received) < len(data):
        message = tunnel.recv(timeout=LIMIT)
        assert isinstance(message, bytes)
        received += message
    assert received == data
