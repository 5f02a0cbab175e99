"""Our client against servers made with `websockets`, `aiohttp`, `picows` and `wsproto`: what they send arrives whole.

Each of them greets with text, empty messages, fragments with a ping between them and messages around each form of a
length, then sends back what it hears, and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import aiohttp
import aiohttp.web
import picows
import pytest
import websockets
import wsproto
import wsproto.events
from websockets.asyncio.server import Server, ServerConnection, serve
from wsproto.utilities import LocalProtocolError

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS

TEXT = "grüße\n"
PARTS = (b"one ", b"", b"two ", b"x" * 70_000)
SIZED = [random.Random(size).randbytes(size) for size in (1, 125, 126, 127, 65535, 65536, 65537)]
GREETING = TEXT.encode() + b"".join(PARTS) + b"".join(SIZED)
DATA = random.Random("data").randbytes(1_000_000)
SUBPROTOCOL = "binary"
LIMIT = 60.0  # seconds
T = TypeVar("T")
Serve = Callable[[], contextlib.AbstractContextManager[int]]


class Loop:
    """asyncio's loop in a thread, for servers that want one."""

    def __enter__(self) -> Loop:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT)
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, LIMIT), self.loop).result(LIMIT)


@contextlib.contextmanager
def by_websockets() -> Iterator[int]:
    async def handle(connection: ServerConnection) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for part in PARTS:
                yield part
                await connection.ping()

        await connection.send(TEXT)
        await connection.send(b"")
        await connection.send(parts())
        for data in SIZED:
            await connection.send(data)
        await (await connection.ping(b"there?"))
        heard = 0
        while heard < len(DATA):
            message = await connection.recv(decode=False)
            heard += len(message)
            await connection.send(message)

    async def start() -> Server:
        return await serve(handle, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol(SUBPROTOCOL)])

    async def stop(server: Server) -> None:
        server.close()
        await server.wait_closed()

    with Loop() as loop:
        server = loop.run(start())
        yield next(iter(server.sockets)).getsockname()[1]
        loop.run(stop(server))


@contextlib.contextmanager
def by_aiohttp() -> Iterator[int]:
    async def handle(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        connection = aiohttp.web.WebSocketResponse(protocols=[SUBPROTOCOL], autoping=True)
        await connection.prepare(request)
        await connection.send_str(TEXT)
        await connection.send_bytes(b"")
        for data in (*PARTS, *SIZED):
            await connection.send_bytes(data)
            await connection.ping(b"there?")
        heard = 0
        while heard < len(DATA):
            data = await connection.receive_bytes()
            heard += len(data)
            await connection.send_bytes(data)
        await connection.close()
        return connection

    with Loop() as loop:
        application = aiohttp.web.Application()
        application.router.add_get("/", handle)
        runner = aiohttp.web.AppRunner(application)
        loop.run(runner.setup())
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        loop.run(site.start())
        yield int(runner.addresses[0][1])
        loop.run(runner.cleanup())


class PicowsEcho(picows.WSListener):
    """One connection of the server made with picows."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0
        self.ponged = self.closed = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        transport.send(picows.WSMsgType.TEXT, TEXT.encode())
        transport.send(picows.WSMsgType.BINARY, b"")
        for number, part in enumerate(PARTS):
            kind = picows.WSMsgType.CONTINUATION if number else picows.WSMsgType.BINARY
            transport.send(kind, part, fin=number == len(PARTS) - 1)
            transport.send_ping(b"there?")
        for data in SIZED:
            transport.send(picows.WSMsgType.BINARY, data)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.PONG:
            self.ponged = frame.get_payload_as_bytes() == b"there?"
            self._close_if_done(transport)
        elif frame.msg_type == picows.WSMsgType.BINARY:
            data = frame.get_payload_as_bytes()
            self.heard += len(data)
            transport.send(picows.WSMsgType.BINARY, data)
            self._close_if_done(transport)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()

    def _close_if_done(self, transport: picows.WSTransport) -> None:
        if self.heard == len(DATA) and self.ponged and not self.closed:
            self.closed = True
            transport.send_close(picows.WSCloseCode.OK)


@contextlib.contextmanager
def by_picows() -> Iterator[int]:
    async def start() -> Any:
        return await picows.ws_create_server(lambda request: PicowsEcho(), "127.0.0.1", 0)

    async def stop(server: Any) -> None:
        server.close()
        await server.wait_closed()

    with Loop() as loop:
        server = loop.run(start())
        yield server.sockets[0].getsockname()[1]
        loop.run(stop(server))


def talk_by_wsproto(connection: socket.socket) -> list[bytes]:
    """Serve one connection; return what came with its pongs."""
    peer = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    pongs: list[bytes] = []
    heard = 0
    while True:
        data = connection.recv(1 << 16)
        peer.receive_data(data or None)
        for event in peer.events():
            if isinstance(event, wsproto.events.Request):
                connection.sendall(peer.send(wsproto.events.AcceptConnection(subprotocol=SUBPROTOCOL)))
                connection.sendall(peer.send(wsproto.events.TextMessage(TEXT)))
                for number, part in enumerate(PARTS):
                    last = number == len(PARTS) - 1
                    connection.sendall(peer.send(wsproto.events.BytesMessage(part, message_finished=last)))
                    connection.sendall(peer.send(wsproto.events.Ping(b"there?")))
                for sized in SIZED:
                    connection.sendall(peer.send(wsproto.events.BytesMessage(sized)))
            elif isinstance(event, wsproto.events.Pong):
                pongs.append(bytes(event.payload))
            elif isinstance(event, wsproto.events.BytesMessage):
                heard += len(event.data)
                connection.sendall(peer.send(wsproto.events.BytesMessage(bytes(event.data))))
                if heard == len(DATA):
                    connection.sendall(peer.send(wsproto.events.CloseConnection(1000)))
            elif isinstance(event, wsproto.events.CloseConnection):
                with contextlib.suppress(LocalProtocolError):  # it is the answer to ours
                    connection.sendall(peer.send(event.response()))
                return pongs


@contextlib.contextmanager
def by_wsproto() -> Iterator[int]:
    with Target(talk_by_wsproto) as target:
        yield target.port
        assert target.result() in ([b"there?"], [b"there?"] * 2, [b"there?"] * 3, [b"there?"] * 4)


SERVERS: dict[str, Serve] = {
    "websockets": by_websockets,
    "aiohttp": by_aiohttp,
    "picows": by_picows,
    "wsproto": by_wsproto,
}


@pytest.mark.parametrize("options", [(), ("--no-resume",)], ids=["offers to resume", "plain"])
@pytest.mark.parametrize("kind", SERVERS)
def test_all_that_a_server_sends_arrives_and_comes_back(bed: Bed, kind: str, options: tuple[str, ...]) -> None:
    with SERVERS[kind]() as port:
        client = bed.start(*OURS, "connect", *options, f"ws://127.0.0.1:{port}/", stdin=subprocess.PIPE)
        client.feed(DATA)
        assert client.wait(LIMIT) == 0, client.log()
    assert client.out.read_bytes() == GREETING + DATA
    assert client.err.read_text() == ""
