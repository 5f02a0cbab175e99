"""The memory that sources and wires are read into."""

from __future__ import annotations

from tunnel.protocol.frames import MAX_HEADER

FRAME_LIMIT = 256 * 1024  # bytes of payload in one frame that we send, and bytes of one read

# Bytes that the C library may keep for itself when they are freed. By default glibc gives them back to the kernel, page
# by page, and gets them again a moment later: for masked payloads that took a third of the client's time. It learns to
# keep as much as the largest block that was freed so far; this one is never touched, so it takes no memory. Once only:
# it would be part of what is kept when it is allocated again, and be cleared then.
_KEPT = 24 << 20
bytes(_KEPT)


class ReadBuffers:
    """One buffer for sources, one for wires. All streams of a thread share one pair.

    A stream keeps nothing in them between two turns of its driver; see `ByteStream.settle`.
    """

    __slots__ = ("source", "wire")

    def __init__(self) -> None:
        # A header fits in front of the source's bytes, so that both can be sent as one piece.
        self.source = memoryview(bytearray(MAX_HEADER + FRAME_LIMIT))
        self.wire = memoryview(bytearray(FRAME_LIMIT))
