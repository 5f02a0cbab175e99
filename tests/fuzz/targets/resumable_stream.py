"""A resumable stream, in either role, whose peer sends anything at any time: it never raises, and keeps its limits.

The input is a program: a byte for the role and the window, then steps of two bytes, what to do and how much of it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from tunnel.errors import ConnectionLost, RemoteProtocolError
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TARGET_LOST, TEXT, frame_header
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

TOKENS = (b"\x01\x00", b"\x01\x10\x02\x40", b"\x07\x00", b"\x04\xff\x06\xff", b"\x0b\xff", b"\x08\x00", b"\x03\xff")
STEPS_LIMIT = 150
OFFER = f"session id={'0' * 32} key={'0' * 64} window=%d retain=60"


class Play:
    """A stream, and what its peer may know of it."""

    def __init__(self, role: int) -> None:
        self.client = bool(role & 1)
        self.window = 1000 << (role >> 1) % 8
        self.buffers = ReadBuffers()
        offer = None if self.client else SessionOffer("0" * 32, "0" * 64, self.window, 60)
        self.stream = ResumableStream(client=self.client, buffers=self.buffers, now=0.0, offer=offer)
        self.now = 0.0
        self.said = 0  # bytes of the peer's stream
        self.heard = 0  # bytes of ours that went to the wire, headers and all
        self.rest = b""  # of the wire, for a later turn
        self.delivered = 0

    # ---- the peer

    def wire(self, data: bytes) -> None:
        self.rest += data
        stream = self.stream
        if not (self.rest and stream.wants_wire_read):
            self.rest = b""
            return
        space = stream.wire_space()
        taken = self.rest[: len(space)]
        space[: len(taken)] = taken
        used = stream.wire_received(len(taken), self.now)
        assert 0 < used <= len(taken)
        self.rest = self.rest[used:]

    def frame(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
        return frame_header(opcode, len(payload), None if self.client else bytes(4), final) + payload

    def raw(self, amount: int) -> None:
        self.wire(bytes([amount, amount ^ 0x80, amount >> 1]))

    def line(self, amount: int) -> None:
        ours = self.stream.session.sender.replay.end
        lines = (
            f"ack {ours}", f"ack {ours + 1}", "ack 0", f"ack {amount}", f"fin {self.said}", f"fin {amount}", "ping",
            "end", OFFER % self.window, "error policy enough", "news of a later version", "ack", "x" * 1100,
            f"ack {1 << 62}",
        )  # fmt: skip
        self.wire(self.frame(TEXT, lines[amount % len(lines)].encode()))

    def data(self, amount: int) -> None:
        size = amount * 37 % 2000
        self.said += size
        self.wire(self.frame(BINARY, bytes(size)))

    def tiny(self, amount: int) -> None:
        self.said += amount
        self.wire(self.frame(BINARY, b"t") * amount)

    def other_frames(self, amount: int) -> None:
        kinds = (
            self.frame(PING, b"p"), self.frame(PONG), self.frame(CLOSE, b"\x03\xe8"), self.frame(BINARY),
            self.frame(BINARY, final=False), self.frame(CONTINUATION), self.frame(TEXT, b"a", final=False),
        )  # fmt: skip
        self.wire(kinds[amount % len(kinds)] * (1 + (amount >> 4) * 20))

    def half_a_frame(self, amount: int) -> None:
        self.said += amount
        self.wire(self.frame(BINARY, bytes(amount + 5))[: -5 if amount else None])

    # ---- this end

    def take(self, amount: int) -> None:
        n = min(sum(map(len, self.stream.sink_output())), amount * 50)
        if n:
            self.delivered += n
            self.stream.sink_sent(n, self.now)

    def give(self, amount: int) -> None:
        if self.stream.wants_source and amount:
            n = min(len(self.stream.source_space()), amount * 50)
            self.stream.source_received(n, self.now)

    def send(self, amount: int) -> None:
        if self.stream.wants_wire_write:
            n = min(sum(map(len, self.stream.wire_output())), amount * 50)
            self.stream.wire_sent(n, self.now)

    def pass_time(self, amount: int) -> None:
        self.now += amount / 10
        self.stream.tick(self.now)
        assert self.stream.next_tick(self.now) >= 0

    def reconnect(self, amount: int) -> None:
        stream = self.stream
        if not stream.session.established or stream.over:
            return
        stream.detach()
        self.rest = b""
        self.said = stream.session.delivered  # what was not delivered comes again
        received = (stream.session.sender.replay.base, stream.session.sender.replay.end, amount)[amount % 3]
        possible = stream.can_attach(received)
        try:
            stream.attach(received, self.now, b"HTTP/1.1 101 \r\n\r\n")
        except RemoteProtocolError:
            assert not possible
            stream.attach(stream.session.sender.replay.base + stream.session.sender.fin_acked, self.now)

    def end(self, amount: int) -> None:
        stream = self.stream
        (
            stream.source_ended, lambda: stream.source_failed(TARGET_LOST, "gone"),
            lambda: stream.sink_failed(self.now), stream.wire_write_failed, stream.wire_ended,
            stream.sink_half_closed, stream.request_ack, lambda: stream.probe(self.now),
            stream.end if amount & 8 else lambda: stream.fail("input", ConnectionLost("input", reason="test")),
        )[amount % 9]()  # fmt: skip

    # ---- what always holds

    def check(self) -> None:
        stream = self.stream
        stream.settle()
        window = stream.offer.window if stream.offer is not None else 0
        waiting = stream.sink_output()
        assert sum(map(len, waiting)) <= window, "more waits for the sink than the window allows"
        assert len(waiting) <= 2 + window // 1000, "a piece for each frame"
        assert not any(isinstance(piece, memoryview) and piece.obj is self.buffers.wire.obj for piece in waiting)
        assert stream.session.unacknowledged <= window
        assert stream.session.sender.replay.memory <= 4 * window + (1 << 20)
        assert stream.session.delivered <= self.delivered + stream.session.receiver.undelivered + 1
        assert len(stream.wire_output()) <= 100, "the peer fills what waits for it"
        assert stream.over or stream.failure is None
        if stream.wants_source:
            assert stream.source_space()


STEPS: tuple[Callable[[Play, int], None], ...] = (
    Play.raw, Play.line, Play.data, Play.take, Play.give, Play.pass_time, Play.send, Play.reconnect, Play.end,
    Play.other_frames, Play.half_a_frame, Play.tiny,
)  # fmt: skip


def target(data: bytes) -> None:
    if not data:
        return
    play = Play(data[0])
    if play.client and data[0] & 0x80:
        play.wire(play.frame(TEXT, (OFFER % play.window).encode()))
    program = data[1 : 1 + 2 * STEPS_LIMIT]
    for at, (step, amount) in enumerate(pairwise(program)):
        if at % 2 == 0:
            STEPS[step % len(STEPS)](play, amount)
            play.check()
    while play.rest:
        play.wire(b"")
        play.check()
