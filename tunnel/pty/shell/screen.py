"""Standard output, and what this program itself says on standard error between what the terminal says."""

from __future__ import annotations

import asyncio
import select

from tunnel.client.stdio import StandardOutput
from tunnel.client.trace import say
from tunnel.errors import redacted


class Screen:
    """Where the output of the terminal goes. A screen that takes nothing for a while holds up nothing else."""

    def __init__(self) -> None:
        self._output = StandardOutput()
        self._poll = select.poll()
        self._poll.register(self._output.fileno(), select.POLLOUT)
        self.raw = False

    async def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises OSError when nobody is there to read it any more."""
        rest = memoryview(data)
        while rest:
            # Asked each time, as a terminal is never made non-blocking: others have it open, too.
            if not self._poll.poll(0):
                await self._writable()
            rest = rest[self._output.send((rest,)) :]

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

    def say(self, text: str) -> None:
        """Tell the user something, on lines of their own."""
        if not self.raw:
            for line in text.split("\n"):
                say(line)
            return
        say_raw(text)

    def close(self) -> None:
        self._output.close()


def say_raw(text: str) -> None:
    """As `say`, for a terminal in raw mode, where a line feed alone goes straight down."""
    import sys

    lines = "".join(f"\r\nwstunnel-py: {line}" for line in redacted(text).split("\n"))
    try:
        sys.stderr.write(lines + "\r\n")
        sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass  # nobody can be told
