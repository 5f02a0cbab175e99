"""Frames on their way to the wire, for either role: what plain and resumable streams write, and in which order."""

from __future__ import annotations

import os

from tunnel.protocol.frames import BINARY, CLOSE, PONG, close_payload, frame_header
from tunnel.protocol.masking import apply_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

_PONG_BACKLOG = 8  # pieces waiting for the wire beyond which pings are answered later, and only the last of them

_SMALL_PAYLOAD = 4096  # bytes that are copied, as one piece costs the kernel less than two


class Outbox:
    """The pieces that the wire is to take next; ``masks`` is True at a client (RFC 6455, section 5.3).

    ``preamble`` goes out before the first frame: a bridge's 101. Behind a Close nothing is taken in any more
    (section 5.5.1).
    """

    __slots__ = ("_masks", "_pong", "close_queued", "pieces")

    def __init__(self, *, masks: bool, preamble: bytes = b"") -> None:
        self._masks = masks
        self.pieces: list[Buffer] = [preamble] if preamble else []
        self._pong: bytes | None = None  # the last ping that is not answered yet
        self.close_queued = False

    def add(self, opcode: int, payload: bytes) -> None:
        """Queue a frame with a small payload."""
        if self._masks:
            key = os.urandom(4)
            self.pieces.append(frame_header(opcode, len(payload), key) + apply_mask(payload, key))
        else:
            self.pieces.append(frame_header(opcode, len(payload), None) + payload)

    def add_data(self, chunk: memoryview, start: int, end: int, *, has_room: bool = True) -> None:
        """Queue ``chunk[start:end]`` as a binary frame.

        If it ``has_room`` the `MAX_HEADER` bytes in front of it may be overwritten.
        """
        if self._masks:
            key = os.urandom(4)
            self.add_masked(apply_mask(chunk[start:end], key), key)
        elif not has_room:
            self.pieces += [frame_header(BINARY, end - start, None), chunk[start:end]]
        else:
            # The header is put right in front of the payload, so that both go as one piece.
            header = frame_header(BINARY, end - start, None)
            chunk[start - len(header) : start] = header
            self.pieces.append(chunk[start - len(header) : end])

    def add_masked(self, payload: Buffer, key: bytes) -> None:
        """Queue a binary frame whose ``payload`` is masked with ``key`` already."""
        header = frame_header(BINARY, len(payload), key)
        if len(payload) <= _SMALL_PAYLOAD:
            self.pieces.append(b"".join((header, payload)))
        else:
            self.pieces += [header, payload]

    def add_close(self, code: int, reason: str = "") -> None:
        """Queue a Close behind everything else."""
        self._pong = None
        self.add(CLOSE, close_payload(code, reason))
        self.close_queued = True

    def ping_came(self, data: bytes) -> None:
        """Note a ping; `answer_ping` is to follow."""
        if not self.close_queued:
            self._pong = data

    def answer_ping(self) -> None:
        """Queue the pong that is owed, unless the wire is far behind: then it waits, and only the last ping counts."""
        if self._pong is not None and len(self.pieces) < _PONG_BACKLOG:
            self.add(PONG, self._pong)
            self._pong = None

    def sent(self, n: int) -> None:
        """Note that the wire took the first ``n`` bytes."""
        consume(self.pieces, n)
        if self._pong is not None and not self.pieces:
            self.answer_ping()

    def clear(self) -> None:
        """Discard what waits: the wire takes nothing any more."""
        self.pieces.clear()
        self._pong = None


def consume(pieces: list[Buffer], n: int) -> None:
    """Take the first ``n`` bytes off ``pieces``."""
    whole = 0
    for piece in pieces:
        if n < len(piece):
            break
        n -= len(piece)
        whole += 1
    del pieces[:whole]
    if n:
        pieces[0] = memoryview(pieces[0])[n:]
