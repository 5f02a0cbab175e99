"""The helper processes behind ``/files``: a script about one path, run as the user who asks.

So the kernel decides what that user may do. A helper is killed, with all that it runs, when its request has ended.
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
IDLE_LIMIT = 60.0  # seconds in which a helper has to do something, and to end when it is killed
_CHUNK = 256 << 10
_ERROR_LIMIT = 1000  # characters
_PLACE = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}  # messages that `refusal` knows


class Refused(Exception):
    """A request for files that is answered with ``status`` and ``message``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FileProcess:
    """A script of /bin/sh about one path, run as a user, as an async context manager that leaves nothing running.

    It may be given ``stdin``, of which it takes ``size`` bytes.
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
                env=_PLACE,
                credentials=user.credentials,
            )
            self._cleaning = ours.pop_all()
        self._child.when_ended(self._child.reap)
        self.pid = self._child.pid

    async def __aenter__(self) -> FileProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            self._child.signal_group(signal.SIGKILL)  # nothing happens when it has been reaped
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_LIMIT):
                    await self._child.wait()
        finally:
            self._cleaning.close()

    async def read(self) -> bytes:
        """Return what it writes next, or nothing at its end; raises Refused when nothing happens for too long."""
        at = self._position()
        while True:
            try:
                await asyncio.wait_for(readable(self._stdout), IDLE_LIMIT)
                return os.read(self._stdout, _CHUNK)
            except TimeoutError:
                before, at = at, self._position()
                if at == before:
                    raise Refused(504, f"nothing happened for {IDLE_LIMIT:g} s") from None

    def _position(self) -> int:
        """Return how much it has read, whose place in the file is ours too."""
        return 0 if self._stdin is None else os.lseek(self._stdin.fileno(), 0, os.SEEK_CUR)

    async def wait(self) -> int:
        """Return the exit status."""
        return await self._child.wait()

    def refusal(self, path: str) -> Refused:
        """Return what the end of the script means; it has ended with another status than 0."""
        status = self._child.status
        if status == 44:
            return Refused(404, f"path '{path}' does not exist")
        if status == 45:
            return Refused(400, f"path '{path}' is no regular file")
        lines = self._errors().decode(errors="replace").strip().splitlines() or ["it failed"]
        reason = lines[-1].rpartition(": ")[2][:_ERROR_LIMIT]
        known = {"Permission denied": 403, "No space left on device": 507, "Disk quota exceeded": 507}
        return Refused(known.get(reason, 400), f"path '{path}': {reason}")

    def _errors(self) -> bytes:
        os.set_blocking(self._stderr, False)
        try:
            return os.read(self._stderr, 1 << 16)  # all that the pipe may hold
        except BlockingIOError:
            return b""  # something that it has started has the pipe still open


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    output, end = os.pipe()
    ours.callback(os.close, output)
    theirs.callback(os.close, end)
    return output, end
