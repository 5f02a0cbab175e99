"""One outage of a resumable tunnel: when to dial again, and when to give up. Sans-I/O, with the clock passed in.

    answer to a resume                          what the client does
    410, 401, 403, 400 of the bridge itself     ends
    409 of the bridge (a stale epoch)           again above the bridge's number; ends after 8 in a row
    101 of another server, as its first message
      shows if not its headers                  ends, as for 410
    401, 403, 407 of an edge or a proxy         again with credentials read anew; ends after 3 in a row
    our client certificate is refused           the same
    any other status, DNS, TCP or TLS failure   again, later and later, and not before Retry-After

A refusal of the bridge itself has the header ``Wstunnel-Error``. All ends at the latest when the limit is over.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, UpgradeRefused, UsageError
from tunnel.net.backoff import backoff, jitter
from tunnel.protocol.numbers import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.errors import TunnelError

FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0  # seconds between two attempts; each is jittered down to half
GROWTH = 1.5  # of the delay from one attempt to the next: the network is found back after half the outage at most
NOTICE_AFTER = 10.0  # seconds of an outage after which the user is told
LONGEST_RETRY_AFTER = 60.0  # seconds that a server may ask us to wait
GRACE = 60.0  # seconds that there are at least after this machine has slept
STALE_LIMIT, CREDENTIALS_LIMIT = 8, 3
FRUITLESS = 4  # connections that may be lost without progress before it is tried more seldom
_GONE, _REFUSED = (400, 410), (401, 403)  # of the bridge itself
_CREDENTIALS = (401, 403, 407)  # of anyone else
_OUR_CREDENTIALS = ("proxy-auth", "tls-client-cert", "tls-refused")


# ---- what a user is told of an outage, of a tunnel and of a terminal alike


def span(seconds: float) -> str:
    """Return a time in words, in the unit that one would name it in: 31 s, 10 min, 24 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def lost_line(error: object, limit: float) -> str:
    """Return the line for an outage that lasts, whose last ``error`` is given, and which may last ``limit`` seconds."""
    reason = error.fields["reason"] if isinstance(error, ConnectionLost) and error.code == "lost" else error
    return f"connection lost, trying again for {span(limit)} ({reason})"


def back_line(seconds: float) -> str:
    """Return the line for the end of an outage that a `lost_line` has told of, after ``seconds``."""
    return f"connected again after {span(seconds)}"


class Outage:
    """The time from the loss of a connection, at ``now``, for ``reason``, until the session goes on or is given up.

    ``limit`` are the seconds that it may last, and ``verdict`` the code of the error when they are over. ``epoch`` is
    the number of the last attempt, of this outage or before. ``fruitless`` is how many connections in a row were lost
    before anything that was sent on them had arrived.
    """

    def __init__(
        self, now: float, limit: float, reason: str, epoch: int, fruitless: int = 0, verdict: str = "given-up"
    ) -> None:
        self.began = now
        self.notice_at = now + NOTICE_AFTER  # when the user is to be told; infinite once they were
        self.reason = reason
        self.epoch = epoch
        self.deadline = now + limit
        self._verdict = verdict
        self.next_at = now + FIRST_DELAY * jitter() / 2
        self._failures = max(0, fruitless - FRUITLESS)
        if self._failures:
            self._delay(now)
        self._stale = 0
        self._unauthorized = 0

    def begin_attempt(self) -> int:
        """Return the epoch of an attempt that begins now; each has its own, answered or not."""
        self.epoch += 1
        return self.epoch

    def lost_again(self, now: float, reason: str) -> None:
        """Note that an attempt succeeded, but that its connection was lost, for ``reason``, before anything came."""
        self.reason = reason
        self._delay(now)

    def failed(self, error: TunnelError, now: float) -> None:
        """Note why an attempt failed. Raises what the user is to be told if that ends the session."""
        self.reason = str(error)
        if error.code == "session-gone":
            raise error
        status = error.status if isinstance(error, UpgradeRefused) else 0
        headers = dict(error.headers) if isinstance(error, UpgradeRefused) else {}
        from_bridge = "wstunnel-error" in headers
        if from_bridge and status in _GONE:
            raise ConnectionLost("session-gone", reason=error) from error
        if from_bridge and status in _REFUSED:
            raise ConnectionLost("session-refused", reason=error) from error
        self._stale = self._stale + 1 if from_bridge and status == 409 else 0
        refused = status in _CREDENTIALS or error.code in _OUR_CREDENTIALS or isinstance(error, UsageError)
        self._unauthorized = self._unauthorized + 1 if refused else 0
        if self._stale >= STALE_LIMIT:
            raise ConnectionLost("session-gone", reason=error) from error
        if self._unauthorized >= CREDENTIALS_LIMIT:
            raise ConnectionLost("session-refused", reason=error) from error
        if self._stale:
            # The right number is known now, and nothing else is wrong.
            self.epoch = max(self.epoch, _number(headers.get("wstunnel-epoch")))
            self.next_at = now
            return
        self._delay(now, retry_after(error))

    def notice(self, now: float) -> str:
        """Return what to tell the user now, once; else nothing."""
        if now < self.notice_at:
            return ""
        self.notice_at = float("inf")
        return lost_line(self.reason, self.deadline - self.began)

    def over(self, now: float) -> str:
        """Return what to tell the user when the session goes on, if they were told of the outage; else nothing."""
        return back_line(now - self.began) if self.notice_at == float("inf") else ""

    def next_look(self, *, dialling: bool) -> float:
        """Return when there is something to be done next, if no attempt ends before."""
        at = min(self.deadline, self.notice_at)
        return at if dialling else min(at, self.next_at)

    def check(self, now: float) -> None:
        """Raise ConnectionLost when the limit is over."""
        if now >= self.deadline:
            raise ConnectionLost(self._verdict, lasted=span(now - self.began), reason=self.reason)

    def slept(self, now: float) -> None:
        """Note that this machine, or this process, stood still: the network may be back, and time was lost."""
        self.deadline = max(self.deadline, now + GRACE)
        self.next_at = now
        self._failures = 0

    def _delay(self, now: float, at_least: float = 0.0) -> None:
        delay = backoff(self._failures, first=FIRST_DELAY, longest=LONGEST_DELAY, growth=GROWTH)
        self._failures += 1
        self.next_at = now + max(delay, at_least)


def retry_after(error: TunnelError) -> float:
    """Return how many seconds a server that refused wants us to wait, within reason.

    0 if it does not say so, or names a date, which is not worth parsing.
    """
    headers = dict(error.headers) if isinstance(error, UpgradeRefused) else {}
    return min(float(_number(headers.get("retry-after"))), LONGEST_RETRY_AFTER)


def _number(text: str | None) -> int:
    """Return the number in a header; 0 when there is none."""
    return parse_decimal(text or "", 18) or 0
