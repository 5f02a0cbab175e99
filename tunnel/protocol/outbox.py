"""Frames that wait for the wire, in order, for both roles and both kinds of streams."""

from __future__ import annotations

import os

from tunnel.protocol.frames import BINARY, CLOSE, PONG, close_payload, frame_header
from tunnel.protocol.masking import apply_mask

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tunnel.protocol.frames import Buffer

_PONG_BACKLOG = 8  # pieces; if more wait for the wire, pings are answered later, and only the last one

_SMALL_PAYLOAD = 4096  # bytes; less is copied, as one piece costs the kernel less than two


LEAST_PASSED = 64 * 1024  # bytes of a message; for smaller ones, copying them costs less than passing them
PASSED = 1 << 20  # most bytes that are passed at once


class InKernel:
    """A piece of ``size`` bytes that never come into this process: the driver knows how to write them."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


class Outbox:
    """The pieces to write next; ``masks`` is True at a client (RFC 6455 section 5.3).

    ``preamble`` (a bridge's 101) is sent before the first frame. After a Close nothing is queued any more (section
    5.5.1).
    """

    __slots__ = ("_masks", "_pong", "close_queued", "pieces")

    def __init__(self, *, masks: bool, preamble: bytes = b"") -> None:
        self._masks = masks
        self.pieces: list[Any] = [preamble] if preamble else []  # `Buffer`, or `InKernel` if the driver has passed any
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

        If it ``has_room``, the `MAX_HEADER` bytes before it may be overwritten.
        """
        if self._masks:
            key = os.urandom(4)
            self.add_masked(apply_mask(chunk[start:end], key), key)
        elif not has_room:
            self.pieces += [frame_header(BINARY, end - start, None), chunk[start:end]]
        else:
            # The header is put right before the payload, so that both are one piece.
            header = frame_header(BINARY, end - start, None)
            begin = start - len(header)
            chunk[begin:start] = header
            self.pieces.append(chunk[begin:end])

    def add_masked(self, payload: Buffer, key: bytes) -> None:
        """Queue a binary frame whose ``payload`` is masked with ``key`` already."""
        size = len(payload)
        header = frame_header(BINARY, size, key)
        if size <= _SMALL_PAYLOAD:
            self.pieces.append(b"".join((header, payload)))
        else:
            self.pieces += [header, payload]

    def add_in_kernel(self, size: int, limit: int) -> None:
        """Queue ``size`` bytes that the driver has in the kernel, as binary frames of at most ``limit`` bytes."""
        while size:
            n = min(size, limit)
            self.pieces += [frame_header(BINARY, n, None), InKernel(n)]
            size -= n

    def take_back(self, receive_into: Callable[[memoryview], int]) -> None:
        """Queue their bytes instead of the `InKernel` pieces that are left; ``receive_into`` gives the next ones."""
        for at, piece in enumerate(self.pieces):
            if isinstance(piece, InKernel):
                data, filled = bytearray(piece.size), 0
                while filled < piece.size:
                    filled += receive_into(memoryview(data)[filled:])
                self.pieces[at] = bytes(data)

    def add_close(self, code: int, reason: str = "") -> None:
        """Queue a Close after everything else."""
        self._pong = None
        self.add(CLOSE, close_payload(code, reason))
        self.close_queued = True

    def ping_came(self, data: bytes) -> None:
        """Note a ping; call `answer_ping` next."""
        if not self.close_queued:
            self._pong = data

    def answer_ping(self) -> None:
        """Queue the pong that is due, unless much is queued: then it waits, and only the last ping counts."""
        if self._pong is not None and len(self.pieces) < _PONG_BACKLOG:
            self.add(PONG, self._pong)
            self._pong = None

    def sent(self, n: int) -> None:
        """Note that the first ``n`` bytes were written."""
        consume(self.pieces, n)
        if self._pong is not None and not self.pieces:
            self.answer_ping()

    def clear(self) -> None:
        """Discard everything, as the wire cannot be written any more."""
        self.pieces.clear()
        self._pong = None


def consume(pieces: list[Any], n: int) -> int:
    """Remove the first ``n`` bytes from ``pieces``, which are `Buffer` or `InKernel`; return how many are gone."""
    whole = 0
    for piece in pieces:
        size = len(piece)
        if n < size:
            break
        n -= size
        whole += 1
    del pieces[:whole]
    if n:
        rest = pieces[0]
        pieces[0] = InKernel(rest.size - n) if isinstance(rest, InKernel) else memoryview(rest)[n:]
    return whole
