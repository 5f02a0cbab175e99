"""Many tunnels from one process: what a bridge is measured under. It speaks just enough WebSocket for that.

Run as a program; it opens COUNT tunnels to the target of the benchmark, at most 32 at a time and from as many source
addresses as it takes, and says one line of JSON. They last until its standard input ends.

    crowd.py rest PORT SUBPROTOCOLS COUNT TARGET    idle ones that have carried a few bytes each way
    crowd.py down PORT SUBPROTOCOLS COUNT TARGET    ones that download as fast as they can
    crowd.py up PORT SUBPROTOCOLS COUNT TARGET      ones that upload as fast as they can
    crowd.py mixed PORT SUBPROTOCOLS COUNT TARGET   both, by turns

SUBPROTOCOLS are separated by commas; ``-`` is a TCP connection without WebSocket. TARGET is the target's own port. The
first line is ``{"seconds": …}``, which the opening took. Busy ones begin after it. They count from the line ``count``
on standard input until it ends, and a last line says what went through each, as its receiver counted it. For idle ones
``count`` asks how many are still open.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import selectors
import socket
import sys
import time

AT_ONCE = 32
PER_SOURCE = 1000  # tunnels from one address of 127.0.0.0/8
STEP_LIMIT = 20.0  # seconds without progress
TURN = 64 * 1024  # bytes that a busy tunnel moves before it is another's turn
KEY = bytes.fromhex("5bd1c72a")
BINARY, TEXT, PONG = 0x82, 0x81, 0x8A
PING = b"\x89"
GREETING, ANSWER = b"\n", b"."


def masked(opcode: int, payload: bytes) -> bytes:
    """One frame as a client sends it; ``payload`` is less than 126 bytes, or at least 64 KiB."""
    size = len(payload)
    key = int.from_bytes(KEY * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
    body = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([opcode]) + length + KEY + body


class Tunnel:
    """One tunnel: first it is opened, step by step; then it rests, downloads or uploads."""

    def __init__(self, number: int, port: int, offer: str, kind: str) -> None:
        self.moved = 0
        self.kind = kind
        self.is_open = False
        self.is_websocket = offer != "-"
        self._heard = b""
        self._sent_at = 0
        self._greeted = False
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((f"127.0.1.{1 + number // PER_SOURCE}", 0))
        self.sock.connect_ex(("127.0.0.1", port))
        self._upgraded = not self.is_websocket
        self._request = b""
        if self.is_websocket:
            key = base64.b64encode(os.urandom(16)).decode()
            self._request = (
                f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                f"Sec-WebSocket-Protocol: {offer.replace(',', ', ')}\r\n\r\n"
            ).encode()

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """Send a few bytes, which the socket takes at once."""
        self.sock.sendall(masked(opcode, payload) if self.is_websocket else payload)

    def connected(self) -> None:
        self.sock.sendall(self._request)

    def opened(self) -> bool:
        """Take what has come; return whether the tunnel is open: the target's greeting came, and an order's answer.

        Busy ones have no answer; their order is sent by `begin`.
        """
        piece = self.sock.recv(4096)
        if not piece:
            raise SystemExit(f"crowd: a tunnel was closed: {self._heard[-200:]!r}")
        self._heard += piece
        if not self._upgraded:
            head, end, rest = self._heard.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 101"):
                raise SystemExit(f"crowd: no tunnel: {head[:200]!r}")
            self._upgraded, self._heard = True, rest
        if not self._greeted:
            if not self._has_come(GREETING):
                return False
            self._greeted = True
            self._acknowledge(1)
            if self.kind != "rest":
                return True
            self.send(b"rest\n")
        if not self._has_come(ANSWER):
            return False
        self._acknowledge(2)
        return True

    def _has_come(self, byte: bytes) -> bool:
        return (b"\x82\x01" + byte if self.is_websocket else byte) in self._heard

    def _acknowledge(self, count: int) -> None:
        if b"session " in self._heard:  # it can be resumed, so the bridge waits for this
            self.send(f"ack {count}".encode(), TEXT)

    def answer(self) -> bool:
        """Take what comes to a tunnel that rests, and answer a ping; return whether the tunnel is still there."""
        try:
            while piece := self.sock.recv(4096):
                at = piece.rfind(PING)
                if at >= 0:
                    self.send(piece[at + 2 :][: piece[at + 1]], PONG)
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        return False

    def begin(self) -> None:
        self.send(b"pour\n" if self.kind == "down" else b"drain\n")

    def move(self, space: memoryview, frame: memoryview) -> None:
        """Move at most `TURN` bytes."""
        if self.kind == "down":
            n = self.sock.recv_into(space)
            if not n:
                raise SystemExit("crowd: a download ended")
        else:
            n = self.sock.send(frame[self._sent_at :])
            self._sent_at = (self._sent_at + n) % len(frame)
        self.moved += n


def open_all(selector: selectors.BaseSelector, kind: str, port: int, offer: str, count: int) -> list[Tunnel]:
    """Open ``count`` tunnels, `AT_ONCE` at a time."""
    tunnels: list[Tunnel] = []
    pending = 0
    ready = 0
    while ready < count:
        while pending < AT_ONCE and len(tunnels) < count:
            its_kind = ("down", "up")[len(tunnels) % 2] if kind == "mixed" else kind
            tunnel = Tunnel(len(tunnels), port, offer, its_kind)
            selector.register(tunnel.sock, selectors.EVENT_WRITE, tunnel)
            tunnels.append(tunnel)
            pending += 1
        events = selector.select(STEP_LIMIT)
        if not events:
            raise SystemExit(f"crowd: {ready} of {count} tunnels are open, and no further one within {STEP_LIMIT:g} s")
        for key, event in events:
            if event & selectors.EVENT_WRITE:
                key.data.connected()
                selector.modify(key.fd, selectors.EVENT_READ, key.data)
            elif key.data.is_open:
                if not key.data.answer():
                    raise SystemExit("crowd: a tunnel was closed while others were opened")
            elif key.data.opened():
                key.data.is_open = True
                pending -= 1
                ready += 1
    return tunnels


def keep_busy(selector: selectors.BaseSelector, tunnels: list[Tunnel], target: int) -> None:
    """Move bytes through all tunnels until standard input ends; then say how many went through each."""
    space = memoryview(bytearray(TURN))
    others = drained(target).keys()  # what an earlier crowd has left behind, and a slow bridge still passes on
    for tunnel in tunnels:
        tunnel.begin()
        event = selectors.EVENT_READ if tunnel.kind == "down" else selectors.EVENT_WRITE
        selector.modify(tunnel.sock, event, tunnel)
    frame = memoryview(masked(BINARY, bytes(TURN))) if tunnels[0].is_websocket else memoryview(bytes(TURN))
    selector.register(0, selectors.EVENT_READ, None)
    started, uploaded = time.monotonic(), drained(target)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                try:
                    key.data.move(space, frame)
                except BlockingIOError:
                    continue
            elif os.read(0, 100):  # "count"
                started, uploaded = time.monotonic(), drained(target)
                for tunnel in tunnels:
                    tunnel.moved = 0
            else:
                counts = drained(target)
                moved = [n - uploaded.get(number, 0) for number, n in counts.items() if number not in others]
                moved += [tunnel.moved for tunnel in tunnels if tunnel.kind == "down"]
                say({"moved": moved, "seconds": time.monotonic() - started})
                return


def rest(selector: selectors.BaseSelector, tunnels: list[Tunnel]) -> None:
    """Keep the tunnels until standard input ends; say how many there are when it says ``count``."""
    selector.register(0, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                if not key.data.answer():
                    selector.unregister(key.fd)
            elif os.read(0, 100):
                say({"open": sum(tunnel.answer() for tunnel in tunnels)})
            else:
                return


def drained(target: int) -> dict[int, int]:
    """Ask the target how much each upload has brought. They are too few bytes to be in the tunnels' way."""
    with socket.create_connection(("127.0.0.1", target), STEP_LIMIT) as sock:
        sock.sendall(b"drained\n")
        with sock.makefile("rb") as answer:
            greeting, counts = answer.readline(), answer.readline()
    assert greeting == GREETING
    pairs = (each.split(b":") for each in counts.split())
    return {int(number): int(count) for number, count in pairs}


def say(fact: dict[str, object]) -> None:
    print(json.dumps(fact), flush=True)


def main() -> None:
    kind, port, offer, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with selectors.DefaultSelector() as selector:
        started = time.monotonic()
        tunnels = open_all(selector, kind, port, offer, count)
        say({"seconds": time.monotonic() - started})
        if kind == "rest":
            rest(selector, tunnels)
        else:
            keep_busy(selector, tunnels, int(sys.argv[5]))


if __name__ == "__main__":
    main()
