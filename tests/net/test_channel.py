"""Channels in detail: what was read before, what is put back, options of the socket, and TLS on the way out."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.net.test_channel_contract import tls_pair
from tests.server.clients import LIMIT
from tunnel.client.socket_pair import connected_pair
from tunnel.net import channel
from tunnel.net.channel import HELD_PIECE, MAX_PIECES, UNSENT_LIMIT, Channel, reset
from tunnel.net.tls import TLSChannel
from tunnel.server.tls_channel import ServerTLSChannel

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = connected_pair()
    with one, other:
        other.settimeout(LIMIT)
        yield one, other


@pytest.fixture
def tls() -> Iterator[tuple[TLSChannel, ServerTLSChannel]]:
    with ExitStack() as stack:
        yield tls_pair(stack)


def receive(from_channel: Channel, size: int = 1 << 20) -> bytes | None:
    space = memoryview(bytearray(size))
    n = from_channel.receive_into(space)
    return None if n is None else bytes(space[:n])


def wait_and_receive(from_channel: Channel, size: int = 1 << 20) -> bytes:
    while (data := receive(from_channel, size)) is None:
        assert select.select([from_channel], [], [], LIMIT)[0]
    return data


def test_what_was_read_before_is_received_first_and_in_pieces(pair: Pair) -> None:
    data = bytes(i % 251 for i in range(2 * HELD_PIECE + 10))
    near = Channel(pair[0], data)
    pair[1].sendall(b"new")
    assert near.pending and bytes(near.held) == data
    assert receive(near, 10) == data[:10]
    assert bytes(near.held) == data[10:]
    assert receive(near) == data[10 : 10 + HELD_PIECE]
    assert receive(near) == data[10 + HELD_PIECE :]
    assert not bool(near.pending)
    assert bytes(near.held) == b""
    assert wait_and_receive(near) == b"new"
    assert receive(near) is None


def test_what_is_put_back_is_received_again(pair: Pair) -> None:
    near = Channel(pair[0], b"0123456789")
    space = memoryview(bytearray(6))
    assert near.receive_into(space) == 6
    near.put_back(space[4:])
    assert bytes(near.held) == b"456789"
    assert near.receive_into(space) == 6
    near.put_back(space[1:])
    assert receive(near, 3) == b"567"
    assert receive(near) == b"89"
    pair[1].sendall(b"abcdef")
    assert wait_and_receive(near, 6) == b"abcdef"
    near.put_back(memoryview(b"ef"))
    assert near.pending
    assert receive(near) == b"ef"


def test_a_keystroke_is_sent_at_once_and_the_kernel_takes_little_of_what_it_cannot_send(pair: Pair) -> None:
    def options(sock: socket.socket) -> tuple[bool, int]:
        return (
            bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
        )

    one, other = pair
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)  # both have it by now
    usual = options(other)[1]
    assert options(Channel(one).sock) == (True, UNSENT_LIMIT)
    assert options(Channel(other, is_wire=False).sock) == (True, usual)
    assert one.getblocking() is other.getblocking() is False


class Closed(socket.socket):
    """A TCP socket as macOS has it, once the peer has closed the connection."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_what_a_peer_said_before_it_went_is_read_on_macos_too(pair: Pair) -> None:
    pair[1].sendall(b"said")
    pair[1].close()
    with Closed(fileno=pair[0].detach()) as sock:
        near = Channel(sock)
        assert [wait_and_receive(near), wait_and_receive(near)] == [b"said", b""]


def test_sockets_that_are_none_of_tcp_have_no_such_options() -> None:
    one, other = socket.socketpair()
    with one, other:
        near = Channel(one)
        assert near.send([b"x"]) == 1 and near.fileno() == one.fileno()


def test_a_channel_works_on_a_system_without_tcp_notsent_lowat(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT")
    assert Channel(pair[0]).send([b"x"]) == 1


@pytest.mark.parametrize("has_sendmsg", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, MAX_PIECES, MAX_PIECES + 5])
def test_pieces_go_in_their_order_and_no_more_than_the_kernel_takes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, has_sendmsg: bool, count: int
) -> None:
    monkeypatch.setattr(channel, "_HAS_SENDMSG", has_sendmsg)
    pieces = [b"%03d" % number for number in range(count)]
    sent = Channel(pair[0]).send(pieces)
    assert sent == 3 * min(count, MAX_PIECES)
    heard = b""
    while len(heard) < sent:
        heard += pair[1].recv(1 << 16)
    assert heard == b"".join(pieces)[:sent]


def test_the_pieces_are_not_joined_where_the_kernel_takes_several(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Counting:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def send(self, data: bytes) -> int:
            calls.append("send")
            return self.sock.send(data)

        def sendmsg(self, pieces: list[bytes]) -> int:
            calls.append("sendmsg")
            return self.sock.sendmsg(pieces)

    near = Channel(pair[0])
    near.sock = Counting(near.sock)  # type: ignore[assignment]
    near.send([b"one"])
    near.send([b"one", b"two"])
    assert calls == ["send", "sendmsg"]


def test_a_reset_is_an_error_and_not_an_end(pair: Pair) -> None:
    one, other = pair
    reset(one)
    with pytest.raises(ConnectionResetError):
        other.recv(1)
    assert one.fileno() == -1


def test_lingering_is_what_a_reset_is_made_by(pair: Pair) -> None:
    """The kernel discards what is unsent only if it is not to linger at all."""
    seen: list[bytes] = []

    class Watched:
        def setsockopt(self, level: int, option: int, value: bytes) -> None:
            seen.append(value)

        def close(self) -> None:
            seen.append(b"closed")

    reset(Watched())  # type: ignore[arg-type]
    assert seen == [struct.pack("ii", 1, 0), b"closed"]


# ---- TLS


def test_what_was_read_before_the_handshake_was_over_is_received_first(
    tls: tuple[TLSChannel, ServerTLSChannel],
) -> None:
    client, _ = tls
    again = TLSChannel(client._tls, b"early")
    assert again.pending
    assert receive(again) == b"early"


def test_records_that_came_together_are_received_together(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    for data in (b"one", b"two"):
        bridge.send([data])
    while not select.select([client], [], [], LIMIT)[0]:
        pass
    heard = wait_and_receive(client)
    while len(heard) < 6:
        heard += wait_and_receive(client)
    assert heard == b"onetwo"
    assert receive(client) is None


def test_what_is_decrypted_already_is_pending(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    bridge.send([b"12"])
    assert wait_and_receive(client, 1) == b"1"
    assert client.pending, "the descriptor will not become readable for it"
    assert receive(client, 1) == b"2"
    assert not client.pending


@pytest.mark.parametrize("pieces", [[b"one"], [b"one", b"two"], [b"one", b"", b"three"]])
def test_pieces_go_in_their_order_over_tls(tls: tuple[TLSChannel, ServerTLSChannel], pieces: list[bytes]) -> None:
    client, bridge = tls
    whole = b"".join(pieces)
    assert client.send(pieces) == len(whole)
    heard = b""
    while len(heard) < len(whole):
        heard += wait_and_receive(bridge)
    assert heard == whole


def test_a_piece_that_goes_alone_is_not_copied(
    tls: tuple[TLSChannel, ServerTLSChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = tls
    piece = memoryview(bytearray(b"x" * 100))
    seen: list[object] = []

    class Watched:
        def send(self, data: memoryview) -> int:
            seen.append(data.obj)
            return len(data)

    client._tls = Watched()  # type: ignore[assignment]
    client.send([piece])
    monkeypatch.undo()
    client._tls = client.sock  # type: ignore[assignment]
    assert seen == [piece.obj] and seen[0] is piece.obj


def test_a_half_close_over_tls_is_said_and_then_done(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    client.end_writing()
    raw = b""
    while True:
        assert select.select([bridge.sock], [], [], LIMIT)[0]
        data = bridge.sock.recv(1000)
        if not data:
            break
        raw += data
    assert raw, "a close_notify"


def test_all_is_sent_that_goes_at_once_in_whatever_parts_it_is_taken(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, _ = tls
    taken: list[bytes] = []

    class Slow:
        def send(self, data: memoryview) -> int:
            taken.append(bytes(data[:1000]))
            return len(taken[-1])

    data = bytes(i % 251 for i in range(2500))
    client._tls = Slow()  # type: ignore[assignment]
    assert client.send([data]) == 2500
    client._tls = client.sock  # type: ignore[assignment]
    assert b"".join(taken) == data and len(taken) == 3


def test_what_openssl_takes_in_parts_is_counted_together(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    data = bytes(i % 251 for i in range(100_000))
    sent = client.send([data])
    heard = b""
    while len(heard) < len(data):
        if sent < len(data):
            sent += client.send([data[sent:]])
        heard += wait_and_receive(bridge)
    assert heard == data and sent == len(data)


def test_an_end_of_writing_is_an_end_behind_all_data_for_the_peer(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    client.send([b"last"])
    client.end_writing()
    assert wait_and_receive(bridge) == b"last"
    assert wait_and_receive(bridge) == b""
    with pytest.raises(OSError):
        client.send([b"more"])


def test_data_before_a_break_is_received_first(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, _ = tls

    class Breaking:
        def __init__(self) -> None:
            self.left = [b"data"]

        def recv_into(self, space: memoryview) -> int:
            if not self.left:
                raise ConnectionResetError("broken")
            data = self.left.pop()
            space[: len(data)] = data
            return len(data)

    client._tls = Breaking()  # type: ignore[assignment]
    try:
        assert receive(client) == b"data"
        with pytest.raises(ConnectionResetError):
            receive(client)
    finally:
        client._tls = client.sock  # type: ignore[assignment]


def test_a_space_that_is_full_is_not_read_into_once_more(tls: tuple[TLSChannel, ServerTLSChannel]) -> None:
    client, bridge = tls
    sizes: list[int] = []

    class Watched:
        def recv_into(self, space: memoryview) -> int:
            sizes.append(len(space))
            return client.sock.recv_into(space)

    client._tls = Watched()  # type: ignore[assignment]
    bridge.send([b"1234"])
    assert wait_and_receive(client, 4) == b"1234"
    client._tls = client.sock  # type: ignore[assignment]
    assert set(sizes) == {4}
