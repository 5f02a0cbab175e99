"""Where a resumed session continues if an edge hides the bridge's headers: its first message says so, however split."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tunnel.client.dial import Connection
from tunnel.client.resume_offset import find_offset
from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.net.channel import Channel
from tunnel.protocol.control import SUBPROTOCOL

PING, DATA = b"\x89\x01x", b"\x82\x04data"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def text(line: str) -> bytes:
    return bytes((0x81, len(line))) + line.encode()


def rest_of(channel: Channel) -> bytes:
    space = memoryview(bytearray(1000))
    return bytes(space[: channel.receive_into(space) or 0])


@pytest.mark.parametrize("whole", [True, False])
def test_the_first_ack_is_the_offset_and_what_follows_is_the_session_s(
    pair: tuple[socket.socket, socket.socket], whole: bool
) -> None:
    connection = Connection(Channel(pair[0]), "binary", ())
    said = PING + text("ack 4711") + DATA
    if whole:
        pair[1].sendall(said)
        assert find_offset(connection, "the bridge") == 4711
        assert rest_of(connection.channel) == DATA
        return

    def drip() -> None:
        for at in range(len(said)):
            pair[1].sendall(said[at : at + 1])
            time.sleep(0.005)

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert find_offset(connection, "the bridge") == 4711
    dripping.join()
    assert rest_of(connection.channel) == DATA


def test_a_header_that_arrives_is_enough(pair: tuple[socket.socket, socket.socket]) -> None:
    headers = (("wstunnel-received", "5"),)
    assert find_offset(Connection(Channel(pair[0]), SUBPROTOCOL, headers), "the bridge") == 5


@pytest.mark.parametrize(
    "said",
    [DATA, text("SSH-2.0-x"), text("session id=1"), text("ack many"), text("error policy no"), b"HTTP", text("ping")],
)
def test_a_first_message_of_another_kind_means_another_server(
    pair: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    pair[1].sendall(said)
    with pytest.raises(ConnectionLost) as caught:
        find_offset(Connection(Channel(pair[0]), None, ()), "the bridge")
    assert caught.value.code == "session-gone"
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        pair[1].recv(1)  # nothing was sent


@pytest.mark.parametrize("said", [b"", PING, b"\x88\x02\x03\xe8", b"\x81\x05ack"])
def test_a_server_that_hangs_up_before_its_first_message_is_tried_again(
    pair: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    pair[1].sendall(said)
    pair[1].shutdown(socket.SHUT_WR)
    with pytest.raises(TunnelError) as caught:
        find_offset(Connection(Channel(pair[0]), None, ()), "the bridge")
    assert caught.value.code != "session-gone"


def test_silence_is_not_waited_for_for_long(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.client.resume_offset.FIRST_MESSAGE_LIMIT", 0.2)
    with pytest.raises(DialError) as caught:
        find_offset(Connection(Channel(pair[0]), None, ()), "the bridge")
    assert caught.value.code == "answer-timeout"
