"""Detached sessions are bounded: in time, in number, per source, and in memory."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from tunnel.net.address import Client
from tunnel.net.channel import Channel
from tunnel.protocol.control import SessionOffer, resume_request
from tunnel.protocol.stream import ReadBuffers
from tunnel.server.access import Seats
from tunnel.server.budget import OWN_SHARE, SMALLEST_WINDOW, Budget
from tunnel.server.exchange import Refusal
from tunnel.server.resumable import ResumableSession
from tunnel.server.sessions import GRACE, UNCONFIRMED_WAIT, Sessions
from tunnel.server.settings import BridgeSettings

MIB = 1 << 20


@dataclass(eq=False)
class Waiting:
    """As much of a session as `Sessions` sees of it."""

    sessions: Sessions
    offer: SessionOffer
    source: str = "192.0.2.1"
    confirmed: bool = True
    ended: list[str] = field(default_factory=list)
    end: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def client(self) -> SimpleNamespace:
        return SimpleNamespace(source=self.source)

    def expire(self, reason: str) -> None:
        self.ended.append(reason)
        self.end.set()
        self.sessions.remove(cast(ResumableSession, self))


def detach(sessions: Sessions, source: str = "192.0.2.1", confirmed: bool = True) -> Waiting:
    offer = sessions.offer()
    assert offer is not None
    session = Waiting(sessions, offer, source, confirmed)
    sessions.add(cast(ResumableSession, session))
    sessions.detached(cast(ResumableSession, session))
    return session


def settings(**options: float) -> BridgeSettings:
    return BridgeSettings(**options)  # type: ignore[arg-type]


def test_the_oldest_goes_when_there_are_too_many() -> None:
    async def work() -> None:
        sessions = Sessions(settings(max_detached=3))
        waiting = [detach(sessions) for _ in range(5)]
        assert [bool(each.ended) for each in waiting] == [True, True, False, False, False]
        assert sessions.detached_count == 3

    asyncio.run(work())


def test_one_that_its_client_never_confirmed_goes_before_any_other() -> None:
    async def work() -> None:
        sessions = Sessions(settings(max_detached=3))
        waiting = [detach(sessions), detach(sessions, confirmed=False), detach(sessions), detach(sessions)]
        assert [bool(each.ended) for each in waiting] == [False, True, False, False]

    asyncio.run(work())


def test_one_of_the_source_that_has_most_goes_before_older_ones_of_others() -> None:
    async def work() -> None:
        sessions = Sessions(settings(max_detached=3))
        modest = detach(sessions, "192.0.2.1")
        greedy = [detach(sessions, "192.0.2.2") for _ in range(20)]
        assert not modest.ended
        assert [bool(each.ended) for each in greedy] == [True] * 18 + [False] * 2

    asyncio.run(work())


def test_a_source_may_have_a_limit_of_its_own() -> None:
    async def work() -> None:
        sessions = Sessions(settings(max_detached_per_address=1))
        first, other, second = (detach(sessions, source) for source in ("192.0.2.1", "192.0.2.2", "192.0.2.1"))
        assert first.ended and not other.ended and not second.ended

    asyncio.run(work())


def test_nobody_waits_where_none_may() -> None:
    async def work() -> None:
        sessions = Sessions(settings(max_detached=0))
        assert detach(sessions).ended
        assert sessions.detached_count == 0

    asyncio.run(work())


@pytest.mark.parametrize(("confirmed", "seconds"), [(True, 0.3), (False, 0.3)])
def test_one_that_nobody_comes_back_to_expires(confirmed: bool, seconds: float) -> None:
    async def work() -> None:
        sessions = Sessions(settings(resume_for=seconds))
        session = detach(sessions, confirmed=confirmed)
        async with asyncio.timeout(10):
            await session.end.wait()
        assert session.ended == ["nobody came back for 0.3 s"]
        assert sessions.detached_count == 0 and sessions.budget.reserved == 0

    asyncio.run(work())


def timer(sessions: Sessions, session: Waiting) -> asyncio.TimerHandle:
    return sessions._waiting[cast(ResumableSession, session)]


def test_one_that_was_never_confirmed_waits_half_a_minute_only() -> None:
    async def work() -> None:
        sessions = Sessions(settings())
        now = asyncio.get_running_loop().time()
        assert timer(sessions, detach(sessions, confirmed=False)).when() - now < UNCONFIRMED_WAIT + 1
        assert timer(sessions, detach(sessions)).when() - now > 3500

    asyncio.run(work())


def test_after_a_standstill_clients_get_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a sandbox is paused for an hour and woken: its timers all ring at once."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        sessions = Sessions(settings(resume_for=0.05))
        session = detach(sessions)
        began = loop.time()
        monkeypatch.setattr(loop, "time", lambda: began + 1000.0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not session.ended
        assert timer(sessions, session).when() == pytest.approx(began + 1000.0 + GRACE, abs=1)
        monkeypatch.undo()
        timer(sessions, session).cancel()

    asyncio.run(work())


def test_a_request_is_checked_before_anything_else_happens() -> None:
    async def work() -> None:
        sessions = Sessions(settings())
        offer = detach(sessions).offer
        good = resume_request(offer.id, offer.key, 1, 0)
        session, request = sessions.find([good.header()])
        assert session.offer is offer and request.epoch == 1
        unknown = resume_request("0" * 32, offer.key, 1, 0)
        stolen = resume_request(offer.id, "0" * 64, 1, 0)
        altered = good.header().replace("received=0", "received=1")
        for headers, status in (
            ([], 400),
            (["nonsense"], 400),
            ([good.header(), good.header()], 400),
            ([unknown.header()], 410),
            ([stolen.header()], 401),
            ([altered], 401),
        ):
            with pytest.raises(Refusal) as refusal:
                sessions.find(headers)
            assert refusal.value.status.value == status

    asyncio.run(work())


def test_without_retention_no_session_is_offered() -> None:
    assert Sessions(settings(resume_for=0)).offer() is None


# ---- memory


def test_sessions_that_nobody_confirmed_hold_no_memory_until_somebody_does() -> None:
    async def work() -> None:
        sessions = Sessions(settings(resume_memory=8))
        waiting = [detach(sessions, confirmed=False) for _ in range(200)]
        assert sessions.budget.reserved == 0 and not any(each.ended for each in waiting)
        sessions.admit(cast(ResumableSession, waiting[0]))
        assert sessions.budget.reserved == waiting[0].offer.window + OWN_SHARE
        while sessions.offer():
            pass
        with pytest.raises(Refusal) as refusal:
            sessions.admit(cast(ResumableSession, waiting[1]))
        assert refusal.value.status.value == 503 and refusal.value.code == "full"
        before = sessions.budget.reserved
        waiting[1].expire("")
        assert sessions.budget.reserved == before
        waiting[0].expire("")
        assert sessions.budget.reserved == before - waiting[0].offer.window - OWN_SHARE

    asyncio.run(work())


def test_the_first_windows_are_large_and_the_last_small_and_then_there_are_none() -> None:
    budget = Budget(64 * MIB)
    windows = []
    while window := budget.grant(16 * MIB):
        windows.append(window)
    assert windows == sorted(windows, reverse=True)
    assert windows[0] >= 8 * MIB and windows[-1] == SMALLEST_WINDOW
    assert len(windows) > 30
    assert sum(window + OWN_SHARE for window in windows) == budget.reserved <= 64 * MIB
    for window in windows:
        budget.release(window)
    assert budget.reserved == 0


def test_a_greedy_session_waits_before_the_budget_is_used_up_and_a_modest_one_does_not() -> None:
    budget = Budget(16 * MIB)
    assert budget.grant(16 * MIB)
    kept = 0
    while budget.allows(kept):
        budget.borrow(kept, kept + MIB)
        kept += MIB
        assert kept < 16 * MIB
    assert budget.allows(OWN_SHARE - 1)
    assert budget.grant(16 * MIB), "there is still room for another session"
    budget.borrow(kept, 0)
    assert budget.borrowed == 0


def test_a_client_that_finds_no_seat_leaves_the_memory_to_others() -> None:
    async def work() -> None:
        sessions = Sessions(settings())
        offer = sessions.offer()
        assert offer is not None
        (wire, far_wire), (target, far_target) = socket.socketpair(), socket.socketpair()
        seats = Seats(1, 0)
        session = ResumableSession(
            Channel(wire),
            Channel(target),
            sessions=sessions,
            offer=offer,
            client=Client("192.0.2.1:1234", "192.0.2.1"),
            seat=seats.take("192.0.2.1"),
            buffers=ReadBuffers(),
            ping_interval=20,
            ping_timeout=60,
        )
        with far_wire, far_target:
            running = asyncio.create_task(session.run())
            await asyncio.sleep(0)
            far_wire.close()  # without a word, so that the bridge cannot know whether this client knows the session
            for _ in range(1000):
                if not session.attached:
                    break
                await asyncio.sleep(0.01)
            assert not session.attached and sessions.budget.reserved == 0
            other = seats.take("192.0.2.2")
            request = resume_request(offer.id, offer.key, 1, 0)
            near, far = socket.socketpair()
            with near, far, pytest.raises(Refusal, match="--max-tunnels"):
                session.take_over(
                    request, Channel(near), session.client, lambda seat: seats.take("192.0.2.1", seat), lambda _: b""
                )
            assert sessions.budget.reserved == 0 and seats.taken == 1
            other.free()
            session.expire("this test is over")
            await running
        assert sessions.budget.reserved == 0 and seats.taken == 0

    asyncio.run(work())
