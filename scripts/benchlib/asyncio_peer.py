"""The peer ``websockets``: a ProxyCommand and a bridge as one would write them with that library's asyncio face.

Straightforward and fair: no compression, no limit on messages, binary messages of up to 256 KiB, TCP_NODELAY (asyncio's
default), and writes that wait for the buffers to drain.

    asyncio_peer.py connect URL
    asyncio_peer.py bridge LISTEN_PORT TARGET_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection

CHUNK = 256 * 1024


async def relay(websocket: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until either side ends, then close the other."""

    async def outward() -> None:
        while data := await reader.read(CHUNK):
            await websocket.send(data)

    async def inward() -> None:
        async for message in websocket:
            writer.write(message if isinstance(message, bytes) else message.encode())
            await writer.drain()

    tasks = [asyncio.ensure_future(outward()), asyncio.ensure_future(inward())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await websocket.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


async def connect(url: str) -> None:
    from websockets.asyncio.client import connect

    loop = asyncio.get_running_loop()
    async with connect(url, compression=None, max_size=None) as websocket:
        reader = asyncio.StreamReader(limit=CHUNK)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sys.stdout.buffer
        )
        await relay(websocket, reader, asyncio.StreamWriter(transport, protocol, None, loop))


async def bridge(listen_port: int, target_port: int) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def handle(websocket: ServerConnection) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target_port, limit=CHUNK)
        await relay(websocket, reader, writer)

    async with serve(handle, "127.0.0.1", listen_port, compression=None, max_size=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["connect", url]:
            asyncio.run(connect(url))
        case ["bridge", listen_port, target_port]:
            asyncio.run(bridge(int(listen_port), int(target_port)))
        case _:
            sys.exit(__doc__)
