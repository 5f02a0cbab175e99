"""Detached sessions are bounded: in time, in number, per source, and in memory."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from types import SimpleNamespace
from typing import cast

import pytest

from tunnel.net.address import Client
from tunnel.net.channel import Channel
from tunnel.protocol.control import SessionOffer, resume_request
from tunnel.protocol.keepalive import STALL_LIMIT
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.server.budget import DETACHED, OWN_SHARE, SMALLEST_WINDOW, UNCONFIRMED, Budget, attached_weight
from tunnel.server.busy import BusyQueue
from tunnel.server.http import Refusal
from tunnel.server.relay import Relay
from tunnel.server.resumable import ResumableLifecycle
from tunnel.server.session_registry import GRACE, UNCONFIRMED_WAIT, SessionRegistry
from tunnel.server.settings import BridgeSettings
from tunnel.server.shares import Place, Shares

MIB = 1 << 20


@dataclass(eq=False)
class Waiting:
    """As much of a session as `SessionRegistry` sees of it."""

    sessions: SessionRegistry
    offer: SessionOffer
    source: str = "192.0.2.1"
    confirmed: bool = True
    attached: bool = True
    ended: list[str] = field(default_factory=list)
    end: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def client(self) -> SimpleNamespace:
        return SimpleNamespace(source=self.source)

    def memory_standing(self) -> int:
        return DETACHED if self.confirmed else UNCONFIRMED

    def give_memory_way(self) -> None:
        self.expire("no memory")

    def given_up(self) -> None:
        self.sessions.detached(cast(ResumableLifecycle, self), 0)

    def expire(self, reason: str) -> None:
        self.ended.append(reason)
        self.end.set()
        self.sessions.remove(cast(ResumableLifecycle, self))


def detach(sessions: SessionRegistry, source: str = "192.0.2.1", confirmed: bool = True, kept: int = 0) -> Waiting:
    """Make a session and let it wait, with ``kept`` bytes to be sent again."""
    offer = sessions.offer(source)
    assert offer is not None
    session = Waiting(sessions, offer, source, confirmed)
    sessions.add(cast(ResumableLifecycle, session))
    session.attached = False
    sessions.detached(cast(ResumableLifecycle, session), kept)
    return session


def memory(sessions: SessionRegistry) -> int:
    return sessions.budget.shares.taken


def settings(**options: float) -> BridgeSettings:
    return BridgeSettings(**options)  # type: ignore[arg-type]


def test_the_oldest_goes_when_there_are_too_many() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=3))
        waiting = [detach(sessions) for _ in range(5)]
        assert [bool(each.ended) for each in waiting] == [True, True, False, False, False]
        assert sessions.detached_count == 3

    asyncio.run(work())


def test_one_that_its_client_never_confirmed_goes_before_others_of_the_same_source() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=3))
        waiting = [detach(sessions), detach(sessions, confirmed=False), detach(sessions), detach(sessions)]
        assert [bool(each.ended) for each in waiting] == [False, True, False, False]

    asyncio.run(work())


def test_one_of_the_source_that_has_most_goes_before_older_ones_of_others() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=3))
        modest = detach(sessions, "192.0.2.1")
        greedy = [detach(sessions, "192.0.2.2") for _ in range(20)]
        assert not modest.ended
        assert [bool(each.ended) for each in greedy] == [True] * 18 + [False] * 2

    asyncio.run(work())


def test_with_max_detached_0_a_session_ends_with_its_connection() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=0))
        assert detach(sessions).ended
        assert sessions.detached_count == 0

    asyncio.run(work())


@pytest.mark.parametrize(("confirmed", "seconds"), [(True, 0.3), (False, 0.3)])
def test_a_detached_session_expires(confirmed: bool, seconds: float) -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_for=seconds))
        session = detach(sessions, confirmed=confirmed)
        async with asyncio.timeout(10):
            await session.end.wait()
        assert session.ended == ["no client reconnected for 0.3 s"]
        assert sessions.detached_count == len(sessions) == memory(sessions) == 0

    asyncio.run(work())


def timer(sessions: SessionRegistry, session: Waiting) -> asyncio.TimerHandle:
    return sessions._waiting[cast(ResumableLifecycle, session)][1]


def test_an_unconfirmed_session_waits_only_half_a_minute() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        now = asyncio.get_running_loop().time()
        assert timer(sessions, detach(sessions, confirmed=False)).when() - now < UNCONFIRMED_WAIT + 1
        assert timer(sessions, detach(sessions)).when() - now > 3500

    asyncio.run(work())


def test_after_a_standstill_clients_get_time_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a sandbox is paused for an hour and woken: its timers all ring at once."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        sessions = SessionRegistry(settings(resume_for=0.05))
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


def restored(old: SessionRegistry, session: Waiting, new: SessionRegistry, kept: int = 0) -> Waiting:
    """Let a session of ``old`` go on in ``new``, as a restart of the bridge does."""
    again = Waiting(new, session.offer, session.source, session.confirmed, attached=False)
    new.add(cast(ResumableLifecycle, again))
    new.restore_wait(cast(ResumableLifecycle, again), old.capture_wait(cast(ResumableLifecycle, session)), kept)
    return again


def test_a_session_that_waits_when_the_bridge_restarts_waits_no_longer_for_that() -> None:
    async def work() -> None:
        old, new = SessionRegistry(settings(max_detached=2)), SessionRegistry(settings(max_detached=2))
        sessions = [detach(old), detach(old, confirmed=False)]
        again = [restored(old, session, new, 1000) for session in sessions]
        for before, after in zip(sessions, again, strict=True):
            assert timer(new, after).when() == pytest.approx(timer(old, before).when(), abs=0.1)
        assert (new.detached_count, memory(new)) == (2, 2000)
        timer(new, again[1])._run()
        assert again[1].ended == [f"no client reconnected for {UNCONFIRMED_WAIT:g} s"]

    asyncio.run(work())


def test_a_session_that_a_restart_has_cut_off_is_expected_with_all_that_it_held() -> None:
    async def work() -> None:
        old, new = SessionRegistry(settings(max_detached=0)), SessionRegistry(settings(max_detached=0))
        offer = old.offer("192.0.2.1")
        assert offer is not None
        session = Waiting(old, offer)
        old.add(cast(ResumableLifecycle, session))
        again = restored(old, session, new)
        assert new.expects(cast(ResumableLifecycle, again)) and not again.ended
        assert (new.detached_count, memory(new)) == (0, memory(old))
        # Nobody came back: it waits as any other, and here none may.
        grace = new._expected[cast(ResumableLifecycle, again)]
        assert grace.when() - asyncio.get_running_loop().time() == pytest.approx(GRACE, abs=1)
        again.given_up()
        assert again.ended == ["no detached sessions are allowed (max_detached)"]
        assert len(new) == memory(new) == 0 and not new.expects_any and grace.cancelled()

    asyncio.run(work())


def test_a_request_is_checked_before_anything_else_happens() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
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
    assert SessionRegistry(settings(resume_for=0)).offer(None) is None


# ---- memory


def test_sessions_that_wait_hold_only_what_they_keep() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=8))
        waiting = [detach(sessions, kept=1000) for _ in range(500)]
        assert not any(each.ended for each in waiting)
        assert memory(sessions) == 500 * 1000
        for each in waiting:
            each.expire("")
        assert memory(sessions) == 0

    asyncio.run(work())


def test_the_window_is_reserved_again_and_others_that_wait_end_for_it() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=8))
        waiting = [detach(sessions, kept=1 * MIB) for _ in range(6)]
        back = cast(ResumableLifecycle, waiting[3])
        sessions.check_memory(back, "192.0.2.1", 1 * MIB)
        assert not any(each.ended for each in waiting), "there was room"
        waiting[3].attached = True
        sessions.attached(back, 1 * MIB)
        assert memory(sessions) == 5 * MIB + attached_weight(back.offer.window, 1 * MIB)
        shares = sessions.budget.shares
        shares.overdraw("192.0.2.9", lambda: None, standing=lambda: 2, weight=shares.limit - shares.taken)
        other = cast(ResumableLifecycle, waiting[4])
        sessions.check_memory(other, "192.0.2.1", 1 * MIB)
        assert [bool(each.ended) for each in waiting] == [True, False, False, False, False, False]

    asyncio.run(work())


def test_without_memory_to_evict_a_client_is_told_to_retry_later() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=8))
        session = cast(ResumableLifecycle, detach(sessions, kept=1000))
        sessions.budget.shares.overdraw("192.0.2.1", lambda: None, standing=lambda: 2, weight=8 * MIB - 1000)
        with pytest.raises(Refusal) as refusal:
            sessions.check_memory(session, "192.0.2.1", 1000)
        assert refusal.value.status.value == 503 and refusal.value.code == "full"
        assert refusal.value.headers["Retry-After"]

    asyncio.run(work())


def test_for_a_new_tunnel_no_session_of_the_same_source_ends_but_an_unconfirmed_one() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=2))
        waiting = [detach(sessions, confirmed=n > 0, kept=512 * 1024) for n in range(4)]
        assert sessions.offer("192.0.2.1") is not None
        assert [bool(each.ended) for each in waiting] == [True, False, False, False]
        sessions.budget.shares.overdraw("192.0.2.1", lambda: None, standing=lambda: 2, weight=512 * 1024)
        assert sessions.offer("192.0.2.1") is None
        assert sessions.offer("192.0.2.2") is not None
        assert [bool(each.ended) for each in waiting] == [True, True, False, False]

    asyncio.run(work())


def test_the_first_windows_are_large_and_the_last_small_and_then_there_are_none() -> None:
    budget = Budget(64 * MIB)
    windows: list[int] = []
    places: list[Place] = []
    while True:
        window = budget.window()
        place = budget.shares.enter(None, lambda: None, standing=lambda: 2, weight=attached_weight(window, 0))
        if place is None:
            break
        windows.append(window)
        places.append(place)
    assert windows == sorted(windows, reverse=True)
    assert windows[0] >= 8 * MIB and windows[-1] == SMALLEST_WINDOW
    assert len(windows) > 30
    assert sum(window + OWN_SHARE for window in windows) == budget.shares.taken <= 64 * MIB
    for place in places:
        place.leave()
    assert budget.shares.taken == 0


def test_a_greedy_session_waits_before_the_budget_is_used_up_and_a_modest_one_does_not() -> None:
    budget = Budget(16 * MIB)
    window = budget.window()
    greedy = budget.shares.enter(None, lambda: None, standing=lambda: 2, weight=attached_weight(window, 0))
    assert greedy is not None
    kept = 0
    while budget.allows(kept):
        kept += MIB
        greedy.change(attached_weight(window, kept))
        assert kept < 16 * MIB
    assert budget.allows(OWN_SHARE - 1)
    weight = attached_weight(budget.window(), 0)
    assert budget.shares.enter(None, lambda: None, standing=lambda: 2, weight=weight), "there is room for another"
    greedy.change(attached_weight(window, 0))
    assert budget.allows(kept)


@dataclass
class Attempt:
    """A detached session, and a client that resumes it over a new connection."""

    sessions: SessionRegistry
    seats: Shares
    session: ResumableLifecycle
    wire: Channel

    def take_over(self, *, epoch: int = 1, answer: bytes | Exception = b"HTTP/1.1 101 ") -> None:
        def make(received: int) -> bytes:
            if isinstance(answer, Exception):
                raise answer
            return answer

        def seat(session: ResumableLifecycle) -> Place:
            found = self.seats.enter("192.0.2.1", session.give_way, standing=session.standing)
            if found is None:
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "full", "no seat")
            return found

        request = resume_request(self.session.offer.id, self.session.offer.key, epoch, 0)
        self.session.take_over(request, self.wire, self.session.client, seat, make)

    def state(self) -> tuple[object, ...]:
        """Everything that a failed attempt must leave as it was."""
        sessions, session = self.sessions, self.session
        return (
            session.attached, session._epoch, session._relay.pump.wire, session.client,
            session.stream.session.delivered, sessions.detached_count, len(sessions), memory(sessions),
            self.seats.taken,
        )  # fmt: skip


def new_session(
    sessions: SessionRegistry, offer: SessionOffer, seat: Place, wire: socket.socket, target: socket.socket
) -> tuple[ResumableLifecycle, Relay]:
    stream = ResumableStream(client=False, buffers=ReadBuffers(), now=time.monotonic(), offer=offer)
    client = Client("192.0.2.1:1234", "192.0.2.1")
    session = ResumableLifecycle(stream, offer, registry=sessions, client=client, seat=seat)
    return session, Relay(Channel(wire), Channel(target), session, BusyQueue())


async def with_detached_session(work: Callable[[Attempt], Awaitable[None]]) -> None:
    sessions = SessionRegistry(settings())
    offer = sessions.offer("192.0.2.1")
    assert offer is not None
    (wire, far_wire), (target, far_target) = socket.socketpair(), socket.socketpair()
    seats = Shares(1, protected=0)
    seat = seats.enter("192.0.2.1", lambda: None)
    assert seat is not None
    session, relay = new_session(sessions, offer, seat, wire, target)
    near, far = socket.socketpair()
    with far_wire, far_target, near, far:
        running = asyncio.create_task(relay.run())
        await asyncio.sleep(0)
        far_wire.close()
        for _ in range(1000):
            if not session.attached:
                break
            await asyncio.sleep(0.01)
        assert not session.attached and memory(sessions) == 0 and seats.taken == 0
        await work(Attempt(sessions, seats, session, Channel(near)))
        session.expire("this test is over")
        await running
    assert len(sessions) == sessions.detached_count == memory(sessions) == 0


def test_a_client_that_finds_no_free_slot_changes_nothing() -> None:
    async def work(attempt: Attempt) -> None:
        other = attempt.seats.enter("192.0.2.2", lambda: None)
        assert other is not None
        before = attempt.state()
        with pytest.raises(Refusal, match="no seat"):
            attempt.take_over()
        assert attempt.state() == before
        other.leave()

    asyncio.run(with_detached_session(work))


def test_a_client_for_whose_window_there_is_no_memory_leaves_everything_as_it_was() -> None:
    async def work(attempt: Attempt) -> None:
        shares = attempt.sessions.budget.shares
        full = shares.enter("192.0.2.1", lambda: None, standing=lambda: 2, weight=shares.limit)
        assert full is not None
        before = attempt.state()
        with pytest.raises(Refusal, match="no memory"):
            attempt.take_over()
        assert attempt.state() == before
        full.leave()

    asyncio.run(with_detached_session(work))


def test_an_answer_that_cannot_be_made_leaves_everything_as_it_was_and_the_next_client_gets_in() -> None:
    async def work(attempt: Attempt) -> None:
        before = attempt.state()
        with pytest.raises(KeyError):
            attempt.take_over(answer=KeyError("Sec-WebSocket-Protocol"))
        assert attempt.state() == before
        attempt.take_over()
        assert attempt.session.attached and attempt.seats.taken == 1

    asyncio.run(with_detached_session(work))


def test_while_its_client_is_away_a_target_that_is_half_closed_cannot_be_late() -> None:
    async def work(attempt: Attempt) -> None:
        attempt.session._tail_at = time.monotonic() - 2 * STALL_LIMIT
        attempt.take_over()
        assert attempt.session.attached and attempt.session.stream.failure is None

    asyncio.run(with_detached_session(work))


@pytest.mark.parametrize("is_read", [True, False])
def test_a_target_that_is_half_closed_is_late_only_while_it_is_read(is_read: bool) -> None:
    async def work(attempt: Attempt) -> None:
        session = attempt.session
        attempt.take_over()
        if not is_read:  # because the client has not acknowledged what was sent before
            while session.stream.wants_source:
                room = session.stream.source_space()
                session.stream.source_received(len(room), time.monotonic())
        session._tail_at = time.monotonic() - 2 * STALL_LIMIT
        session._tail = (session._pump.to_wire, False)
        session.advance()
        assert (session.stream.failure is not None) is is_read

    asyncio.run(with_detached_session(work))


def test_a_bug_in_a_turn_ends_the_session_and_gives_everything_back() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        offer = sessions.offer(None)
        seats = Shares(1)
        seat = seats.enter(None, lambda: None)
        assert offer is not None and seat is not None
        (wire, far_wire), (target, far_target) = socket.socketpair(), socket.socketpair()
        _, relay = new_session(sessions, offer, seat, wire, target)
        with far_wire, far_target:
            running = asyncio.create_task(relay.run())
            await asyncio.sleep(0)

            def fail() -> None:
                raise RuntimeError("a bug")

            relay.turn(fail)
            with pytest.raises(RuntimeError, match="a bug"):
                await running
            assert far_wire.recv(1 << 16).startswith(b"\x81") and far_target.recv(1) == b""
        assert len(sessions) == memory(sessions) == seats.taken == 0

    asyncio.run(work())
