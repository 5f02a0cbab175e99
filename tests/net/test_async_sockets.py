"""Waiting for sockets in asyncio's loop, and closing one so that its peer still reads the last data."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from tunnel.net import async_sockets
from tunnel.net.async_sockets import LINGER_BYTES, close_gently, readable, writable

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    listener = socket.create_server(("127.0.0.1", 0))
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    one.setblocking(False)
    other.settimeout(20)
    with listener, one, other:
        yield one, other


def run(work: object) -> None:
    asyncio.run(asyncio.wait_for(work, 20))  # type: ignore[arg-type]


def test_it_waits_until_a_socket_can_be_read_and_leaves_nothing_behind(pair: Pair) -> None:
    one, other = pair

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(readable(one.fileno()))
        await asyncio.sleep(0)
        assert not waiting.done()
        other.send(b"x")
        await waiting
        assert not loop.remove_reader(one.fileno())

    run(wait())


def test_it_waits_until_a_socket_can_be_written_and_leaves_nothing_behind() -> None:
    one, other = socket.socketpair()  # which takes no more until it is read, unlike TCP, whose bytes move on
    one.setblocking(False)

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                one.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        waiting = asyncio.ensure_future(writable(one.fileno()))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        other.setblocking(False)
        while not waiting.done():
            try:
                other.recv(1 << 20)
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
        await waiting
        assert not loop.remove_writer(one.fileno())

    with one, other:
        run(wait())


def test_a_wait_that_is_cancelled_leaves_nothing_behind(pair: Pair) -> None:
    async def wait() -> None:
        for wait_for in (readable, writable):
            task = asyncio.ensure_future(wait_for(pair[0].fileno()))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        loop = asyncio.get_running_loop()
        assert not loop.remove_reader(pair[0].fileno()) and not loop.remove_writer(pair[0].fileno())

    run(wait())


def test_the_last_words_are_read_though_the_peer_has_sent_more_than_was_read(pair: Pair) -> None:
    one, other = pair
    other.sendall(bytes(30_000))
    one.send(b"last words")

    async def close() -> None:
        closing = asyncio.ensure_future(close_gently(one))
        heard = b""
        while chunk := await asyncio.to_thread(other.recv, 100):
            heard += chunk
        assert heard == b"last words"
        assert not closing.done(), "the peer may still send"
        other.close()
        await closing

    run(close())
    assert one.fileno() == -1


def test_a_peer_that_goes_on_is_cut_off_after_so_many_bytes(pair: Pair) -> None:
    one, other = pair

    async def close() -> None:
        closing = asyncio.ensure_future(close_gently(one, 100_000))
        other.setblocking(False)
        sent = 0
        while not closing.done() and sent < 50_000_000:
            try:
                sent += other.send(bytes(10_000))
            except (BlockingIOError, ConnectionError):
                pass
            await asyncio.sleep(0)
        await closing
        assert 100_000 <= sent < 50_000_000

    run(close())
    assert LINGER_BYTES == 64 * 1024


class Watched(socket.socket):
    """A socket that is woken once without a reason, and knows what it has read."""

    read = -1

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.read < 0:
            self.read = 0
            raise BlockingIOError
        data = super().recv(size, flags)
        self.read += len(data)
        return data


def test_a_peer_is_listened_to_for_just_so_many_bytes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_sockets, "LINGER_SECONDS", 60.0)
    other = pair[1]
    one = Watched(fileno=pair[0].detach())
    one.setblocking(False)

    async def close() -> None:
        closing = asyncio.ensure_future(close_gently(one, 1000))
        other.sendall(bytes(999))
        while one.read < 999:
            assert not closing.done()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not closing.done()
        other.sendall(b"x")
        await closing

    run(close())
    assert (one.read, one.fileno()) == (1000, -1)


def test_a_silent_peer_is_not_waited_for_forever(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_sockets, "LINGER_SECONDS", 0.05)
    run(close_gently(pair[0]))
    assert pair[0].fileno() == -1
    assert pair[1].recv(1) == b""


def test_a_connection_that_is_broken_is_closed_all_the_same(pair: Pair) -> None:
    one, other = pair
    other.sendall(b"unread")
    one.shutdown(socket.SHUT_RDWR)
    other.close()
    run(close_gently(one))
    assert one.fileno() == -1
