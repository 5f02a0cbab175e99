"""The control lines of a session (Wire 2): text messages, one ASCII line each.

    session id=<32 hex> key=<64 hex> window=<bytes> retain=<seconds>      the bridge's first message
    ack <n>                 n bytes of your stream are delivered; its length + 1: also your fin
    fin <n>                 my stream ended after n bytes
    ping                    send your current ack now
    end                     the session is over; what was sent before still goes to the target (client only)
    error <code> <text>     the session is over, and why

Unknown kinds of lines are ignored, so that later versions can add some. A malformed known line is a violation.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, RemoteProtocolError, printable
from tunnel.protocol.numbers import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.protocol.frames import Payload

LINE_LIMIT = 256  # bytes of a line that we send
MESSAGE_LIMIT = 1024  # bytes of a line that we accept, so that later versions may send more
COUNT_LIMIT = 1 << 63
WINDOW_LIMIT = 64 << 20  # most bytes of a session's window: an end may have to keep all of it
SUBPROTOCOL = "v1.resume.wstunnel-py"
SPEED_TEST = "v1.speed.wstunnel-py"  # subprotocol of a plain tunnel to the bridge itself, for doctor
_HEX = frozenset("0123456789abcdef")


class SessionOffer:
    """A new session: ``window`` (bytes) applies to both directions, ``retain`` is in seconds."""

    __slots__ = ("id", "key", "retain", "window")

    def __init__(self, id: str, key: str, window: int, retain: int) -> None:
        self.id = id
        self.key = key
        self.window = window
        self.retain = retain

    def line(self) -> str:
        """Return the control line for this offer."""
        return f"session id={self.id} key={self.key} window={self.window} retain={self.retain}"


class Ack:
    """``count`` numbers of our stream are delivered: its bytes, and one more for its fin."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class Fin:
    """The peer's stream has ended after ``count`` bytes."""

    __slots__ = ("count",)

    def __init__(self, count: int) -> None:
        self.count = count


class AckRequest:
    """The peer's ``ping``: it requests our current ack, even if nothing is new."""

    __slots__ = ()


class End:
    """The client has ended the session."""

    __slots__ = ()


class SessionError:
    """The peer has ended the session; ``code`` is for programs, ``text`` for people."""

    __slots__ = ("code", "text")

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text


Control = SessionOffer | Ack | Fin | AckRequest | End | SessionError


def error_line(code: str, text: str) -> str:
    """Return the line that ends a session with an error, cut to `LINE_LIMIT`."""
    ascii_text = printable(text).encode("ascii", "replace").decode()
    return f"error {code} {ascii_text}"[:LINE_LIMIT]


def session_failure(error: SessionError, peer: str) -> ConnectionLost:
    """Return the exception for an ``error`` line; ``peer`` is the peer's name in messages."""
    said = f": {error.text}" if error.text else ""
    if error.code == "shutdown":
        return ConnectionLost("going-away", reason=said)
    if error.code == "no-tail":
        return ConnectionLost("time-limit", reason=said)
    if error.code in ("target-lost", "undelivered"):
        return ConnectionLost(error.code, reason=said)
    return ConnectionLost("session-error", peer=peer, code=error.code, reason=said)


class ControlReader:
    """Collects a control line. ``frames`` is the number of frames of the last line."""

    __slots__ = ("_counted", "_line", "frames")

    def __init__(self) -> None:
        self._line = b""
        self._counted = 0
        self.frames = 0

    def take(self, event: Payload, *, ends_frame: bool) -> bytes | None:
        """Take a piece of a text message; return the line if it is complete. Raises RemoteProtocolError if too long."""
        self._line += bytes(event.data)
        if len(self._line) > MESSAGE_LIMIT:
            raise RemoteProtocolError("the peer sent a control line that is too long")
        if ends_frame and (event.data or event.final):
            self._counted += 1
        if not event.final:
            return None
        line, self._line = self._line, b""
        self.frames, self._counted = self._counted, 0
        return line


def parse_control(message: bytes) -> Control | None:
    """Parse ``message``; return None for an unknown kind. Raises RemoteProtocolError."""
    word, _, rest = message.decode("ascii", "replace").partition(" ")
    if word == "ack":
        return Ack(_count(rest, word))
    if word == "fin":
        return Fin(_count(rest, word))
    if word == "ping" and not rest:
        return AckRequest()
    if word == "end" and not rest:
        return End()
    if word == "session":
        return _session(rest)
    if word == "error":
        code, _, text = rest.partition(" ")
        return SessionError(printable(code), printable(text))
    if word in ("ping", "end"):
        raise RemoteProtocolError(f"the peer sent a malformed {word} line")
    return None


def _count(text: str, word: str) -> int:
    number = parse_decimal(text)
    if number is None or number >= COUNT_LIMIT:
        raise RemoteProtocolError(f"the peer sent a malformed {word} line")
    return number


def _session(text: str) -> SessionOffer:
    fields = dict(part.partition("=")[::2] for part in text.split(" "))
    identity, key = fields.get("id", ""), fields.get("key", "")
    if not (is_hex(identity, 32) and is_hex(key, 64)):
        raise RemoteProtocolError("the peer sent a malformed session line")
    window, retain = _count(fields.get("window", ""), "session"), _count(fields.get("retain", ""), "session")
    if not window:
        raise RemoteProtocolError("the peer offered a session without a window")
    if window > WINDOW_LIMIT:
        raise RemoteProtocolError(f"the peer offered a session with a window of {window} bytes: above {WINDOW_LIMIT}")
    return SessionOffer(identity, key, window, retain)


def is_hex(text: str, length: int) -> bool:
    """Return whether ``text`` is ``length`` lower-case hexadecimal digits."""
    return len(text) == length and _HEX.issuperset(text)


class ResumeRequest:
    """The ``Wstunnel-Resume`` header: the session, the ``epoch`` of this attempt, and the count of bytes received."""

    __slots__ = ("epoch", "id", "proof", "received")

    def __init__(self, id: str, epoch: int, received: int, proof: str) -> None:
        self.id = id
        self.epoch = epoch
        self.received = received
        self.proof = proof

    def header(self) -> str:
        """Return the header's value."""
        return f"id={self.id}, epoch={self.epoch}, received={self.received}, proof={self.proof}"


def resume_request(id: str, key: str, epoch: int, received: int) -> ResumeRequest:
    """Return the request, with a proof that the client has ``key`` (hex)."""
    return ResumeRequest(id, epoch, received, proof(id, key, epoch, received))


def proof(id: str, key: str, epoch: int, received: int) -> str:
    """Return HMAC-SHA256(key, "<id> <epoch> <received>") in hex."""
    import hmac

    return hmac.new(bytes.fromhex(key), f"{id} {epoch} {received}".encode(), "sha256").hexdigest()


def parse_resume(value: str) -> ResumeRequest:
    """Parse the header's value. Raises RemoteProtocolError."""
    parts = value.split(",")
    fields = dict(part.strip().partition("=")[::2] for part in parts)
    identity, proof_text = fields.get("id", ""), fields.get("proof", "")
    if len(parts) != 4 or len(fields) != 4 or not is_hex(identity, 32) or not is_hex(proof_text, 64):
        raise RemoteProtocolError("the Wstunnel-Resume header is malformed")
    epoch, received = _count(fields.get("epoch", ""), "resume"), _count(fields.get("received", ""), "resume")
    return ResumeRequest(identity, epoch, received, proof_text)
