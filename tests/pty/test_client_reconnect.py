"""Terminal connections that break: no output is lost or repeated, and output that cannot be restored is reported."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

import tunnel
from tests.bed.processes import Bed, ticks
from tests.pty.beds import Output, Service, start_service
from tests.pty.cutting import CuttingProxy
from tunnel import AsyncSandbox, Sandbox

LINES = 100_000
COUNT = ("/bin/sh", "-c", f"stty -opost; seq 1 {LINES}; exit 5")  # 589 kB, less than the scrollback
WANTED = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()


@pytest.fixture
def proxy(service: Service) -> Iterator[CuttingProxy]:
    with CuttingProxy(service.url) as proxy:
        yield proxy


def now_and_then(seed: str, smallest: int, largest: int) -> Callable[[], int]:
    """After how many bytes to cut streams: the same in every run."""
    source = random.Random(seed)
    return lambda: source.randint(smallest, largest)


def test_output_that_is_cut_again_and_again_comes_whole(proxy: CuttingProxy) -> None:
    proxy.cut_streams = now_and_then("sync", 300, 200_000)
    with Sandbox(proxy.url) as sandbox:
        terminal = sandbox.pty.create(command=COUNT)
        assert b"".join(terminal) == WANTED
        assert terminal.wait().exit_code == 5
    assert proxy.cuts >= 4


def test_a_callback_gets_it_whole_too(proxy: CuttingProxy) -> None:
    proxy.cut_streams = now_and_then("callback", 300, 200_000)
    output = Output()
    with Sandbox(proxy.url) as sandbox:
        assert sandbox.pty.create(command=COUNT, on_data=output).wait().exit_code == 5
    assert output.data == WANTED
    assert proxy.cuts >= 4


def test_asyncio_gets_it_whole_too(proxy: CuttingProxy) -> None:
    proxy.cut_streams = now_and_then("async", 300, 200_000)

    async def test() -> None:
        async with AsyncSandbox(proxy.url) as sandbox:
            terminal = await sandbox.pty.create(command=COUNT)
            assert b"".join([data async for data in terminal]) == WANTED
            assert (await terminal.wait()).exit_code == 5

    asyncio.run(test())
    assert proxy.cuts >= 4


def test_a_connection_that_breaks_in_silence_comes_back(proxy: CuttingProxy) -> None:
    output = Output()
    with Sandbox(proxy.url) as sandbox, sandbox.pty.create(command=("/bin/cat",), on_data=output) as terminal:
        for word in (b"one", b"two", b"three"):
            proxy.cut()
            terminal.send_stdin(word + b"\n")
            output.wait_for(word + b"\r\n" + word + b"\r\n")
        assert terminal.kill()


def test_a_start_whose_answer_is_lost_starts_one_terminal(proxy: CuttingProxy) -> None:
    proxy.lose_answers = {"Start": 1}
    with Sandbox(proxy.url) as sandbox:
        before = {each.pid for each in sandbox.pty.list()}
        terminal = sandbox.pty.create(command=("/bin/sleep", "60"))
        assert {each.pid for each in sandbox.pty.list()} - before == {terminal.pid}
        assert terminal.kill()
    assert proxy.calls[:3] == ["List", "Start", "Connect"]


def test_input_whose_answer_is_lost_arrives_once(proxy: CuttingProxy) -> None:
    with Sandbox(proxy.url) as sandbox:
        terminal = sandbox.pty.create(command=("/bin/sh", "-c", "stty -echo; echo ready; exec cat"))
        output = iter(terminal)
        seen = b""
        while b"ready" not in seen:
            seen += next(output)
        for n in range(10):
            proxy.lose_answers = {"SendInput": 1}
            terminal.send_stdin(b"%d\n" % n)
        terminal.send_stdin(b"\x04")
        assert b"".join(output).split() == [b"%d" % n for n in range(10)]
    assert proxy.calls.count("SendInput") == 21


def test_a_terminal_that_ends_during_an_outage_is_reported_with_its_last_output(proxy: CuttingProxy) -> None:
    output = Output()
    with Sandbox(proxy.url) as sandbox:
        terminal = sandbox.pty.create(command=("/bin/sh", "-c", "echo ready; read _; echo bye; exit 9"), on_data=output)
        output.wait_for(b"ready")
        terminal.send_stdin(b"\n")
        proxy.away = True
        proxy.cut()
        for _ in ticks(1.0):
            pass  # the time of an outage
        proxy.away = False
        assert terminal.wait().exit_code == 9
    assert output.data == b"ready\r\n\r\nbye\r\n"


def test_an_outage_that_lasts_is_an_error_in_bounded_time(proxy: CuttingProxy) -> None:
    with Sandbox(proxy.url, reconnect_for=1.0) as sandbox:
        terminal = sandbox.pty.create(command=("/bin/sleep", "60"))
        proxy.away = True
        proxy.cut()
        with pytest.raises(tunnel.ConnectionLost, match="gave up after 1 s without a connection") as caught:
            terminal.wait()
        assert caught.value.exit_code == 69
        proxy.away = False
        assert sandbox.pty.kill(terminal.pid)


def test_more_than_the_scrollback_keeps_is_missed_aloud(bed: Bed) -> None:
    service = start_service(bed, "--pty-scrollback", "4096")
    with CuttingProxy(service.url) as proxy, Sandbox(proxy.url) as sandbox:
        terminal = sandbox.pty.create(command=("/bin/sh", "-c", "echo ready; read _; seq 1 20000; sleep 60"))
        assert next(iter(terminal)).startswith(b"ready")
        proxy.away = True
        proxy.cut()
        with Sandbox(service.url) as direct:
            direct.pty.send_stdin(terminal.pid, b"\n")
            watcher = direct.pty.connect(terminal.pid, replay_from=0)
            seen = b""
            for data in watcher:
                seen += data
                if b"20000\r\n" in seen:
                    break
        proxy.away = False
        with pytest.raises(tunnel.ConnectionLost, match=r"and \d+ bytes of the output with it"):
            terminal.wait()
        assert sandbox.pty.kill(terminal.pid)


def test_a_service_that_went_away_for_good_took_its_terminals_along(bed: Bed) -> None:
    service = start_service(bed)
    with Sandbox(service.url, reconnect_for=1.0) as sandbox:
        terminal = sandbox.pty.create(command=("/bin/sleep", "60"))
        service.process.send_signal(9)
        with pytest.raises(tunnel.ConnectionLost, match="gave up after 1 s without a connection"):
            terminal.wait()


def test_without_cuts_one_connection_is_enough(proxy: CuttingProxy) -> None:
    with Sandbox(proxy.url) as sandbox:
        assert b"".join(sandbox.pty.create(command=COUNT)) == WANTED
    assert proxy.calls == ["Start"]
