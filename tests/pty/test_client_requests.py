"""What a call of the clients costs: one packet, and no thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

import tunnel
from tests.bed.targets import Target
from tunnel.pty.client.deadline import Deadline

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
LIMIT = 20.0  # seconds
CALLS = 5


def answer_each(connection: socket.socket) -> list[bytes]:
    """Answer what one read returns, as often as there is something; return all of it."""
    connection.settimeout(LIMIT)
    seen = []
    while data := connection.recv(65536):
        seen.append(data)
        connection.sendall(ANSWER)
    return seen


def type_sync(url: str) -> None:
    with tunnel.Sandbox(url) as sandbox:
        for _ in range(CALLS):
            sandbox.pty.send_stdin(1, b"x")


def type_async(url: str) -> None:
    async def run() -> None:
        async with tunnel.AsyncSandbox(url) as sandbox:
            for _ in range(CALLS):
                await sandbox.pty.send_stdin(1, b"x")

    asyncio.run(run())


@pytest.mark.parametrize("call", [type_sync, type_async])
def test_head_and_body_of_a_call_arrive_together(call: Callable[[str], None]) -> None:
    with Target(answer_each) as target:
        call(f"http://127.0.0.1:{target.port}")
        seen = target.result()
    assert isinstance(seen, list) and len(seen) == CALLS
    for request in seen:
        assert request.startswith(b"POST /process.Process/SendInput HTTP/1.1\r\n")
        assert request.endswith(b'"input":{"pty":"eA=="}}'), request


def test_calls_one_after_the_other_start_one_thread_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    with Target(answer_each) as target:
        with tunnel.Sandbox(f"http://127.0.0.1:{target.port}") as sandbox:
            sandbox.pty.send_stdin(1, b"x")
            monkeypatch.setattr(threading.Thread, "start", counted)
            for _ in range(CALLS):
                sandbox.pty.send_stdin(1, b"x")
            monkeypatch.undo()
        target.result()
    assert len(started) <= 1, started  # the watching thread may just have ended


def test_a_short_limit_is_kept_while_a_longer_one_is_watched() -> None:
    with Deadline(600):
        pass
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(LIMIT)
        with Deadline(0.05) as deadline:
            deadline.uses(ours)
            assert theirs.recv(1) == b""
        assert deadline.passed


def test_several_limits_are_kept_each_at_its_time() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    begun = threading.Barrier(len(pairs))
    passed: dict[int, bool] = {}

    def exchange(number: int, seconds: float) -> None:
        ours, theirs = pairs[number]
        theirs.settimeout(LIMIT)
        with Deadline(seconds) as deadline:
            begun.wait(LIMIT)
            deadline.uses(ours)
            if seconds < LIMIT:
                assert theirs.recv(1) == b""
        passed[number] = deadline.passed

    threads = [threading.Thread(target=exchange, args=pair) for pair in enumerate((0.3, 600, 0.05))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    for pair in pairs:
        for end in pair:
            end.close()
    assert passed == {0: True, 1: False, 2: True}
