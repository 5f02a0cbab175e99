"""Our bridge, in front of a TCP echo, with the WebSocket libraries that programs use as clients.

They are `websockets`, `aiohttp`, `picows` and `wsproto`.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator

import aiohttp
import picows
import pytest
import websockets.sync.client
import wsproto
import wsproto.events

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo
from tests.bed.tunnels import Bridge, start_bridge
from tests.server.clients import port_of

SIZES = (1, 125, 126, 127, 65535, 65536, 65537, 300_000, 1, 2_000_000)  # around each form of a frame's length
PAYLOADS = [random.Random(size).randbytes(size) for size in SIZES]


@pytest.fixture
def bridge(bed: Bed) -> Iterator[Bridge]:
    with Target(echo) as target:
        yield start_bridge(bed, "ours", target.port)


def receive(socket: websockets.sync.client.ClientConnection, size: int) -> bytes:
    """Message boundaries carry no meaning, so collect ``size`` bytes of binary messages."""
    data = b""
    while len(data) < size:
        message = socket.recv(timeout=20)
        assert isinstance(message, bytes) and message
        data += message
    return data


def test_websockets_sends_messages_of_all_sizes(bridge: Bridge) -> None:
    with websockets.sync.client.connect(bridge.url, compression=None, proxy=None) as socket:
        for payload in PAYLOADS:
            socket.send(payload)
            assert receive(socket, len(payload)) == payload


def test_websockets_offers_compression_and_gets_none(bridge: Bridge) -> None:
    with websockets.sync.client.connect(bridge.url, proxy=None) as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        socket.send(PAYLOADS[-1])
        assert receive(socket, len(PAYLOADS[-1])) == PAYLOADS[-1]


def test_websockets_sends_a_message_in_fragments(bridge: Bridge) -> None:
    with websockets.sync.client.connect(bridge.url, compression=None, proxy=None) as socket:
        socket.send([b"one ", b"", b"two ", b"x" * 100_000, b"", b" three"])
        expected = b"one two " + b"x" * 100_000 + b" three"
        assert receive(socket, len(expected)) == expected


def test_websockets_pings_in_between(bridge: Bridge) -> None:
    with websockets.sync.client.connect(bridge.url, compression=None, proxy=None) as socket:
        for number in range(10):
            socket.send(PAYLOADS[4])
            pong = socket.ping(b"%d" % number)
            assert receive(socket, len(PAYLOADS[4])) == PAYLOADS[4]
            assert pong.wait(20)


def test_text_messages_are_bytes_of_the_stream_like_any_others(bridge: Bridge) -> None:
    """websocat without ``-b`` sends text, and its server takes both kinds."""
    with websockets.sync.client.connect(bridge.url, compression=None, proxy=None) as socket:
        socket.send("grüße\n")
        assert receive(socket, 8) == "grüße\n".encode()


def test_websockets_closes_and_gets_the_tail_first(bridge: Bridge) -> None:
    with websockets.sync.client.connect(bridge.url, compression=None, proxy=None, close_timeout=20) as socket:
        socket.send(PAYLOADS[-1])
        socket.close()
        assert b"".join(message for message in socket if isinstance(message, bytes)) == PAYLOADS[-1]
        assert socket.close_code == 1000


def test_aiohttp_sends_messages_of_all_sizes_with_pings_in_between(bridge: Bridge) -> None:
    async def talk() -> int | None:
        async with aiohttp.ClientSession() as session, session.ws_connect(bridge.url, max_msg_size=0) as socket:
            for payload in PAYLOADS:
                await socket.send_bytes(payload)
                await socket.ping(b"still there?")
                data = b""
                while len(data) < len(payload):
                    data += await socket.receive_bytes(timeout=20)
                assert data == payload
            await socket.close()
            return socket.close_code

    assert asyncio.run(asyncio.wait_for(talk(), 60)) == 1000


class PicowsClient(picows.WSListener):
    """Sends the payloads in fragments, each with a ping behind it, and closes once all is back."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""
        self.pongs = 0
        self.code: object = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        for payload in PAYLOADS:
            middle = len(payload) // 2
            transport.send(picows.WSMsgType.BINARY, payload[:middle], fin=False)
            transport.send_ping(b"still there?")
            transport.send(picows.WSMsgType.CONTINUATION, payload[middle:])

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.BINARY:
            self.heard += frame.get_payload_as_bytes()
            if len(self.heard) == sum(SIZES):
                transport.send_close(picows.WSCloseCode.GOING_AWAY, b"bye")
        elif frame.msg_type == picows.WSMsgType.PONG:
            self.pongs += frame.get_payload_as_bytes() == b"still there?"
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            self.code = frame.get_close_code()
            transport.disconnect()


def test_picows_sends_fragments_of_all_sizes_with_pings_between_them(bridge: Bridge) -> None:
    async def talk() -> PicowsClient:
        transport, listener = await picows.ws_connect(PicowsClient, bridge.url)
        await transport.wait_disconnected()
        assert isinstance(listener, PicowsClient)
        return listener

    client = asyncio.run(asyncio.wait_for(talk(), 60))
    assert client.heard == b"".join(PAYLOADS)
    assert 1 <= client.pongs <= len(PAYLOADS)
    assert client.code == 1001


def test_wsproto_gets_its_own_close_code_back(bridge: Bridge) -> None:
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    heard = b""
    pongs: list[bytes] = []
    closes: list[int] = []
    with socket.create_connection(("127.0.0.1", port_of(bridge.url)), 20) as connection:
        connection.sendall(client.send(wsproto.events.Request(host="bridge", target="/", subprotocols=["other"])))
        while not closes:
            client.receive_data(connection.recv(1 << 16) or None)
            for event in client.events():
                if isinstance(event, wsproto.events.AcceptConnection):
                    assert event.subprotocol is None and event.extensions == []
                    connection.sendall(client.send(wsproto.events.BytesMessage(b"", message_finished=False)))
                    connection.sendall(client.send(wsproto.events.Ping(b"x" * 125)))
                    connection.sendall(client.send(wsproto.events.BytesMessage(PAYLOADS[5])))
                elif isinstance(event, wsproto.events.BytesMessage):
                    heard += bytes(event.data)
                    if len(heard) == len(PAYLOADS[5]):
                        connection.sendall(client.send(wsproto.events.CloseConnection(4321, "enough")))
                elif isinstance(event, wsproto.events.Pong):
                    pongs.append(bytes(event.payload))
                elif isinstance(event, wsproto.events.CloseConnection):
                    closes.append(event.code)
        assert connection.recv(1) == b"", "the bridge closes the connection first: RFC 6455, section 7.1.1"
    assert (heard, pongs, closes) == (PAYLOADS[5], [b"x" * 125], [4321])
