"""The peer's first message, which tells the client of a plain stream whether it is a plain one at all.

Edges that terminate the WebSocket and open one of their own to the bridge choose a subprotocol for each side. So a
client that offers to resume may be told of another one, or of none, and the bridge begins a session all the same. What
counts is the first message then:

    text ``session …``      a session: what was sent so far are its first bytes, counted from 0
    the same in binary      a session over an edge that makes data of text: to be had without one only
    anything else           a plain stream

Until then the client sends what it has, and keeps a copy of `COPY_LIMIT` bytes at most; after `WAIT` seconds it is
plain, and sooner if it would hold up what the peer waits for. A session that comes later is a violation: its line holds
secrets and must not be taken for data.
"""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import MESSAGE_LIMIT, SessionOffer, parse_control
from tunnel.protocol.frames import TEXT, Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

COPY_LIMIT = 256 * 1024  # bytes that are sent before it is clear what they are
MESSAGE_SIZE = 16 * 1024  # bytes of a message meanwhile: if that is too large for an edge, nothing could be sent again
WAIT = 5.0  # seconds
WAIT_AFTER_END = 1.0  # seconds, once there is nothing more to send: the peer may be waiting for our Close
WAIT_WHEN_FULL = 0.5  # seconds, once so much was sent: the peer may be waiting for more
_SESSION = b"session id="


class Beginning:
    """What is known of the peer's first message. ``now`` is the driver's monotonic clock, in seconds, everywhere.

    ``offer`` is the session that it begins, ``in_binary`` whether it does so in a binary message.
    """

    __slots__ = ("_copy", "_data", "deadline", "in_binary", "offer")

    def __init__(self, now: float) -> None:
        self.deadline = now + WAIT
        self.offer: SessionOffer | None = None
        self.in_binary = False
        self._copy: bytearray | None = bytearray()  # of what was sent, as long as it may belong to a session
        self._data = b""  # of the first message

    @property
    def decided(self) -> bool:
        """Whether there is a session, so that this stream ends here."""
        return self.offer is not None or self.in_binary

    @property
    def open(self) -> bool:
        """Whether there may still be a session, or is one."""
        return self._copy is not None

    @property
    def sent(self) -> bytes:
        """What was sent so far."""
        return bytes(self._copy or b"")

    @property
    def room(self) -> int:
        """How many bytes may be sent now, in one message."""
        if self.decided:
            return 0
        return COPY_LIMIT if self._copy is None else min(MESSAGE_SIZE, COPY_LIMIT - len(self._copy))

    def sending(self, data: Buffer, now: float) -> None:
        """Note that ``data``, of `room` bytes at most, is being sent."""
        if self._copy is not None:
            self._copy += data
            if len(self._copy) >= COPY_LIMIT:
                self.deadline = min(self.deadline, now + WAIT_WHEN_FULL)

    def source_ended(self, now: float) -> None:
        """Note that nothing more is to be sent."""
        self.deadline = min(self.deadline, now + WAIT_AFTER_END)

    def tick(self, now: float) -> None:
        """Look at the clock."""
        if now >= self.deadline and not self.decided:
            self._copy = None

    def take(self, event: Payload) -> Payload | None:
        """Take a piece of the first message in; return what of the message is data, None if that is not clear or none.

        Raises RemoteProtocolError for a session that must not begin any more.
        """
        data = self._data + bytes(event.data)
        if not data.startswith(_SESSION):
            if _SESSION.startswith(data) and not (event.final and data):
                self._data = data
                return None
            return Payload(event.opcode, data, event.final)
        if self._copy is None:
            raise RemoteProtocolError(
                "the bridge has begun a session that can be resumed, but so late that it was taken for a plain one",
                code="late-session",
            )
        if len(data) > MESSAGE_LIMIT:
            raise RemoteProtocolError("the peer sent a session line that is too long")
        self._data = data
        if event.final:
            self._data = b""
            self.in_binary = event.opcode != TEXT
            if not self.in_binary:
                control = parse_control(data)
                self.offer = control if isinstance(control, SessionOffer) else None
        return None
