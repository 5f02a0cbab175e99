"""The data that the client of a session keeps until the bridge has acknowledged it: masked, as it was sent.

A client must mask what it sends (RFC 6455 section 5.3), and masking makes a copy anyway. This copy is kept, so a
session costs no more than a plain tunnel. A frame that is sent again gets a fresh key: its data is XORed with the old
key and the new one in one pass, without being unmasked.
"""

from __future__ import annotations

import os
from collections import deque

from tunnel.protocol.frames import MAX_HEADER
from tunnel.protocol.masking import apply_mask
from tunnel.protocol.replay import MAX_SEGMENTS, SEGMENT_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer
    from tunnel.protocol.outbox import Outbox

LONGEST_READ = SEGMENT_LIMIT - MAX_HEADER  # bytes, so that a frame and its header fit into one read of the bridge


class Segment:
    """A run of the stream's bytes: ``data``, masked with ``key`` from the key's first byte on."""

    __slots__ = ("data", "is_fresh", "key")

    def __init__(self, data: Buffer, key: bytes) -> None:
        self.data = data
        self.key = key
        self.is_fresh = True  # whether no frame has used the key yet

    def drop(self, n: int) -> None:
        """Drop the first ``n`` bytes."""
        self.data = memoryview(self.data)[n:]
        self.key = _rotated(self.key, n)


class MaskedReplay:
    """The bytes of one direction, with the interface of `tunnel.protocol.replay.ReplayBuffer`.

    ``space`` is the buffer that sources are read into. It may be shared, as nothing stays in it after `extend`.
    """

    __slots__ = ("_segments", "_space", "_taken", "_unsent", "base", "end", "is_full", "memory", "next")

    def __init__(self, space: memoryview) -> None:
        self.base = 0
        self.next = 0
        self.end = 0
        self.memory = 0
        self.is_full = False
        self._space = space
        self._segments: deque[Segment] = deque()
        self._unsent = 0  # index of the first segment that is not completely sent on this connection …
        self._taken = 0  # … and how many bytes of it are sent

    def space(self, limit: int) -> memoryview:
        return self._space[: min(limit, LONGEST_READ)]

    def extend(self, n: int) -> None:
        key = os.urandom(4)
        self._segments.append(Segment(apply_mask(self._space[:n], key), key))
        self.is_full = len(self._segments) >= MAX_SEGMENTS
        self.memory += n
        self.end += n

    def queue_next(self, outbox: Outbox, limit: int) -> int:
        if self._unsent == len(self._segments):
            return 0
        segment = self._segments[self._unsent]
        start, size = self._taken, len(segment.data)
        end = min(size, start + limit)
        if segment.is_fresh and end - start == size:
            outbox.add_masked(segment.data, segment.key)
        else:
            key = os.urandom(4)
            both = apply_mask(_rotated(segment.key, start), key)
            outbox.add_masked(apply_mask(memoryview(segment.data)[start:end], both), key)
        if end == size:
            segment.is_fresh = False
            self._unsent += 1
            self._taken = 0
        else:
            self._taken = end
        self.next += end - start
        return end - start

    def note_sent(self) -> None:
        self.next = self.end
        self._unsent = len(self._segments)
        self._taken = 0

    def confirm(self, offset: int) -> None:
        left = offset - self.base
        self.memory -= left
        self.base = offset
        self.next = max(self.next, offset)
        while left:
            segment = self._segments[0]
            if not self._unsent:  # it is not completely sent
                self._taken = max(0, self._taken - left)
            size = len(segment.data)
            if left < size:
                segment.drop(left)
                break
            left -= size
            self._segments.popleft()
            self._unsent = max(0, self._unsent - 1)
        self.is_full = len(self._segments) >= MAX_SEGMENTS

    def trim(self) -> None:
        """Do nothing: there is no unused memory."""

    def compact(self) -> None:
        """Do nothing: there is no unused memory."""

    def rewind(self) -> None:
        self.next = self.base
        self._unsent = 0
        self._taken = 0


def _rotated(key: bytes, n: int) -> bytes:
    """Return the key for the data ``n`` bytes later."""
    turn = n % 4
    return key[turn:] + key[:turn]
