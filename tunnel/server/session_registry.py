"""The resumable sessions of a bridge: which there are, who may come back to them, and how long they wait.

Detached sessions are bounded in time, in number and in memory, the latter two by share (`tunnel.server.shares`): when
there are too many, one of the source that has most goes, first one that its client never confirmed, then the oldest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.errors import RemoteProtocolError, spelled
from tunnel.protocol.control import ResumeRequest, SessionOffer, parse_resume, proof
from tunnel.server.budget import ATTACHED, UNCONFIRMED, Budget, attached_weight
from tunnel.server.http import Refusal, busy
from tunnel.server.shares import Shares

if TYPE_CHECKING:
    from tunnel.server.resumable import ResumableLifecycle
    from tunnel.server.settings import BridgeSettings
    from tunnel.server.shares import Place, Source

UNCONFIRMED_WAIT = 30.0  # seconds that a session waits whose client may never have heard of it
JUMP = 5.0  # seconds by which a timer that rings late shows that this process, or its machine, stood still …
GRACE = 60.0  # … and seconds that clients get then, as they could not come before


class SessionRegistry:
    """All resumable sessions of a bridge, attached and detached."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._retain = settings.resume_for
        self.budget = Budget(settings.resume_memory << 20)
        self.waiting = Shares(settings.max_detached)  # places of detached sessions
        self._by_id: dict[str, ResumableLifecycle] = {}
        self._memory: dict[ResumableLifecycle, Place] = {}
        self._waiting: dict[ResumableLifecycle, tuple[Place, asyncio.TimerHandle]] = {}
        self._last_number = 0

    def __len__(self) -> int:
        """Return the number of sessions, attached and detached."""
        return len(self._by_id)

    @property
    def detached_count(self) -> int:
        return len(self._waiting)

    def offer(self, source: Source) -> SessionOffer | None:
        """Return an offer for a new session, for which there is memory; None where a plain tunnel must do.

        The session must be made and added (`add`) at once: the memory is not reserved until then.
        """
        if not self._retain:
            return None
        window = self.budget.window()
        # Sessions of the same source that wait for their clients are not ended so that another tunnel can be resumed.
        if not self.budget.shares.make_room(source, attached_weight(window, 0), protected=UNCONFIRMED + 1):
            return None
        return SessionOffer(secrets.token_hex(16), secrets.token_hex(32), window, max(1, int(self._retain)))

    def next_number(self) -> int:
        """Return a number that stands for a session in the log."""
        self._last_number += 1
        return self._last_number

    def add(self, session: ResumableLifecycle) -> None:
        """Let a new session be found from now on, and reserve its memory."""
        self._by_id[session.offer.id] = session
        self._reserve(session, attached_weight(session.offer.window, 0))

    def _reserve(self, session: ResumableLifecycle, weight: int) -> None:
        self._memory[session] = self.budget.shares.overdraw(
            session.client.source, session.give_memory_way, standing=session.memory_standing, weight=weight
        )

    def remove(self, session: ResumableLifecycle) -> None:
        """Forget a session that is over, if that has not been done."""
        if self._by_id.pop(session.offer.id, None) is not None:
            self._memory.pop(session).leave()
            self._stop_waiting(session)

    def count_memory(self, session: ResumableLifecycle, kept: int) -> None:
        """Note that the replay buffer of a session takes ``kept`` bytes now."""
        place = self._memory.get(session)
        if place is None:
            return
        weight = attached_weight(session.offer.window, kept) if session.attached else kept
        if not place.is_held:  # it had to give way while its client was connected, and keeps what it must not lose
            self._reserve(session, weight)
        elif weight != place.weight:
            place.change(weight)

    def find(self, headers: list[str]) -> tuple[ResumableLifecycle, ResumeRequest]:
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
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "bad-proof", "the proof for this session is wrong", slowly=True
            )  # fmt: skip
        return session, request

    def detached(self, session: ResumableLifecycle, kept: int) -> None:
        """Let a session wait that has lost its client, with ``kept`` bytes; ends others if that makes too many."""
        if session.offer.id not in self._by_id:
            return
        self.count_memory(session, kept)
        place = self.waiting.enter(
            session.client.source,
            lambda: session.expire("evicted: too many detached sessions"),
            standing=lambda: int(session.confirmed),
        )
        if place is None:
            session.expire(f"no detached session may wait ({spelled('max_detached')})")
            return
        # Clients that hang up in the handshake come back soon, or never.
        seconds = self._retain if session.confirmed else min(self._retain, UNCONFIRMED_WAIT)
        self._wait(session, place, seconds, f"nobody came back for {seconds:g} s")

    @contextlib.contextmanager
    def coming_back(self, session: ResumableLifecycle) -> Iterator[None]:
        """Keep the place of a session that waits from being taken while others give way to the client that comes back.

        Whoever loses its seat or its connection to that client waits from then on, and may have to make room for that.
        """
        place = self._waiting[session][0] if session in self._waiting else None
        if place is None:
            yield
            return
        place.change(0)  # it is about to leave, so it counts no more
        try:
            yield
        finally:
            place.change(1)

    def check_memory(self, session: ResumableLifecycle, source: Source, kept: int) -> None:
        """Make room for the window of a session that a client from ``source`` comes back to.

        Other sessions that wait end for that. Raises Refusal (503) when it is not possible.
        """
        place = self._memory[session]
        more = attached_weight(session.offer.window, kept) - place.weight
        if more > 0 and not self.budget.shares.make_room(source, more, spared=place, protected=ATTACHED):
            raise busy("full", f"there is no memory for this session for now ({spelled('resume_memory')})")

    def attached(self, session: ResumableLifecycle, kept: int) -> None:
        """Note that a client has come back to a session, for which there is memory, or took it over."""
        self._stop_waiting(session)
        self._memory[session].move(session.client.source)
        self.count_memory(session, kept)

    def _stop_waiting(self, session: ResumableLifecycle) -> None:
        if session in self._waiting:
            place, timer = self._waiting.pop(session)
            place.leave()
            timer.cancel()

    def _wait(self, session: ResumableLifecycle, place: Place, seconds: float, reason: str) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds

        def ring() -> None:
            if loop.time() - due > JUMP:
                self._wait(session, place, GRACE, reason)
            else:
                session.expire(reason)

        self._waiting[session] = place, loop.call_later(seconds, ring)
