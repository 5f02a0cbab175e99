"""`tunnel.AsyncSandbox` with the real service: the calls of `test_client_sync`, and tests of cancellation and tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import tunnel
from tests.pty.beds import LIMIT, Service, alive
from tunnel import AsyncSandbox, PtySize

CAT = ("/bin/cat",)
SLEEP = ("/bin/sleep", "60")


@pytest.fixture
def run(service: Service) -> Callable[[Callable[[AsyncSandbox], Awaitable[None]]], None]:
    """Run a coroutine function with a sandbox and a time limit."""

    def run(test: Callable[[AsyncSandbox], Awaitable[None]]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60), AsyncSandbox(service.url) as sandbox:
                await test(sandbox)

        asyncio.run(limited())

    return run


Run = Callable[[Callable[[AsyncSandbox], Awaitable[None]]], None]


class AsyncOutput:
    """A coroutine function for ``on_data`` that keeps the output and lets tests wait for it."""

    def __init__(self) -> None:
        self.data = b""
        self._more = asyncio.Condition()

    async def __call__(self, data: bytes) -> None:
        async with self._more:
            self.data += data
            self._more.notify_all()

    async def wait_for(self, wanted: bytes) -> None:
        async with asyncio.timeout(LIMIT), self._more:
            await self._more.wait_for(lambda: wanted in self.data)


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


def test_the_shell_is_an_interactive_login_bash(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        output = AsyncOutput()
        async with await sandbox.pty.create(on_data=output) as terminal:
            await terminal.send_stdin(b"shopt -q login_shell && echo login-$TERM-$LANG; exit 7\n")
            assert (await terminal.wait()).exit_code == 7
        assert b"login-xterm-256color-C.UTF-8" in output.data

    run(test)


def test_every_option_of_create_arrives(run: Run, tmp_path: Path) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        terminal = await sandbox.pty.create(
            PtySize(rows=50, cols=132),
            envs={"MY_VAR": "hello"},
            cwd=str(tmp_path),
            user="root",
            timeout=30,
            command=sh("stty size; echo $MY_VAR $PWD; id -un"),
        )
        output = b"".join([data async for data in terminal])
        assert output.split() == [b"50", b"132", b"hello", bytes(tmp_path), b"root"]

    run(test)


def test_resize_and_input_reach_a_terminal_with_a_plain_callback(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        seen: list[bytes] = []
        terminal = await sandbox.pty.create(command=sh("read _; stty size"), on_data=seen.append)
        await sandbox.pty.resize(terminal.pid, cols=120, rows=40)
        await sandbox.pty.send_input(terminal.pid, b"\n")
        assert (await terminal.wait()).exit_code == 0
        assert b"40 120" in b"".join(seen)

    run(test)


def test_a_terminal_outlives_its_connection(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        first, second = AsyncOutput(), AsyncOutput()
        terminal = await sandbox.pty.create(command=CAT, on_data=first)
        await terminal.send_stdin(b"hello\n")
        await first.wait_for(b"hello\r\nhello\r\n")
        await terminal.disconnect()
        with pytest.raises(tunnel.UsageError, match="is disconnected"):
            await terminal.wait()
        again = await sandbox.pty.connect(terminal.pid, on_data=second)
        await again.send_stdin(b"world\n")
        await second.wait_for(b"world\r\nworld\r\n")
        await again.send_stdin(b"\x04")
        assert (await again.wait()).exit_code == 0
        assert b"hello" not in second.data
        replayed = await sandbox.pty.connect(terminal.pid, replay_from=terminal.offset)
        assert b"".join([data async for data in replayed]).startswith(b"world")

    run(test)


def test_a_terminal_is_listed_until_it_is_killed(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        terminal = await sandbox.pty.create(command=SLEEP)
        assert terminal.pid in [each.pid for each in await sandbox.pty.list()]
        assert await terminal.kill()
        assert (await terminal.wait()).signal == 9
        assert not alive(terminal.pid)
        assert not await sandbox.pty.kill(terminal.pid)

    run(test)


def test_errors_are_typed(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        pid = 2**31 - 1
        for call, code in (
            (sandbox.pty.connect(pid), "not_found"),
            (sandbox.pty.send_stdin(pid, b"x"), "not_found"),
            (sandbox.pty.resize(pid, cols=80, rows=24), "not_found"),
            (sandbox.pty.create(command=CAT, cwd="/nonexistent"), "invalid_argument"),
            (sandbox.pty.create(command=CAT, user="nobody-knows"), "unauthenticated"),
        ):
            with pytest.raises(tunnel.TerminalError) as caught:
                await call
            assert caught.value.connect_code == code
        with pytest.raises(tunnel.UsageError):
            await sandbox.pty.create(rows=0)

    run(test)


def test_the_time_of_a_terminal_ends_it(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        terminal = await sandbox.pty.create(command=SLEEP, timeout=0.5)
        with pytest.raises(tunnel.TerminalError) as caught:
            await terminal.wait()
        assert caught.value.connect_code == "deadline_exceeded"

    run(test)


def test_a_wait_that_is_cancelled_can_be_repeated_without_a_loss(run: Run, tmp_path: Path) -> None:
    over = tmp_path / "over"  # however late the waits are cancelled, the program still writes
    script = f"n=0; until [ -e {over} ]; do n=$((n+1)); echo $n; sleep 0.1; done; echo of $n"

    async def test(sandbox: AsyncSandbox) -> None:
        terminal = await sandbox.pty.create(command=sh(script))
        output: list[bytes] = []
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.12):
                    await terminal.wait(output.append)
        over.touch()
        assert (await terminal.wait(output.append)).exit_code == 0
        *lines, _, count = b"".join(output).split()
        assert lines == [b"%d" % n for n in range(1, int(count) + 1)]

    run(test)


def test_what_a_callback_raises_comes_out_of_wait(run: Run) -> None:
    async def broken(_: bytes) -> None:
        raise ZeroDivisionError("in the callback")

    async def test(sandbox: AsyncSandbox) -> None:
        terminal = await sandbox.pty.create(command=sh("echo hi; sleep 60"), on_data=broken)
        with pytest.raises(ZeroDivisionError, match="in the callback"):
            await terminal.wait()
        assert await terminal.kill()

    run(test)


def test_a_callback_may_disconnect(run: Run) -> None:
    async def test(sandbox: AsyncSandbox) -> None:
        done = asyncio.Event()

        async def leave(_: bytes) -> None:
            await terminal.disconnect()
            done.set()

        terminal = await sandbox.pty.create(command=sh("sleep 0.2; echo hi; sleep 60"), on_data=leave)
        async with asyncio.timeout(LIMIT):
            await done.wait()
        assert await sandbox.pty.kill(terminal.pid)

    run(test)


def test_thirty_terminals_at_once_keep_their_output_apart(run: Run) -> None:
    async def one(sandbox: AsyncSandbox, n: int) -> bytes:
        terminal = await sandbox.pty.create(command=CAT)
        await terminal.send_stdin(b"%d\n\x04" % n)
        return b"".join([data async for data in terminal])

    async def test(sandbox: AsyncSandbox) -> None:
        outputs = await asyncio.gather(*(one(sandbox, n) for n in range(30)))
        assert outputs == [b"%d\r\n%d\r\n" % (n, n) for n in range(30)]

    run(test)


def test_closing_the_sandbox_leaves_no_task_and_no_connection(service: Service) -> None:
    async def test() -> None:
        async with AsyncSandbox(service.url) as sandbox:
            await sandbox.pty.list()
        files = len(os.listdir("/proc/self/fd"))
        async with AsyncSandbox(service.url) as sandbox:
            terminals = [await sandbox.pty.create(command=CAT, on_data=AsyncOutput()) for _ in range(5)]
            terminals += [await sandbox.pty.create(command=CAT) for _ in range(5)]
        # The event loop closes unfinished generators of the HTTP client in its own tasks, and sockets a turn later.
        for _ in range(2000):
            if len(asyncio.all_tasks()) == 1 and len(os.listdir("/proc/self/fd")) <= files:
                break
            await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
        assert len(os.listdir("/proc/self/fd")) <= files
        async with AsyncSandbox(service.url) as sandbox:
            for terminal in terminals:
                assert await sandbox.pty.kill(terminal.pid)

    asyncio.run(test())


def test_a_service_that_refuses_the_connection_is_a_dial_error() -> None:
    async def test() -> None:
        async with AsyncSandbox("http://127.0.0.1:1") as sandbox:
            for call in (sandbox.pty.create(), sandbox.pty.list()):
                with pytest.raises(tunnel.DialError, match=r"127.0.0.1:1 refused the connection"):
                    await call

    asyncio.run(test())
