"""The trial of a restart in place: a child of the new version tries to restore the state.

It starts, reads its options and files and reports that it is ready, while the service continues. Only then is the state
captured, and the service stands still until the trial reports whether it could restore the state.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack

from tunnel.children.child import Child, start
from tunnel.errors import printable
from tunnel.restart.arrival import GO, READY, TRIED, to_try
from tunnel.restart.execution import command, inherited

START_LIMIT = 30.0  # seconds for the new version to start; the service continues meanwhile
RESTORE_LIMIT = 10.0  # seconds to restore the state; the service stands still meanwhile
_OUTPUT_LIMIT = 4096  # bytes at the end of its output that are kept
_READS = 4  # reads of its output at once, as it may never stop; a pipe holds no more
_LOOKS, _LOOK_AGAIN = 10, 0.01  # looks at how it has ended, and seconds between them
_NOT_FOR_TRIALS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class RestartRefused(Exception):
    """There was no restart, and nothing has changed; the text is the reason."""


class Trial:
    """A trial that has been started, for the state in ``file``, which is still empty. Call `end` afterwards."""

    def __init__(self, file: int, environ: Mapping[str, str]) -> None:
        """Start it. Raises OSError."""
        with ExitStack() as cleaning:
            failing = cleaning.enter_context(ExitStack())
            self._talk, theirs = socket.socketpair()
            failing.callback(self._talk.close)
            cleaning.callback(theirs.close)
            self._output, written = os.pipe()
            failing.callback(os.close, self._output)
            cleaning.callback(os.close, written)
            env = {name: value for name, value in environ.items() if name not in _NOT_FOR_TRIALS}
            self._child: Child = start(
                command(),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                env={**env, **to_try(file, theirs.fileno())},
                pass_fds=(file, theirs.fileno(), *inherited()),
            )
            failing.pop_all()
        self._talk.setblocking(False)
        os.set_blocking(self._output, False)
        self._said = b""
        self._tail = b""
        self._is_ended = False
        self._child.when_ended(self._child.reap)

    async def wait_until_ready(self) -> None:
        """Wait until the new version could start. Raises RestartRefused when it cannot, or takes too long."""
        end = time.monotonic() + START_LIMIT
        while not self._heard(READY):
            if time.monotonic() >= end:
                raise self._refused(f"the new version was not ready within {START_LIMIT:g} s")
            await asyncio.sleep(0.02)

    def restore(self) -> None:
        """Let it restore the state, which is now in the file; waits without the loop. Raises RestartRefused."""
        end = time.monotonic() + RESTORE_LIMIT
        try:
            self._talk.send(GO)
        except OSError:
            pass  # it has ended; `_heard` will notice that
        poll = select.poll()
        poll.register(self._talk, select.POLLIN)
        poll.register(self._output, select.POLLIN)
        while not self._heard(TRIED):
            left = end - time.monotonic()
            if left <= 0:
                raise self._refused(f"the new version did not restore the state within {RESTORE_LIMIT:g} s")
            poll.poll(min(left, 0.1) * 1000)

    def end(self) -> None:
        """End the process, if it is still running, and reap it."""
        if not self._is_ended:
            self._is_ended = True
            self._child.signal(signal.SIGKILL)
            self._child.reap()
            self._talk.close()
            os.close(self._output)

    def _heard(self, word: bytes) -> bool:
        """Return whether the new version has sent ``word``. Raises RestartRefused if it has ended instead."""
        try:
            data: bytes | None = self._talk.recv(64)
        except BlockingIOError:
            data = None
        except ConnectionError:
            data = b""
        self._read_output()
        if data is None:
            return False
        self._said += data
        if self._said == word:
            self._said = b""
            return True
        if not data:
            raise self._refused(self._how_it_ended())  # all of its output has been read by now
        return False

    def _how_it_ended(self) -> str:
        for _ in range(_LOOKS):  # it has closed its socket, and usually ends at the same moment
            status = self._child.reap_if_ended()
            if status is not None and status < 0:
                return f"the new version was killed by {signal.Signals(-status).name}"
            if status is not None:
                break
            time.sleep(_LOOK_AGAIN)
        return "the new version failed"

    def _read_output(self) -> None:
        for _ in range(_READS):
            try:
                data = os.read(self._output, 1 << 16)
            except BlockingIOError:
                return  # that was all so far
            self._tail = (self._tail + data)[-_OUTPUT_LIMIT:]

    def _refused(self, problem: str) -> RestartRefused:
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        last = printable(lines[-1].removeprefix("wstunnel-py: ")) if lines else "it printed nothing"
        return RestartRefused(f"{problem}: {last}")
