"""The processes behind ``/files``: each runs a script that reads or writes one file, as the user who asks.

So the kernel enforces that user's permissions. A process is killed, with everything it started, when its request ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import IO

from tunnel.children.child import start
from tunnel.children.users import User
from tunnel.net.async_sockets import readable

READ = """
[ -e "$1" ] || exit 44
[ -f "$1" ] || exit 45
exec cat -- "$1"
"""
WRITE = """
mkdir -p -- "$(dirname -- "$1")" || exit
[ -e "$1" ] && [ ! -f "$1" ] && exit 45
exec head -c "$2" > "$1"
"""
IDLE_LIMIT = 60.0  # seconds for a process to make progress, and to end when it is killed
_CHUNK = 256 << 10
_ERROR_LIMIT = 1000  # characters
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
}  # error messages in English, which `refusal` parses


class Refused(Exception):
    """A request for a file is answered with ``status`` and ``message``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FileProcess:
    """A script of /bin/sh for one path, run as ``user``. An asynchronous context manager that kills it on exit.

    The script reads ``size`` bytes from ``stdin``, if it is given.
    """

    def __init__(self, script: str, path: str, user: User, stdin: IO[bytes] | None = None, size: int = 0) -> None:
        self._stdin = stdin
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            self._stdout, stdout = _pipe(ours, theirs)
            self._stderr, stderr = _pipe(ours, theirs)
            if stdin is None:
                source = os.open(os.devnull, os.O_RDONLY)
                theirs.callback(os.close, source)
            else:
                source = stdin.fileno()
            self._child = start(
                [path, str(size)],
                script=script,
                stdin=source,
                stdout=stdout,
                stderr=stderr,
                cwd="/",
                env=_ENVIRONMENT,
                credentials=user.credentials,
            )
            self._cleaning = ours.pop_all()
        self._child.when_ended(self._child.reap)
        self.pid = self._child.pid

    async def __aenter__(self) -> FileProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            self._child.signal_group(signal.SIGKILL)  # does nothing if it has been reaped
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_LIMIT):
                    await self._child.wait()
        finally:
            self._cleaning.close()

    async def read(self) -> bytes:
        """Return its next output, or nothing at the end; raises Refused if nothing happens for too long."""
        at = self._position()
        while True:
            try:
                await asyncio.wait_for(readable(self._stdout), IDLE_LIMIT)
                return os.read(self._stdout, _CHUNK)
            except TimeoutError:
                before, at = at, self._position()
                if at == before:
                    raise Refused(504, f"reading or writing the file made no progress for {IDLE_LIMIT:g} s") from None

    def _position(self) -> int:
        """Return how much of its input it has read: it shares our file position."""
        return 0 if self._stdin is None else os.lseek(self._stdin.fileno(), 0, os.SEEK_CUR)

    async def wait(self) -> int:
        """Return the exit status."""
        return await self._child.wait()

    def refusal(self, path: str) -> Refused:
        """Return the error for a script that ended with a status other than 0."""
        status = self._child.status
        if status == 44:
            return Refused(404, f"path '{path}' does not exist")
        if status == 45:
            return Refused(400, f"path '{path}' is not a regular file")
        lines = self._errors().decode(errors="replace").strip().splitlines() or ["it failed"]
        reason = lines[-1].rpartition(": ")[2][:_ERROR_LIMIT]
        known = {"Permission denied": 403, "No space left on device": 507, "Disk quota exceeded": 507}
        return Refused(known.get(reason, 400), f"path '{path}': {reason}")

    def _errors(self) -> bytes:
        os.set_blocking(self._stderr, False)
        try:
            return os.read(self._stderr, 1 << 16)  # as much as a pipe holds
        except BlockingIOError:
            return b""  # a process that it started still has the pipe open


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    output, end = os.pipe()
    ours.callback(os.close, output)
    theirs.callback(os.close, end)
    return output, end
