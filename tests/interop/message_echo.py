"""Our bridge and our client as an echo of WebSocket messages, which is what conformance suites talk to.

All of it is the real thing but for the codec: a tunnel carries bytes, while such a suite expects each message back as
it was. So here a message goes to a TCP echo, and comes back, together with its opcode and its length.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.bed.targets import Target, echo
from tunnel.client.local_socket import LocalSocket, Stop
from tunnel.client.settings import resolve
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.errors import TunnelError
from tunnel.protocol.codec import BinaryCodec
from tunnel.server.address_target import parse_target
from tunnel.server.bridge import Bridge
from tunnel.server.settings import BridgeSettings

if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer, Payload
    from tunnel.protocol.outbox import Outbox

_RECORD = struct.Struct("!BQ")  # what stands before each message on its way to the echo: opcode, length


class EchoCodec(BinaryCodec):
    """Sends each message, whole and of its own kind, when it has come back from the echo."""

    __slots__ = ("_coming", "_returned")

    def __init__(self) -> None:
        self._coming = bytearray()
        self._returned = bytearray()

    def decode(self, event: Payload, sink: list[Buffer]) -> None:
        self._coming += event.data
        if event.final:
            sink.append(_RECORD.pack(event.opcode, len(self._coming)) + bytes(self._coming))
            self._coming.clear()

    def encode(self, chunk: memoryview, start: int, end: int, outbox: Outbox) -> bool:
        self._returned += chunk[start:end]
        while len(self._returned) >= _RECORD.size:
            opcode, size = _RECORD.unpack_from(self._returned)
            whole = _RECORD.size + size
            if len(self._returned) < whole:
                break
            outbox.add(opcode, bytes(self._returned[_RECORD.size : whole]))
            del self._returned[:whole]
        return True


@contextmanager
def echoing_bridge() -> Iterator[int]:
    """A bridge that echoes messages; yields its port."""
    loop = asyncio.new_event_loop()
    started: asyncio.Future[int] = loop.create_future()
    over = asyncio.Event()

    async def serve(target: str) -> None:
        settings = BridgeSettings(listen=("127.0.0.1:0",), target=target, resume_for=0.0)
        async with Bridge(settings, parse_target(target), make_codec=EchoCodec) as bridge:
            started.set_result(int(bridge.urls[0].rpartition(":")[2]))
            await over.wait()

    with Target(echo) as target:
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(f"127.0.0.1:{target.port}"),))
        thread.start()
        try:
            ready = asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(started), 20), loop)
            yield ready.result(20)
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join(20)
            loop.close()


def echo_as_client(url: str) -> None:
    """Dial ``url`` with our client and echo what comes, until the connection is over."""
    settings = resolve(url, {"no-resume": True})
    tunnel = Tunnel(settings, Trace(), lambda: settings, lambda _: None, make_codec=EchoCodec)
    with Target(echo) as target:
        local = LocalSocket(socket.create_connection(("127.0.0.1", target.port)))
        stop = Stop()
        try:
            tunnel.run(tunnel.dial(), local, local, lambda: stop)
        except TunnelError:
            pass  # the suite has seen how it ended
        finally:
            local.close()
            stop.close()
