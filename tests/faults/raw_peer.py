"""A peer that plays Wire 2 at random, on raw sockets: a seed decides what it does, and it is hostile.

It knows the protocol well enough to come far: it opens sessions, resumes its own and those of its fellows, and says the
wrong thing in the right place. It shares no line with the product.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable

from tests.faults.peer import Session
from tests.server.clients import UPGRADE, port_of

BINARY, TEXT, CLOSE, PING, PONG = 2, 1, 8, 9, 10
OFFERS = (
    "binary, v1.resume.wstunnel-py", "binary, v1.resume.wstunnel-py", "binary, v1.resume.wstunnel-py",
    "v1.resume.wstunnel-py", "binary", "v1.speed.wstunnel-py", "unknown", "",
)  # fmt: skip
PATIENCE = 0.5  # seconds that it waits for an answer


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """Return a client's frame, whose key of zeros changes nothing."""
    first = bytes([opcode | (0x80 if final else 0)])
    if len(payload) < 126:
        return first + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return first + b"\xfe" + struct.pack(">H", len(payload)) + bytes(4) + payload


class Fellow:
    """A session that some peer has opened, and what is known of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.epoch = 0


class RawPeer:
    """One of several peers in threads of their own, which share the sessions that they know."""

    def __init__(self, url: str, seed: str, known: list[Fellow]) -> None:
        self._port = port_of(url)
        self._chance = random.Random(seed)
        self._known = known
        self._open: list[socket.socket] = []
        self._held: list[socket.socket] = []  # those that it leaves open for a while
        self.acts = 0

    def run(self, until: float) -> None:
        """Do one thing after another until then, then close everything."""
        acts: tuple[Callable[[], None], ...] = (
            self._session, self._session, self._session, self._resume, self._resume, self._resume, self._tunnel,
            self._garbage, self._half_a_request, self._hang_up, self._health,
        )  # fmt: skip
        try:
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    self._chance.choice(acts)()
                self.acts += 1
                self._close_all_but(self._held[-3:])
        finally:
            self._close_all_but([])

    # ---- what it does

    def _session(self) -> None:
        """Open a session, or whatever the bridge makes of the offer, and behave badly in it."""
        sock, head, rest = self._upgrade({"Sec-WebSocket-Protocol": self._chance.choice(OFFERS)})
        if b"v1.resume" in head:
            line = self._session_line(sock, rest)
            if line is not None:
                self._known.append(Fellow(Session.parse(line)))
                del self._known[:-200]
        self._play(sock)

    def _resume(self) -> None:
        """Come back to a session, one's own or a fellow's, with a request that is right or wrong in some way."""
        if not self._known:
            return
        chance = self._chance
        fellow = chance.choice(self._known[-20:])
        epoch = fellow.epoch + chance.choice((1, 1, 1, 1, 2, 0, -1, 1000))
        received = chance.choice((0, 0, 0, 1, 5, 100, 1 << 40))
        key = chance.choice((None, None, None, None, "0" * 64))
        headers = fellow.session.resume(max(0, epoch), received, key=key)
        if chance.random() < 0.1:
            value = headers["Wstunnel-Resume"]
            headers["Wstunnel-Resume"] = chance.choice(
                (value[:-1], value.replace("epoch", "epock"), value + ", x=1", "")
            )
        offer = chance.choice(("binary, v1.resume.wstunnel-py", "binary, v1.resume.wstunnel-py", *OFFERS))
        sock, head, _ = self._upgrade({"Sec-WebSocket-Protocol": offer, **headers})
        if head.startswith(b"HTTP/1.1 101"):
            fellow.epoch = max(fellow.epoch, epoch)
        self._play(sock)

    def _tunnel(self) -> None:
        """Open a plain tunnel, and send frames of every kind."""
        sock, _, _ = self._upgrade({})
        self._play(sock)

    def _garbage(self) -> None:
        sock = self._connect()
        sock.sendall(
            self._chance.choice((b"\x16\x03\x01\x02\0", b"SSH-2.0-x\r\n", b"\r\n\r\n", self._chance.randbytes(300)))
        )
        self._leave(sock)

    def _half_a_request(self) -> None:
        sock = self._connect()
        request = self._request({"Sec-WebSocket-Protocol": OFFERS[0]})
        sock.sendall(request[: self._chance.randrange(len(request))])
        self._leave(sock)

    def _hang_up(self) -> None:
        """Ask for a tunnel, and be gone before the answer."""
        sock = self._connect()
        sock.sendall(self._request({"Sec-WebSocket-Protocol": OFFERS[0]}) + self._bytes())
        self._let_go(sock)

    def _health(self) -> None:
        sock = self._connect()
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self._leave(sock)

    # ---- in a tunnel

    def _play(self, sock: socket.socket) -> None:
        """Say things, right and wrong ones, and leave in some way."""
        for _ in range(self._chance.choice((0, 1, 2, 5, 10))):
            sock.sendall(self._bytes())
            if self._chance.random() < 0.3:
                with contextlib.suppress(TimeoutError):
                    sock.settimeout(0.02)
                    if not sock.recv(1 << 16):
                        break
                sock.settimeout(PATIENCE)
        self._leave(sock)

    def _bytes(self) -> bytes:
        chance = self._chance
        number = chance.choice((0, 0, 1, 5, 100, 1 << 40))
        line = chance.choice((
            f"ack {number}", f"ack {number}", f"fin {number}", "ping", "end", "error policy no", "news", "ack -1",
            "ping 1", f"session id={'0' * 32} key={'0' * 64} window=1 retain=1", "x" * 1100,
        ))  # fmt: skip
        return chance.choice((
            frame(TEXT, line.encode()), frame(TEXT, line.encode()), frame(BINARY, b"hello"),
            frame(BINARY, chance.randbytes(chance.randrange(1, 60_000))), frame(PING, b"x") * chance.choice((1, 50,
            5000)), frame(BINARY) * chance.choice((1, 100, 5000)), frame(BINARY, b"t") * 2000, frame(PONG),
            frame(CLOSE, struct.pack(">H", chance.choice((1000, 1001, 1006, 4999)))), frame(CLOSE, b"\x03"),
            frame(BINARY, bytes(1000))[: chance.randrange(1, 1000)], frame(0, b"of nothing"), frame(3),
            b"\x82\x05hello", frame(TEXT, b"\xc3"), frame(TEXT, b"pi", final=False) + frame(0, b"ng"),
            chance.randbytes(chance.randrange(1, 200)),
        ))  # fmt: skip

    # ---- connections

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        self._open.append(sock)
        return sock

    def _close_all_but(self, held: list[socket.socket]) -> None:
        for sock in self._open:
            if sock not in held:
                sock.close()
        self._open = list(held)
        self._held = held

    def _request(self, headers: dict[str, str]) -> bytes:
        fields = {"Host": "bridge.test", **UPGRADE, **{name: value for name, value in headers.items() if value}}
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode()

    def _upgrade(self, headers: dict[str, str]) -> tuple[socket.socket, bytes, bytes]:
        """Return a connection, the head of the answer, and what came behind it."""
        sock = self._connect()
        sock.sendall(self._request(headers))
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = sock.recv(4096)
            if not chunk:
                raise ConnectionError
            answer += chunk
        head, _, rest = answer.partition(b"\r\n\r\n")
        return sock, head, rest

    def _session_line(self, sock: socket.socket, rest: bytes) -> str | None:
        """Return the session line: the first frame, of 126 to 256 bytes, if it came as it should."""
        while len(rest) < 4 or len(rest) < 4 + int.from_bytes(rest[2:4], "big"):
            chunk = sock.recv(4096)
            if not chunk:
                return None
            rest += chunk
        return rest[4 : 4 + int.from_bytes(rest[2:4], "big")].decode("ascii")

    def _leave(self, sock: socket.socket) -> None:
        """Be gone, now or later."""
        if self._chance.random() < 0.3:
            self._held.append(sock)
        else:
            self._let_go(sock)

    def _let_go(self, sock: socket.socket) -> None:
        if self._chance.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def play(url: str, seed: str, peers: int, seconds: float) -> Callable[[], int]:
    """Let ``peers`` play for so long; return what waits for their end, and returns how many things they did."""
    known: list[Fellow] = []
    until = time.monotonic() + seconds
    raw = [RawPeer(url, f"{seed}-{number}", known) for number in range(peers)]
    threads = [threading.Thread(target=peer.run, args=(until,)) for peer in raw]
    for thread in threads:
        thread.start()

    def join() -> int:
        for thread in threads:
            thread.join(seconds + 30)
            assert not thread.is_alive()
        return sum(peer.acts for peer in raw)

    return join
