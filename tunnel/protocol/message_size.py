"""How large a message may be on the way of one session: what is learnt from the connections that it lost.

Edges limit the size of a message (32 KiB, 64 KiB, 1 MiB are met in the field). Some tell by a Close with 1009, some
just drop the connection; so two losses in a row without progress count as much, if the connection worked otherwise.
"""

from __future__ import annotations

LARGEST_MESSAGE = 256 * 1024  # bytes of payload, by default and at most
SMALLER_MESSAGE = 32 * 1024  # what nearly all edges let through
SMALLEST_MESSAGE = 4 * 1024  # below that it is tried no more …
LEAST_MESSAGE = 1024  # … but a user may know better
_LOSSES = 2


class MessageSize:
    """``limit``: how many bytes a message that we send may have, at most. A session has one for all its connections."""

    __slots__ = ("_fruitless", "is_hopeless", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_hopeless = False  # whether the smallest message was still too large for somebody
        self._fruitless = 0  # connections that were lost in a row before any of what we sent had arrived

    def lost(self, *, too_big: bool, progress: bool, largest: int) -> None:
        """Note how a connection was lost: with the peer's 1009 (``too_big``), and after some ``progress`` or none.

        ``largest`` is the size of the largest message that was sent on it in vain.
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
