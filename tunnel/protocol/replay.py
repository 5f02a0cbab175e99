"""The data that the bridge of a session keeps until the client has acknowledged it.

`tunnel.protocol.masked_replay` is the client's. The source is read directly into a chunk of this buffer and sent from
there, with room for a frame header before each segment. So a byte is copied once on its way in and once on its way out,
and again only when it is sent again. Large chunks are reused, because fresh memory costs the kernel as much time as the
copying. Each buffer has its own chunks, so that no wrong ack can make one tunnel's bytes appear in another.

The last bytes may be kept outside instead, if the driver passed them from the source to the wire without copying them.
"""

from __future__ import annotations

from tunnel.protocol.frames import MAX_HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from tunnel.protocol.outbox import Outbox

    class Kept(Protocol):
        """Bytes that are kept outside this process's memory, first in, first out."""

        @property
        def size(self) -> int: ...
        def drop(self, n: int) -> None: ...
        def receive_into(self, space: memoryview) -> int: ...


SEGMENT_LIMIT = 256 * 1024  # bytes of a segment, which becomes one frame if messages may be that large
SMALLEST_CHUNK = 16 * 1024  # bytes; enough for an idle terminal
LARGEST_CHUNK = 512 * 1024
MAX_SPARE = 8  # large chunks that are kept for reuse while data flows
MAX_SEGMENTS = 8192  # bounds the number of objects if there are many tiny reads
NO_CHUNK = memoryview(b"")


class Segment:
    """A run of the stream's bytes: ``chunk[start:end]``; the `MAX_HEADER` bytes before it are free."""

    __slots__ = ("chunk", "end", "start")

    def __init__(self, chunk: memoryview, start: int, end: int) -> None:
        self.chunk = chunk
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start


class ReplayBuffer:
    """The bytes of one direction from offset ``base`` (acknowledged up to there) to ``end``; ``next`` is sent next.

    ``memory`` is its size in bytes, with that for what is kept outside. ``is_full``: it has reached the limit of
    segments, or there was no memory for a chunk since the last ack.
    """

    __slots__ = (
        "_chunk", "_extends", "_fill", "_kept", "_segments", "_size", "_spare", "_taken", "_unsent", "base", "end",
        "is_full", "memory", "next",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base = 0
        self.next = 0
        self.end = 0
        self.memory = 0
        self._kept: Kept | None = None  # the last bytes, all of which were sent on this connection
        self._segments: list[Segment] = []  # not a deque: an empty one, as in an idle tunnel, is ten times as large
        self._spare: list[memoryview] = []
        self._unsent = 0  # index of the first segment that is not completely sent on this connection …
        self._taken = 0  # … and how many bytes of it are sent
        self._chunk = NO_CHUNK
        self._fill = 0  # bytes of the chunk that are used
        self._size = SMALLEST_CHUNK
        self._extends = False
        self.is_full = False

    def space(self, limit: int) -> memoryview:
        """Return the space to read at most ``limit`` bytes of the source into; then call `extend` if any were read.

        The space is empty if this machine has no memory for more: then the buffer is full until the next ack. Raises
        MemoryError if there is nothing to be acknowledged.
        """
        if self._kept is not None:
            self.recall()
        if len(self._chunk) - self._fill < max(self._size // 4, 2 * MAX_HEADER):
            try:
                self._take_new_chunk()
            except MemoryError:
                if not self._segments:
                    raise
                self.is_full = True
                return memoryview(b"")
        last = self._segments[-1] if self._unsent < len(self._segments) else None
        # A segment that is not framed yet grows, but never beyond one frame: the header of a second one would overwrite
        # the last bytes of the first, which may have to be sent again.
        self._extends = (
            last is not None
            and last.chunk is self._chunk
            and last.end == self._fill
            and len(last) <= SEGMENT_LIMIT - SMALLEST_CHUNK // 2
        )
        if last is not None and self._extends:
            return self._chunk[self._fill : self._fill + min(limit, SEGMENT_LIMIT - len(last))]
        start = self._fill + MAX_HEADER
        return self._chunk[start : start + min(limit, SEGMENT_LIMIT)]

    def _take_new_chunk(self) -> None:
        before = self._chunk
        if self._size == LARGEST_CHUNK and self._spare:
            self._chunk = self._spare.pop()
        else:
            self._chunk = memoryview(bytearray(self._size))
            self.memory += self._size
        if not self._segments or self._segments[-1].chunk is not before:
            self._let_go(before)
        self._fill = 0

    def _let_go(self, chunk: memoryview) -> None:
        """Keep a chunk that nothing refers to any more for reuse, or release it."""
        if len(chunk) == LARGEST_CHUNK and len(self._spare) < MAX_SPARE:
            self._spare.append(chunk)
        else:
            self.memory -= len(chunk)

    def extend(self, n: int) -> None:
        """Add the ``n`` bytes that were read into `space`."""
        start = self._fill if self._extends else self._fill + MAX_HEADER
        if self._extends:
            self._segments[-1].end += n
        else:
            self._segments.append(Segment(self._chunk, start, start + n))
            if len(self._segments) >= MAX_SEGMENTS:
                self.is_full = True
        self._fill = start + n
        self.end += n
        if self._fill == len(self._chunk):
            self._size = min(self._size * 4, LARGEST_CHUNK)

    def reserve(self, size: int) -> bool:
        """Have memory for ``size`` bytes that may be kept outside; return False if there is none."""
        try:
            while LARGEST_CHUNK * (len(self._spare) - 1) < size:  # a chunk has less room than its size
                self._spare.append(memoryview(bytearray(LARGEST_CHUNK)))
                self.memory += LARGEST_CHUNK
        except MemoryError:
            return False
        return True

    def passed(self, n: int, kept: Kept) -> None:
        """Note that ``n`` more bytes are ``kept`` outside. They, and everything before them, were sent."""
        self._kept = kept
        self.end += n
        self.next = self.end

    @property
    def copied(self) -> int:
        """How many of its bytes are not kept outside."""
        return self.end - self.base - (self._kept.size if self._kept else 0)

    def recall(self) -> None:
        """Copy what is kept outside, into the memory that was reserved for it."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        left = kept.size
        self.end -= left
        self.next -= left
        self._size = LARGEST_CHUNK
        self.receive(kept.receive_into, left)
        self.note_sent()

    def receive(self, receive_into: Callable[[memoryview], int], n: int) -> None:
        """Add ``n`` bytes, which ``receive_into`` gives; there must be memory for them."""
        while n:
            got = receive_into(self.space(n))
            self.extend(got)
            n -= got

    def take(self, limit: int = SEGMENT_LIMIT) -> tuple[Segment, bool] | None:
        """Return what to send next on this connection, at most ``limit`` bytes, or None if everything is sent.

        The second value says whether the `MAX_HEADER` bytes before it may be overwritten. In the middle of a segment
        they may not, as they may have to be sent again.
        """
        if self._unsent == len(self._segments):
            return None
        segment = self._segments[self._unsent]
        taken, size = self._taken, segment.end - segment.start
        if not taken and size <= limit:
            self._unsent += 1
            self.next += size
            return segment, True
        start = segment.start + taken
        part = Segment(segment.chunk, start, min(segment.end, start + limit))
        if part.end == segment.end:
            self._unsent += 1
            self._taken = 0
        else:
            self._taken = taken + len(part)
        self.next += len(part)
        return part, not taken

    def queue_next(self, outbox: Outbox, limit: int) -> int:
        """Queue what to send next on this connection, at most ``limit`` bytes; return its size in bytes."""
        taken = self.take(limit)
        if taken is None:
            return 0
        part, has_room = taken
        outbox.add_data(part.chunk, part.start, part.end, has_room=has_room)
        return part.end - part.start

    def note_sent(self) -> None:
        """Note that everything in the buffer was already sent on this connection, without this buffer."""
        while self.take() is not None:
            pass

    def confirm(self, offset: int) -> None:
        """Drop everything before ``offset``, which is between ``base`` and ``end``."""
        n = offset - self.base
        self.base = offset
        self.next = max(self.next, offset)
        segments, gone = self._segments, 0
        if n:
            self.is_full = False
        while n and gone < len(segments):
            segment = segments[gone]
            if not self._unsent:  # it is not completely sent
                self._taken = max(0, self._taken - n)
            size = segment.end - segment.start
            if n < size:
                segment.start += n
                n = 0
                break
            n -= size
            gone += 1
            self._unsent = max(0, self._unsent - 1)
            is_last = gone == len(segments) or segments[gone].chunk is not segment.chunk
            if is_last and segment.chunk is not self._chunk:
                self._let_go(segment.chunk)
        del segments[:gone]
        if len(segments) >= MAX_SEGMENTS:
            self.is_full = True
        if n and self._kept is not None:
            self._kept.drop(n)
        if not segments:
            # The size of the next chunk depends on how much of this one was used.
            if self._fill < self._size // 8:
                self._size = SMALLEST_CHUNK
            self._let_go(self._chunk)
            self._chunk = NO_CHUNK
            self._fill = 0

    def trim(self) -> None:
        """Release memory that is only kept for reuse."""
        self.memory -= sum(map(len, self._spare))
        self._spare.clear()

    def compact(self) -> None:
        """Copy what is not acknowledged into as little memory as possible, as it may have to be kept for long."""
        self.recall()
        self.trim()
        needed = sum(MAX_HEADER + len(segment) for segment in self._segments)
        if needed >= self.memory - self.memory // 4:
            return  # copying would save little
        try:
            chunk = memoryview(bytearray(needed))
        except MemoryError:
            return  # there is none for a copy
        fill = 0
        for segment in self._segments:
            start = fill + MAX_HEADER
            fill = start + len(segment)
            chunk[start:fill] = segment.chunk[segment.start : segment.end]
            segment.chunk, segment.start, segment.end = chunk, start, fill
        self._chunk = chunk
        self._fill = needed
        self._size = SMALLEST_CHUNK
        self._extends = False
        self.memory = needed

    def rewind(self) -> None:
        """Begin again at ``base``, for a new connection."""
        self.recall()
        self.next = self.base
        self._unsent = 0
        self._taken = 0
