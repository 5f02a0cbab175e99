"""A bridge's relay that splices a session's download never forgets its target."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.net.test_splice_source import Nothing, readable
from tests.server.test_session_registry import new_session, settings
from tunnel.client.socket_pair import connected_pair
from tunnel.net import splice_source
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.net.splice import waiting
from tunnel.net.splice_source import _Pipe
from tunnel.net.waiter import READ
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.server import relay as relay_module
from tunnel.server.relay import Relay
from tunnel.server.session_registry import SessionRegistry
from tunnel.server.shares import Shares

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")

PIECE = bytes(200 << 10)  # less than a batch: a busy socket is not reported as readable
LIMIT = 10.0


class Download:
    """A session between ``target``, which the test writes to, and a client that the test drives."""

    def __init__(self, relay: Relay, sessions: SessionRegistry, target: socket.socket, wire: socket.socket) -> None:
        self.relay = relay
        self.sessions = sessions
        self._target = target
        self._client = Pump(Channel(wire), Nothing(), Nothing(), self._stream())
        self.said = 0

    @staticmethod
    def _stream() -> ResumableStream:
        return ResumableStream(client=True, buffers=ReadBuffers(), now=time.monotonic())

    @property
    def heard(self) -> int:
        return self._client.to_sink

    def say(self, data: bytes) -> None:
        try:
            self.said += self._target.send(data)
        except BlockingIOError:
            pass

    async def until(self, condition: Callable[[], bool], *, says: bytes = b"", reads: bool = True) -> None:
        """The target says this whenever all it said was read, and the client reads, until then."""
        client = self._client
        async with asyncio.timeout(LIMIT):
            while not condition():
                if says and not waiting(self.relay.target.fileno()):
                    self.say(says)
                if reads and readable(client.wire.fileno()):
                    client.read_wire()
                    client.stream.tick(time.monotonic() + 1.0)  # it acknowledges at once
                    client.write_wire()
                    client.stream.settle()
                await asyncio.sleep(0)


@asynccontextmanager
async def download() -> AsyncIterator[Download]:
    sessions = SessionRegistry(settings(resume_memory=16))
    offer = sessions.offer(None)
    seat = Shares(1).enter(None, lambda: None)
    assert offer is not None and seat is not None
    (wire, far_wire), (target, far_target) = connected_pair(), connected_pair()
    far_target.setblocking(False)
    session, relay = new_session(sessions, offer, seat, wire, target)
    with far_wire, far_target:
        running = asyncio.create_task(relay.run())
        await asyncio.sleep(0)
        try:
            yield Download(relay, sessions, far_target, far_wire)
        finally:
            session.expire("this test is over")
            await running


def test_what_follows_a_copy_that_came_short_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    real, short = splice_source._tee, 0

    def tee(source: _Pipe, sink: _Pipe) -> int:
        nonlocal short
        if source.size != len(PIECE):
            return real(source, sink)
        short += 1
        return 0

    async def check() -> None:
        async with download() as tunnel:
            for _ in range(3):
                before = short
                await tunnel.until(lambda before=before: short > before, says=PIECE)  # type: ignore[misc]
                tunnel.say(b"a keystroke's echo")
                await tunnel.until(lambda: tunnel.heard == tunnel.said)

    monkeypatch.setattr(splice_source, "_tee", tee)
    monkeypatch.setattr(relay_module, "SMALL_PIECES", 0.0)
    asyncio.run(check())


def test_a_target_whose_bytes_come_in_small_pieces_is_copied_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    real, short = splice_source._tee, 0

    def tee(source: _Pipe, sink: _Pipe) -> int:
        nonlocal short
        short += 1
        return 0

    async def check() -> None:
        async with download() as tunnel:
            await tunnel.until(lambda: tunnel.heard > 8 << 20, says=PIECE)
            assert short == 1
            tunnel.relay._copies_until = 0.0
            monkeypatch.setattr(splice_source, "_tee", real)
            await tunnel.until(lambda: tunnel.relay.pump.splice is not None, says=PIECE)

    monkeypatch.setattr(splice_source, "_tee", tee)
    monkeypatch.setattr(relay_module, "SMALL_PIECES", 60.0)
    asyncio.run(check())


def test_a_session_may_use_its_own_share_of_the_memory_even_if_it_spliced_before() -> None:
    async def check() -> None:
        async with download() as tunnel:
            relay, shares = tunnel.relay, tunnel.sessions.budget.shares
            await tunnel.until(lambda: relay.pump.splice is not None, says=PIECE)
            await tunnel.until(lambda: not relay._at_target & READ, says=PIECE, reads=False)
            shares.overdraw(None, lambda: None, standing=lambda: 0, weight=shares.limit)  # others use up all memory
            before = tunnel.heard
            await tunnel.until(lambda: tunnel.heard > before + (4 << 20), says=PIECE)
            assert relay.pump.splice is None

    asyncio.run(check())


def test_where_the_system_does_not_let_a_pipe_be_written_to_the_wire_it_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, refused = os.splice, 0

    def splice(source: int, sink: int, count: int, *, flags: int) -> int:
        nonlocal refused
        if stat.S_ISSOCK(os.fstat(sink).st_mode):
            refused += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(source, sink, count, flags=flags)

    async def check() -> None:
        async with download() as tunnel:
            await tunnel.until(lambda: refused > 0, says=PIECE)
            await tunnel.until(lambda: tunnel.heard == tunnel.said)
            await tunnel.until(lambda: tunnel.heard > 8 << 20, says=PIECE)
            assert tunnel.relay.attached and tunnel.relay.pump.splice is None
            assert refused == 1

    monkeypatch.setattr(os, "splice", splice)
    asyncio.run(check())


def test_memory_that_is_only_kept_for_reuse_does_not_keep_the_target_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with download() as tunnel:
            relay, shares = tunnel.relay, tunnel.sessions.budget.shares
            shares.overdraw(None, lambda: None, standing=lambda: 0, weight=shares.limit)
            await tunnel.until(lambda: tunnel.heard > 4 << 20, says=bytes(1 << 20))
            assert relay.pump.splice is None

    monkeypatch.setattr(relay_module, "NEXT_LOOK", 60.0)  # it looks at the clock no more
    asyncio.run(check())
