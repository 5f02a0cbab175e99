"""The sending direction of a resumable stream: what was read, what was sent, and what the peer has delivered.

Numbers count the bytes of our stream from 0; our fin takes the number behind the last byte. The replay buffer keeps
what the peer has not acknowledged, and sends it again on the next connection. Which messages may go when is decided in
`resumable_stream`.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.message_size import MessageSize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.masked_replay import MaskedReplay
    from tunnel.protocol.outbox import Outbox
    from tunnel.protocol.replay import ReplayBuffer

SOME = 128 << 10  # bytes that are framed at once where messages have to be smaller than that
READ_AHEAD = 128 << 10  # bytes that may wait for the wire when more is read; on a slow line, what is typed waits, too


class Sender:
    """What our source gave, kept in ``replay``; ``max_message`` is as for `ResumableStream`.

    ``window``: bytes that may be unacknowledged; 0 until there is a session. ``ended``: whether the source has ended.
    ``acked``: numbers that the peer has delivered. ``ever_sent``: numbers that were sent, on any connection.
    """

    __slots__ = (
        "_acked_before", "_fin_sent", "_largest_sent", "acked", "ended", "ever_sent", "message_size", "replay",
        "window",
    )  # fmt: skip

    def __init__(self, max_message: int, replay: ReplayBuffer | MaskedReplay) -> None:
        self.replay = replay
        self.message_size = MessageSize(max_message)
        self.window = 0
        self.ended = False
        self.acked = 0
        self.ever_sent = 0
        self._acked_before = 0  # on other connections
        self._largest_sent = 0  # bytes of the largest message on this connection
        self._fin_sent = False

    # ---- connections

    def begin_connection(self) -> None:
        """Send everything again from ``acked`` on, over a new connection."""
        self._acked_before = self.acked
        self._largest_sent = 0
        self.replay.rewind()
        self._fin_sent = self.fin_acked

    def lost_connection(self, *, too_big: bool, blames_size: bool) -> None:
        """Learn from a lost connection how large messages may be.

        ``too_big``: the peer said so. ``blames_size``: the way it was lost is how messages that are too large end.
        """
        largest = self._largest_sent if blames_size and self.unacknowledged else 0
        self.message_size.lost(too_big=too_big, progress=self.progress, largest=largest)

    @property
    def progress(self) -> bool:
        """Whether the peer has acknowledged anything new on this connection, or the last one."""
        return self.acked > self._acked_before

    # ---- the source

    @property
    def has_room(self) -> bool:
        """Whether the source may be read: the window and the read-ahead have room."""
        replay = self.replay
        return (
            not self.ended
            and not replay.is_full
            and replay.end - replay.base < self.window
            and replay.end - replay.next < READ_AHEAD
        )

    def space(self) -> memoryview:
        """Return where to read the source into; ``replay.extend`` must follow, if anything came."""
        return self.replay.space(self.window - self.unacknowledged)

    def adopt(self, sent: bytes) -> None:
        """Take over ``sent``, which went out before there was a session."""
        rest = memoryview(sent)
        while rest:
            space = self.replay.space(len(rest))
            n = len(space)
            space[:] = rest[:n]
            self.replay.extend(n)
            rest = rest[n:]
        self.replay.note_sent()
        self.ever_sent = len(sent)

    # ---- the wire

    @property
    def owes_fin(self) -> bool:
        """Whether the source has ended, and this connection has not been told."""
        return self.ended and not self._fin_sent

    def send_some(self, outbox: Outbox) -> bool:
        """Queue what of the stream is to go next, `SOME` bytes or a little more; return whether there was anything."""
        replay, limit = self.replay, self.message_size.limit
        before = replay.next
        while replay.next < replay.end and replay.next - before < SOME:
            size = replay.queue_next(outbox, limit)
            self._largest_sent = max(self._largest_sent, size)
        self.ever_sent = max(self.ever_sent, replay.next)
        return replay.next > before

    def take_fin(self) -> str:
        """Return the control line that tells of our end, once all data before it have gone; else nothing."""
        if not self.owes_fin or self.replay.next < self.replay.end:
            return ""
        self._fin_sent = True
        self.ever_sent = self.replay.end + 1
        return f"fin {self.replay.end}"

    # ---- acknowledgements

    @property
    def unacknowledged(self) -> int:
        """Bytes that are kept for sending again."""
        return self.replay.end - self.replay.base

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer has delivered all that was read."""
        return self.acked == self.replay.end

    @property
    def fin_acked(self) -> bool:
        """Whether the peer has delivered all of our stream, and its end."""
        return self.ended and self.acked == self.replay.end + 1

    def can_be_acked(self, count: int) -> bool:
        """Return whether the peer can have delivered ``count`` numbers."""
        return self.acked <= count <= self.ever_sent

    def ack_came(self, count: int) -> None:
        """Let go of what the peer has delivered. Raises RemoteProtocolError when that cannot be."""
        if not self.can_be_acked(count):
            raise RemoteProtocolError(f"the peer acknowledged {count}, which cannot be")
        self.acked = count
        self.replay.confirm(min(count, self.replay.end))
