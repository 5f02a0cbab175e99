"""A flood of tiny frames from a separate process, so that it does not slow down the test that measures its effect.

python -m tests.faults.flood URL KIND CONNECTIONS SECONDS
"""

from __future__ import annotations

import select
import socket
import sys
import time

from tests.server.clients import port_of, request_head

FRAMES = {  # each with a key of zeros, which changes nothing
    "bytes": b"\x82\x81\0\0\0\0x",
    "empty": b"\x82\x80\0\0\0\0",
    "pings": b"\x89\x80\0\0\0\0",
}
BATCH = 10_000  # frames of one send


def open_plain(url: str) -> socket.socket:
    """Open a plain tunnel, and leave what comes to be read by others."""
    sock = socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)
    sock.sendall(request_head())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return sock


def flood(url: str, kind: str, count: int, seconds: float) -> None:
    """Send as fast as the bridge takes it; a connection that it ends is followed by another one."""
    data = FRAMES[kind] * BATCH
    deadline = time.monotonic() + seconds
    unsent: dict[socket.socket, memoryview] = {}
    ended = 0
    print("flooding", flush=True)
    while time.monotonic() < deadline:
        while len(unsent) < count:
            sock = open_plain(url)
            sock.setblocking(False)
            unsent[sock] = memoryview(b"")
        ready, writable, _ = select.select(list(unsent), list(unsent), [], 0.1)
        for sock in {*ready, *writable}:
            try:
                if sock in ready and not sock.recv(1 << 18):
                    raise ConnectionResetError
                if sock in writable:
                    rest = unsent[sock] or memoryview(data)
                    unsent[sock] = rest[sock.send(rest) :]
            except BlockingIOError:
                continue
            except OSError:
                ended += 1
                del unsent[sock]
                sock.close()
    for sock in unsent:
        sock.close()
    print(f"{ended} connections were ended", flush=True)


if __name__ == "__main__":
    flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
