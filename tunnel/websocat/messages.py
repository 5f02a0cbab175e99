"""websocat's own messages: text, lines, limits for messages, and the end of a direction. Sans-I/O.

A `MessageCodec` is the codec of a plain stream at either end of a WebSocket. Its `MessageOptions` say how it makes
messages from the source's bytes, and what it does with received messages.

A direction that is cut off (after ``--max-messages``, or by ``-u``) ends like any other: to the wire with a Close,
unless that is disabled; to the sink with a half-close at a server. A client's sink has no half-close, so the client
discards further messages.
"""

from __future__ import annotations

import codecs

from tunnel.protocol.frames import NORMAL, TEXT
from tunnel.protocol.read_buffers import FRAME_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunnel.protocol.frames import Buffer, Payload
    from tunnel.protocol.outbox import Outbox

LINE_LIMIT = 64 * 1024  # bytes of a line, unless -B says otherwise
SILENCE = 3.0  # seconds of silence in one direction after the end of the other, with --exit-on-eof
PARTING = 1.0  # seconds to wait for the peer's Close at the end
_LINES_READ = 4 * 1024  # bytes of lines that are read in one turn
_TICK = 0.25  # seconds between two checks of these limits
_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


class MessageOptions:
    """How one end of a WebSocket sends and receives messages.

    ``size``: most bytes of a message (None: any number). ``sends`` and ``receives``: how many messages (None: any
    number). ``close`` is False if no Close follows the end of the source; ``close_code`` is the code of that Close
    (None: the default).
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
        """Whether only the bytes matter, not the messages, so that a session can be used."""
        plain = not self.text and self.sends is None and self.receives is None
        return plain and self.close and self.close_code is None


class MessageCodec:
    """The codec of one stream; see `tunnel.protocol.codec.Codec`.

    ``repaired`` counts the text messages that were not UTF-8, and were sent with U+FFFD for the invalid bytes.
    """

    def __init__(self, options: MessageOptions) -> None:
        self._options = options
        self._size = options.size or (LINE_LIMIT if options.lines else FRAME_LIMIT)
        # Each line is a message: a read full of line ends must not block all other connections.
        self.read_limit = _LINES_READ if options.lines else self._size
        self.closes = options.close
        self.close_code = NORMAL if options.close_code is None else options.close_code
        self.close_reason = options.close_reason if options.close_code is not None else ""
        self.ends_together = options.exit_on_eof
        # From the start, as a caller that asks before the end would ask again too late.
        hurried = options.exit_on_eof or options.sends is not None or options.receives is not None
        self.tick_limit = _TICK if hurried else float("inf")
        self._line = b""  # an incomplete line of the source
        self._dropping = False  # whether the rest of a too long line is dropped
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""  # bytes that may be the end of a message's line
        self._sent = self._received = 0  # messages
        self._silent_since: float | None = None  # when the silence began
        self.repaired = 0

    @property
    def sent_all(self) -> bool:
        return self._sent == self._options.sends

    @property
    def received_all(self) -> bool:
        return self._received == self._options.receives

    @property
    def remark(self) -> str:
        if not self.repaired:
            return ""
        return f"{self.repaired} text messages were not UTF-8; for other bytes use --binary"

    # ---- source → wire

    def encode(self, chunk: memoryview, start: int, end: int, outbox: Outbox) -> bool:
        if self._options.text:
            data = bytes(chunk[start:end])
            for message in self._split(data) if self._options.lines else (self._decoder.decode(data).encode(),):
                self._send(message, outbox)
        else:
            outbox.add_data(chunk, start, end)
            self._sent += 1
        return not self.sent_all

    def flush(self, outbox: Outbox) -> None:
        if not self._options.lines:
            self._send(self._decoder.decode(b"", final=True).encode(), outbox)
        elif not self._options.strict:
            self._send(self._line, outbox)

    def _split(self, data: bytes) -> Iterator[bytes]:
        """Return the lines that ``data`` completes, and pieces of a line that is too long."""
        options, size = self._options, self._size
        *lines, rest = (self._line + data).split(options.terminator)
        for line in lines:
            whole = self._without_end(line) if options.strip else line + options.terminator
            yield from self._pieces(whole)
            self._dropping = False
        if len(rest) > size and options.strict:
            self._dropping, rest = True, b""
        while len(rest) > size:
            cut = _cut(rest, size)
            yield rest[:cut]
            rest = rest[cut:]
        self._line = rest

    def _pieces(self, line: bytes) -> Iterator[bytes]:
        if self._options.strict and (self._dropping or len(line) > self._size):
            return
        while line:
            cut = _cut(line, self._size)
            yield line[:cut]
            line = line[cut:]

    def _without_end(self, line: bytes) -> bytes:
        return line.removesuffix(b"\r") if self._options.terminator == b"\n" else line

    def _send(self, message: bytes, outbox: Outbox) -> None:
        """Queue a text message, unless it is empty, which websocat takes as the end, or the limit is reached."""
        if not message or self.sent_all:
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            self.repaired += 1
            message = message.decode("utf-8", "replace").encode()
        outbox.add(TEXT, message)
        self._sent += 1

    # ---- wire → sink

    def decode(self, event: Payload, sink: list[Buffer]) -> None:
        if self.received_all:
            return
        if self._options.lines and self._options.terminator == b"\n":
            self._decode_line(event, sink)
        else:
            if event.data:
                sink.append(event.data)
            if event.final and self._options.lines:
                sink.append(b"\0")
        if event.final:
            self._received += 1

    def _decode_line(self, event: Payload, sink: list[Buffer]) -> None:
        """Turn a message into one line: its line ends become spaces, except for the last one."""
        data = self._held + bytes(event.data)
        end = len(data.rstrip(b"\r\n"))
        end = max(end, len(data) - 2)
        self._held = data[end:]
        if end:
            sink.append(data[:end].translate(_TO_SPACES))
        if event.final:
            last = self._held.removesuffix(b"\n").removesuffix(b"\r") if self._held.endswith(b"\n") else self._held
            self._held = b""
            sink.append(last.translate(_TO_SPACES) + b"\n")

    # ---- time

    def is_overdue(self, now: float, *, sending: bool, closed: bool, source_at: float, heard_at: float) -> bool:
        if not sending and self.received_all:
            patience = PARTING
        elif self._options.exit_on_eof:
            patience = SILENCE
        else:
            return False
        if closed:
            return sending and now - source_at >= patience
        if sending and not self.received_all:
            return False
        if self._silent_since is None:
            self._silent_since = now
        return now - max(self._silent_since, heard_at) >= patience


def _cut(data: bytes, size: int) -> int:
    """Return where to cut ``data`` so that the piece has at most ``size`` bytes and ends after a character."""
    cut = min(size, len(data))
    while cut < len(data) and cut > max(1, size - 3) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
