"""TLS at the bridge: all bytes pass, and no client can keep OpenSSL busy with records that carry no data."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartBridge
from tests.server.clients import LIMIT, assert_echo, dial, open_tunnel
from tests.server.test_certificates import Issuer
from tunnel.server.tls_channel import RECORDS_PER_TURN, ServerTLSChannel

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Client:
    """A client in memory: what it writes becomes records, which a test sends when and how it likes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake_hands(self, sock: socket.socket, server: ServerTLSChannel | None = None) -> None:
        """Do the handshake over ``sock`` with ``server``, or with the peer at the other end."""
        is_done = False
        while not is_done:
            try:
                self.tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            sock.sendall(self.outgoing.read())
            if server is not None:
                server.shake_hands()
            if not is_done:
                self.incoming.write(sock.recv(1 << 16))

    def records(self, data: bytes, size: int) -> bytes:
        """Return ``data`` as records of ``size`` bytes."""
        for at in range(0, len(data), size):
            self.tls.write(data[at : at + size])
        return self.outgoing.read()

    def updates(self, count: int) -> bytes:
        """Return so many updates of the client's key, which are no data."""
        library = ctypes.CDLL(_ssl.__file__)
        try:
            update = library.SSL_key_update
        except AttributeError:
            pytest.skip("this Python's OpenSSL cannot be reached")
        update.argtypes = [ctypes.c_void_p, ctypes.c_int]
        # Behind the head of every Python object, and its socket.
        handle = ctypes.c_void_p.from_address(id(self.tls._sslobj) + object.__basicsize__ + 8)  # type: ignore[attr-defined]
        for _ in range(count):
            assert update(handle, 0) == 1
            self.tls.do_handshake()
        return self.outgoing.read()


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "issuer")


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def both(request: pytest.FixtureRequest, issuer: Issuer) -> Iterator[tuple[Client, socket.socket, ServerTLSChannel]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issuer.cert, issuer.key)
    near, far = socket.socketpair()
    far.settimeout(LIMIT)
    with near, far:
        client, server = Client(issuer.client(request.param)), ServerTLSChannel(near, context)
        client.shake_hands(far, server)
        while not server.shake_hands():
            pass
        yield client, far, server


def receive(server: ServerTLSChannel, count: int, size: int = 1 << 16) -> bytes:
    received, space = b"", memoryview(bytearray(size))
    while len(received) < count:
        n = server.receive_into(space)
        if n is None:
            assert server.pending
            continue
        assert n
        received += space[:n]
    return received


def test_one_turn_takes_in_only_so_many_records(both: tuple[Client, socket.socket, ServerTLSChannel]) -> None:
    client, far, server = both
    data = os.urandom(1000)
    far.sendall(client.records(data, 1))
    first = memoryview(bytearray(1000))
    assert (server.receive_into(first), server.pending) == (RECORDS_PER_TURN, True)
    assert bytes(first[:RECORDS_PER_TURN]) + receive(server, 1000 - RECORDS_PER_TURN) == data
    assert (server.receive_into(first), server.pending) == (None, False)


def test_records_arrive_whole_however_they_are_cut(both: tuple[Client, socket.socket, ServerTLSChannel]) -> None:
    client, far, server = both
    data = os.urandom(3000)
    space, received = memoryview(bytearray(64)), b""
    records = client.records(data, 999)
    for at in range(0, len(records), 7):
        far.sendall(records[at : at + 7])
        while (n := server.receive_into(space)) is not None:
            received += space[:n]
        assert not server.pending
    assert received == data


def test_what_the_socket_does_not_take_is_sent_later(both: tuple[Client, socket.socket, ServerTLSChannel]) -> None:
    client, far, server = both
    data = os.urandom(3 << 20)
    sent, received = 0, bytearray()
    far.settimeout(0)
    while len(received) < len(data):
        sent += (
            server.send([data[sent : sent + 100_000], data[sent + 100_000 : sent + 400_000]]) if sent < len(data) else 0
        )
        with contextlib.suppress(BlockingIOError):
            client.incoming.write(far.recv(50_000))
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                received += client.tls.read(1 << 16)
    assert bytes(received) == data and sent == len(data) and not server.is_blocked


def test_the_end_is_received_even_without_close_notify(both: tuple[Client, socket.socket, ServerTLSChannel]) -> None:
    client, far, server = both
    far.sendall(client.records(b"last", 4))
    far.shutdown(socket.SHUT_WR)
    assert receive(server, 4) == b"last"
    assert server.receive_into(memoryview(bytearray(10))) == 0


def test_the_client_is_told_the_end(both: tuple[Client, socket.socket, ServerTLSChannel]) -> None:
    client, far, server = both
    assert server.send([b"last"]) == 4
    server.end_writing()
    client.incoming.write(b"".join(iter(lambda: far.recv(1 << 16), b"")))
    assert client.tls.read(10) == b"last"
    assert client.tls.read(10) == b"", "a close_notify came"


def test_bytes_that_are_no_tls_record_break_the_connection(
    both: tuple[Client, socket.socket, ServerTLSChannel],
) -> None:
    client, far, server = both
    far.sendall(client.records(b"data", 4) + b"GET / HTTP/1.1\r\n\r\n")
    space = memoryview(bytearray(100))
    assert server.receive_into(space) == 4
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            server.receive_into(space)


def test_a_client_that_only_updates_its_key_is_disconnected_before_its_request(
    start: StartBridge, issuer: Issuer
) -> None:
    bridge = start(*issuer.options)
    client = Client(issuer.client())
    with open_tunnel(bridge.url, tls=issuer.client()) as bystander, dial(bridge.url) as sock:
        client.shake_hands(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(client.updates(10_000))
        with contextlib.suppress(ConnectionError):
            while sock.recv(1 << 16):
                pass
        assert_echo(bystander)
    with open_tunnel(bridge.url, tls=issuer.client()) as tunnel:
        assert_echo(tunnel)
    assert "internal-error" not in bridge.process.log()


def test_a_client_may_update_its_key_now_and_then(start: StartBridge, issuer: Issuer) -> None:
    client = Client(issuer.client())
    with dial(start(*issuer.options).url) as sock:
        client.shake_hands(sock)
        sock.sendall(client.updates(100) + client.records(b"GET /healthz HTTP/1.1\r\n", 3))
        sock.sendall(client.updates(100) + client.records(b"Host: bridge.test\r\n\r\n", 1))
        answer = b""
        while b"\r\n\r\n" not in answer:
            client.incoming.write(sock.recv(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                answer += client.tls.read(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 ")
