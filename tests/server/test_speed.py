"""The speed test at the bridge: its orders, and the rules for tunnels, which apply to it."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.conftest import StartBridge
from tests.server.clients import LIMIT, UPGRADE, ask
from tunnel.protocol.control import SPEED_TEST, SUBPROTOCOL
from tunnel.protocol.frames import TARGET_LOST, TARGET_REFUSED_DATA


def test_an_unknown_order_ends_the_tunnel(start: StartBridge) -> None:
    bridge = start()
    with connect(bridge.url, subprotocols=[Subprotocol("binary"), Subprotocol(SPEED_TEST)], proxy=None) as tunnel:
        assert tunnel.subprotocol == SPEED_TEST
        tunnel.send(b"format the disk\n")
        assert list(tunnel) == []
    bridge.process.wait_for_line("target=speed-test bytes_in=16 bytes_out=0")


def test_a_long_line_is_no_order(start: StartBridge) -> None:
    with connect(start().url, subprotocols=[Subprotocol(SPEED_TEST)], proxy=None, close_timeout=LIMIT) as tunnel:
        tunnel.send(b"x" * 2_000_000)
        with pytest.raises(ConnectionClosedError) as closed:
            tunnel.recv(timeout=LIMIT)
        assert closed.value.rcvd is not None and closed.value.rcvd.code in (TARGET_LOST, TARGET_REFUSED_DATA)


def test_it_is_a_plain_tunnel_whatever_else_is_offered(start: StartBridge) -> None:
    offered = [Subprotocol(name) for name in ("binary", SUBPROTOCOL, SPEED_TEST)]
    with connect(start().url, subprotocols=offered, proxy=None) as tunnel:
        tunnel.send(b"echo\nhello")
        assert tunnel.recv(timeout=LIMIT) == b"hello"


def test_the_speed_test_needs_the_same_credentials_as_a_tunnel(start: StartBridge) -> None:
    bridge = start("--path", "/only-here")
    answer = ask(bridge.url.removesuffix("/only-here"), headers={**UPGRADE, "Sec-WebSocket-Protocol": SPEED_TEST})
    assert answer.status == 404
