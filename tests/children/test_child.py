"""A child is signalled only as long as it is one: afterwards its pid may be that of any process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tunnel.children.child import Child, start
from tunnel.children.exits import watch_for_exit
from tunnel.children.family import kill_families, signal_sessions
from tunnel.children.proc import look

WAYS: dict[str, Callable[[Child], None]] = {
    "alone": lambda child: child.signal(signal.SIGKILL),
    "its group": lambda child: child.signal_group(signal.SIGKILL),
    "its session": lambda child: signal_sessions([child], signal.SIGKILL),
    "its family": lambda child: kill_families([child]),
}


STRANGER = """
import subprocess, sys
with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
    print(stranger.pid, flush=True)
    sys.stdin.read()
    stranger.kill()
"""


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that leads a session and is the child of another process than this one."""
    with subprocess.Popen([sys.executable, "-c", STRANGER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        yield int(parent.stdout.readline())
        parent.stdin.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_is_no_child_of_ours_is_never_signalled(
    stranger: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.children.child._unreaped", {})
    WAYS[way](Child(stranger))
    entry = look(stranger)
    assert entry is not None
    assert not entry.has_ended
    with open(f"/proc/{stranger}/status") as file:
        status = file.read()
    assert "SigPnd:\t0000000000000000" in status
    assert "State:\tT" not in status


def test_without_pidfds_a_thread_waits_that_takes_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be told of an end before the child is reaped."""
    masks: list[set[int]] = []
    wait = os.waitid

    def note(*arguments: int) -> object:
        masks.append({int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ())})
        return wait(*arguments)

    async def run() -> None:
        child = start(["true"])
        child.reap()
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(os, "waitid", note)
        ended = asyncio.Event()
        watch_for_exit(child.pid, ended.set)
        async with asyncio.timeout(10):
            await ended.wait()

    asyncio.run(run())
    assert {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2} <= masks[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_child_that_is_known_by_its_number_is_signalled(way: str) -> None:
    child = Child(os.posix_spawnp("sleep", ["sleep", "60"], os.environ, setsid=True))
    WAYS[way](child)
    assert child.reap() == -signal.SIGKILL
