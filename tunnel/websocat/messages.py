"""What is websocat's own on the wire: text messages, lines, limits on messages, and when a direction ends. Sans-I/O.

A `MessageStream` is a plain stream at either end of a WebSocket whose `Manners` say which messages it makes of what the
source gives, and what it makes of the messages that come.

A direction that is carried no further (after ``--max-messages``, or by ``-u``) has ended like any other: towards the
wire behind a Close, unless there is to be none; towards the sink by a half-close at a server, while a client, whose
sink knows no half-close, discards what still comes.
"""

from __future__ import annotations

import codecs

from tunnel.errors import ConnectionLost
from tunnel.protocol.frames import MAX_HEADER, NORMAL, TEXT
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.protocol.stream import FRAME_LIMIT, PlainStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunnel.protocol.frames import Payload
    from tunnel.protocol.keepalive import Keepalive
    from tunnel.protocol.stream import ReadBuffers

LINE_LIMIT = 64 * 1024  # bytes of a line, unless -B says otherwise
SILENCE = 3.0  # seconds in which the other direction must say something once one has ended, with --exit-on-eof
PARTING = 1.0  # seconds for the peer's Close when nothing else is waited for
_LINES_READ = 4 * 1024  # bytes of lines that are read in one turn
_TICK = 0.25  # seconds between two looks at these limits
_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


class Manners:
    """How one end of a WebSocket makes and takes messages.

    ``size``: bytes of a message at most (None: as is convenient). ``sends`` and ``receives``: how many messages
    (None: any number). ``close`` is False if no Close follows the end of the source; ``close_code`` is that of this
    Close (None: the usual one).
    """

    __slots__ = (
        "close", "close_code", "close_reason", "exit_on_eof", "lines", "receives", "sends", "size", "strict", "strip",
        "terminator", "text",
    )  # fmt: skip

    def __init__(self) -> None:
        self.text = False
        self.lines = False
        self.terminator = b"\n"
        self.strip = False
        self.strict = False
        self.size: int | None = None
        self.sends: int | None = None
        self.receives: int | None = None
        self.close = True
        self.close_code: int | None = None
        self.close_reason = ""
        self.exit_on_eof = False

    @property
    def fit_for_sessions(self) -> bool:
        """Whether the bytes are all that matters, so that a session that can be resumed may carry them."""
        plain = not self.text and self.sends is None and self.receives is None
        return plain and self.close and self.close_code is None


class MessageStream(PlainStream):
    """A plain stream with ``manners``; the rest is as for `PlainStream`.

    ``repaired`` counts the text messages whose bytes were no UTF-8, and were sent with U+FFFD in their place.
    """

    def __init__(
        self,
        *,
        client: bool,
        buffers: ReadBuffers,
        keepalive: Keepalive,
        manners: Manners,
        sink_limit: float | None = STALL_LIMIT,
        preamble: bytes = b"",
    ) -> None:
        super().__init__(
            client=client, buffers=buffers, keepalive=keepalive, sink_limit=sink_limit, preamble=preamble
        )  # fmt: skip
        self._client = client
        self._manners = manners
        self._size = manners.size or (LINE_LIMIT if manners.lines else FRAME_LIMIT)
        self._line = b""  # of the source, still without its end
        self._dropping = False  # the rest of a line that is too long
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""  # what may be the end of a message's line
        self._sent = self._received = 0  # messages
        self._sending = self._receiving = True
        self._counting = False  # the seconds of silence
        self.repaired = 0
        if manners.sends == 0:
            self._stop_sending()
        if manners.receives == 0:
            self._stop_receiving()

    # ---- source → wire

    @property
    def wants_source(self) -> bool:
        return self._sending and super().wants_source

    def source_space(self) -> memoryview:
        space = super().source_space()
        # Each line is a message: a read that is full of line ends must not keep everybody else waiting.
        return space[:_LINES_READ] if self._manners.lines else space[: self._size]

    def source_received(self, n: int, now: float) -> None:
        if not self._manners.text:
            super().source_received(n, now)
            self._count_sent()
            return
        self._source_at = now
        data = bytes(self._buffers.source[MAX_HEADER : MAX_HEADER + n])
        for message in self._split(data) if self._manners.lines else (self._decoder.decode(data).encode(),):
            self._send(message)

    def source_ended(self) -> None:
        if self._sending:
            if self._manners.lines:
                if self._line and not self._manners.strict:
                    self._send(self._line)
            else:
                self._send(self._decoder.decode(b"", final=True).encode())
            self._stop_sending()
        elif self.close_received:
            super().source_ended()

    def close(self, code: int, reason: str = "") -> None:
        if self._outbox.close_queued:
            return
        if code == NORMAL and not self._manners.close and not self._parser.closed:
            self._outbox.close_queued = True  # and nothing is said
        elif code == NORMAL and self._manners.close_code is not None:
            super().close(self._manners.close_code, self._manners.close_reason)
        else:
            super().close(code, reason)

    def _split(self, data: bytes) -> Iterator[bytes]:
        """Return the lines that are complete with ``data``, and pieces of one that is too long."""
        manners, size = self._manners, self._size
        *lines, rest = (self._line + data).split(manners.terminator)
        for line in lines:
            whole = self._without_end(line) if manners.strip else line + manners.terminator
            yield from self._pieces(whole)
            self._dropping = False
        if len(rest) > size and manners.strict:
            self._dropping, rest = True, b""
        while len(rest) > size:
            cut = _cut(rest, size)
            yield rest[:cut]
            rest = rest[cut:]
        self._line = rest

    def _pieces(self, line: bytes) -> Iterator[bytes]:
        if self._manners.strict and (self._dropping or len(line) > self._size):
            return
        while line:
            cut = _cut(line, self._size)
            yield line[:cut]
            line = line[cut:]

    def _without_end(self, line: bytes) -> bytes:
        return line.removesuffix(b"\r") if self._manners.terminator == b"\n" else line

    def _send(self, message: bytes) -> None:
        """Queue a text message, unless it is empty, which websocat takes for the end, or beyond the limit."""
        if not message or not self._sending:
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            self.repaired += 1
            message = message.decode("utf-8", "replace").encode()
        self._outbox.add(TEXT, message)
        self._count_sent()

    def _count_sent(self) -> None:
        self._sent += 1
        if self._sent == self._manners.sends:
            self._stop_sending()

    def _stop_sending(self) -> None:
        """Nothing more goes to the wire but the Close, if there is to be one."""
        self._sending = False
        if self._manners.close or self.close_received:
            super().source_ended()
        self._part_if_done()

    # ---- wire → sink

    def wire_received(self, n: int, now: float) -> int:
        used = super().wire_received(n, now)
        if self.close_received and self._outbox.close_queued and self.close_code == self._manners.close_code:
            self.close_code = NORMAL  # our own code comes back, as RFC 6455 section 5.5.1 wants it
        return used

    def _receive_payload(self, event: Payload) -> None:
        if not self._receiving:
            return
        if not self._manners.lines:
            super()._receive_payload(event)
        elif self._manners.terminator == b"\n":
            self._receive_line(event)
        else:
            super()._receive_payload(event)
            if event.final:
                self._deliver(b"\0")
        if event.final:
            self._received += 1
            if self._received == self._manners.receives:
                self._stop_receiving()

    def _receive_line(self, event: Payload) -> None:
        """Make one line of a message: its own line ends become spaces, but for the last one."""
        data = self._held + bytes(event.data)
        end = len(data.rstrip(b"\r\n"))
        end = max(end, len(data) - 2)
        self._held = data[end:]
        self._deliver(data[:end].translate(_TO_SPACES))
        if event.final:
            last = self._held.removesuffix(b"\n").removesuffix(b"\r") if self._held.endswith(b"\n") else self._held
            self._held = b""
            self._deliver(last.translate(_TO_SPACES) + b"\n")

    def _stop_receiving(self) -> None:
        """Nothing more goes to the sink."""
        self._receiving = False
        if not self._client:
            self._pretend_close()
        elif self._manners.exit_on_eof and self._sending:
            self._stop_sending()
        self._part_if_done()

    # ---- both

    def _part_if_done(self) -> None:
        """End at once when neither direction goes on, and no Close was sent that the peer might answer."""
        if not (self._sending or self._receiving or self._manners.close):
            self._pretend_close()
            self.close(NORMAL)

    def _pretend_close(self) -> None:
        """Do as if the peer's Close had come."""
        if not self.close_received:
            self.close_received = True
            self.close_code = NORMAL

    def next_tick(self, now: float) -> float:
        manners = self._manners
        # From the start, as whoever has asked before an end comes would ask again too late.
        hurried = manners.exit_on_eof or manners.sends is not None or manners.receives is not None
        return min(_TICK, super().next_tick(now)) if hurried else super().next_tick(now)

    @property
    def _patience(self) -> float | None:
        """How long to wait in silence for an end that is missing, in seconds; None: as plain streams do."""
        if not self._sending and not self._receiving:
            return PARTING
        if self._manners.exit_on_eof:
            return SILENCE
        return None

    def _check_limits(self, now: float) -> None:
        patience = self._patience
        if patience is not None and not self.wants_sink_write and not self.wants_wire_write:
            self._end_in_silence(now, patience)
        super()._check_limits(now)

    def _end_in_silence(self, now: float, patience: float) -> None:
        """End a direction that has said nothing for ``patience`` seconds since the other one ended."""
        if self.close_received and self._sending:
            if now - self._source_at >= patience:
                self._stop_sending()
                self.close(NORMAL)
        elif not self.close_received and not (self._sending and self._receiving):
            if not self._counting:
                self._counting = True
                self.keepalive.heard(now)
            try:
                self.keepalive.check_silence(now, patience)
            except ConnectionLost:
                self._stop_sending()
                self.close(NORMAL)
                self._pretend_close()


def _cut(data: bytes, size: int) -> int:
    """Return where to cut ``data`` so that the piece has ``size`` bytes at most and ends with a character."""
    cut = min(size, len(data))
    while cut < len(data) and cut > max(1, size - 3) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
