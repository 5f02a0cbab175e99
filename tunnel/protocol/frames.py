"""RFC 6455 frames: an incremental parser and functions to write headers, for both roles.

Payload is not collected: each chunk is passed on at once, so a frame of any length needs only the memory of one read.
Only control frames (at most 125 bytes) are kept until they are complete.
"""

from __future__ import annotations

import codecs

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.masking import apply_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Buffer = bytes | bytearray | memoryview

# Opcodes (section 5.2).
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

# Close codes (section 7.4.1), then this project's own (section 7.4.2 leaves 4000-4999 to applications).
NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_CODE, ABNORMAL, BAD_DATA, POLICY, TOO_BIG, INTERNAL_ERROR = 1005, 1006, 1007, 1008, 1009, 1011
SERVICE_RESTART, TRY_AGAIN_LATER = 1012, 1013  # registered with IANA
TARGET_LOST, TARGET_REFUSED_DATA, SILENT_PEER = 4001, 4002, 4003

MAX_CONTROL = 125
MAX_HEADER = 14
MAX_CLOSE = 2 + 4 + MAX_CONTROL  # bytes of a whole Close frame


class Payload:
    """A chunk of a message: ``opcode`` is the message's (TEXT or BINARY), ``final`` is True on its last chunk."""

    __slots__ = ("data", "final", "opcode")

    def __init__(self, opcode: int, data: Buffer, final: bool) -> None:
        self.opcode = opcode
        self.data = data
        self.final = final


class Ping:
    """A ping, to be answered by a pong with the same data (section 5.5.2)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Pong:
    """An answer to a ping, or an unsolicited heartbeat (section 5.5.3)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Close:
    """The peer's last frame: a status code (`NO_CODE` if it sent none) and a reason."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason


def frame_header(opcode: int, length: int, mask: bytes | None, final: bool = True) -> bytes:
    """Return the header of a frame of ``length`` payload bytes; ``mask`` is the client's 4-byte key, else None."""
    first = opcode | (0x80 if final else 0)
    bit = 0x80 if mask is not None else 0
    if length < 126:
        head = bytes((first, bit | length))
    elif length < 65536:
        head = bytes((first, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + length.to_bytes(8, "big")
    return head if mask is None else head + mask


def close_payload(code: int, reason: str = "") -> bytes:
    """Return a Close frame's payload; a long reason is cut after a character. `NO_CODE` gives an empty payload."""
    if code == NO_CODE:
        return b""
    text = reason.encode()[: MAX_CONTROL - 2].decode("utf-8", "ignore")
    return code.to_bytes(2, "big") + text.encode()


def parse_close(payload: bytes) -> Close:
    """Parse the ``payload`` of a Close frame (sections 5.5.1 and 7.4). Raises RemoteProtocolError."""
    if not payload:
        return Close(NO_CODE, "")
    if len(payload) == 1:
        raise RemoteProtocolError("the peer sent a Close frame with half a status code")
    code = int.from_bytes(payload[:2], "big")
    # 1004-1006 and 1015 must not be sent; 1012-1014 are registered with IANA.
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, NO_CODE, ABNORMAL):
        raise RemoteProtocolError(f"the peer sent a Close frame with the invalid status code {code}")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError as exc:
        raise RemoteProtocolError("the peer sent a Close reason that is not UTF-8", BAD_DATA) from exc


class FrameParser:
    """An incremental parser of the frames that one peer sends.

    ``masked``: whether that peer is a client; clients must mask, servers must not (section 5.1). The attributes set in
    the constructor are the whole state of the parser.
    """

    __slots__ = (
        "_control",
        "_final",
        "_head",
        "_key",
        "_left",
        "_masked",
        "_message",
        "_opcode",
        "_text",
        "closed",
        "size",
        "used",
    )

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = bytearray()  # an incomplete header
        self._opcode = -1  # of the frame whose payload comes next, -1 between frames
        self._final = False
        self._key = b""
        self._left = 0  # bytes of payload still to come
        self._control = bytearray()  # payload of an incomplete control frame
        self._message = -1  # opcode of the message that is open, -1 between messages
        self._text: codecs.IncrementalDecoder | None = None
        self.closed = False  # a Close was received: everything after it is ignored (section 5.5.1)
        self.used = 0  # bytes that the last `feed` used
        self.size = 0  # bytes of payload of the latest frame

    @property
    def in_data(self) -> bool:
        """Whether the current data frame is incomplete."""
        return 0 <= self._opcode < CLOSE and self._left > 0

    @property
    def in_frame(self) -> bool:
        """Whether a header is complete and its frame is not: `feed` continues with that frame, whatever its limit.

        So ``feed(data, 0 if parser.in_frame else 1)`` never takes more than one frame.
        """
        return self._opcode >= 0

    @property
    def in_continuation(self) -> bool:
        """Whether the event that was just yielded belongs to a frame that continues a message."""
        return self._opcode == CONTINUATION

    @property
    def opaque(self) -> int:
        """How many of the next bytes may bypass `feed` (see `passed`): the rest of an unmasked binary frame."""
        opcode = self._message if self._opcode == CONTINUATION else self._opcode
        return self._left if opcode == BINARY and not self._masked else 0

    def passed(self, n: int) -> None:
        """Note that ``n`` bytes of payload, at most `opaque`, bypassed this parser."""
        self._message = BINARY
        self._left -= n
        if not self._left:
            self._opcode = -1
            if self._final:
                self._message = -1

    def feed(self, data: memoryview, limit: int = -1) -> Iterator[Payload | Ping | Pong | Close]:
        """Parse ``data`` and yield its events in order; their payloads may be slices of ``data``.

        It stops after ``limit`` headers (-1: never); ``used`` then says where, and the rest of ``data`` must be fed
        again. Run the iterator to its end. At the first violation it raises RemoteProtocolError, after the events
        before that; then the parser must not be used any more.
        """
        at, end = 0, len(data)
        self.used = end
        while at < end and not self.closed:
            if self._opcode < 0:
                if not limit:
                    self.used = at
                    return
                limit -= 1
                at = self._parse_header(data, at, end)
                if self._opcode < 0:
                    break
                # A frame without payload is complete with its header.
                if self._left:
                    continue
            taken = min(self._left, end - at)
            chunk: Buffer = data[at : at + taken]
            at += taken
            self._left -= taken
            if self._key and taken:
                chunk = apply_mask(chunk, self._key)
                turn = taken % 4
                if turn and self._left:
                    self._key = self._key[turn:] + self._key[:turn]
            if self._opcode < CLOSE:
                yield self._data_chunk(chunk)
            else:
                self._control += chunk
                if not self._left:
                    yield self._control_frame()
            if not self._left:
                self._opcode = -1

    def _parse_header(self, data: memoryview, at: int, end: int) -> int:
        """Read the header at ``data[at:end]``; return where the payload starts. An incomplete header is kept."""
        head: Buffer
        if self._head or end - at < 2:
            kept = len(self._head)
            self._head += data[at : at + MAX_HEADER - kept]
            size = self._header_size(self._head)
            if len(self._head) < size:
                return end
            head = bytes(self._head[:size])
            self._head.clear()
            at += size - kept
        else:
            size = self._header_size(data[at : at + 2])
            if end - at < size:
                self._head += data[at:end]
                return end
            head = data[at : at + size]
            at += size
        first, second = head[0], head[1]
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(head[2:4], "big")
            if length < 126:
                raise RemoteProtocolError("the peer sent a length that is not in its shortest form")
        elif length == 127:
            length = int.from_bytes(head[2:10], "big")
            if length < 65536:
                raise RemoteProtocolError("the peer sent a length that is not in its shortest form")
            if length >> 63:
                raise RemoteProtocolError("the peer sent a length of more than 63 bits")
        self._opcode = first & 0x0F
        self._final = bool(first & 0x80)
        self._left = self.size = length
        self._key = bytes(head[-4:]) if self._masked else b""
        return at

    def _header_size(self, head: Buffer) -> int:
        """Return the size in bytes of the header that begins with ``head``, and check its first two bytes."""
        if len(head) < 2:
            return 2
        first, second = head[0], head[1]
        opcode, final, length = first & 0x0F, first & 0x80, second & 0x7F
        if first & 0x70:
            raise RemoteProtocolError("the peer set a reserved bit without a negotiated extension")
        if bool(second & 0x80) != self._masked:
            wrong = "did not mask a frame" if self._masked else "masked a frame"
            raise RemoteProtocolError(f"the peer {wrong}")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise RemoteProtocolError(f"the peer sent a frame with the unknown opcode {opcode:#x}")
            if not final:
                raise RemoteProtocolError("the peer fragmented a control frame")
            if length > MAX_CONTROL:
                raise RemoteProtocolError("the peer sent a control frame of more than 125 bytes")
        elif opcode > BINARY:
            raise RemoteProtocolError(f"the peer sent a frame with the unknown opcode {opcode:#x}")
        elif opcode == CONTINUATION and self._message < 0:
            raise RemoteProtocolError("the peer sent a continuation frame without a message to continue")
        elif opcode != CONTINUATION and self._message >= 0:
            raise RemoteProtocolError("the peer began a message inside another one")
        extended = 0 if length < 126 else 2 if length == 126 else 8
        return 2 + extended + (4 if self._masked else 0)

    def _data_chunk(self, chunk: Buffer) -> Payload:
        if self._message < 0:
            self._message = self._opcode
            self._text = codecs.getincrementaldecoder("utf-8")() if self._opcode == TEXT else None
        last = self._final and not self._left
        if self._text is not None:
            try:
                self._text.decode(chunk, final=last)
            except UnicodeDecodeError as exc:
                raise RemoteProtocolError("the peer sent a text message that is not UTF-8", BAD_DATA) from exc
        event = Payload(self._message, chunk, last)
        if last:
            self._message = -1
        return event

    def _control_frame(self) -> Ping | Pong | Close:
        payload = bytes(self._control)
        self._control.clear()
        if self._opcode == PING:
            return Ping(payload)
        if self._opcode == PONG:
            return Pong(payload)
        self.closed = True
        return parse_close(payload)
