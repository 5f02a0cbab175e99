"""Which pending logins at the embedded SSH server are evicted, with the test's own clock and random numbers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tunnel.errors import DialError
from tunnel.ssh.logins import DROP_FROM, MAX_LOGINS, MAX_PROCESSES, Login, Logins


class Crowd:
    """Clients with a socketpair each; time and random numbers change only when a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.chance = 0.999
        self.logins = Logins(chance=lambda: self.chance, clock=lambda: self.now)
        self.sockets: dict[int, tuple[socket.socket, socket.socket]] = {}

    async def come(self, source: str = "here") -> int:
        login = await self.logins.enter(source)
        return self.start(login)

    def start(self, login: Login) -> int:
        number = len(self.sockets) + 1
        self.sockets[number] = socket.socketpair()
        self.logins.started(login, number, self.sockets[number][0])
        return number

    def is_open(self, number: int) -> bool:
        theirs = self.sockets[number][1]
        theirs.setblocking(False)
        try:
            return theirs.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True

    def gone(self) -> list[int]:
        return [number for number in self.sockets if not self.is_open(number)]


@pytest.fixture
def play() -> Iterator[Callable[[Callable[[Crowd], Awaitable[None]]], None]]:
    crowds: list[Crowd] = []

    def run(scene: Callable[[Crowd], Awaitable[None]]) -> None:
        async def work() -> None:
            crowds.append(Crowd())
            await asyncio.wait_for(scene(crowds[-1]), 20)

        asyncio.run(work())

    yield run
    for crowd in crowds:
        for pair in crowd.sockets.values():
            for sock in pair:
                sock.close()


Play = Callable[[Callable[[Crowd], Awaitable[None]]], None]


def test_the_oldest_silent_login_is_evicted(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        for _ in range(MAX_LOGINS):
            await crowd.come()
        crowd.logins.heard(1, begun=True)
        crowd.logins.heard(2, begun=False)
        crowd.sockets[3][0].send(b"SSH-2.0-")  # on the way to its process
        crowd.now = 5.0
        await crowd.come()
        assert crowd.gone() == [4] and len(crowd.logins) == MAX_LOGINS

    play(scene)


def test_a_new_login_is_not_evicted_at_once(play: Play) -> None:
    """Clients that have sent something were merely faster."""

    async def scene(crowd: Crowd) -> None:
        for _ in range(MAX_LOGINS):
            crowd.logins.heard(await crowd.come(), begun=False)
        newcomers = [await crowd.come() for _ in range(10)]
        assert crowd.gone() == [*range(1, 11)] and all(map(crowd.is_open, newcomers))

    play(scene)


def test_a_login_of_the_source_that_holds_most_is_evicted(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        for number in range(MAX_LOGINS):
            await crowd.come("here" if number % 4 == 0 else "crowd")
        for number in crowd.sockets:
            crowd.logins.heard(number, begun=number % 4 != 1)
        await crowd.come("elsewhere")
        await crowd.come("here")
        assert crowd.gone() == [2, 3]  # of the crowd, although they have made more progress

    play(scene)


def test_a_login_that_has_had_its_time_may_be_evicted_below_the_limit(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        for _ in range(DROP_FROM):
            await crowd.come()
        crowd.chance = 0.0
        await crowd.come()
        assert crowd.gone() == []  # they have just come
        crowd.logins.heard(1, begun=True)
        crowd.logins.heard(2, begun=False)
        crowd.now = 15.0
        await crowd.come()
        assert crowd.gone() == [3]
        crowd.chance = 0.5  # near the threshold the probability is small
        await crowd.come()
        assert crowd.gone() == [3]

    play(scene)


def test_no_login_is_evicted_below_the_threshold(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        crowd.chance = 0.0
        for _ in range(DROP_FROM):
            await crowd.come()
            crowd.now += 100.0
        assert crowd.gone() == []

    play(scene)


def test_processes_that_are_slow_to_end_are_bounded(play: Play) -> None:
    """New clients wait for them, and the oldest of those that wait is evicted."""

    async def scene(crowd: Crowd) -> None:
        for _ in range(MAX_PROCESSES):
            await crowd.come()
        assert crowd.logins.processes == MAX_PROCESSES and len(crowd.gone()) == MAX_PROCESSES - MAX_LOGINS
        waiting = asyncio.create_task(crowd.logins.enter("elsewhere"))
        await asyncio.sleep(0)
        assert not waiting.done()
        crowd.logins.over(1)
        crowd.start(await waiting)
        crowds = [asyncio.create_task(crowd.logins.enter("here")) for _ in range(MAX_LOGINS + 1)]
        await asyncio.sleep(0.01)
        assert crowd.logins.processes == MAX_PROCESSES and len(crowd.logins) == MAX_LOGINS
        ended = [task for task in crowds if task.done()]
        assert ended and all(isinstance(task.exception(), DialError) for task in ended)
        for task in crowds:
            task.cancel()
        await asyncio.gather(*crowds, return_exceptions=True)
        for number in crowd.sockets:
            crowd.logins.over(number)
        assert (len(crowd.logins), crowd.logins.processes) == (0, 0)

    play(scene)


def test_a_socket_that_its_session_has_closed_is_left_alone(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        for _ in range(MAX_LOGINS):
            await crowd.come()
        number = crowd.sockets[1][0].fileno()
        crowd.sockets[1][0].close()
        other, peer = socket.socketpair()
        with other, peer:
            assert number in (other.fileno(), peer.fileno())  # the descriptor was reused
            await crowd.come()
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)

    play(scene)


def test_a_login_that_was_evicted_while_its_process_starts_gets_an_error(play: Play) -> None:
    async def scene(crowd: Crowd) -> None:
        early = await crowd.logins.enter("here")  # its process is still being started
        early.check()
        for _ in range(MAX_LOGINS):
            await crowd.come()
        with pytest.raises(DialError, match="too many clients are logging in"):
            early.check()
        crowd.logins.abandon(early)
        assert crowd.logins.processes == MAX_LOGINS

    play(scene)
