"""What a resumable bridge keeps until the client has confirmed it; `tunnel.protocol.masked_replay` is the client's.

The source is read straight into a chunk of this buffer and sent from there, with room for a frame's header in front of
each segment; so a byte is copied once on its way in and once on its way out, and again only when it is sent again.
Large chunks are used again, because fresh memory costs the kernel as much time as the copying. Each buffer has its own,
so that no acknowledgement, however wrong, makes one tunnel's bytes go out on another.
"""

from __future__ import annotations

from collections import deque

from tunnel.protocol.frames import MAX_HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.outbox import Outbox

SEGMENT_LIMIT = 256 * 1024  # bytes of a segment, which becomes one frame if messages may be as large
SMALLEST_CHUNK = 16 * 1024  # an idle terminal needs no more
LARGEST_CHUNK = 512 * 1024
MAX_SPARE = 8  # large chunks that are kept for further use, while bytes flow
MAX_SEGMENTS = 8192  # so that a flood of tiny reads is bounded in objects as well as in bytes


class Segment:
    """A run of the stream's bytes: ``chunk[start:end]``; the `MAX_HEADER` bytes in front of it are free."""

    __slots__ = ("chunk", "end", "start")

    def __init__(self, chunk: memoryview, start: int, end: int) -> None:
        self.chunk = chunk
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start


class ReplayBuffer:
    """The bytes of one direction from offset ``base`` (confirmed up to there) to ``end``; ``next`` is sent next.

    ``memory`` is what it occupies, in bytes.
    """

    __slots__ = (
        "_chunk", "_extends", "_fill", "_segments", "_size", "_spare", "_taken", "_unsent", "base", "end", "memory",
        "next",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base = 0
        self.next = 0
        self.end = 0
        self.memory = 0
        self._segments: deque[Segment] = deque()
        self._spare: list[memoryview] = []
        self._unsent = 0  # index of the first segment that is not sent whole on this connection …
        self._taken = 0  # … and how many bytes of it are
        self._chunk = memoryview(b"")
        self._fill = 0  # bytes of the chunk that are taken
        self._size = SMALLEST_CHUNK
        self._extends = False

    @property
    def is_full(self) -> bool:
        """Whether it has as many segments as it may, whatever their size."""
        return len(self._segments) >= MAX_SEGMENTS

    def space(self, limit: int) -> memoryview:
        """Return where to read at most ``limit`` bytes of the source into; `extend` must follow, if any came."""
        if len(self._chunk) - self._fill < max(self._size // 4, 2 * MAX_HEADER):
            self._take_new_chunk()
        last = self._segments[-1] if self._unsent < len(self._segments) else None
        # A segment that is not framed yet just grows, but never beyond one frame: the header of a second one would
        # stand where the first one's last bytes are, which may have to be sent again.
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
        if not self._segments or self._segments[-1].chunk is not self._chunk:
            self._let_go(self._chunk)
        if self._size == LARGEST_CHUNK and self._spare:
            self._chunk = self._spare.pop()
        else:
            self._chunk = memoryview(bytearray(self._size))
            self.memory += self._size
        self._fill = 0

    def _let_go(self, chunk: memoryview) -> None:
        """Do with a chunk that nothing refers to any more what is to be done."""
        if len(chunk) == LARGEST_CHUNK and len(self._spare) < MAX_SPARE:
            self._spare.append(chunk)
        else:
            self.memory -= len(chunk)

    def extend(self, n: int) -> None:
        """Take in the ``n`` bytes that were read into `space`."""
        start = self._fill if self._extends else self._fill + MAX_HEADER
        if self._extends:
            self._segments[-1].end += n
        else:
            self._segments.append(Segment(self._chunk, start, start + n))
        self._fill = start + n
        self.end += n
        if self._fill == len(self._chunk):
            self._size = min(self._size * 4, LARGEST_CHUNK)

    def take(self, limit: int = SEGMENT_LIMIT) -> tuple[Segment, bool] | None:
        """Return what to send next on this connection, of ``limit`` bytes at most, or None when all is sent.

        The other value tells whether the `MAX_HEADER` bytes in front of it may be overwritten: they may not in the
        middle of a segment, whose bytes in front of that may have to be sent again.
        """
        if self._unsent == len(self._segments):
            return None
        segment = self._segments[self._unsent]
        taken = self._taken
        if not taken and len(segment) <= limit:
            self._unsent += 1
            self.next += len(segment)
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
        """Queue what is to be sent next on this connection, of ``limit`` bytes at most; return its size in bytes."""
        taken = self.take(limit)
        if taken is None:
            return 0
        part, has_room = taken
        outbox.add_data(part.chunk, part.start, part.end, has_room=has_room)
        return len(part)

    def note_sent(self) -> None:
        """Note that all that is here was sent on this connection, by somebody else."""
        while self.take() is not None:
            pass

    def confirm(self, offset: int) -> None:
        """Let go of everything before ``offset``, which is between ``base`` and ``end``."""
        n = offset - self.base
        self.base = offset
        self.next = max(self.next, offset)
        while n:
            segment = self._segments[0]
            if not self._unsent:  # it is not sent whole
                self._taken = max(0, self._taken - n)
            if n < len(segment):
                segment.start += n
                break
            n -= len(segment)
            self._segments.popleft()
            self._unsent = max(0, self._unsent - 1)
            if segment.chunk is not self._chunk and not (self._segments and self._segments[0].chunk is segment.chunk):
                self._let_go(segment.chunk)
        if not self._segments:
            # The next chunk is as large as this one's use deserved.
            if self._fill < self._size // 8:
                self._size = SMALLEST_CHUNK
            self._let_go(self._chunk)
            self._chunk = memoryview(b"")
            self._fill = 0

    def trim(self) -> None:
        """Give back what is only kept because it may be of use soon."""
        self.memory -= sum(map(len, self._spare))
        self._spare.clear()

    def compact(self) -> None:
        """Keep what is not confirmed in no more memory than that takes: it may have to be kept for long."""
        self.trim()
        needed = sum(MAX_HEADER + len(segment) for segment in self._segments)
        if needed >= self.memory - self.memory // 4:
            return  # copying all of it would gain little
        chunk = memoryview(bytearray(needed))
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
        """Begin again at ``base``: a new connection has carried nothing yet."""
        self.next = self.base
        self._unsent = 0
        self._taken = 0
