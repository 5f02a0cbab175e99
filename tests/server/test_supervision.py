"""No long-running task fails silently: it is restarted, or the process ends with a message."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import Bridge
from tests.server.clients import LIMIT, ask, assert_echo, dial, open_tunnel
from tunnel.children.child import Child
from tunnel.server import supervision
from tunnel.server.log import LOGGER
from tunnel.server.supervision import MOST_FAILURES, supervise, unhandled_errors_logged
from tunnel.ssh.embedded import EmbeddedTarget
from tunnel.ssh.server_process import ServerProcess

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told() -> Iterator[Told]:
    """The events that are logged."""
    events: Told = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            events.append((record.__dict__["event"], record.__dict__["fields"]))

    handler = Handler()
    LOGGER.addHandler(handler)
    yield events
    LOGGER.removeHandler(handler)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PAUSE", 0.001)
    monkeypatch.setattr(supervision, "LONGEST_PAUSE", 0.01)


@pytest.mark.parametrize("way", ["raises", "returns", "is cancelled by what it waits for"])
def test_a_task_that_ends_is_logged_and_started_again(told: Told, way: str) -> None:
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            if way == "raises":
                raise KeyError("x")
            if way == "is cancelled by what it waits for":
                raise asyncio.CancelledError
            return
        done.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = supervise("the work", run)
        async with asyncio.timeout(LIMIT):
            await done.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    done = asyncio.Event()
    asyncio.run(main())
    assert [(name, fields["during"]) for name, fields in told] == [("internal-error", "the work")] * 2


def test_a_task_that_fails_again_and_again_is_given_up(told: Told) -> None:
    async def run() -> None:
        raise OSError("no way")

    async def main() -> None:
        async with asyncio.timeout(LIMIT):
            await supervise("the work", run)

    asyncio.run(main())
    assert [name for name, _ in told] == ["internal-error"] * MOST_FAILURES + ["failed"]
    assert told[-1][1]["what"] == "the work"


def test_a_task_that_is_cancelled_ends_without_a_word(told: Told) -> None:
    async def main() -> None:
        task = supervise("the work", asyncio.Event().wait)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == []


def test_errors_that_nobody_catches_are_one_line_each(told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("task")

    class Fragile:
        def __del__(self) -> None:
            raise ValueError("destructor")

    def fail_in_thread() -> None:
        raise ValueError("thread")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with unhandled_errors_logged(loop):
            loop.call_soon(lambda: int("callback"))
            task = asyncio.create_task(fail())
            await asyncio.sleep(0.01)
            del task
            thread = threading.Thread(target=fail_in_thread)
            thread.start()
            thread.join()
            Fragile()
            loop.call_exception_handler({"message": "something without an error"})

    asyncio.run(main())
    assert [name for name, _ in told] == ["internal-error"] * 5
    errors = " ".join(fields["error"] for _, fields in told)
    for word in ("callback", "task", "thread", "destructor", "something without an error"):
        assert word in errors
    assert capfd.readouterr().err == ""


# ---- a bridge

SABOTAGE = """
import sys
from tunnel import run
from tunnel.server import listen, supervision
from tunnel.cli.main import main
supervision.PAUSE, supervision.LONGEST_PAUSE = 0.01, 0.05
real = listen.Listener.accept
calls = 0
async def accept(self, *arguments):
    global calls
    calls += 1
    if {condition}:
        raise RuntimeError("sabotage")
    return await real(self, *arguments)
listen.Listener.accept = accept
{more}
sys.exit(main(sys.argv[1:]))
"""


def start_sabotaged(bed: Bed, target: Target, condition: str, more: str = "", *options: str) -> Bridge:
    """Start a bridge that cannot accept connections under ``condition``."""
    process = bed.start(
        *(sys.executable, "-c", SABOTAGE.format(condition=condition, more=more), "serve", "--listen", "127.0.0.1:0"),
        *("--target", f"127.0.0.1:{target.port}", *options),
    )
    return Bridge(process.wait_for_line(r"ready on (ws://[^\s,]+)")[1], process)


def test_a_bridge_whose_accepting_fails_accepts_again(bed: Bed, echo_target: Target) -> None:
    bridge = start_sabotaged(bed, echo_target, "calls % 2 == 0 and calls < 8")
    for _ in range(8):
        with open_tunnel(bridge.url) as tunnel:
            assert_echo(tunnel)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    log = bridge.process.log()
    assert log.count('error internal-error error="RuntimeError(\'sabotage\')" during="accepting at 127.0.0.1:') == 3
    assert all("\n" in line for line in log.splitlines(keepends=True))


def test_a_bridge_that_cannot_accept_any_more_ends_loudly(bed: Bed, echo_target: Target) -> None:
    bridge = start_sabotaged(bed, echo_target, "calls > 1")
    with open_tunnel(bridge.url) as tunnel:
        bridge.process.wait_for_line('critical failed what="accepting at 127.0.0.1:\\d+" failures=10 ')
        bridge.process.wait_for_line("draining")
        assert_echo(tunnel)
    assert bridge.process.wait(LIMIT) == 70
    assert "Traceback" not in "".join(line for line in bridge.process.log().splitlines() if "internal" not in line)


def test_a_reload_that_fails_is_one_line_and_the_bridge_goes_on(bed: Bed, echo_target: Target) -> None:
    more = "from tunnel.server.bridge import Bridge\nBridge.reload = lambda self: 1 / 0"
    bridge = start_sabotaged(bed, echo_target, "False", more)
    bridge.process.send_signal(signal.SIGHUP)
    bridge.process.wait_for_line(r'internal-error error="ZeroDivisionError.*" during=reload')
    assert ask(bridge.url, "/healthz").status == 200
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    bridge.process.wait_for_line(" tunnel ")
    assert bridge.process.log().count("\n") == 3  # including the ready line and that of the tunnel


@pytest.mark.parametrize(
    "more",
    [
        "from tunnel.server import bridge\nspoilt, place = bridge.Connection, 'Connection'",
        "spoilt, place = listen.client_of, 'client_of'",
    ],
    ids=["making it", "its address"],
)
def test_a_connection_that_cannot_be_served_takes_nothing_from_others(bed: Bed, echo_target: Target, more: str) -> None:
    """More than the limit of handshakes, and more than the number of failures after which accepting is given up."""
    spoil = """
left = 300
def spoil(*args):
    global left
    left -= 1
    if left >= 0:
        raise ValueError("spoilt")
    return spoilt(*args)
if place == "client_of":
    listen.client_of = spoil
else:
    bridge.Connection = spoil
"""
    bridge = start_sabotaged(bed, echo_target, "False", more + spoil)
    for _ in range(300):
        with dial(bridge.url) as sock:
            assert sock.recv(1) == b""
    with open_tunnel(bridge.url) as tunnel:
        assert_echo(tunnel)
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    lines = [line for line in bridge.process.log().splitlines() if "internal-error" in line]
    counts = [int(count) for line in lines for count in re.findall(r"repeated=(\d+)$", line)]
    assert len(lines) < 30 and len(lines) - len(counts) + sum(counts) == 300


def test_news_of_the_embedded_server_that_nobody_understands_hide_none_behind_them(told: Told) -> None:
    reading, writing = os.pipe()
    target = EmbeddedTarget(None, None)
    server = ServerProcess(Child(0, status=0), None, reading, target._take, target._forget)
    news = b'garbage\n[]\n{}\n{"event":"warning","id":0,"client":"x"}\n'
    os.write(writing, news + b'{"event":"warning","id":0,"message":"m"}\n')
    server._read_events()
    os.close(reading)
    os.close(writing)
    assert {name for name, _ in told} == {"ssh-warning"}
    assert told[-1][1]["message"] == "m"
