"""The resumable sessions of a bridge: which there are, who may come back to them, and how long they wait.

Detached sessions are bounded in time, in number, and per source. When there are too many, those go first that their
clients never confirmed, then those of the source that has most, then the oldest.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.protocol.control import ResumeRequest, SessionOffer, parse_resume, proof
from tunnel.protocol.errors import RemoteProtocolError
from tunnel.protocol.resume import WINDOW
from tunnel.server.access import RETRY_AFTER
from tunnel.server.budget import Budget
from tunnel.server.exchange import Refusal

if TYPE_CHECKING:
    from tunnel.server.resumable import ResumableSession
    from tunnel.server.settings import BridgeSettings

UNCONFIRMED_WAIT = 30.0  # seconds that a session waits whose client may never have heard of it
JUMP = 5.0  # seconds by which a timer that rings late shows that this process, or its machine, stood still …
GRACE = 60.0  # … and seconds that clients get then, as they could not come before


class Sessions:
    """All resumable sessions of a bridge, attached and detached."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._retain = settings.resume_for
        self._limit = settings.max_detached
        self._limit_per_source = settings.max_detached_per_address
        self.budget = Budget(settings.resume_memory << 20)
        self._by_id: dict[str, ResumableSession] = {}
        self._waiting: dict[ResumableSession, asyncio.TimerHandle] = {}  # detached ones, the oldest first
        self._without_memory: set[ResumableSession] = set()  # detached ones whose memory is not reserved
        self._by_source: Counter[str | None] = Counter()
        self._last_number = 0

    @property
    def detached_count(self) -> int:
        return len(self._waiting)

    def offer(self) -> SessionOffer | None:
        """Return an offer for a new session, with its memory reserved; None where a plain tunnel must do.

        What becomes of it must be told by `add` or `withdraw`.
        """
        if not self._retain:
            return None
        window = self.budget.grant(WINDOW)
        if not window:
            return None
        return SessionOffer(secrets.token_hex(16), secrets.token_hex(32), window, max(1, int(self._retain)))

    def withdraw(self, offer: SessionOffer) -> None:
        """Give back what an offer has reserved that was never made."""
        self.budget.release(offer.window)

    def next_number(self) -> int:
        """Return a number that stands for a session in the log."""
        self._last_number += 1
        return self._last_number

    def add(self, session: ResumableSession) -> None:
        """Let a new session be found from now on."""
        self._by_id[session.offer.id] = session

    def remove(self, session: ResumableSession) -> None:
        """Forget a session that is over, if that has not been done."""
        if self._by_id.pop(session.offer.id, None) is None:
            return
        if session in self._without_memory:
            self._without_memory.remove(session)
        else:
            self.budget.release(session.offer.window)
        if session in self._waiting:
            self.reattached(session)

    def find(self, headers: list[str]) -> tuple[ResumableSession, ResumeRequest]:
        """Return the session that a request's ``Wstunnel-Resume`` fields ask for, and what they say.

        Raises Refusal for a malformed request (400), an unknown session (410) and a proof that is wrong (401).
        """
        try:
            request = parse_resume(headers[0] if len(headers) == 1 else "")
        except RemoteProtocolError as exc:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-resume", str(exc)) from exc
        session = self._by_id.get(request.id)
        if session is None:
            raise Refusal(
                HTTPStatus.GONE, "unknown-session", "the bridge was restarted, or the session has expired there"
            )
        expected = proof(request.id, session.offer.key, request.epoch, request.received)
        if not hmac.compare_digest(expected, request.proof):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "bad-proof", "the proof for this session is wrong")
        return session, request

    def detached(self, session: ResumableSession) -> None:
        """Let a session wait that has lost its client, and end others if that makes too many."""
        seconds = self._retain
        if not session.confirmed:
            # Clients that hang up in the handshake must not make everybody's tunnel a plain one.
            seconds = min(seconds, UNCONFIRMED_WAIT)
            self.budget.release(session.offer.window)
            self._without_memory.add(session)
        self._wait(session, seconds, f"nobody came back for {seconds:g} s")
        self._by_source[session.client.source] += 1
        source = session.client.source
        if source is not None and 0 < self._limit_per_source < self._by_source[source]:
            self._evict([each for each in self._waiting if each.client.source == source])
        if len(self._waiting) > self._limit:
            self._evict(list(self._waiting))

    def admit(self, session: ResumableSession) -> None:
        """Reserve again what `detached` has given back, if it has; raises Refusal (503) when that is not possible."""
        if session in self._without_memory:
            if not self.budget.take(session.offer.window):
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "full",
                    "there is no memory for this session for now (--resume-memory)",
                    {"Retry-After": str(RETRY_AFTER)},
                )
            self._without_memory.remove(session)

    def reattached(self, session: ResumableSession) -> None:
        """Note that a client has come back to a session, or that it is over."""
        self._waiting.pop(session).cancel()
        source = session.client.source
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    def _wait(self, session: ResumableSession, seconds: float, reason: str) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds

        def ring() -> None:
            if loop.time() - due > JUMP:
                self._wait(session, GRACE, reason)
            else:
                session.expire(reason)

        self._waiting[session] = loop.call_later(seconds, ring)

    def _evict(self, candidates: list[ResumableSession]) -> None:
        unconfirmed = [each for each in candidates if not each.confirmed]
        if unconfirmed:
            victim = unconfirmed[0]
        else:
            most = max(self._by_source[each.client.source] for each in candidates)
            victim = next(each for each in candidates if self._by_source[each.client.source] == most)
        victim.expire("evicted: too many detached sessions")
