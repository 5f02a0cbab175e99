"""Services that never stop sending: calls and the start of a terminal still time out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trustme

import tunnel
from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tunnel.errors import DialError, TunnelError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.model import Result
from tunnel.pty.client.stream import BEGIN_LIMIT, LATE, TerminalStream
from tunnel.pty.protocol import framing

LIMITS = {"connect_timeout": 1.0, "request_timeout": 1.0}  # each much longer than this process may stand still
TOO_LATE = "did not answer within 2 s"
DRIP = 0.05  # seconds
LONGEST = 20.0  # seconds after which a service stops by itself

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
KEEPALIVE = framing.envelope(b'{"event":{"keepalive":{}}}')

Script = Callable[[socket.socket], None]


def pour(pieces: Iterable[bytes], pause: float = DRIP, *, first: bytes = b"") -> Script:
    """A service that answers every request with ``first`` and then ``pieces``, until the client disconnects."""

    def script(connection: socket.socket) -> None:
        end = time.monotonic() + LONGEST
        with contextlib.suppress(OSError):
            connection.recv(65536)
            for piece in itertools.chain((first,), pieces):
                connection.sendall(piece)
                time.sleep(pause)
                if time.monotonic() > end:
                    return

    return script


SCRIPTS = {
    "100": pour(itertools.repeat(CONTINUE)),
    "flood of 100": pour(itertools.repeat(CONTINUE * 100), 0.0),
    "dripping head": pour(itertools.repeat(b"y"), first=JSON + b"X-Drip: "),
    "dripping body": pour(itertools.repeat(b" "), first=JSON + b"Content-Length: 100000\r\n\r\n"),
    "endless body": pour(itertools.repeat(b" "), first=JSON + b"\r\n"),
    "dripping chunks": pour(itertools.repeat(b"1\r\n \r\n"), first=JSON + b"Transfer-Encoding: chunked\r\n\r\n"),
    "dripping chunk's size": pour(itertools.repeat(b"0"), first=JSON + b"Transfer-Encoding: chunked\r\n\r\n"),
    "dripping refusal": pour(itertools.repeat(b" "), first=b"HTTP/1.1 403 No\r\nContent-Length: 100000\r\n\r\n"),
}


def list_sync(url: str, **options: object) -> None:
    with tunnel.Sandbox(url, **{**LIMITS, **options}) as sandbox:  # type: ignore[arg-type]
        sandbox.pty.list()


def list_async(url: str, **options: object) -> None:
    async def run() -> None:
        async with tunnel.AsyncSandbox(url, **{**LIMITS, **options}) as sandbox:  # type: ignore[arg-type]
            await sandbox.pty.list()

    asyncio.run(run())


def create_sync(url: str, **options: object) -> None:
    with tunnel.Sandbox(url, reconnect_for=0.1, **{**LIMITS, **options}) as sandbox:  # type: ignore[arg-type]
        sandbox.pty.create()


def create_async(url: str, **options: object) -> None:
    async def run() -> None:
        async with tunnel.AsyncSandbox(url, reconnect_for=0.1, **{**LIMITS, **options}) as sandbox:  # type: ignore[arg-type]
            await sandbox.pty.create()

    asyncio.run(run())


def failure_in_time(call: Callable[..., None], url: str, limit: float = 15.0, **options: object) -> TunnelError:
    began = time.monotonic()
    with pytest.raises(TunnelError) as caught:
        call(url, **options)
    assert time.monotonic() - began < limit
    return caught.value


@pytest.mark.parametrize("script", [pytest.param(script, id=name) for name, script in SCRIPTS.items()])
@pytest.mark.parametrize("call", [list_sync, list_async])
def test_a_call_times_out_at_a_service_that_never_finishes(call: Callable[..., None], script: Script) -> None:
    with Target(script) as target:
        failure = failure_in_time(call, f"http://127.0.0.1:{target.port}")
    assert failure.exit_code == 75 and str(failure).endswith(TOO_LATE)


@pytest.mark.parametrize("name", ["100", "dripping head", "dripping refusal"])
@pytest.mark.parametrize("call", [create_sync, create_async])
def test_the_start_of_a_terminal_times_out_at_a_service_that_never_finishes(
    call: Callable[..., None], name: str
) -> None:
    with Target(SCRIPTS[name]) as target:
        failure = failure_in_time(call, f"http://127.0.0.1:{target.port}")
    assert TOO_LATE in str(failure)


@pytest.mark.parametrize("call", [list_sync, list_async])
def test_a_handshake_that_never_ends_is_ended(call: Callable[..., None]) -> None:
    hello_requests = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 500  # which a client may ignore
    with Target(pour(itertools.repeat(hello_requests), 0.0)) as target:
        assert failure_in_time(call, f"https://127.0.0.1:{target.port}").exit_code in (69, 75, 76)


@pytest.mark.parametrize("call", [list_sync, list_async])
def test_a_service_behind_tls_has_the_same_limit(call: Callable[..., None], tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    def script(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection.dup(), server_side=True) as tls:
            SCRIPTS["100"](tls)

    with Target(script) as target:
        failure = failure_in_time(call, f"https://127.0.0.1:{target.port}", ca_file=str(ca_file))
    assert str(failure).endswith(TOO_LATE)


@pytest.mark.parametrize("call", [list_sync, list_async])
def test_a_proxy_has_the_same_limit(call: Callable[..., None]) -> None:
    with Target(SCRIPTS["100"]) as target:
        failure = failure_in_time(call, "https://h.test", proxy=f"http://127.0.0.1:{target.port}")
    assert str(failure).endswith(TOO_LATE)


@pytest.mark.full  # it has no option for this limit
def test_shell_ends_with_one_line(bed: Bed) -> None:
    with Target(SCRIPTS["100"]) as target:
        url = f"http://127.0.0.1:{target.port}"
        words = ("shell", "--connect-timeout", "0.5", "--reconnect-for", "0.1", url)
        finished = bed.run(*OURS, *words, stdin=b"", seconds=40)
    assert finished.status == 255
    assert finished.stderr.count("\n") == 1 and "did not answer within 10.5 s" in finished.stderr


# --- A stream that has begun


def stream(timeout: float = 0.0) -> TerminalStream:
    terminal = TerminalStream(calls.connect(1), endpoint="box", now=0.0, reconnect_for=0.0, timeout=timeout)
    terminal.call(0.0)
    assert terminal.answered(Response(200, "", ()))
    return terminal


def test_a_stream_in_which_nothing_but_keepalives_come_never_begins() -> None:
    terminal = stream()
    assert terminal.receive(KEEPALIVE)
    assert terminal.overdue(BEGIN_LIMIT - 1) is None
    assert isinstance(terminal.overdue(BEGIN_LIMIT + 1), DialError)


def test_a_terminal_whose_time_is_over_ends_though_keepalives_come() -> None:
    terminal = stream(timeout=60.0)
    assert terminal.receive(framing.envelope(b'{"event":{"start":{"pid":1}}}'))
    assert terminal.receive(KEEPALIVE)
    assert terminal.overdue(60 + LATE - 1) is None
    assert isinstance(terminal.overdue(60 + LATE + 1), DialError)
    assert terminal.receive(framing.envelope(b'{"event":{"data":{"pty":"eA=="}}}'))
    assert terminal.overdue(60 + LATE + 1) is None  # output may be read late
    assert terminal.take() == b"x"


@pytest.mark.parametrize("offset", ["9" * 5000, "²", "-1", "1_0"])
def test_an_offset_that_is_no_number_does_not_count(offset: str) -> None:
    terminal = TerminalStream(calls.connect(1), endpoint="box", now=0.0)
    terminal.call(0.0)
    assert terminal.answered(Response(200, "", (("wstunnel-offset", offset),)))
    assert terminal.receive(framing.envelope(b'{"event":{"start":{"pid":1}}}'))
    assert not terminal.counted and terminal.offset == 0


@pytest.mark.parametrize("name", ["9" * 5000, "²", "-9"])
def test_a_signal_that_is_no_number_is_unknown(name: str) -> None:
    assert Result(-1, f"signal: signal {name}", None).signal == 0
