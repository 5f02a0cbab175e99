"""Sessions whose clients are away: capped in number, the right ones evicted, cheap, and none of them in the log."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.peer import Peer, Session, assert_echoes, assert_refused, refusal
from tests.faults.seen import LIMIT, health, resident, wait_for_detached


class Holder:
    """A target that takes any number of connections and echoes on them, in one thread's event loop."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Holder:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)))
        self._thread.start()
        assert ready.wait(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT)
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        writers: set[asyncio.StreamWriter] = set()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.add(writer)
            try:
                while chunk := await reader.read(65536):
                    writer.write(chunk)
                    await writer.drain()
            except ConnectionError:
                pass  # an evicted session breaks its target's connection
            finally:
                writers.discard(writer)
                writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        while writers:
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)


@pytest.fixture
def holder() -> Iterator[Holder]:
    with Holder() as holder:
        yield holder


def detach_many(bridge: Bridge, count: int) -> list[Session]:
    """Open ``count`` sessions and lose the connection of each, one after the other."""

    def one(_: int) -> Session:
        peer, session = Peer.open(bridge.url)
        peer.send(b"x")
        peer.wait_for_data(1)
        peer.reset()
        return session

    with ThreadPoolExecutor(4 if count == 100 else 1) as pool:
        return list(pool.map(one, range(count)))


def evicted(bridge: Bridge) -> list[str]:
    """What the log says of tunnels that are over."""
    return re.findall(r" tunnel .*", bridge.process.log())


@pytest.mark.parametrize(
    ("count", "cap"),
    [(150, 50), pytest.param(10_000, 10_000, marks=[pytest.mark.full, pytest.mark.timeout(600)])],
)
def test_many_detached_sessions_are_bounded_and_the_healthy_ones_go_on(
    bed: Bed, holder: Holder, count: int, cap: int
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if count > hard // 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options = ("--max-detached", str(cap), "--max-tunnels", "20000", "--resume-memory", "100000")
    bridge = start_bridge(bed, "ours", holder.port, *options)
    peer, _ = Peer.open(bridge.url)
    with peer:
        before = resident(bridge.process.pid)
        sessions: list[Session] = []
        while len(sessions) < count:
            sessions += detach_many(bridge, min(100, count - len(sessions)))
            assert_echoes(peer, b"healthy")
            peer.say(f"ack {len(peer.data)}")  # who never acknowledges is taken for dead after a minute
        wait_for_detached(bridge, min(count, cap))
        for _ in ticks(LIMIT):  # the number is the same from the cap on, whether the last ones have been noticed or not
            if len(evicted(bridge)) >= count - cap:
                break
        per_session = (resident(bridge.process.pid) - before) / count
        print(f"{per_session / 1000:.1f} kB per detached session")
        assert per_session < 100_000
        with ExitStack() as stack:
            for session in sessions[-10:]:
                again = stack.enter_context(Peer(bridge.url, session.resume(1, 1)))
                assert_echoes(again, b"resumed")
            if count > cap:
                for session in sessions[:10]:
                    assert_refused(refusal(bridge.url, session.resume(1, 1)), 410, "unknown-session")
                assert len(evicted(bridge)) == count - cap, bridge.process.log()[-1000:]
        assert_echoes(peer, b"healthy")


def test_unconfirmed_sessions_go_first(start: StartBridge) -> None:
    """Somebody who only opens connections cannot push out those who work."""
    bridge = start("--max-detached", "2")
    worker = detach_many(bridge, 1)[0]
    wait_for_detached(bridge, 1)
    for _ in range(5):
        with Peer(bridge.url) as peer:
            peer.wait_for_line("session ")
            peer.reset()
    for _ in ticks(1):
        assert health(bridge)["detached"] <= 2
    with Peer(bridge.url, worker.resume(1, 1)) as again:
        assert_echoes(again, b"still mine")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_session_s_life_is_logged_but_neither_its_id_nor_its_key(
    bed: Bed, echo_target: Target, log_format: str
) -> None:
    target = f"127.0.0.1:{echo_target.port}"
    process = bed.start(*(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", target, "--log-format", log_format))
    url = process.wait_for_line(r"ws://127.0.0.1:\d+")[0]
    peer, session = Peer.open(url)
    peer.reset()
    process.wait_for_line("detached")
    with Peer(url, session.resume(3, 0)) as again:
        process.wait_for_line("resumed")
        refusal(url, session.resume(3, 0))
        process.wait_for_line("refused")
        again.end()
        again.wait_for_end()
    process.wait_for_line("tunnel client=" if log_format == "text" else '"event": "tunnel"')
    assert session.id not in process.log() and session.key not in process.log()
    if log_format == "json":
        events = [json.loads(line) for line in process.log().splitlines()]
        seen = {each["event"]: each for each in events}
        assert seen["detached"]["session"] == seen["resumed"]["session"] == seen["tunnel"]["session"]
        assert seen["resumed"]["epoch"] == 3 and seen["resumed"]["away"] >= 0
        assert seen["refused"]["error"] == "stale-epoch"
