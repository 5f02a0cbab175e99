"""The sessions of a bridge: which exist, which clients may resume them, and how long they stay detached.

Detached sessions are limited in time, number and memory. The limits of number and memory are fair shares
(`tunnel.server.shares`): at the limit, the source with the most loses one, first a session that its client never
confirmed, then the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tunnel.errors import RemoteProtocolError, spelled
from tunnel.protocol.control import ResumeRequest, SessionOffer, parse_resume, proof
from tunnel.server.budget import UNCONFIRMED, Budget, attached_weight
from tunnel.server.http import Refusal, busy
from tunnel.server.shares import Shares

if TYPE_CHECKING:
    from tunnel.server.resumable import ResumableLifecycle
    from tunnel.server.settings import BridgeSettings
    from tunnel.server.shares import Place, Source

UNCONFIRMED_WAIT = 30.0  # seconds that a detached session waits if its client may not know of it
JUMP = 5.0  # seconds; a timer that is this late shows that this process, or its machine, was suspended …
GRACE = 60.0  # … and seconds that clients then get to reconnect, as they could not do so before
LEAST_WAIT = 10.0  # seconds at least after a restart, during which clients could not connect


class SessionRegistry:
    """All sessions of a bridge, attached and detached."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._retain = settings.resume_for
        self.budget = Budget(settings.resume_memory << 20)
        self.waiting = Shares(settings.max_detached)  # slots of detached sessions
        self._by_id: dict[str, ResumableLifecycle] = {}
        self._memory: dict[ResumableLifecycle, Place] = {}
        self._waiting: dict[ResumableLifecycle, tuple[Place, asyncio.TimerHandle, str]] = {}
        self._expected: dict[ResumableLifecycle, asyncio.TimerHandle] = {}
        self.last_number = 0

    def __len__(self) -> int:
        """Return the number of sessions, attached and detached."""
        return len(self._by_id)

    @property
    def detached_count(self) -> int:
        return len(self._waiting)

    def offer(self, source: Source) -> SessionOffer | None:
        """Return an offer for a new session if there is memory for it; None for a plain tunnel.

        Create the session and `add` it at once: the memory is not reserved until then.
        """
        if not self._retain:
            return None
        window = self.budget.window()
        # Detached sessions of the same source are not evicted for a new session.
        if not self.budget.shares.make_room(source, attached_weight(window, 0), protected=UNCONFIRMED + 1):
            return None
        return SessionOffer(secrets.token_hex(16), secrets.token_hex(32), window, max(1, int(self._retain)))

    def next_number(self) -> int:
        """Return a number that identifies a session in the log."""
        self.last_number += 1
        return self.last_number

    def add(self, session: ResumableLifecycle) -> None:
        """Add a new session, and reserve its memory."""
        self._by_id[session.offer.id] = session
        self._reserve(session, attached_weight(session.offer.window, 0))

    def _reserve(self, session: ResumableLifecycle, weight: int) -> None:
        self._memory[session] = self.budget.shares.overdraw(
            session.client.source, session.give_memory_way, standing=session.memory_standing, weight=weight
        )

    def remove(self, session: ResumableLifecycle) -> None:
        """Remove a session that is over; may be called twice."""
        if self._by_id.pop(session.offer.id, None) is not None:
            self._memory.pop(session).leave()
            self._stop_waiting(session)

    def count_memory(self, session: ResumableLifecycle, kept: int) -> None:
        """Note that the replay buffer of a session has ``kept`` bytes now."""
        place = self._memory.get(session)
        if place is None:
            return
        is_attached = session.attached or self.expects(session)
        weight = attached_weight(session.offer.window, kept) if is_attached else kept
        if not place.is_held:  # it was evicted while attached, and keeps only what must not be lost
            self._reserve(session, weight)
        elif weight != place.weight:
            place.change(weight)

    def find(self, headers: list[str]) -> tuple[ResumableLifecycle, ResumeRequest]:
        """Return the session for a request's ``Wstunnel-Resume`` fields, and the parsed request.

        Raises Refusal for a malformed request (400), an unknown session (410) or a wrong proof (401).
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
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "bad-proof", "the proof for this session is wrong", slowly=True
            )  # fmt: skip
        return session, request

    def detached(self, session: ResumableLifecycle, kept: int) -> None:
        """Begin the wait of a session that has lost its client, with ``kept`` bytes; evicts others at the limit."""
        if session.offer.id not in self._by_id:
            return
        self._stop_waiting(session)
        self.count_memory(session, kept)
        if not self.waiting.make_room(session.client.source, 1):
            session.expire(f"no detached sessions are allowed ({spelled('max_detached')})")
            return
        # Clients that disconnect during the handshake reconnect soon, or never.
        seconds = self._retain if session.confirmed else min(self._retain, UNCONFIRMED_WAIT)
        self._wait(session, self._wait_place(session), seconds, f"no client reconnected for {seconds:g} s")

    def _wait_place(self, session: ResumableLifecycle) -> Place:
        return self.waiting.overdraw(
            session.client.source,
            lambda: session.expire("evicted: too many detached sessions"),
            standing=lambda: int(session.confirmed),
            weight=1,
        )

    @contextlib.contextmanager
    def coming_back(self, session: ResumableLifecycle) -> Iterator[None]:
        """Protect a detached session while others are evicted for the client that resumes it.

        A session that loses its slot to that client becomes detached, which may need the slot of another one.
        """
        place = self._waiting[session][0] if session in self._waiting else None
        if place is None:
            yield
            return
        place.change(0)  # it is about to leave, so it does not count any more
        try:
            yield
        finally:
            place.change(1)

    def check_memory(self, session: ResumableLifecycle, source: Source, kept: int) -> None:
        """Make room for the window of a session that a client from ``source`` resumes.

        This may evict other detached sessions. Raises Refusal (503) if it is not possible.
        """
        place = self._memory[session]
        more = attached_weight(session.offer.window, kept) - place.weight
        if more > 0 and not self.budget.shares.make_room(source, more, spared=place):
            raise busy("full", f"there is no memory for this session now ({spelled('resume_memory')})")

    def attached(self, session: ResumableLifecycle, kept: int) -> None:
        """Note that a client has resumed a session, for which there is memory."""
        self._stop_waiting(session)
        self._memory[session].move(session.client.source)
        self.count_memory(session, kept)

    def _stop_waiting(self, session: ResumableLifecycle) -> None:
        if session in self._waiting:
            place, timer, _ = self._waiting.pop(session)
            place.leave()
            timer.cancel()
        if session in self._expected:
            self._expected.pop(session).cancel()

    def _wait(self, session: ResumableLifecycle, place: Place, seconds: float, reason: str) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds

        def ring() -> None:
            if loop.time() - due > JUMP:
                self._wait(session, place, GRACE, reason)
            else:
                session.expire(reason)

        self._waiting[session] = place, loop.call_later(seconds, ring), reason

    # ---- restarts of the bridge

    def expects(self, session: ResumableLifecycle) -> bool:
        """Return whether a restart of the bridge has cut off the session's client, which should reconnect at once.

        Until then, for at most `GRACE` seconds, it counts like an attached session.
        """
        return session in self._expected

    @property
    def expects_any(self) -> bool:
        return bool(self._expected)

    def capture_wait(self, session: ResumableLifecycle) -> list[float | str] | None:
        """Return until when a detached session waits, and why it ends then; None for an attached or resuming one."""
        if session not in self._waiting:
            return None
        _, timer, reason = self._waiting[session]
        return [timer.when(), reason]

    def restore_wait(self, session: ResumableLifecycle, wait: list[Any] | None, kept: int) -> None:
        """Continue the wait captured by `capture_wait`, of a session with ``kept`` bytes. Evicts nothing."""
        loop = asyncio.get_running_loop()
        if wait is None:
            self._expected[session] = loop.call_later(GRACE, session.given_up)
        else:
            due, reason = wait
            place = self._wait_place(session)
            self._wait(session, place, max(due - loop.time(), LEAST_WAIT), reason)
        self.count_memory(session, kept)
