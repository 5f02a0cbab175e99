"""One outage of a session: when to dial again, and when to give up. Sans-I/O, with the clock passed in.

    answer to a resume                          what the client does
    400, 401, 403, 410 from the bridge itself   ends the session
    409 from the bridge (a stale epoch)         retries with a higher epoch; ends after 8 in a row
    101 from another server (seen in its
      headers or its first message)             ends the session, as for 410
    401, 403, 407 from an edge or a proxy       reads the credentials again and retries; ends after 3 in a row
    our client certificate is refused           the same
    any other status, DNS, TCP or TLS failure   retries with growing delays, and not before Retry-After

A refusal from the bridge itself has the header ``Wstunnel-Error``. At the latest, the session ends when the limit is
over.
"""

from __future__ import annotations

from tunnel.errors import ConnectionLost, ProviderError, UpgradeRefused, UsageError
from tunnel.net.backoff import backoff, jitter
from tunnel.protocol.numbers import parse_decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.errors import TunnelError

FIRST_DELAY, LONGEST_DELAY = 0.25, 10.0  # seconds between two attempts; each is jittered down to half
GROWTH = 1.5  # factor from one delay to the next; the next attempt is never later than half the outage so far
NOTICE_AFTER = 10.0  # seconds of an outage before the user is notified
LONGEST_RETRY_AFTER = 60.0  # seconds; a longer Retry-After counts as this
GRACE = 60.0  # seconds that are left at least after this machine was suspended
STALE_LIMIT, CREDENTIALS_LIMIT = 8, 3
FIRST_LOOK, LONGEST_LOOK = 5.0, 60.0  # seconds between two checks whether a sandbox is still paused
FRUITLESS = 4  # connections lost in a row without progress, after which the delays grow
_GONE, _REFUSED = (400, 410), (401, 403)  # from the bridge itself
_CREDENTIALS = (401, 403, 407)  # from an edge or a proxy
_OUR_CREDENTIALS = ("proxy-auth", "tls-client-cert", "tls-refused")


# ---- notices about an outage, the same for tunnels and terminals


def span(seconds: float) -> str:
    """Return a duration as text, in a suitable unit: 31 s, 10 min, 24 h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{round(seconds, 1):g} s"


def lost_line(error: object, limit: float) -> str:
    """Return the notice for an outage that lasts, with its last ``error`` and its ``limit`` in seconds."""
    reason = error.fields["reason"] if isinstance(error, ConnectionLost) and error.code == "lost" else error
    return f"connection lost, trying again for {span(limit)} ({reason})"


def back_line(seconds: float) -> str:
    """Return the notice for the end, after ``seconds``, of an outage that a `lost_line` has announced."""
    return f"connected again after {span(seconds)}"


class Outage:
    """The time from the loss of a connection, at ``now``, for ``reason``, until the session continues or is given up.

    It may last ``limit`` seconds; ``verdict`` is the code of the error after that. ``epoch`` is the number of the
    latest attempt, in this or an earlier outage. ``fruitless`` is how many connections in a row were lost before
    anything sent on them had arrived.
    """

    def __init__(
        self, now: float, limit: float, reason: str, epoch: int, fruitless: int = 0, verdict: str = "given-up"
    ) -> None:
        self.began = now
        self.notice_at = now + NOTICE_AFTER  # when to notify the user; infinite once that is done
        self._was_told = False
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
        self._asleep_since: float | None = None
        self._looks = 0  # how often a paused sandbox was checked

    def begin_attempt(self) -> int:
        """Return the epoch of an attempt that begins now; no two attempts have the same."""
        self.epoch += 1
        return self.epoch

    def lost_again(self, now: float, reason: str) -> None:
        """Note that an attempt succeeded, but its connection was lost, for ``reason``, before anything was received."""
        self.reason = reason
        self._delay(now)

    def failed(self, error: TunnelError, now: float) -> None:
        """Note why an attempt failed. Raises TunnelError if that ends the session."""
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
            # The right epoch is known now, and nothing else is wrong.
            self.epoch = max(self.epoch, _number(headers.get("wstunnel-epoch")))
            self.next_at = now
            return
        self._delay(now, retry_after(error))

    def notice(self, now: float) -> str:
        """Return the notice that is due now, once; else ""."""
        if now < self.notice_at:
            return ""
        self.notice_at, self._was_told = float("inf"), True
        return lost_line(self.reason, self.deadline - self.began)

    def over(self, now: float) -> str:
        """Return the notice for the end of the outage if the user was notified of it; else ""."""
        return back_line(now - self.began) if self._was_told else ""

    def next_look(self, *, dialling: bool) -> float:
        """Return when there is something to do next, unless an attempt ends earlier."""
        at = self.notice_at if self.is_asleep else min(self.deadline, self.notice_at)
        return at if dialling else min(at, self.next_at)

    def check(self, now: float) -> None:
        """Raise ConnectionLost when the limit is over."""
        if now >= self.deadline and not self.is_asleep:
            raise ConnectionLost(self._verdict, lasted=span(now - self.began), reason=self.reason)

    def slept(self, now: float) -> None:
        """Note that this machine or process was suspended: the network may be back, and time was lost."""
        self.deadline = max(self.deadline, now + GRACE)
        self.next_at = now
        self._failures = 0

    # ---- a paused sandbox: the limit does not run

    @property
    def is_asleep(self) -> bool:
        """Whether the sandbox is paused, as far as is known."""
        return self._asleep_since is not None

    def asleep(self, now: float) -> bool:
        """Note that the sandbox is paused; return whether that is new. The user is notified of it at once."""
        is_news = self._asleep_since is None
        if self._asleep_since is None:
            self._asleep_since, self._looks = now, 0
        delay = backoff(self._looks, first=FIRST_LOOK, longest=LONGEST_LOOK, growth=GROWTH)
        self._looks += 1
        self.next_at = now + delay
        self.notice_at, self._was_told = float("inf"), True
        return is_news

    def awake(self, now: float) -> None:
        """Note that the sandbox is not paused, or is being woken: the time that it was paused does not count."""
        if self._asleep_since is not None:
            self.deadline += now - self._asleep_since
            self._asleep_since = None
            self._failures = 0
            self.next_at = now
            self.notice_at = now + NOTICE_AFTER  # in case that it does not wake

    def _delay(self, now: float, at_least: float = 0.0) -> None:
        delay = backoff(self._failures, first=FIRST_DELAY, longest=LONGEST_DELAY, growth=GROWTH)
        self._failures += 1
        self.next_at = now + max(delay, at_least)


def retry_after(error: TunnelError) -> float:
    """Return the seconds of a refusal's Retry-After header, bounded; 0 without one, or if it has a date."""
    headers = dict(error.headers) if isinstance(error, UpgradeRefused | ProviderError) else {}
    return min(float(_number(headers.get("retry-after"))), LONGEST_RETRY_AFTER)


def _number(text: str | None) -> int:
    """Return the number in a header; 0 if there is none."""
    return parse_decimal(text or "", 18) or 0
