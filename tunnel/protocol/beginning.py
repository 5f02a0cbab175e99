"""The peer's first message, by which a client decides whether a stream is plain or a session.

Edges that terminate the WebSocket and open their own one to the bridge negotiate the subprotocol separately on each
side. So a client that offers sessions may be answered with another subprotocol, or none, although the bridge begins a
session. The first message decides:

    text ``session …``      a session: what was sent so far are its first bytes, counted from 0
    the same in binary      a session through an edge that turns text into binary messages: dial again without sessions
    anything else           a plain stream

Until then the client sends its data, and keeps a copy of up to `COPY_LIMIT` bytes. After `WAIT` seconds the stream is
plain; earlier if waiting would delay what the peer waits for. A later session is a violation: its line contains secrets
and must not be taken for data.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import MESSAGE_LIMIT, SessionOffer, parse_control
from tunnel.protocol.frames import TEXT, Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

COPY_LIMIT = 256 * 1024  # bytes that may be sent before the first message
MESSAGE_SIZE = 16 * 1024  # bytes of a message until then, small enough for all edges, as a refused one ends the tunnel
WAIT = 5.0  # seconds
WAIT_AFTER_END = 1.0  # seconds, after the end of the source: the peer may be waiting for our Close
WAIT_WHEN_FULL = 0.5  # seconds, once `COPY_LIMIT` bytes were sent: the peer may be waiting for more
_SESSION = b"session id="


class Beginning:
    """What is known of the peer's first message. ``now`` is always the driver's monotonic clock, in seconds.

    ``offer`` is the session that the message begins, ``in_binary`` whether the message is binary.
    """

    __slots__ = ("_copy", "_data", "deadline", "in_binary", "offer")

    def __init__(self, now: float) -> None:
        self.deadline = now + WAIT
        self.offer: SessionOffer | None = None
        self.in_binary = False
        self._copy: bytearray | None = bytearray()  # the bytes sent, as long as there may be a session
        self._data = b""  # the first message so far

    @property
    def decided(self) -> bool:
        """Whether there is a session, so that this stream ends here."""
        return self.offer is not None or self.in_binary

    @property
    def open(self) -> bool:
        """Whether there is a session, or may still be one."""
        return self._copy is not None

    @property
    def sent(self) -> bytes:
        """The bytes sent so far."""
        return bytes(self._copy or b"")

    @property
    def room(self) -> int:
        """How many bytes may be sent now, in one message."""
        if self.decided:
            return 0
        return COPY_LIMIT if self._copy is None else min(MESSAGE_SIZE, COPY_LIMIT - len(self._copy))

    def sending(self, data: Buffer, now: float) -> None:
        """Note that ``data``, at most `room` bytes, is being sent."""
        if self._copy is not None:
            self._copy += data
            if len(self._copy) >= COPY_LIMIT:
                self.deadline = min(self.deadline, now + WAIT_WHEN_FULL)

    def source_ended(self, now: float) -> None:
        """Note that the source has ended."""
        self.deadline = min(self.deadline, now + WAIT_AFTER_END)

    def tick(self, now: float) -> None:
        """Check the clock."""
        if now >= self.deadline and not self.decided:
            self._copy = None

    def take(self, event: Payload) -> Payload | None:
        """Take a piece of the first message; return the data in it, None if there is none or that is not known yet.

        Raises RemoteProtocolError for a session that begins too late.
        """
        data = self._data + bytes(event.data)
        if not data.startswith(_SESSION):
            if _SESSION.startswith(data) and not (event.final and data):
                self._data = data
                return None
            return Payload(event.opcode, data, event.final)
        if self._copy is None:
            raise RemoteProtocolError(
                "the bridge began a session too late: the tunnel was already taken for a plain one",
                code="late-session",
            )
        if len(data) > MESSAGE_LIMIT:
            raise RemoteProtocolError("the peer sent a session line that is too long")
        self._data = data
        if event.final:
            self.in_binary = event.opcode != TEXT
            if not self.in_binary:
                control = parse_control(data)
                self.offer = control if isinstance(control, SessionOffer) else None
        return None
