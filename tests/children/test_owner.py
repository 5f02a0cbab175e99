"""Only ``tunnel/children`` starts, signals and reaps processes, and no signal hits a process that reuses a pid."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pty.beds import alive
from tests.pty.raw import eventually
from tunnel.children.child import Child, start
from tunnel.children.family import kill_families, signal_sessions
from tunnel.children.users import own_user
from tunnel.pty.server import file_process

TUNNEL = Path(__file__).parents[2] / "tunnel"
PACKAGE = TUNNEL / "children"
# Calls that start, signal or reap a process.
CALLS = {
    "Popen", "call", "check_call", "check_output", "run", "create_subprocess_exec", "create_subprocess_shell",
    "subprocess_exec", "subprocess_shell", "fork", "forkpty", "vfork", "posix_spawn", "posix_spawnp", "system", "popen",
    "spawnv", "spawnve", "kill", "killpg", "send_signal", "terminate", "pidfd_send_signal", "pthread_kill",
    "wait3", "wait4", "waitpid", "waitid",
}  # fmt: skip
HARMLESS = {"asyncio.run"}
UNMISTAKABLE = {"killpg", "waitpid", "waitid", "send_signal", "forkpty", "subprocess_exec", "subprocess_shell"}
MODULES = {"os", "subprocess", "signal", "asyncio", "multiprocessing"}
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def process_calls(source: str) -> list[str]:
    """Return the calls in a module's source that start, signal or reap processes, and such names that it imports."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in MODULES:
            if node.attr in CALLS and f"{node.value.id}.{node.attr}" not in HARMLESS:
                found.append(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Attribute) and node.attr in UNMISTAKABLE:
            found.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found += [f"{node.module}.{each.name}" for each in node.names if each.name in CALLS]
        elif isinstance(node, ast.Import):
            found += [each.name for each in node.names if each.name in {"multiprocessing", "pty"}]
    return found


def test_nobody_else_starts_signals_or_reaps_processes() -> None:
    found = {
        str(path.relative_to(TUNNEL)): calls
        for path in TUNNEL.rglob("*.py")
        if PACKAGE not in path.parents and (calls := process_calls(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    ["os.kill(1, 9)", "subprocess.Popen([])", "from os import waitpid", "import pty", "loop.subprocess_exec()"],
)
def test_such_calls_are_noticed(source: str) -> None:
    assert process_calls(f"import os, subprocess\n{source}\n")


def test_nobody_waits_for_any_child() -> None:
    """Otherwise the owner of a child would lose its status."""
    for path in TUNNEL.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"wait", "wait3"} or ast.unparse(node.func.value) != "os", path
                if node.func.attr in {"waitpid", "wait4", "waitid"}:
                    assert ast.unparse(node.args[0]) not in {"-1", "0", "os.P_ALL", "os.P_PGID"}, path


# --- A pid that was reused


@contextlib.contextmanager
def stranger(pid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A foreign process, leader of its session, that has the pid of a former child."""
    for _ in range(50):
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
        if process.pid == pid:
            break
        process.kill()
        process.wait()
    else:
        pytest.skip(f"something else has got number {pid}")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


needs_numbers = pytest.mark.skipif(
    not os.access(LAST_PID, os.W_OK), reason="numbers of processes cannot be chosen here"
)


def finished() -> Child:
    child = start(["/bin/true"], marked=True)
    assert child.reap() == 0
    return child


@needs_numbers
@pytest.mark.parametrize(
    "hit",
    [
        lambda child: child.signal(signal.SIGKILL),
        lambda child: child.signal_group(signal.SIGKILL),
        lambda child: signal_sessions([child], signal.SIGKILL),
        lambda child: kill_families([child]),
    ],
    ids=["signal", "signal_group", "signal_sessions", "kill_families"],
)
def test_a_signal_for_a_child_that_was_reaped_hits_nobody(hit: object) -> None:
    assert callable(hit)
    child = finished()
    with stranger(child.pid) as other:
        hit(child)
        time.sleep(0.1)
        assert other.poll() is None


def busy() -> None:
    time.sleep(0.3)


@needs_numbers
def test_a_helper_for_files_that_has_ended_is_not_signalled() -> None:
    """Whether the child was reaped or not."""

    async def work() -> None:
        user = own_user()
        async with file_process.FileProcess("exit 0", "/", user, None) as tool:
            assert await tool.wait() == 0
            with stranger(tool.pid) as other:
                await tool.__aexit__()
                await asyncio.sleep(0.1)
                assert other.poll() is None
        async with file_process.FileProcess("exit 0", "/", user, None):
            busy()  # it ends while the loop is busy

    asyncio.run(work())


def test_a_child_is_reaped_once_and_keeps_its_status() -> None:
    child = start(["/bin/sh", "-c", "exit 7"])
    assert (child.status, child.reap(), child.reap(), child.status) == (None, 7, 7, 7)
    killed = start(["/bin/sleep", "60"])
    killed.signal(signal.SIGKILL)
    assert killed.reap() == -signal.SIGKILL
    assert eventually(lambda: not Path(f"/proc/{killed.pid}").exists())


def test_without_a_descriptor_left_a_kill_still_ends_the_child() -> None:
    """And processes that have left its session are killed when there are descriptors again."""
    child = start(["/bin/sh", "-c", "setsid sleep 600 & exec sleep 600"], marked=True)
    tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    assert eventually(lambda: tasks.read_text().split() and Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
    (daemon,) = map(int, tasks.read_text().split())
    assert eventually(lambda: Path(f"/proc/{daemon}/comm").read_text() == "sleep\n")  # by then it has left the session
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        kill_families([child])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert eventually(lambda: not alive(child.pid))
    assert alive(daemon)
    kill_families([child])
    assert eventually(lambda: not alive(daemon))
    assert child.reap() == -signal.SIGKILL
