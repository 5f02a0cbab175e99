"""What a session is, whatever connection carries it: its offer, both directions, and how it ended."""

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

WINDOW = 16 << 20  # bytes that may be on their way, by default


class SessionState:
    """The state of a session at one end; the arguments are as for `ResumableStream` and `Sender`.

    ``offer`` is None until there is a session; ``is_plain``: the peer has turned out not to speak of sessions at all.
    ``confirmed``: the peer has spoken in this session, so it knows of it. ``over``: it has ended, because of
    ``failure`` or well. ``has_heard_text``: a control line has come. ``budget`` is the session's, so that a flood
    cannot go on by resuming.
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
        """Whether the session exists: until then a lost connection is simply dialled anew."""
        return self.offer is not None

    def take_offer(self, offer: SessionOffer) -> None:
        """Begin the session."""
        self.offer = offer
        self.receiver.window = offer.window
        self.sender.window = min(offer.window, WINDOW)  # we need not keep as many bytes as a peer would take
        # At the client: the first ack tells the bridge that its session line has arrived.
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
        """Bytes that the sink did not take."""
        return self.receiver.undelivered

    @property
    def memory(self) -> int:
        """Bytes of memory that what is kept for sending again occupies."""
        return self.sender.replay.memory

    def compact(self) -> None:
        """Keep what is not acknowledged in no more memory than that takes: it may have to be kept for long."""
        self.sender.replay.compact()

    @property
    def complete(self) -> bool:
        """Whether both streams are delivered whole, with their ends."""
        return self.receiver.fin_delivered and self.sender.fin_acked

    @property
    def waits_for_peer(self) -> bool:
        """Whether the peer owes us something: an ack, or the session that it offers."""
        return self.sender.acked < self.sender.ever_sent or self.offer is None

    def source_ended(self) -> None:
        """Note the source's end of file: a fin follows what was read before."""
        self.sender.ended = self.sender.ended or self._source_failure is None

    def source_failed(self, code: int, reason: str) -> None:
        """Note that the source broke: an error ends the session once the peer has all that was read before."""
        if not self.sender.ended and self._source_failure is None:
            cause = {TARGET_LOST: "target-lost", TARGET_REFUSED_DATA: "undelivered"}.get(code, "input")
            self._source_failure = (cause, reason if cause == "input" else f": {reason}" if reason else "")
            self._report_source_failure()

    def _report_source_failure(self) -> None:
        if self._source_failure is not None and self.sender.is_acknowledged:
            cause, reason = self._source_failure
            self.fail(cause, ConnectionLost(cause, reason=reason), text=reason.removeprefix(": "))

    def ack_came(self, count: int) -> None:
        """Note that the peer has delivered ``count`` numbers. Raises RemoteProtocolError when that cannot be."""
        self.sender.ack_came(count)
        self._report_source_failure()

    def receive(self, control: Control | None) -> bool:
        """Do what a control line says; return whether that was anything new. Raises RemoteProtocolError."""
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
                raise RemoteProtocolError("the bridge sent an end, which only clients may")
            self.over = True
        return control is not None

    def check_early_data(self, data: Buffer, *, is_last: bool) -> None:
        """Judge data (at least 1 byte, which ends a message if ``is_last``) that come before any control line.

        Raises RemoteProtocolError when they are a control line, of which an edge makes data.
        """
        if self.offer is None:
            # An edge says that the peer would begin with a session, but it knows nothing of it.
            self.is_plain = True
        elif not self._is_client and is_last and self._is_ack(data):
            raise RemoteProtocolError(f"an edge makes data of the client's control lines: use {spelled('no_resume')}")

    def _is_ack(self, data: Buffer) -> bool:
        """Return whether ``data`` is what a client begins with, once it knows of the session."""
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
        """End the session because of ``error``, which the peer is told as ``code`` and ``text``."""
        if not self.over:
            self.failure = self.failure or error
            self._finish([error_line(code, str(error) if text is None else text)], close_code)

    def _finish(self, lines: list[str], close_code: int) -> None:
        self.over = True
        self._last_words = (lines, close_code)

    def take_last_words(self) -> tuple[list[str], int] | None:
        """Return what is still to be said before the end, once: control lines, and the code of the Close behind."""
        words, self._last_words = self._last_words, None
        return words
