"""What holds for everything that the pump reads and writes: sockets, with and without TLS, and pipes."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
import trustme

from tests.server.clients import LIMIT
from tunnel.client.local_socket import LocalSocket
from tunnel.client.socket_pair import connected_pair
from tunnel.client.stdio import StandardInput, StandardOutput
from tunnel.client.threaded_stdio import ThreadedInput, ThreadedOutput
from tunnel.net.channel import Channel
from tunnel.net.tls import TLSChannel
from tunnel.server.tls_channel import ServerTLSChannel

if TYPE_CHECKING:
    from tunnel.net.pump import Sink, Source

DATA = bytes(range(256)) * 4096  # more than any buffer on the way takes


class Closable(Protocol):
    def close(self) -> None: ...


@dataclass
class Link:
    """A way for bytes: what is written to ``sink`` comes out of ``source``, at the other end."""

    sink: Sink
    source: Source
    ends: tuple[Closable, Closable]


def tls_pair(stack: ExitStack) -> tuple[TLSChannel, ServerTLSChannel]:
    """Return the two ends of a TLS connection: the client's and the bridge's."""
    authority = trustme.CA()
    for_bridge = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(for_bridge)
    for_client = ssl.create_default_context()
    authority.configure_trust(for_client)
    ours, theirs = connected_pair()
    wrapped: list[ssl.SSLSocket] = []
    hands = threading.Thread(
        target=lambda: wrapped.append(for_client.wrap_socket(ours, server_hostname="localhost")), daemon=True
    )
    hands.start()
    bridge = ServerTLSChannel(theirs, for_bridge)
    while not bridge.shake_hands():
        assert select.select([theirs], [], [], LIMIT)[0]
    hands.join(LIMIT)
    client = TLSChannel(wrapped[0])
    stack.callback(client.close)
    stack.callback(bridge.close)
    return client, bridge


def channels(kind: str, stack: ExitStack) -> tuple[Channel, Channel]:
    """Return two connected channels; the first is of this kind."""
    if kind == "TLS of the client":
        return tls_pair(stack)
    if kind == "TLS of the bridge":
        client, bridge = tls_pair(stack)
        return bridge, client
    one, other = socket.socketpair() if kind == "Unix" else connected_pair()
    near = LocalSocket(one) if kind == "local socket" else Channel(one)
    far = Channel(other)
    stack.callback(near.close)
    stack.callback(far.close)
    return near, far


CHANNELS = ("TCP", "Unix", "local socket", "TLS of the client", "TLS of the bridge")


def make_link(kind: str, stack: ExitStack) -> Link:
    if kind.endswith("pipe"):
        reading, writing = os.pipe()
        reader, writer = (stack.enter_context(os.fdopen(fd, mode)) for fd, mode in ((reading, "rb"), (writing, "wb")))
        if kind == "pipe":
            return Link(StandardOutput(writing), StandardInput(reading), (writer, reader))
        source, sink = ThreadedInput(reading), ThreadedOutput(writing)
        stack.callback(source.close)
        stack.callback(sink.close)
        end = ExitStack()
        end.callback(writer.close)
        end.callback(sink.finish)
        return Link(sink, source, (end, reader))
    near, far = channels(kind, stack)
    return Link(near, far, (near, far))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(params=[*CHANNELS, "pipe", "threaded pipe"])
def link(request: pytest.FixtureRequest, stack: ExitStack) -> Link:
    return make_link(request.param, stack)


@pytest.fixture(params=CHANNELS)
def both(request: pytest.FixtureRequest, stack: ExitStack) -> tuple[Channel, Channel]:
    return channels(request.param, stack)


def receive(source: Source, size: int = 1 << 16) -> bytes | None:
    """Return what one read gives; None: nothing yet."""
    space = memoryview(bytearray(size))
    n = source.receive_into(space)
    return None if n is None else bytes(space[:n])


def receive_soon(source: Source) -> bytes:
    """Wait for something, or the end."""
    for _ in range(1000):
        data = receive(source)
        if data is not None:
            return data
        select.select([source], [], [], LIMIT)
    raise AssertionError("nothing comes")


def transfer(sink: Sink, source: Source, pieces: Sequence[bytes]) -> bytes:
    """Send ``pieces``, and return what comes out at the other end."""
    waiting = [memoryview(piece) for piece in pieces]
    expected, got = sum(map(len, pieces)), bytearray()
    for _ in range(100_000):
        if waiting:
            n = sink.send(waiting)
            while waiting and n >= len(waiting[0]):
                n -= len(waiting.pop(0))
            if n:
                waiting[0] = waiting[0][n:]
        data = receive(source)
        got += data or b""
        if len(got) == expected and not waiting:
            return bytes(got)
        if data is None:
            select.select([source], [sink] if waiting else [], [], LIMIT)
    raise AssertionError("not all has come")


def test_bytes_arrive_whole_and_in_order(link: Link) -> None:
    assert transfer(link.sink, link.source, [DATA, b"x", DATA[:5000]]) == DATA + b"x" + DATA[:5000]


def test_many_small_pieces_are_as_good_as_one(link: Link) -> None:
    pieces = [b"%d," % number for number in range(2000)]
    assert transfer(link.sink, link.source, pieces) == b"".join(pieces)


def test_where_nothing_has_come_a_read_says_so_and_does_not_wait(link: Link) -> None:
    assert receive(link.source) is None
    assert transfer(link.sink, link.source, [b"something"]) == b"something"
    assert receive(link.source) is None


def test_a_write_takes_what_goes_and_does_not_wait(link: Link) -> None:
    taken = 0
    for _ in range(1000):
        n = link.sink.send([memoryview(DATA)[taken % len(DATA) :]])
        taken += n
        if n == 0:
            break
    else:
        raise AssertionError("it takes all without a reader")
    got = bytearray()
    while len(got) < taken:
        got += receive_soon(link.source)
    assert bytes(got) == (DATA * (taken // len(DATA) + 1))[:taken]


def test_the_end_is_received_after_the_last_byte(link: Link) -> None:
    assert link.sink.send([b"last"]) == 4
    link.ends[0].close()
    assert receive_soon(link.source) == b"last"
    assert receive_soon(link.source) == b""


def test_a_writer_gets_an_error_when_the_reader_is_gone(stack: ExitStack) -> None:
    for kind in (*CHANNELS, "pipe", "threaded pipe"):
        made = make_link(kind, stack)
        with contextlib.suppress(OSError):  # TLS has not got the client's tickets read yet
            receive(made.source)
        made.ends[1].close()
        with pytest.raises(OSError):  # a socket may take some before it knows
            for _ in range(1000):
                if not made.sink.send([DATA]):
                    select.select([], [made.sink], [], LIMIT)


# ---- what only channels can


def is_pending(channel: Channel) -> bool:
    return channel.pending


def test_what_is_put_back_comes_again_first(both: tuple[Channel, Channel]) -> None:
    near, far = both
    assert far.send([b"abcdef"]) == 6
    space = memoryview(bytearray(100))
    assert select.select([near], [], [], LIMIT)[0]
    while (n := near.receive_into(space)) is None:
        select.select([near], [], [], LIMIT)
    assert bytes(space[:n]) == b"abcdef" and not is_pending(near)
    near.put_back(space[2:n])
    assert is_pending(near)
    assert far.send([b"gh"]) == 2
    assert receive(near, 3) == b"cde" and is_pending(near)
    assert receive(near) == b"f"
    assert receive_soon(near) == b"gh"
    assert not is_pending(near)


def test_what_waits_inside_is_pending(both: tuple[Channel, Channel]) -> None:
    """A selector would not tell of it: so it must be read as long as it is pending."""
    near, far = both
    assert far.send([b"0123456789" * 10]) == 100
    assert select.select([near], [], [], LIMIT)[0]
    got = b""
    while len(got) < 100:
        assert near.pending or select.select([near], [], [], LIMIT)[0]
        got += receive(near, 7) or b""
    assert got == b"0123456789" * 10


def test_a_half_close_is_an_end_behind_all_that_was_sent(both: tuple[Channel, Channel]) -> None:
    near, far = both
    assert near.send([b"request"]) == 7
    near.end_writing()
    assert receive_soon(far) == b"request"
    assert receive_soon(far) == b""


def test_a_closed_channel_has_no_descriptor(both: tuple[Channel, Channel]) -> None:
    near, _ = both
    near.close()
    assert near.fileno() == -1
    near.close()


@pytest.mark.parametrize("kind", ["TCP", "local socket"])
def test_an_aborted_channel_does_not_look_like_an_end(stack: ExitStack, kind: str) -> None:
    """Unix sockets can only be closed; with TLS, as with all others, it is WebSocket's Close that tells an end."""
    near, far = channels(kind, stack)
    near.abort()
    with pytest.raises(ConnectionResetError):
        receive_soon(far)
