"""Requests that a gateway and the bridge might read differently: none of them reaches the target or other clients.

Each is tried at the bridge alone, and through nginx, haproxy and Caddy as templates/gateway has them. A gateway may
make a proper request of an odd one, such as of one with bare line feeds; a tunnel that is opened then is its client's.
It may also see a second request where there is one: then it leads that to the sandbox that it names.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import start_bridge
from tests.server.clients import LIMIT, UPGRADE, dial, port_of
from tests.templates.gateways import DOMAIN, GATEWAYS, Certificates

HOST = f"8081-one.{DOMAIN}"
OTHER = f"8081-two.{DOMAIN}"
_FIELDS = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
_SECRET = b"bytes for the target"
ODD = (400, 101)
# What an attacker wants to be taken for a request of its own: a tunnel, and a frame in it.
_HIDDEN = f"GET /hidden HTTP/1.1\r\nHost: {OTHER}\r\n{_FIELDS}\r\n".encode() + b"\x82\x94\0\0\0\0" + _SECRET
PATIENCE = 0.5  # seconds of silence after which an answer is taken for whole


@dataclass(frozen=True)
class Attempt:
    """A request and what is sent behind it. ``answers``: what it may be answered with, if it is not just closed.

    ``follows``: a gateway may see a second request in it without being deceived.
    """

    data: bytes
    answers: tuple[int, ...] = (400,)
    follows: bool = False


def _request(*lines: str, method: str = "GET", fields: str = _FIELDS, body: bytes = b"") -> bytes:
    more = "".join(f"{line}\r\n" for line in lines)
    return f"{method} / HTTP/1.1\r\nHost: {HOST}\r\n{more}{fields}\r\n".encode() + body


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


_LENGTH = f"Content-Length: {len(_HIDDEN)}"
_CHUNKED = "Transfer-Encoding: chunked"
_PLAIN = "Connection: keep-alive\r\n"

ATTEMPTS = {
    "a length and chunks, no upgrade": Attempt(
        _request("Content-Length: 5", _CHUNKED, method="POST", fields=_PLAIN, body=b"0\r\n\r\n" + _HIDDEN),
        (400, 405),
        follows=True,
    ),
    "chunks and a length, no upgrade": Attempt(
        _request(_CHUNKED, _LENGTH, method="POST", fields=_PLAIN, body=_chunked(_HIDDEN)), (400, 405)
    ),
    "a length and chunks, with an upgrade": Attempt(_request("Content-Length: 5", _CHUNKED, body=_chunked(_HIDDEN))),
    "an upgrade with a body": Attempt(_request(_LENGTH, body=_HIDDEN)),
    "an upgrade with chunks": Attempt(_request(_CHUNKED, body=_chunked(_HIDDEN))),
    "two lengths": Attempt(_request("Content-Length: 0", _LENGTH, body=_HIDDEN)),
    "a length with a sign": Attempt(_request(f"Content-Length: +{len(_HIDDEN)}", body=_HIDDEN)),
    "a list of lengths": Attempt(_request(f"Content-Length: 0, {len(_HIDDEN)}", body=_HIDDEN)),
    "an unknown coding": Attempt(_request("Transfer-Encoding: xchunked", body=_chunked(_HIDDEN)), (400, 501)),
    "a coding behind a blank": Attempt(_request("Transfer-Encoding : chunked", body=_chunked(_HIDDEN)), ODD),
    "a coding behind a tab": Attempt(_request("Transfer-Encoding:\tchunked", body=_chunked(_HIDDEN)), (400, 501)),
    "a folded coding": Attempt(_request("Transfer-Encoding:\r\n chunked", body=_chunked(_HIDDEN)), ODD),
    "a folded field": Attempt(_request("X: a\r\n\tb"), ODD),
    "bare line feeds": Attempt(_request().replace(b"\r\n", b"\n"), ODD),
    "a bare line feed in a value": Attempt(_request(f"X: a\n{_LENGTH}", body=_HIDDEN), ODD),
    "a bare carriage return in a value": Attempt(_request(f"X: a\r{_LENGTH}"), ODD),
    "a NUL in a value": Attempt(_request("X: a\0b")),
    "h2c": Attempt(
        _request(
            "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", fields=""
        )
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (400, 426),
        follows=True,
    ),
    "h2c and websocket": Attempt(_request("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), (101, 400, 426)),
    "HTTP/2 from the start": Attempt(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), (400, 404)),
    "two Upgrade fields": Attempt(_request("Upgrade: websocket"), (101, 400, 426)),
    "two Connection fields": Attempt(_request("Connection: close"), ODD),
    "a Host of another sandbox too": Attempt(_request(f"Host: {OTHER}")),
    "an absolute target of another sandbox": Attempt(
        f"GET http://{OTHER}/ HTTP/1.1\r\nHost: {HOST}\r\n{_FIELDS}\r\n".encode(), ODD
    ),
    "a wrong version, and a request behind it": Attempt(
        _request().replace(b"Version: 13", b"Version: 777") + _HIDDEN, follows=True
    ),
    "a request behind the upgrade": Attempt(_request(body=_HIDDEN), ODD),
    "a request behind one without an upgrade": Attempt(
        _request(fields=_PLAIN, body=_HIDDEN[:-26]), (400, 426), follows=True
    ),
}


class Way:
    """A way to the bridge ``one``: `connect` opens a connection, ``received`` is what the target behind it got."""

    def __init__(self, connect: Callable[[], socket.socket], received: list[bytes]) -> None:
        self.connect = connect
        self.received = received


def _listen(received: list[bytes]) -> Callable[[socket.socket], None]:
    def listen(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            received.extend(iter(lambda: connection.recv(1 << 16), b""))

    return listen


@pytest.fixture(params=("no gateway", *GATEWAYS))
def way(request: pytest.FixtureRequest, bed: Bed, short_folder: Path, certificates: Certificates) -> Iterator[Way]:
    received: list[bytes] = []
    with Target(_listen(received)) as target, Target(_listen([])) as other:
        urls = {
            f"8081-{name}": start_bridge(bed, "ours", each.port).url for name, each in (("one", target), ("two", other))
        }
        if request.param not in GATEWAYS:
            yield Way(lambda: dial(urls["8081-one"]), received)
            return
        upstreams = {service: f"127.0.0.1:{port_of(url)}" for service, url in urls.items()}
        yield Way(GATEWAYS[request.param](bed, short_folder, certificates, upstreams).connect, received)


def _answers(way: Way, data: bytes, patience: float = PATIENCE) -> bytes:
    """Send ``data`` and return all that comes back: until the end, or a silence that follows an answer."""
    came = b""
    with way.connect() as sock:
        try:
            sock.sendall(data)
            while chunk := sock.recv(1 << 16):
                came += chunk
                sock.settimeout(patience)
        except TimeoutError:
            assert came, "neither answered nor closed"
        except OSError:
            pass  # reset: it is closed
    return came


def _problem(way: Way, number: int, attempt: Attempt) -> str:
    """Try one; return what is wrong with the answers, if anything."""
    came = _answers(way, attempt.data.replace(_SECRET, b"bytes of number %4d" % number))
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", came)]
    if statuses and statuses[0] not in attempt.answers:
        return f"answered {statuses}"
    if len(statuses) > 1 and not attempt.follows:
        return f"more than one answer: {statuses}"
    asked = f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    answer = _answers(way, asked.encode(), LIMIT)  # it ends by itself
    if answer.count(b"HTTP/1.1 ") != 1 or b'"status": "ok"' not in answer:
        return f"the next client got {answer[:200]!r}"
    return ""


def test_no_ambiguous_request_reaches_the_target(way: Way) -> None:
    with ThreadPoolExecutor(16) as pool:  # as much of it is waiting for silence
        problems = pool.map(lambda item: _problem(way, *item), enumerate(ATTEMPTS.values()))
        found = {name: problem for name, problem in zip(ATTEMPTS, problems, strict=True) if problem}
    assert found == {}
    assert way.received == []
