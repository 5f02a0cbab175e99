"""The state of a session that survives the loss of a connection: its offer, both directions, and its end."""

from __future__ import annotations

from tunnel.errors import ConnectionLost, RemoteProtocolError, spelled
from tunnel.protocol.control import (
    MESSAGE_LIMIT,
    Ack,
    AckRequest,
    End,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
    session_failure,
)
from tunnel.protocol.frame_budget import FrameBudget
from tunnel.protocol.frames import NORMAL, TARGET_LOST, TARGET_REFUSED_DATA
from tunnel.protocol.receiver import Receiver
from tunnel.protocol.sender import Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.errors import TunnelError
    from tunnel.protocol.control import Control
    from tunnel.protocol.frames import Buffer
    from tunnel.protocol.masked_replay import MaskedReplay
    from tunnel.protocol.replay import ReplayBuffer

WINDOW = 16 << 20  # default for the bytes that may be unacknowledged


class SessionState:
    """The state of a session at one end; the arguments are as for `ResumableStream` and `Sender`.

    ``offer`` is None until there is a session; ``is_plain``: the peer does not use sessions. ``confirmed``: the peer
    has sent something in this session, so it knows of it. ``over``: it has ended, with ``failure`` or well.
    ``has_heard_text``: a control line was received. ``budget`` belongs to the session, so that a flood cannot continue
    by resuming.
    """

    __slots__ = (
        "_is_client", "_last_words", "_source_failure", "budget", "confirmed", "failure", "has_heard_text", "is_plain",
        "offer", "over", "receiver", "sender",
    )  # fmt: skip

    def __init__(self, *, client: bool, max_message: int, replay: ReplayBuffer | MaskedReplay) -> None:
        self._is_client = client
        self._source_failure: tuple[str, str] | None = None
        self._last_words: tuple[list[str], int] | None = None
        self.offer: SessionOffer | None = None
        self.sender = Sender(max_message, replay)
        self.receiver = Receiver(WINDOW)
        self.budget = FrameBudget()
        self.is_plain = False
        self.has_heard_text = False
        self.confirmed = False
        self.failure: TunnelError | None = None
        self.over = False

    @property
    def established(self) -> bool:
        """Whether the session exists: until then the client just dials again after a lost connection."""
        return self.offer is not None

    def take_offer(self, offer: SessionOffer) -> None:
        """Begin the session."""
        self.offer = offer
        self.receiver.window = offer.window
        self.sender.window = min(offer.window, WINDOW)  # we need not keep as many bytes as the peer would accept
        # At the client: the first ack confirms the session line to the bridge.
        self.receiver.ack_due = self._is_client

    # ---- both directions

    @property
    def delivered(self) -> int:
        """Numbers of the peer's stream that are delivered: the offset of a resume, and of every ack."""
        return self.receiver.delivered

    @property
    def unacknowledged(self) -> int:
        """Bytes that are kept for sending again."""
        return self.sender.unacknowledged

    @property
    def undelivered(self) -> int:
        """Bytes that the sink did not accept."""
        return self.receiver.undelivered

    @property
    def memory(self) -> int:
        """Bytes of memory for the data that is kept for sending again."""
        return self.sender.replay.memory

    def compact(self) -> None:
        """Copy what is not acknowledged into as little memory as possible, as it may have to be kept for long."""
        self.sender.replay.compact()

    @property
    def complete(self) -> bool:
        """Whether both streams are completely delivered, with their ends."""
        return self.receiver.fin_delivered and self.sender.fin_acked

    @property
    def waits_for_peer(self) -> bool:
        """Whether the peer must send us something: an ack, or its session line."""
        return self.sender.acked < self.sender.ever_sent or self.offer is None

    def source_ended(self) -> None:
        """Note EOF of the source: a fin follows what was read before."""
        self.sender.ended = self.sender.ended or self._source_failure is None

    def source_failed(self, code: int, reason: str) -> None:
        """Note that the source failed: an error ends the session once the peer has everything read before."""
        if not self.sender.ended and self._source_failure is None:
            cause = {TARGET_LOST: "target-lost", TARGET_REFUSED_DATA: "undelivered"}.get(code, "input")
            self._source_failure = (cause, reason if cause == "input" else f": {reason}" if reason else "")
            self._report_source_failure()

    def _report_source_failure(self) -> None:
        if self._source_failure is not None and self.sender.is_acknowledged:
            cause, reason = self._source_failure
            self.fail(cause, ConnectionLost(cause, reason=reason), text=reason.removeprefix(": "))

    def ack_came(self, count: int) -> None:
        """Note that the peer has delivered ``count`` numbers. Raises RemoteProtocolError for an impossible count."""
        self.sender.ack_came(count)
        self._report_source_failure()

    def receive(self, control: Control | None) -> bool:
        """Process a control line; return whether it was anything new. Raises RemoteProtocolError."""
        self.has_heard_text = True
        if isinstance(control, SessionOffer):
            if self.offer is not None:
                raise RemoteProtocolError("the peer offered a session inside a session")
            self.take_offer(control)
        elif isinstance(control, SessionError):
            self.failure = self.failure or session_failure(control, "the bridge" if self._is_client else "the client")
            self.over = True
        elif self.offer is None:
            self.is_plain = True
            return False
        elif isinstance(control, Ack):
            is_new = control.count > self.sender.acked or not self.confirmed
            self.ack_came(control.count)
            self.confirmed = True
            return is_new
        elif isinstance(control, Fin):
            return self.receiver.fin_came(control.count)
        elif isinstance(control, AckRequest):
            self.receiver.ack_due = True
            return False
        elif isinstance(control, End):
            if self._is_client:
                raise RemoteProtocolError("the bridge sent an end line, which only clients may send")
            self.over = True
        return control is not None

    def check_early_data(self, data: Buffer, *, is_last: bool) -> None:
        """Check data (at least 1 byte, which ends a message if ``is_last``) before the first control line.

        Raises RemoteProtocolError if they are a control line that an edge has turned into data.
        """
        if self.offer is None:
            # An edge has selected the subprotocol, but the peer does not use sessions.
            self.is_plain = True
        elif not self._is_client and is_last and self._is_ack(data):
            problem = f"an edge turned the client's control lines into data: use {spelled('no_resume')}"
            raise RemoteProtocolError(problem)

    def _is_ack(self, data: Buffer) -> bool:
        """Return whether ``data`` is the ack with which a client begins a session."""
        if len(data) > MESSAGE_LIMIT or not bytes(data).startswith(b"ack "):
            return False
        try:
            control = parse_control(bytes(data))
        except RemoteProtocolError:
            return False
        return isinstance(control, Ack) and control.count <= self.sender.ever_sent

    # ---- the end of the session

    def end(self) -> None:
        """End the session from the client."""
        if not self.over:
            self._finish([f"ack {self.delivered}", "end"] if self.offer is not None else [], NORMAL)

    def fail(self, code: str, error: TunnelError, *, text: str | None = None, close_code: int = NORMAL) -> None:
        """End the session because of ``error``; ``code`` and ``text`` are sent to the peer."""
        if not self.over:
            self.failure = self.failure or error
            self._finish([error_line(code, str(error) if text is None else text)], close_code)

    def _finish(self, lines: list[str], close_code: int) -> None:
        self.over = True
        self._last_words = (lines, close_code)

    def take_last_words(self) -> tuple[list[str], int] | None:
        """Return the final control lines and the code of the Close after them, once."""
        words, self._last_words = self._last_words, None
        return words
