"""Servers to dial: a bridge that speaks WebSocket, scripted ones that do not, and real proxies on the way."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import trustme
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.bed.processes import Bed, free_port, program
from tests.bed.targets import Target
from tests.client.test_settings import settings_of
from tunnel.cli.hints import told
from tunnel.cli.main import option_of
from tunnel.client.dial import Connection, dial
from tunnel.client.trace import Trace
from tunnel.errors import TunnelError, spell_settings

PROMPTLY = 10.0  # seconds that a failure may take beyond its own limit on a machine that is busy

Script = Callable[[socket.socket], object]
Serve = Callable[[Script], Target]


@pytest.fixture
def names_of_options() -> Iterator[None]:
    """Let errors call settings as the command line does."""
    spell_settings(option_of)
    yield
    spell_settings()


def open_tunnel(*words: str) -> Connection:
    """Dial as ``wstunnel-py connect WORDS`` does."""
    return dial(settings_of(*words), Trace())


@dataclass(frozen=True)
class Failure:
    """What a user sees of a dial that fails."""

    line: str
    code: int


def failure_of(*words: str, limit: float = 5.0) -> Failure:
    """Dial with a time limit, which the failure must keep."""
    began = time.monotonic()
    with pytest.raises(TunnelError) as caught:
        open_tunnel("--connect-timeout", str(limit), *words)
    assert time.monotonic() - began < limit + PROMPTLY
    spell_settings(option_of)
    line = told(caught.value)
    spell_settings()
    return Failure(line, caught.value.exit_code)


def read_head(connection: socket.socket) -> bytes:
    """The request, up to its blank line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break  # somebody only looked whether the port is open
        head += byte
    return head


def upgrade(connection: socket.socket, behind: bytes = b"") -> Request | None:
    """Answer as a WebSocket server does, with ``behind`` right behind the answer; return the request."""
    server = ServerProtocol(select_subprotocol=lambda _, offered: next(iter(offered), None))
    server.receive_data(read_head(connection))
    for request in server.events_received():
        assert isinstance(request, Request)
        server.send_response(server.accept(request))
        connection.sendall(b"".join(server.data_to_send()) + behind)
        connection.recv(1)  # until the client hangs up
        return request
    return None


def answer(*lines: str, body: bytes = b"", then: Script | None = None) -> Script:
    """A server that answers any request with these lines and this body, and hangs up unless ``then`` goes on."""

    def script(connection: socket.socket) -> object:
        head = read_head(connection)
        connection.sendall("\r\n".join((*lines, "", "")).encode() + body)
        return then(connection) if then else head

    return script


def wait_for_end(connection: socket.socket) -> None:
    """Say nothing more until the client hangs up."""
    while connection.recv(65536):
        pass


def over_tls(context: ssl.SSLContext, script: Script) -> Script:
    """``script``, spoken over TLS."""

    def encrypted(connection: socket.socket) -> object:
        try:
            with context.wrap_socket(connection.dup(), server_side=True) as tls:
                return script(tls)
        except OSError as exc:  # one of the two did not like the other's certificate, as some tests want it
            wait_for_end(connection)
            return exc

    return encrypted


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a `Target` for a script."""
    with contextlib.ExitStack() as targets:
        yield lambda script: targets.enter_context(Target(script))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS for 127.0.0.1 and localhost, with a certificate of the test's authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def silent_place() -> Iterator[tuple[str, int]]:
    """A loopback address that takes no connection and refuses none: its queue of connections is full."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.2", free_port()))  # a test opens it at another address, too
        listener.listen(0)
        place: tuple[str, int] = listener.getsockname()
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(place)
        yield place


def start_tinyproxy(bed: Bed, *settings: str) -> int:
    """Start a real CONNECT proxy with more lines in its configuration; return its port."""

    def command(port: int) -> Sequence[str]:
        config = bed.folder / "tinyproxy.conf"
        lines = (f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "LogLevel Connect", *settings)
        config.write_text("\n".join(lines) + "\n")
        return (program("tinyproxy"), "-d", "-c", str(config))

    _, port = bed.start_on_free_port(command)
    return port


def start_microsocks(bed: Bed, *options: str) -> int:
    """Start a real SOCKS5 proxy; return its port."""
    _, port = bed.start_on_free_port(lambda port: (program("microsocks"), "-i", "127.0.0.1", "-p", str(port), *options))
    return port
