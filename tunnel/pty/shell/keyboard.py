"""Standard input on its way to the terminal: read, batched, sent in order, and never dropped.

The first key after a pause is sent at once; input that follows within 10 ms, or while a call is in progress, is sent
together. Input that cannot be sent is buffered up to `BUFFER` bytes; then standard input is not read any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tunnel.pty.client import calls
from tunnel.pty.shell.escapes import Command, EscapeReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.net.pump import Source

BATCH = 0.01  # seconds
BUFFER = 1 << 20  # bytes
READ = 64 * 1024
END_OF_FILE = b"\x04"  # Ctrl-D
EOF_INTERVAL = 1.0  # seconds


class Keyboard:
    """Reads ``source``, the standard input, and passes it to ``send``, which may raise TunnelError.

    ``on_command`` is called for escapes, ``on_end`` at the end of the input.
    """

    def __init__(
        self,
        source: Source,
        send: Callable[[bytes], Awaitable[object]],
        escapes: EscapeReader,
        on_command: Callable[[Command], object],
        on_end: Callable[[], object],
    ) -> None:
        self._send = send
        self._escapes = escapes
        self._on_command = on_command
        self._on_end = on_end
        self._source = source
        self._space = memoryview(bytearray(READ))
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._attached = False
        self.ended = False
        self._last = b"\n"  # the last byte that was read

    async def run(self) -> None:
        """Read and send until all input has been sent. Raises TunnelError."""
        self._attach()
        try:
            while True:
                if not self._buffer:
                    if self.ended:
                        self._all_sent.set()
                        return
                    self._more.clear()
                    await self._more.wait()
                    continue
                began = time.monotonic()
                piece = bytes(self._buffer[: calls.INPUT_LIMIT])
                await self._send(piece)
                del self._buffer[: len(piece)]
                self._attach()
                await asyncio.sleep(began + BATCH - time.monotonic())
        finally:
            self._detach()

    async def sent(self) -> None:
        """Wait until the input has ended and all of it has been sent."""
        await self._all_sent.wait()

    async def keep_ending(self) -> None:
        """Type Ctrl-D after the input has ended, and repeat it until it is cancelled or `send` fails.

        Every read from a pipe that has ended returns end of file. A terminal returns it once for each Ctrl-D, and
        forgets one that arrives while no program reads.
        """
        # In an unfinished line the first Ctrl-D only passes on the line.
        ending = END_OF_FILE if self._last in (b"\n", b"\r") else END_OF_FILE * 2
        while True:
            await self._send(ending)
            ending = END_OF_FILE
            await asyncio.sleep(EOF_INTERVAL)

    def _attach(self) -> None:
        if not self._attached and not self.ended and len(self._buffer) < BUFFER:
            self._attached = True
            asyncio.get_running_loop().add_reader(self._source.fileno(), self._read)

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            asyncio.get_running_loop().remove_reader(self._source.fileno())

    def _read(self) -> None:
        try:
            n = self._source.receive_into(self._space)
        except OSError:
            n = 0  # the terminal was closed
        if n is None:
            return
        data = bytes(self._space[:n])
        if not data:
            self._buffer += self._escapes.end()
            self.ended = True
            self._detach()
            self._more.set()
            self._on_end()
            return
        self._last = data[-1:]
        for each in self._escapes.feed(data):
            if isinstance(each, Command):
                self._on_command(each)
            else:
                self._buffer += each
        if self._buffer:
            self._more.set()
        if len(self._buffer) >= BUFFER:
            self._detach()
