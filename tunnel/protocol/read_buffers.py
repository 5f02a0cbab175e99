"""The memory that sources and wires are read into."""

from __future__ import annotations

from tunnel.protocol.frames import MAX_HEADER

FRAME_LIMIT = 256 * 1024  # most bytes of payload in a frame that we send, and of one read

# Bytes that the C library may keep when they are freed. By default glibc returns freed blocks to the kernel and
# requests them again a moment later; for masked payloads that took a third of the client's time. It keeps as much as
# the largest block that was freed so far. This block is never touched, so it needs no memory. It is allocated only
# once: a second allocation would reuse kept memory, and clear it.
_KEPT = 24 << 20
bytes(_KEPT)


class ReadBuffers:
    """One buffer for sources and one for wires, shared by all streams of a thread.

    A stream keeps nothing in them between two turns of its driver; see `ByteStream.settle`.
    """

    __slots__ = ("source", "wire")

    def __init__(self) -> None:
        # There is room for a header before the source's bytes, so that both can be sent as one piece.
        self.source = memoryview(bytearray(MAX_HEADER + FRAME_LIMIT))
        self.wire = memoryview(bytearray(FRAME_LIMIT))
