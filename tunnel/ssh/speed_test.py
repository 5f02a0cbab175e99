"""The speed of a tunnel: round trip time and bytes per second, without SSH.

The other end is the bridge itself (`tunnel.server.speed_test`), so it must be our own.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from tunnel.client.dial import dial
from tunnel.client.settings import Settings
from tunnel.client.sockets import relayed_socket
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.errors import ConnectionLost, DialError, TunnelError
from tunnel.protocol.control import SPEED_TEST

SECONDS = 3.0  # duration for each direction
ROUND_TRIPS = 20
_PATIENCE = 20.0  # seconds without any progress
_PIECE = 256 << 10
_ANSWER_SIZE = 100  # bytes; a number needs less

# Called with progress: the direction, the part of its time that is over (0 to 1), and bytes per second so far.
Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """``round_trip`` in seconds (median), ``down`` and ``up`` in bytes per second."""

    round_trip: float
    down: float
    up: float


def measure(make_settings: Callable[[], Settings], progress: Progress) -> Speed:
    """Measure a tunnel to the bridge, which takes about 2 × `SECONDS`.

    Raises DialError, also if the bridge has no speed test, and ConnectionLost if the tunnel breaks.
    """
    settings = make_settings()
    with _test(settings, make_settings, b"echo\n") as sock:
        round_trip = _round_trip(sock)
    with _test(settings, make_settings, b"source\n") as sock:
        down = _download(sock, progress)
    with _test(settings, make_settings, b"sink\n") as sock:
        up = _upload(sock, progress)
    return Speed(round_trip, down, up)


@contextmanager
def _test(settings: Settings, make_settings: Callable[[], Settings], order: bytes) -> Iterator[socket.socket]:
    connection = dial(settings, Trace(), subprotocols=("binary", SPEED_TEST))
    if connection.subprotocol != SPEED_TEST:
        connection.channel.close()
        raise DialError("no-speed-test", url=settings.address)
    tunnel = Tunnel(settings, Trace(), make_settings, notice=lambda _: None)
    failures: list[TunnelError | None] = []
    ours, stop = relayed_socket(tunnel, connection, ended=failures.append)
    with closing(ours):
        ours.settimeout(_PATIENCE)
        try:
            ours.sendall(order)
            yield ours
        except TimeoutError as exc:
            raise ConnectionLost("silent", seconds=_PATIENCE) from exc
        except OSError as exc:
            raise next((each for each in failures if each), ConnectionLost("lost", reason=exc.strerror)) from exc
        finally:
            stop.set()


def _round_trip(sock: socket.socket) -> float:
    trips = []
    end = time.perf_counter() + _PATIENCE
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        if began > end:
            raise TimeoutError
        sock.sendall(b"x")
        if not sock.recv(1):
            raise ConnectionResetError(None, "the bridge ended the test")
        trips.append(time.perf_counter() - began)
    return statistics.median(trips)


def _download(sock: socket.socket, progress: Progress) -> float:
    buffer = bytearray(_PIECE)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        received = sock.recv_into(buffer)
        if not received:
            raise ConnectionResetError(None, "the bridge ended the test")
        count += received
        progress("download", passed / SECONDS, count / max(passed, 1e-6))
    return count / (time.perf_counter() - began)


def _upload(sock: socket.socket, progress: Progress) -> float:
    piece = os.urandom(_PIECE)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        count += sock.send(piece)
        progress("upload", passed / SECONDS, count / max(passed, 1e-6))
    sock.shutdown(socket.SHUT_WR)
    answer, end = b"", time.perf_counter() + _PATIENCE
    while len(answer) < _ANSWER_SIZE and time.perf_counter() < end and (chunk := sock.recv(_ANSWER_SIZE)):
        answer += chunk
    # Data in flight and in buffers at the end still needs time, so the clock stops at the answer.
    seconds = time.perf_counter() - began
    if answer != b"%d\n" % count:
        raise ConnectionResetError(None, f"{count} bytes were sent, but the bridge received another number")
    return count / seconds
