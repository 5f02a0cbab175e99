"""A restart of the service keeps the state of processes, their output and modes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pty.test_modes import CASES
from tunnel.children.family import Sweeper
from tunnel.pty.protocol.framing import ConnectError
from tunnel.pty.protocol.messages import Ended, Output, OutputKind
from tunnel.pty.server import broadcast, process, processes
from tunnel.pty.server.broadcast import LAG, Broadcast, Subscriber
from tunnel.pty.server.modes import Modes
from tunnel.pty.server.process import take_over
from tunnel.pty.server.processes import Processes
from tunnel.pty.server.scrollback import Scrollback
from tunnel.restart import state
from tunnel.restart.state import Handed, Kept, Tree

KEEP = 300  # bytes
kinds = st.sampled_from(("stdout", "stderr"))
written = st.lists(st.tuples(kinds, st.binary(min_size=1, max_size=100)), max_size=20)
pieces = st.one_of(st.sampled_from([written for written, _ in CASES.values()]), st.binary(max_size=50))


def over(tree: Tree, kept: Kept) -> tuple[Tree, Handed]:
    """Take a tree through the file that goes from one version to the next; what comes out is on trial."""
    file = state.create()
    try:
        state.write(file, "0", {"part": tree}, kept)
        trees, handed = state.read(file, on_trial=True)
    finally:
        os.close(file)
    return trees["part"], handed


@given(st.lists(pieces, max_size=8), st.lists(pieces, max_size=8))
def test_modes_are_the_same_and_go_on(before: list[bytes], after: list[bytes]) -> None:
    old, new = Modes(), Modes()
    for piece in before:
        old.feed(piece)
    new.adopt(over(old.capture(), Kept())[0])
    assert new.restore() == old.restore()
    for piece in after:
        old.feed(piece)
        new.feed(piece)
    assert new.restore() == old.restore()
    assert new.capture() == old.capture()


@given(written, written, st.integers(0, 1000))
def test_a_scrollback_is_the_same_and_goes_on(
    before: list[tuple[OutputKind, bytes]], after: list[tuple[OutputKind, bytes]], trim: int
) -> None:
    old, new = Scrollback(), Scrollback()
    for kind, data in before:
        old.append(kind, data)
    old.trim(min(trim, old.end))
    new.adopt(over(old.capture(), Kept())[0])
    for kind, data in after:
        old.append(kind, data)
        new.append(kind, data)
    assert new.capture() == old.capture()
    assert [new.read(at, 7) for at in range(new.start, new.end)] == [
        old.read(at, 7) for at in range(old.start, old.end)
    ]


def test_a_subscriber_that_comes_back_finds_all_that_was_written_meanwhile() -> None:
    async def work() -> None:
        paused: list[bool] = []
        old = new_broadcast(paused)
        reader = old.subscribe()
        old.write("pty", b"x" * 5000)
        await read(reader)
        new = new_broadcast(paused)
        new.adopt(over(old.capture(), Kept())[0])
        size = 0
        while not paused:
            new.write("pty", b"y" * 1000)
            size += 1000
        assert paused == [True] and size >= LAG - broadcast.UNSENT
        back = new.subscribe(reader.offset)
        assert paused == [True] or size < LAG
        assert await read(back) == b"y" * size
        assert paused == [True, False]

    asyncio.run(work())


def test_a_subscriber_that_does_not_come_back_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "PATIENCE", 0.2)

    async def work() -> None:
        paused: list[bool] = []
        old = new_broadcast(paused)
        old.subscribe()
        new = new_broadcast(paused)
        new.adopt(over(old.capture(), Kept())[0])
        for _ in range(10):
            new.write("pty", b"y" * LAG)
        assert paused == [True]
        for _ in range(1000):  # it goes on before what it kept is dropped, both after PATIENCE
            if new.kept == KEEP:
                break
            await asyncio.sleep(0.01)
            new.write("pty", b"y")
        assert paused == [True, False] and new.kept == KEEP

    asyncio.run(work())


def new_broadcast(paused: list[bool]) -> Broadcast:
    return Broadcast(KEEP, 10, paused.append, lambda _: None, on_pty=True)


async def read(subscriber: Subscriber) -> bytes:
    """Read all that there is."""
    data = b""
    while isinstance(event := await subscriber.next(0), Output):
        data += event.data
    return data


# A pid that no process can have: whatever goes wrong here reaches nobody.
NOBODY = 1 << 24
ids = st.text("0123456789abcdef", min_size=32, max_size=32)
texts = st.text(max_size=20)
times = st.floats(allow_nan=False)
captured = st.fixed_dictionaries(
    {
        "pid": st.just(NOBODY),
        "mark": ids,
        "status": st.none() | st.integers(-64, 255),
        "id": ids,
        "user": texts,
        "cmd": texts,
        "args": st.lists(texts, max_size=3),
        "envs": st.none() | st.dictionaries(texts, texts, max_size=3),
        "cwd": texts,
        "tag": st.none() | texts,
        "started": times,
        "ended": st.none() | times,
        "timed_out": st.booleans(),
        "kills_descendants": st.booleans(),
        "input": st.lists(st.binary(min_size=1, max_size=50), max_size=3),
        "input_ends": st.booleans(),
        "input_keys": st.lists(texts, max_size=process.INPUT_KEYS),
        "time_limit_ends": st.none() | times,
        "grace": st.none() | st.floats(0, 1e5),
        "grace_ends": times,
    }
)


@given(captured, st.booleans(), written)
def test_a_process_is_the_same(tree: Tree, on_pty: bool, output: list[tuple[OutputKind, bytes]]) -> None:
    async def work() -> None:
        old = Broadcast(KEEP, 10, lambda _: None, lambda _: None, on_pty=on_pty)
        for kind, data in output:
            old.write("pty" if on_pty else kind, data)
        kept = Kept()
        ended = tree["status"] is not None
        outputs = {} if ended else {"pty": 100} if on_pty else {"stdout": 100, "stderr": 101}
        stdin = None if ended else 100 if on_pty else 200
        kept.descriptors.update((100, 101, 200))
        captured = {**tree, "on_pty": on_pty, "outputs": outputs, "stdin": stdin, "broadcast": old.capture()}
        if ended:
            # What ended has none of these.
            captured.update(input=[], time_limit_ends=None, grace=None, grace_ends=None)
        read_tree, handed = over(captured, kept)
        new = take_over(read_tree, handed, Sweeper(), scrollback=KEEP, max_subscribers=10, on_exit=lambda _: None)
        again = new.capture(Kept())
        found, found_stdin = again.pop("outputs"), again.pop("stdin")
        descriptors = {*found.values(), found_stdin} - {None}
        for descriptor in descriptors:
            os.close(descriptor)
        handed.close_rest()
        assert found.keys() == outputs.keys() and (found_stdin is None) == ended
        assert len(descriptors) == (0 if ended else 1 if on_pty else 3)
        del captured["outputs"], captured["stdin"]
        assert plain(again) == plain(captured)
        assert new.exited.is_set() == ended and new.ended == (Ended.of(tree["status"]) if ended else None)

    asyncio.run(work())


def plain(tree: Any) -> Any:
    """Return a tree with lists for tuples and bytes for views."""
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(each) for each in tree]
    return bytes(tree) if isinstance(tree, bytearray | memoryview) else tree


@pytest.mark.parametrize(("grace", "at_least"), [(0.0, process.RETURN_LIMIT), (100.0, 100.0)])
def test_followers_have_time_to_come_back(grace: float, at_least: float) -> None:
    async def work() -> None:
        tree = {**ended_process(NOBODY, 0.0), "status": None, "grace": grace}
        began = time.monotonic()
        new = take_over(*over(tree, Kept()), Sweeper(), scrollback=KEEP, max_subscribers=10, on_exit=lambda _: None)
        assert at_least <= new.capture(Kept())["grace_ends"] - began <= at_least + 10

    asyncio.run(work())


def test_an_ended_process_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RETENTION", 0.3)

    async def work() -> None:
        now = time.monotonic()
        tree: Tree = {"running": [], "ended": [ended_process(NOBODY, now - 0.2), ended_process(NOBODY + 1, now)]}
        found = Processes(10, 10, KEEP)
        found.restore(*over(tree, Kept()))
        found.begin()
        assert found.find(NOBODY, ended=True).ended == Ended.of(3)
        gone: list[int] = []
        for _ in range(2000):
            gone += [pid for pid in (NOBODY, NOBODY + 1) if pid not in gone and not is_found(found, pid)]
            await asyncio.sleep(0.005)
            if len(gone) == 2:
                break
        assert gone == [NOBODY, NOBODY + 1]

    asyncio.run(work())


def is_found(found: Processes, pid: int) -> bool:
    try:
        found.find(pid, ended=True)
    except ConnectError:
        return False
    return True


def ended_process(pid: int, ended: float) -> Tree:
    output = Broadcast(KEEP, 10, lambda _: None, lambda _: None, on_pty=True)
    return {
        "pid": pid, "mark": "", "status": 3, "id": f"{pid:032x}", "user": "me", "cmd": "x", "args": [], "envs": None,
        "cwd": "/", "tag": None, "on_pty": True, "started": ended - 1, "ended": ended, "timed_out": False,
        "kills_descendants": False, "outputs": {}, "stdin": None, "input": [], "input_ends": False, "input_keys": [],
        "time_limit_ends": None, "grace": None, "grace_ends": None, "broadcast": output.capture(),
    }  # fmt: skip
