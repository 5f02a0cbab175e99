"""DNS and TCP of a dial: a socket connected to a host, within what is left of a time limit.

A host's addresses are tried in turn, IPv6 and IPv4 alternating, with a head start of 250 ms for each (RFC 8305 in
short).

A ProxyCommand does without the modules ``socket`` and ``selectors`` until its request is sent: with what they import
(``enum``, ``collections``, …) they would take a third of its start. Sockets are those of ``_socket``, the part of
``socket`` that is written in C: all that a dial needs of them is there. `standard_socket` gives them their usual class.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os
import select
import sys
import time

from tunnel.client.address import bracketed
from tunnel.errors import DialError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from tunnel.client.trace import Trace

    Socket = TypeVar("Socket", bound=_socket.socket)
    Place = tuple[int, tuple[str, int] | tuple[str, int, int, int]]
elif "socket" in sys.modules:
    import socket  # it costs nothing more; and gevent and others, which replace its parts, are to be asked
else:
    socket = _socket

HEAD_START = 0.25  # seconds that an address is given before the next is tried beside it
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


class Limit:
    """What is left of the time for the whole of a dial."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, never quite none, so that an operation with them can only time out."""
        return max(0.001, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def shorten(self, seconds: float) -> None:
        """Leave ``seconds`` at most."""
        self._end = min(self._end, time.monotonic() + seconds)

    def apply(self, sock: Socket) -> Socket:
        """Return ``sock``, whose next operation has what is left. Raises TimeoutError when nothing is.

        Without that, a loop whose every operation succeeds at once would never end.
        """
        if self.over:
            raise TimeoutError
        sock.settimeout(self.left())
        return sock

    def send(self, sock: _socket.socket, data: bytes) -> None:
        """Send all of ``data``; `sendall` of a TLS socket would give each of its writes the whole time anew."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.apply(sock).send(rest) :]


def connect_tcp(
    host: str,
    port: int,
    family: int,
    limit: Limit,
    trace: Trace,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> _socket.socket:
    """Return a socket connected to ``host``. Raises DialError.

    ``meanwhile`` is called while an address answers, for each that is tried; what it raises ends the attempt.
    """
    places = _interleave(resolve_name(host, port, family, limit))
    trace.step("dns", f"{host} is {', '.join(_host_text(place[1]) for place in places)}")
    named = " and ".join(dict.fromkeys(_place_text(place[1]) for place in places))
    sock = _first_to_connect(places, named, limit, meanwhile)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        trace.step("tcp", f"connected to {_place_text(sock.getpeername())}")
    except OSError as exc:  # what was connected a moment ago is not any more
        sock.close()
        raise DialError("hung-up", hop=named) from exc
    return sock


def standard_socket(sock: _socket.socket) -> socket.socket:
    """Return ``sock``, which is given up, as one of the class that everybody else knows."""
    import socket

    return sock if isinstance(sock, socket.socket) else socket.socket(fileno=sock.detach())


def resolve_name(host: str, port: int, family: int, limit: Limit) -> list[Place]:
    """Return the addresses of ``host``. getaddrinfo cannot be interrupted, so a thread asks and may be left behind."""
    found: list[Place] = []
    failed: list[OSError | UnicodeError] = []
    # Names below localhost are loopback (RFC 6761 section 6.3), which many resolvers do not know.
    known = "localhost" if f".{host.lower().removesuffix('.')}".endswith(".localhost") else host
    # As bytes, because for text Python would import its IDNA codec; the name is in ASCII already.
    name = known.encode("ascii")
    done = _thread.allocate_lock()
    done.acquire()

    def ask(flags: int = 0) -> None:
        for kind, _, _, _, place in socket.getaddrinfo(name, port, family, socket.SOCK_STREAM, 0, flags):
            found.append((kind, place))  # type: ignore[arg-type]  # typeshed: a build without IPv6 gives bytes

    def ask_in_thread() -> None:
        try:
            ask()
        except (OSError, UnicodeError) as exc:
            failed.append(exc)
        finally:
            done.release()

    try:
        ask(socket.AI_NUMERICHOST)
        return found
    except OSError as exc:
        if ":" in host:
            unknown = "%" in host and "this machine has no network interface of that name"
            raise DialError("dns", host=host, reason=unknown or exc.strerror or exc) from exc
        # No address, but a name, as is usual.
    _thread.start_new_thread(ask_in_thread, ())
    if not done.acquire(timeout=limit.left()):
        raise DialError("answer-timeout", hop=f"the name server asked for {host}", seconds=limit.seconds)
    if failed:
        reason = getattr(failed[0], "strerror", None) or failed[0]
        raise DialError("dns", host=host, reason=reason) from failed[0]
    return found


def _interleave(places: list[Place]) -> list[Place]:
    """Return ``places`` with the address families alternating, beginning with the resolver's first choice."""
    first = [place for place in places if place[0] == places[0][0]]
    second = [place for place in places if place[0] != places[0][0]]
    mixed = [place for pair in zip(first, second, strict=False) for place in pair]
    return mixed + first[len(second) :] + second[len(first) :]


def _first_to_connect(places: list[Place], named: str, limit: Limit, meanwhile: Callable[[], None]) -> _socket.socket:
    """Return a socket connected to whichever of ``places`` answers first. Raises DialError, which shows ``named``."""
    waiting = list(places)
    failures: list[OSError] = []
    pending: dict[int, _socket.socket] = {}  # by descriptor
    try:
        while True:
            if waiting and (begun := _begin_connect(waiting.pop(0), failures)) is not None:
                pending[begun.fileno()] = begun
                meanwhile()
            if not pending and not waiting:
                raise _tcp_error(named, failures)
            if not pending:
                continue
            for fd in _decided(pending, min(HEAD_START, limit.left()) if waiting else limit.left()):
                sock = pending.pop(fd)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return sock
                failures.append(OSError(code, os.strerror(code)))
                sock.close()
            if limit.over:
                raise DialError("tcp-timeout", address=named, seconds=limit.seconds)
    finally:
        for sock in pending.values():
            sock.close()


def _decided(descriptors: Iterable[int], seconds: float) -> Iterable[int]:
    """Return which sockets have connected or failed, after ``seconds`` at most."""
    if hasattr(select, "poll"):
        poll = select.poll()
        for fd in descriptors:
            poll.register(fd, select.POLLOUT)
        return [fd for fd, _ in poll.poll(seconds * 1000)]
    # Windows has no poll; its select tells of a failure as of something exceptional.
    watched = list(descriptors)
    _, connected, failed = select.select([], watched, watched, seconds)
    return {*connected, *failed}


def _begin_connect(place: Place, failures: list[OSError]) -> _socket.socket | None:
    try:
        sock = socket.socket(place[0], socket.SOCK_STREAM)
    except OSError as exc:
        failures.append(exc)
        return None
    sock.setblocking(False)
    code = sock.connect_ex(place[1])
    if code in _IN_PROGRESS:
        return sock
    failures.append(OSError(code, os.strerror(code)))
    sock.close()
    return None


def _tcp_error(named: str, failures: list[OSError]) -> DialError:
    if all(failure.errno == errno.ECONNREFUSED for failure in failures):
        return DialError("tcp-refused", address=named)
    reasons = dict.fromkeys(failure.strerror or str(failure) for failure in failures)
    refused = any(failure.errno == errno.ECONNREFUSED for failure in failures)
    return DialError("tcp", address=named, reason=", ".join(reasons), refused=refused)


def _place_text(place: Sequence[object]) -> str:
    return f"{bracketed(_host_text(place))}:{place[1]}"


def _host_text(place: Sequence[object]) -> str:
    """Return the address, of the address that a socket has; of a link-local one with its zone."""
    if len(place) < 4 or not place[3]:
        return str(place[0])
    from tunnel.net.names import zone_of

    return str(place[0]) + zone_of(place)
