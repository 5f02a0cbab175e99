"""asyncio's loop and signals in it, here and as on Windows."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import cast

import pytest

from tunnel.errors import UsageError
from tunnel.net.event_loop import check_loop, loop_factory, posix_only, signals_handled

NUMBERS = (signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in NUMBERS]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture(params=["linux", "win32"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "platform", request.param)
    return str(request.param)


def test_windows_gets_a_loop_that_can_watch_sockets(platform: str) -> None:
    assert loop_factory() is (asyncio.SelectorEventLoop if platform == "win32" else None)
    loop = asyncio.SelectorEventLoop()
    check_loop(loop)
    loop.close()


def test_any_other_loop_is_refused_on_windows_only(platform: str) -> None:
    other = cast(asyncio.AbstractEventLoop, object())
    if platform == "win32":
        with pytest.raises(UsageError, match=r"^a bridge on Windows needs asyncio\.Runner\(loop_factory=") as caught:
            check_loop(other)
        assert str(caught.value).endswith("asyncio.SelectorEventLoop)")
    else:
        check_loop(other)


def test_what_windows_cannot_do_is_a_mistake_in_the_setting(platform: str) -> None:
    if platform == "win32":
        with pytest.raises(UsageError) as caught:
            posix_only("it needs Linux", "pty")
        assert (caught.value.problem, caught.value.setting) == ("it needs Linux, which Windows is not", "pty")
    else:
        posix_only("it needs Linux", "pty")


def test_signals_do_what_they_are_to_do_until_the_end_and_unknown_ones_nothing(platform: str) -> None:
    heard: list[str] = []
    before = [signal.getsignal(number) for number in NUMBERS]

    async def work() -> None:
        came = {name: asyncio.Event() for name in ("SIGUSR1", "SIGUSR2", "SIGNONE")}

        def note(name: str) -> None:
            heard.append(name)
            came[name].set()

        with signals_handled({name: functools.partial(note, name) for name in came}):
            async with asyncio.timeout(20):
                for name in ("SIGUSR1", "SIGUSR2"):
                    os.kill(os.getpid(), getattr(signal, name))
                    await came[name].wait()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(work())
    assert heard == ["SIGUSR1", "SIGUSR2"]
    assert [signal.getsignal(number) for number in NUMBERS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_where_signals_come_by_a_socket_nothing_of_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    ends: list[socket.socket] = []
    genuine = socket.socketpair

    def pair() -> list[socket.socket]:
        ends.extend(genuine())
        return ends

    async def work() -> None:
        monkeypatch.setattr(socket, "socketpair", pair)  # the loop has its own by now
        with signals_handled({"SIGUSR1": lambda: None}):
            watched = ends[0].fileno()
        assert not asyncio.get_running_loop().remove_reader(watched)
        assert [end.fileno() for end in ends] == [-1, -1]

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(work())


def test_a_signal_that_was_ignored_at_the_start_stays_so(platform: str) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    heard: list[str] = []

    async def work() -> None:
        with signals_handled({"SIGUSR1": lambda: heard.append("one")}):
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(work())
    assert heard == [] and signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
