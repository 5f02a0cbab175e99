"""A client of Wire 2 by hand, on the Sans-I/O core of `websockets`: it can do what our client never would.

Nothing here shares a line with the product, so a misreading of the protocol that both ends share does not go unnoticed.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.server.clients import UPGRADE, Answer, ask, dial

RESUMABLE = Subprotocol("v1.resume.wstunnel-py")
OFFER = ("binary", RESUMABLE)
LIMIT = 20.0  # seconds that any single wait may take


@dataclass(frozen=True)
class Session:
    """The contents of the bridge's session line."""

    id: str
    key: str
    window: int
    retain: int

    @classmethod
    def parse(cls, line: str) -> Session:
        word, *fields = line.split(" ")
        assert word == "session", line
        values = dict(field.split("=") for field in fields)
        assert len(values["id"]) == 32 and len(values["key"]) == 64 and len(line) <= 256, line
        return cls(values["id"], values["key"], int(values["window"]), int(values["retain"]))

    def resume(self, epoch: int, received: int = 0, *, key: str | None = None) -> dict[str, str]:
        """The header of a resume; ``key`` is for those who do not have the right one."""
        message = f"{self.id} {epoch} {received}".encode()
        proof = hmac.new(bytes.fromhex(self.key if key is None else key), message, hashlib.sha256).hexdigest()
        return {"Wstunnel-Resume": f"id={self.id}, epoch={epoch}, received={received}, proof={proof}"}


class Peer:
    """A connection to the bridge at ``url``: its handshake, and then ``data`` and control ``lines`` as they came.

    It comes from the loopback address ``source``. It answers WebSocket pings, and else does nothing by itself: no acks,
    no end. ``ended`` is how the connection ended: "fin" or "rst", or None while it stands; ``close_code`` is that of
    the Close that came.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        offer: tuple[str, ...] = OFFER,
        source: str = "127.0.0.1",
    ) -> None:
        self.data = bytearray()
        self.lines: list[str] = []
        self.sizes: list[int] = []  # of the frames with data
        self.ended: str | None = None
        self.close_code: int | None = None
        self._text = b""
        self._opcode = Opcode.BINARY
        self.sock = dial(url, source)
        self._protocol = ClientProtocol(parse_uri(url), subprotocols=[*map(Subprotocol, offer)] or None, max_size=None)
        request = self._protocol.connect()
        request.headers.update(headers or {})
        self._protocol.send_request(request)
        self._flush()
        try:
            self.wait(lambda: hasattr(self, "answer") or self.ended is not None)
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc
        except BaseException:
            self.sock.close()
            raise

    answer: Response

    @classmethod
    def open(
        cls, url: str, headers: Mapping[str, str] | None = None, *, source: str = "127.0.0.1"
    ) -> tuple[Peer, Session]:
        """Open a new session, and confirm it as every client does."""
        peer = cls(url, headers, source=source)
        try:
            assert peer.subprotocol == RESUMABLE, peer.subprotocol
            session = Session.parse(peer.wait_for_line("session "))
            peer.say("ack 0")
        except BaseException:
            peer.close()
            raise
        return peer, session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def subprotocol(self) -> str | None:
        return self._protocol.subprotocol

    @property
    def received_before(self) -> int:
        """How much of our stream the bridge has received, by its answer to a resume."""
        return int(self.answer.headers["Wstunnel-Received"])

    def say(self, line: str) -> None:
        self._protocol.send_text(line.encode())
        self._flush()

    def send(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        self._flush()

    def say_close(self, code: int) -> None:
        """Send a Close frame; the connection stays open until the bridge hangs up."""
        self._protocol.send_close(code)
        self._flush()

    def end(self) -> None:
        self.say("end")
        self.say_close(1000)

    def close(self) -> None:
        """Close the connection without a Close."""
        self.sock.close()

    def reset(self) -> None:
        """Break the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait(self, condition: Callable[[], bool], seconds: float = LIMIT) -> None:
        """Read until ``condition`` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.data)} bytes, lines {self.lines[-5:]}, ended: {self.ended}"
            assert self.ended is None, f"ended by {self.ended}: {len(self.data)} bytes, lines {self.lines[-5:]}"
            self.sock.settimeout(left)
            try:
                self._read()
            except TimeoutError:
                pass
            finally:
                self.sock.settimeout(LIMIT)

    def wait_for_line(self, start: str, seconds: float = LIMIT) -> str:
        """Read until a control line begins with ``start``; return the last such line."""
        self.wait(lambda: any(line.startswith(start) for line in self.lines), seconds)
        return next(line for line in reversed(self.lines) if line.startswith(start))

    def wait_for_data(self, count: int, seconds: float = LIMIT) -> bytes:
        """Read until ``count`` bytes have come on this connection; return all that did."""
        self.wait(lambda: len(self.data) >= count, seconds)
        return bytes(self.data)

    def wait_for_end(self, seconds: float = LIMIT) -> str:
        """Read until the bridge ends the connection; return how."""
        self.wait(lambda: self.ended is not None, seconds)
        assert self.ended is not None
        return self.ended

    def _read(self) -> None:
        try:
            chunk = self.sock.recv(1 << 18)
        except ConnectionResetError:
            self.ended = "rst"
            return
        if chunk:
            self._protocol.receive_data(chunk)
        else:
            self._protocol.receive_eof()
            self.ended = "fin"
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.answer = event
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()

    def _take(self, frame: Frame) -> None:
        opcode = self._opcode if frame.opcode is Opcode.CONT else frame.opcode
        if opcode is Opcode.BINARY:
            self._opcode = opcode
            self.data += frame.data
            self.sizes.append(len(frame.data))
        elif opcode is Opcode.TEXT:
            self._opcode = opcode
            self._text += bytes(frame.data)
            if frame.fin:
                self.lines.append(self._text.decode("ascii"))
                self._text = b""
        elif opcode is Opcode.CLOSE:
            self.close_code = int.from_bytes(bytes(frame.data)[:2], "big")

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                try:
                    self.sock.sendall(data)
                except ConnectionError:
                    return  # the bridge has let go; what it said before that is still to be read


def refusal(url: str, headers: Mapping[str, str]) -> Answer:
    """Ask for a resume that is to be refused; return the bridge's answer."""
    return ask(url, headers={**UPGRADE, "Sec-WebSocket-Protocol": ", ".join(OFFER), **headers})


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.headers.get("wstunnel-error"), answer.json["error"]) == (status, code, code)


def assert_echoes(peer: Peer, data: bytes) -> None:
    """The session is healthy: what goes in comes out."""
    before = len(peer.data)
    peer.send(data)
    assert peer.wait_for_data(before + len(data))[before:] == data
