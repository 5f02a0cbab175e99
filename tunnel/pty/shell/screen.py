"""Standard output for the terminal's output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select

from tunnel.client.stdio import StandardOutput
from tunnel.pty.shell.leaving import Leaving


class Screen:
    """Standard output. While it takes nothing, the event loop goes on."""

    def __init__(self) -> None:
        self._output = StandardOutput()
        self._poll = select.poll()
        self._poll.register(self._output.fileno(), select.POLLOUT)
        self._leaving = Leaving() if os.isatty(self._output.fileno()) else None

    async def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises OSError when its reader is gone."""
        if self._leaving is not None:
            self._leaving.feed(data)
        rest = memoryview(data)
        while rest:
            # The descriptor stays blocking, because other programs share the terminal: so ask before each write.
            if not self._poll.poll(0):
                await self._writable()
            rest = rest[self._output.send((rest,)) :]

    def leave(self) -> None:
        """Take back what a program that goes on has changed about the local terminal."""
        if self._leaving is not None and self._poll.poll(0):
            with contextlib.suppress(OSError):  # the local terminal was closed
                self._output.send((self._leaving.sequence(),))

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
        """Give standard output back as it was."""
        self._output.close()
