"""A TCP proxy between a client and the service that breaks connections at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

REQUEST = re.compile(rb"^POST \S*/process\.Process/(\w+) ")
RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards connections, and breaks them as told. Connections are cut with a reset.

    ``cut_streams`` lists for each stream after how many bytes of the answer it is cut (None: never).
    ``lose_answers`` maps methods to the number of answers that are lost: the call arrives, then the connection is cut.
    ``away`` refuses all connections. ``calls`` lists the methods that were called.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self.cut_streams: Callable[[], int | None] = lambda: None
        self.lose_answers: dict[str, int] = {}
        self.away = False
        self.calls: list[str] = []
        self.cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cutting proxy")
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def cut(self) -> None:
        """Cut all open connections."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def _cut_all(self) -> None:
        for writer in list(self._writers):
            self._cut(writer)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        # Again and again, as the loop may be about to make one for a connection that was accepted just now.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        # When to cut the current answer.
        budget: list[int | None] = [None]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, far_writer, budget))
                group.create_task(self._answers(far_reader, writer, budget))
        except* OSError:
            pass  # one end broke
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int | None]
    ) -> None:
        while data := await reader.read(65536):
            if found := REQUEST.match(data):
                method = found[1].decode()
                self.calls.append(method)
                budget[0] = self.cut_streams() if method in ("Start", "Connect") else None
                if self.lose_answers.get(method, 0) > 0:
                    self.lose_answers[method] -= 1
                    budget[0] = 0
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the client hung up")

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int | None]
    ) -> None:
        while data := await reader.read(65536):
            if (left := budget[0]) is not None:
                if len(data) > left:
                    writer.write(data[:left])
                    self.cuts += 1
                    if left:
                        await writer.drain()
                        await asyncio.sleep(0.01)  # a reset discards data that the client has not read yet
                    self._cut(writer)
                    raise ConnectionResetError("cut")
                budget[0] = left - len(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the service hung up")

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
