"""An edge that terminates the WebSocket and opens one of its own to the bridge, as gateways on aiohttp do; a program.
With ``--library websockets`` it is made of that library, and then has ``--max-size`` only.

It forwards offers and the headers of requests, and drops those of the bridge's answer. ``--select`` is what it tells
the client of the subprotocol: ``none``, the ``first`` or the ``last`` that was offered, or the ``same`` as the bridge;
``--offer`` what it offers to the bridge. ``--max-size`` limits messages of both sides: a larger one is answered by a
Close with 1009, or with ``--drops`` by nothing but the end of both connections. ``--binary`` makes data of text, with
``--binary up`` only of the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

import aiohttp
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

_OWN = ("host", "upgrade", "connection", "sec-websocket-")
Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


class _TooBig(Exception):
    pass


class Edge:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        # aiohttp takes messages below its limit; where this edge drops connections it looks itself.
        self._limit = 0 if options.drops or not options.max_size else options.max_size + 1

    async def serve(self, request: web.Request) -> web.StreamResponse:
        options = self._options
        offered = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        onward = {"all": offered, "binary": ["binary"], "none": []}[options.offer]
        headers = {name: value for name, value in request.headers.items() if not name.lower().startswith(_OWN)}
        selected = {"first": offered[:1], "last": offered[-1:]}.get(options.select, [])
        async with aiohttp.ClientSession() as session:
            try:
                bridge = await session.ws_connect(
                    options.bridge, protocols=onward, headers=headers, max_msg_size=self._limit, compress=0
                )
            except aiohttp.WSServerHandshakeError as exc:
                return web.Response(status=exc.status, text=exc.message)
            if options.select == "same" and bridge.protocol:
                selected = [bridge.protocol]
            client = web.WebSocketResponse(protocols=selected, max_msg_size=self._limit, compress=False)
            await client.prepare(request)
            tasks = [
                asyncio.create_task(self._relay(client, bridge)), asyncio.create_task(self._relay(bridge, client)),
            ]  # fmt: skip
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            if any(isinstance(task.exception(), _TooBig) for task in done):
                onward_connection = bridge._response.connection
                for transport in (request.transport, onward_connection and onward_connection.transport):
                    if isinstance(transport, asyncio.Transport):
                        transport.abort()
                return client
            with contextlib.suppress(Exception):
                await client.close(code=bridge.close_code or 1000 if bridge.closed else 1000)
            with contextlib.suppress(Exception):
                await bridge.close()
            return client

    async def _relay(self, source: Socket, sink: Socket) -> None:
        options = self._options
        async for message in source:
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return
            if options.drops and len(message.data) > options.max_size:
                raise _TooBig
            makes_data = options.binary == "both" or (options.binary and isinstance(source, web.WebSocketResponse))
            if message.type == aiohttp.WSMsgType.TEXT and not makes_data:
                await sink.send_str(message.data)
            else:
                data = message.data
                await sink.send_bytes(data.encode() if isinstance(data, str) else data)


async def serve_with_websockets(options: argparse.Namespace) -> None:
    async def copy(source: Connection, sink: Connection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in source:
                await sink.send(message)

    async def serve(client: ServerConnection) -> None:
        assert client.request is not None
        headers = {name: value for name, value in client.request.headers.raw_items() if name == "Wstunnel-Resume"}
        offered = [*map(Subprotocol, ("binary", "v1.resume.wstunnel-py"))]
        async with connect(
            options.bridge, subprotocols=offered, additional_headers=headers, max_size=options.max_size or None,
            compression=None, proxy=None,
        ) as bridge:  # fmt: skip
            tasks = [asyncio.create_task(copy(client, bridge)), asyncio.create_task(copy(bridge, client))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(client.close(), bridge.close())
            await asyncio.gather(*tasks)

    offered = [Subprotocol("binary")]
    size = options.max_size or None
    async with serve_websocket(
        serve, "127.0.0.1", options.port, subprotocols=offered, max_size=size, compression=None
    ) as server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bridge")
    parser.add_argument("port", type=int)
    parser.add_argument("--select", default="first")
    parser.add_argument("--offer", default="all")
    parser.add_argument("--max-size", type=int, default=0)
    parser.add_argument("--drops", action="store_true")
    parser.add_argument("--binary", nargs="?", const="both")
    parser.add_argument("--library", default="aiohttp")
    options = parser.parse_args()
    if options.library == "websockets":
        asyncio.run(serve_with_websockets(options))
        return
    application = web.Application()
    application.router.add_get("/{path:.*}", Edge(options).serve)
    web.run_app(application, host="127.0.0.1", port=options.port, handle_signals=True)


if __name__ == "__main__":
    main()
