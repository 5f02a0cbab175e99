"""The size limit for messages of a session, learnt from lost connections.

Edges limit the size of a message (32 KiB, 64 KiB and 1 MiB are usual). Some send a Close with 1009, others just drop
the connection. So two losses in a row without progress count like a 1009, if the connection worked otherwise.
"""

from __future__ import annotations

LARGEST_MESSAGE = 256 * 1024  # bytes of payload: the default and the maximum
SMALLER_MESSAGE = 32 * 1024  # accepted by nearly all edges
SMALLEST_MESSAGE = 4 * 1024  # the smallest limit that is tried …
LEAST_MESSAGE = 1024  # … and the smallest that a user may set
_LOSSES = 2


class MessageSize:
    """``limit``: the most bytes of a message that we send. A session has one object for all its connections."""

    __slots__ = ("_fruitless", "is_hopeless", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_hopeless = False  # whether even the smallest message was too large
        self._fruitless = 0  # connections lost in a row before anything that we sent had arrived

    def lost(self, *, too_big: bool, progress: bool, largest: int) -> None:
        """Note how a connection was lost: with the peer's 1009 (``too_big``), and with or without ``progress``.

        ``largest`` is the size of the largest message that was sent on it.
        """
        if progress:
            self._fruitless = 0
            self.is_hopeless = False
        if too_big:
            self.is_hopeless = not progress and self.limit <= SMALLEST_MESSAGE
            self._shrink()
        elif not progress and largest > SMALLEST_MESSAGE:
            self._fruitless += 1
            if self._fruitless == _LOSSES:
                self._shrink()

    def _shrink(self) -> None:
        self._fruitless = 0
        if self.limit > SMALLER_MESSAGE:
            self.limit = SMALLER_MESSAGE
        elif self.limit > SMALLEST_MESSAGE:
            self.limit = max(SMALLEST_MESSAGE, self.limit // 2)
