"""The sending direction of a session: what was read, what was sent, and what the peer has delivered.

Numbers count the bytes of our stream from 0; our fin has the number after the last byte. The replay buffer keeps what
the peer has not acknowledged, and sends it again on the next connection. `resumable_stream` decides the order of
messages.
"""

from __future__ import annotations

from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.protocol.message_size import MessageSize
from tunnel.protocol.outbox import LEAST_PASSED, PASSED
from tunnel.protocol.replay import LARGEST_CHUNK, ReplayBuffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tunnel.protocol.masked_replay import MaskedReplay
    from tunnel.protocol.outbox import Outbox
    from tunnel.protocol.replay import Kept

SOME = 128 << 10  # bytes that are framed at once if messages have to be smaller than that
READ_AHEAD = 128 << 10  # bytes; the source is not read while more waits, so that on a slow wire keystrokes wait less

# Bytes that may be unacknowledged while the source is passed on. A connection that needs more is slower than copying.
PASS_WINDOW = 2 << 20
RESERVED = PASS_WINDOW + LARGEST_CHUNK  # bytes of memory that are reserved for that


class Sender:
    """The bytes from our source, kept in ``replay``; ``max_message`` is as for `ResumableStream`.

    ``window``: bytes that may be unacknowledged; 0 until there is a session. ``ended``: whether the source has ended.
    ``acked``: numbers that the peer has delivered. ``ever_sent``: numbers that were sent on any connection.
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
        self._acked_before = 0  # what was acknowledged on earlier connections
        self._largest_sent = 0  # bytes of the largest message on this connection
        self._fin_sent = False

    # ---- connections

    def begin_connection(self) -> None:
        """Begin a new connection: everything from ``acked`` on is sent again."""
        self._acked_before = self.acked
        self._largest_sent = 0
        self.replay.rewind()
        self._fin_sent = self.fin_acked

    def lost_connection(self, *, too_big: bool, blames_size: bool) -> None:
        """Learn from a lost connection how large messages may be.

        ``too_big``: the peer's Close said so. ``blames_size``: the loss looks like that of a message that is too large.
        """
        largest = self._largest_sent if blames_size and self.unacknowledged else 0
        self.message_size.lost(too_big=too_big, progress=self.progress, largest=largest)

    @property
    def progress(self) -> bool:
        """Whether the peer has acknowledged anything new on this connection (or the last, if there is none)."""
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
        """Return the space to read the source into; then call ``replay.extend`` if anything was read."""
        return self.replay.space(self.window - self.unacknowledged)

    @property
    def may_pass(self) -> int | None:
        """How many bytes of the source may be sent next without this process getting them: see `ByteStream`."""
        replay = self.replay
        if not isinstance(replay, ReplayBuffer) or replay.next < replay.end or self.ended:
            return None
        if replay.copied > PASS_WINDOW or self.message_size.limit < LEAST_PASSED:
            return None
        room = min(PASSED, min(self.window, PASS_WINDOW) - self.unacknowledged)
        if room <= 0:
            return 0
        return room if replay.reserve(PASS_WINDOW) else None

    def passed(self, n: int, kept: Kept) -> None:
        """Note that the next ``n`` bytes of the source were sent, and are ``kept`` outside."""
        if not isinstance(self.replay, ReplayBuffer):
            raise LocalProtocolError("a client masks what it sends")
        self.replay.passed(n, kept)
        self._largest_sent = max(self._largest_sent, min(n, self.message_size.limit))
        self.ever_sent = max(self.ever_sent, self.replay.next)

    def take_back(self, receive_into: Callable[[memoryview], int], unsent: int) -> None:
        """Copy what is kept outside, and add ``unsent`` bytes of the source, which ``receive_into`` gives."""
        if isinstance(self.replay, ReplayBuffer):
            self.replay.recall()
            self.replay.receive(receive_into, unsent)

    def append(self, data: memoryview) -> None:
        """Add ``data`` of the source. Raises MemoryError."""
        while data:
            space = self.replay.space(len(data))
            n = len(space)
            if not n:
                raise MemoryError
            space[:] = data[:n]
            self.replay.extend(n)
            data = data[n:]

    def adopt(self, sent: bytes) -> None:
        """Take over ``sent``, the bytes sent before there was a session."""
        self.append(memoryview(sent))
        self.replay.note_sent()
        self.ever_sent = len(sent)

    # ---- the wire

    @property
    def owes_fin(self) -> bool:
        """Whether the source has ended, and no fin was sent on this connection."""
        return self.ended and not self._fin_sent

    def send_some(self, outbox: Outbox) -> bool:
        """Queue the next bytes of the stream, about `SOME`; return whether there were any."""
        replay, limit = self.replay, self.message_size.limit
        before = replay.next
        while replay.next < replay.end and replay.next - before < SOME:
            size = replay.queue_next(outbox, limit)
            if size > self._largest_sent:
                self._largest_sent = size
        if replay.next > self.ever_sent:
            self.ever_sent = replay.next
        return replay.next > before

    def take_fin(self) -> str:
        """Return the fin line, if it is due and all data before it were sent; else ""."""
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
        """Drop what the peer has delivered. Raises RemoteProtocolError for an impossible count."""
        if not self.can_be_acked(count):
            raise RemoteProtocolError(f"the peer acknowledged {count}, which is not possible")
        self.acked = count
        self.replay.confirm(min(count, self.replay.end))
