"""The registry of sessions step by step: refusals, slots and memory that are taken and released, and restarts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from tests.server.test_session_registry import MIB, Waiting, detach, memory, settings, timer
from tunnel.protocol.control import resume_request
from tunnel.server import session_registry
from tunnel.server.budget import ATTACHED, attached_weight
from tunnel.server.http import Refusal
from tunnel.server.resumable import ResumableLifecycle
from tunnel.server.session_registry import GRACE, JUMP, LEAST_WAIT, SessionRegistry

OTHER = "198.51.100.7"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await work()

    asyncio.run(limited())


def one(session: Waiting) -> ResumableLifecycle:
    return cast(ResumableLifecycle, session)


class Returning(Waiting):
    """A session that keeps what it must not lose when it has to give its memory way, and can be given up."""

    def give_memory_way(self) -> None:
        self.ended.append("gave way")

    def given_up(self) -> None:
        self.expire("given up")


def attach(sessions: SessionRegistry, source: str = OTHER) -> Returning:
    """Add a session whose client is there."""
    offer = sessions.offer(source)
    assert offer is not None
    session = Returning(sessions, offer, source)
    sessions.add(one(session))
    return session


# ---- offers and requests


def test_sessions_are_numbered_from_one_on() -> None:
    sessions = SessionRegistry(settings())
    assert sessions.last_number == 0
    assert [sessions.next_number() for _ in range(3)] == [1, 2, 3]
    assert sessions.last_number == 3


def test_an_offer_has_secrets_of_its_own_and_whole_seconds() -> None:
    sessions = SessionRegistry(settings(resume_for=3600.9))
    offers = [sessions.offer(OTHER) for _ in range(2)]
    for offer in offers:
        assert offer is not None
        assert (len(offer.id), len(offer.key), offer.retain) == (32, 64, 3600)
    assert len({(offer.id, offer.key) for offer in offers if offer}) == 2
    short = SessionRegistry(settings(resume_for=0.3)).offer(OTHER)
    assert short is not None and short.retain == 1


@pytest.mark.parametrize(
    ("what", "code", "message", "slowly"),
    [
        ("nothing", "bad-resume", "the Wstunnel-Resume header is malformed", False),
        ("unknown", "unknown-session", "the bridge was restarted, or the session has expired there", False),
        ("stolen", "bad-proof", "the proof for this session is wrong", True),
    ],
)
def test_a_refusal_says_why_and_only_a_wrong_proof_is_answered_slowly(
    what: str, code: str, message: str, slowly: bool
) -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        offer = detach(sessions).offer
        good, stolen = resume_request(offer.id, offer.key, 1, 0), resume_request(offer.id, "0" * 64, 1, 0)
        headers = {
            "nothing": [good.header()] * 2,
            "unknown": [resume_request("0" * 32, offer.key, 1, 0).header()],
            "stolen": [stolen.header()],
        }
        with pytest.raises(Refusal) as caught:
            sessions.find(headers[what])
        assert (caught.value.code, caught.value.message, caught.value.slowly) == (code, message, slowly)

    run(work)


# ---- waiting


def test_why_a_session_may_not_wait_is_said() -> None:
    async def work() -> None:
        assert detach(SessionRegistry(settings(max_detached=0))).ended == [
            "no detached sessions are allowed (max_detached)"
        ]
        sessions = SessionRegistry(settings(max_detached=1))
        first = detach(sessions)
        detach(sessions)
        assert first.ended == ["evicted: too many detached sessions"]

    run(work)


def test_a_detached_session_is_evicted_for_a_newer_one_of_its_own_source() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=2))
        older, newer = detach(sessions, OTHER), detach(sessions, "192.0.2.1")
        detach(sessions, "192.0.2.1")
        assert (older.ended, bool(newer.ended)) == ([], True)

    run(work)


def test_a_session_that_loses_its_client_again_waits_once_and_from_then_on() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        session = detach(sessions)
        first = timer(sessions, session)
        sessions.detached(one(session), 5000)
        assert first.cancelled() and not timer(sessions, session).cancelled()
        assert (sessions.detached_count, sessions.waiting.taken, memory(sessions)) == (1, 1, 5000)

    run(work)


def test_a_client_that_comes_back_gives_the_place_back_and_counts_for_where_it_comes_from() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        session = detach(sessions, "192.0.2.1", kept=1000)
        waited = timer(sessions, session)
        session.source, session.attached = OTHER, True
        sessions.attached(one(session), 1000)
        assert waited.cancelled()
        assert (sessions.detached_count, sessions.waiting.taken) == (0, 0)
        shares = sessions.budget.shares
        assert shares.held_by("192.0.2.1") == 0
        assert shares.held_by(OTHER) == memory(sessions) == attached_weight(session.offer.window, 1000)

    run(work)


def test_a_session_that_is_over_gives_everything_back_and_does_not_wait_any_more() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        session = detach(sessions, kept=1000)
        waited = timer(sessions, session)
        for _ in range(2):
            sessions.remove(one(session))
            sessions.detached(one(session), 1000)
            sessions.count_memory(one(session), 1000)
        assert waited.cancelled()
        assert (len(sessions), sessions.detached_count, sessions.waiting.taken, memory(sessions)) == (0, 0, 0, 0)

    run(work)


@pytest.mark.parametrize("late", [0.0, JUMP, JUMP + 0.1])
def test_only_a_timer_that_is_much_too_late_gives_clients_more_time(
    monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        sessions = SessionRegistry(settings(resume_for=1000.0))
        began = loop.time()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: began)
            session = detach(sessions)
            patch.setattr(loop, "time", lambda: began + 1000.0 + late)
            for _ in range(5):
                await asyncio.sleep(0)
            assert bool(session.ended) is (late <= JUMP)
            if late > JUMP:
                assert timer(sessions, session).when() == began + 1000.0 + late + GRACE
                patch.setattr(loop, "time", lambda: began + 1000.0 + late + GRACE)
                for _ in range(5):
                    await asyncio.sleep(0)
        assert session.ended == ["no client reconnected for 1000 s"]
        assert (len(sessions), sessions.waiting.taken) == (0, 0)

    asyncio.run(work())  # a limit of time would ring, too


# ---- memory


def test_memory_is_reserved_when_a_session_begins() -> None:
    sessions = SessionRegistry(settings(resume_memory=8))
    session = attach(sessions)
    assert memory(sessions) == sessions.budget.shares.held_by(OTHER) == attached_weight(session.offer.window, 0)


def test_no_session_is_offered_whose_memory_is_one_byte_too_much() -> None:
    sessions = SessionRegistry(settings(resume_memory=8))
    window = sessions.budget.window()
    shares = sessions.budget.shares
    free = attached_weight(sessions.budget.window(), 0)
    place = shares.overdraw(OTHER, lambda: None, standing=lambda: ATTACHED, weight=shares.limit - free)
    free = attached_weight(sessions.budget.window(), 0)
    place.change(shares.limit - free)
    assert sessions.offer(OTHER) is not None and window > 0
    place.change(shares.limit - free + 1)
    assert sessions.offer(OTHER) is None


def test_a_session_that_lost_its_memory_while_attached_is_counted_again() -> None:
    sessions = SessionRegistry(settings(resume_memory=8))
    session = attach(sessions)
    assert sessions.budget.shares.drop_one()
    assert session.ended == ["gave way"] and memory(sessions) == 0
    sessions.count_memory(one(session), 700_000)
    assert memory(sessions) == attached_weight(session.offer.window, 700_000)
    session.attached = False
    sessions.count_memory(one(session), 700_000)
    assert memory(sessions) == 700_000
    sessions.remove(one(session))
    assert memory(sessions) == 0


def test_a_window_for_which_there_is_just_enough_memory_evicts_nobody() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=8))
        session = detach(sessions, kept=1000)
        shares = sessions.budget.shares
        more = attached_weight(session.offer.window, 1000) - 1000
        place = shares.overdraw("192.0.2.1", lambda: None, standing=lambda: ATTACHED, weight=0)
        place.change(shares.limit - shares.taken - more)
        sessions.check_memory(one(session), "192.0.2.1", 1000)
        place.change(place.weight + 1)
        with pytest.raises(Refusal) as caught:
            sessions.check_memory(one(session), "192.0.2.1", 1000)
        assert caught.value.message == "there is no memory for this session now (resume_memory)"
        assert session.ended == [], "it does not evict itself"

    run(work)


def test_an_attached_session_needs_no_more_memory() -> None:
    sessions = SessionRegistry(settings(resume_memory=8))
    session = attach(sessions)
    shares = sessions.budget.shares
    shares.overdraw(OTHER, lambda: None, standing=lambda: ATTACHED, weight=shares.limit)
    sessions.check_memory(one(session), OTHER, 0)


def test_an_attached_session_needs_memory_for_each_further_byte() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(resume_memory=8))
        session = attach(sessions)
        shares = sessions.budget.shares
        kept = 10 * MIB
        sessions.count_memory(one(session), kept)
        shares.overdraw(OTHER, lambda: None, standing=lambda: ATTACHED, weight=shares.limit)
        sessions.check_memory(one(session), OTHER, kept)
        with pytest.raises(Refusal):
            sessions.check_memory(one(session), OTHER, kept + 1)

    run(work)


# ---- restarts of the bridge


def test_until_when_a_session_waits_outlives_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        before, after = SessionRegistry(settings()), SessionRegistry(settings())
        session = detach(before, kept=1000)
        wait = before.capture_wait(one(session))
        assert wait == [timer(before, session).when(), "no client reconnected for 3600 s"]
        restored = Returning(after, session.offer, attached=False)
        after.add(one(restored))
        after.restore_wait(one(restored), wait, 1000)
        assert timer(after, restored).when() == pytest.approx(wait[0], abs=0.5)
        assert (after.detached_count, after.waiting.taken, memory(after)) == (1, 1, 1000)
        assert not after.expects(one(restored)) and not after.expects_any
        assert after.capture_wait(one(restored)) == [timer(after, restored).when(), wait[1]]
        after.remove(one(restored))
        assert (after.detached_count, after.waiting.taken, memory(after)) == (0, 0, 0)
        after.add(one(restored))
        monkeypatch.setattr(session_registry, "LEAST_WAIT", 0.01)
        after.restore_wait(one(restored), [loop.time() - 1.0, "why"], 1000)
        await restored.end.wait()
        assert restored.ended == ["why"]
        timer(before, session).cancel()

    run(work)


def test_a_session_whose_wait_has_ended_during_a_restart_can_still_be_taken_up() -> None:
    """Its client may have waited at the port while nobody accepted."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        sessions = SessionRegistry(settings())
        session = Returning(sessions, attach(sessions).offer, attached=False)
        sessions.add(one(session))
        sessions.restore_wait(one(session), [loop.time() - 3.0, "why"], 1000)
        assert timer(sessions, session).when() - loop.time() == pytest.approx(LEAST_WAIT, abs=1.0)
        sessions.attached(one(session), 1000)
        assert not session.ended

    run(work)


def test_a_session_whose_client_a_restart_has_cut_off_is_expected_at_once() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings())
        session = attach(sessions)
        assert sessions.capture_wait(one(session)) is None
        assert not bool(sessions.expects_any)
        session.attached = False
        sessions.restore_wait(one(session), None, 1000)
        assert sessions.expects(one(session)) and bool(sessions.expects_any)
        assert memory(sessions) == attached_weight(session.offer.window, 1000), "as if it were attached"
        due = sessions._expected[one(session)]
        assert due.when() - asyncio.get_running_loop().time() == pytest.approx(GRACE, abs=1.0)
        session.attached = True
        sessions.attached(one(session), 1000)
        assert due.cancelled() and not sessions.expects(one(session))
        assert not bool(sessions.expects_any)

    run(work)


def test_a_client_that_does_not_come_back_from_a_restart_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(session_registry, "GRACE", 0.01)
        sessions = SessionRegistry(settings())
        session = attach(sessions)
        session.attached = False
        sessions.restore_wait(one(session), None, 1000)
        await session.end.wait()
        assert session.ended == ["given up"]
        assert (len(sessions), memory(sessions), sessions.expects_any) == (0, 0, False)

    run(work)


def test_while_a_client_comes_back_its_place_is_not_taken_and_not_counted() -> None:
    async def work() -> None:
        sessions = SessionRegistry(settings(max_detached=1))
        session = detach(sessions)
        with contextlib.suppress(ZeroDivisionError), sessions.coming_back(one(session)):
            assert sessions.waiting.taken == 0
            detach(sessions, OTHER)
            assert not session.ended
            raise ZeroDivisionError
        assert sessions.waiting.taken == 2
        other = attach(sessions)
        with sessions.coming_back(one(other)):
            assert sessions.waiting.taken == 2

    run(work)
