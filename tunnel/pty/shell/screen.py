"""Standard output for the terminal's output."""

from __future__ import annotations

import asyncio
import contextlib

from tunnel.net.waiter import WRITE, Waiter
from tunnel.pty.shell.leaving import Leaving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.pty.shell.local import LocalTerminal


class Screen:
    """Standard output. While it is blocked, the event loop continues."""

    def __init__(self, terminal: LocalTerminal) -> None:
        self._output = terminal.open_sink()
        self._waiter = Waiter()
        self._leaving = Leaving() if terminal.shown else None

    async def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises OSError when its reader is gone."""
        if self._leaving is not None:
            self._leaving.feed(data)
        rest = memoryview(data)
        while rest:
            # The descriptor stays blocking, because other programs share the terminal, so check before each write.
            if not self._is_writable():
                await self._writable()
            rest = rest[self._output.send((rest,)) :]

    def leave(self) -> None:
        """Undo the changes to the local terminal by a program that continues to run."""
        if self._leaving is not None and self._is_writable():
            with contextlib.suppress(OSError):  # the local terminal was closed
                self._output.send((self._leaving.sequence(),))

    def finish(self, limit: float = float("inf")) -> None:
        """Wait at most ``limit`` seconds until everything is written. Raises OSError if its reader is gone."""
        self._output.finish(limit)

    def _is_writable(self) -> bool:
        return bool(self._waiter.wait({self._output.fileno(): WRITE}, 0))

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        fd = self._output.fileno()

        def notice() -> None:
            loop.remove_writer(fd)
            ready.set_result(None)

        loop.add_writer(fd, notice)
        try:
            await ready
        finally:
            loop.remove_writer(fd)

    def close(self) -> None:
        """Restore standard output."""
        self._output.close()
