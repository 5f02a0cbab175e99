"""DNS and TCP of a dial: a socket connected to a host, within the rest of a time limit.

A host's addresses are tried in turn, IPv6 and IPv4 alternating, with a head start of 250 ms for each (a simple form of
RFC 8305).

A ProxyCommand does not import ``socket`` and ``selectors`` before its request is sent: with their imports (``enum``,
``collections``, …) they would take a third of its start. It uses the sockets of ``_socket``, the part of ``socket``
that is written in C, which is enough for a dial. `standard_socket` turns them into the usual class.
"""

from __future__ import annotations

import _socket
import _thread
import errno
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
    import socket  # already imported, and gevent and others may have replaced its parts
else:
    socket = _socket

HEAD_START = 0.25  # seconds before the next address is tried in parallel
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


class Limit:
    """The time limit of a whole dial."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; never 0, which would make a socket non-blocking."""
        return max(0.001, self._end - time.monotonic())

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def shorten(self, seconds: float) -> None:
        """Reduce the time that is left to at most ``seconds``."""
        self._end = min(self._end, time.monotonic() + seconds)

    def apply(self, sock: Socket) -> Socket:
        """Return ``sock``, with the time that is left as its timeout. Raises TimeoutError if none is left.

        This also ends a loop in which every operation succeeds at once.
        """
        if self.over:
            raise TimeoutError
        sock.settimeout(self.left())
        return sock

    def send(self, sock: _socket.socket, data: bytes) -> None:
        """Send all of ``data``; `sendall` of a TLS socket would apply the whole timeout to each write."""
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

    ``meanwhile`` is called for each address that is tried, while waiting for it; what it raises ends the attempt.
    """
    places = _interleave(resolve_name(host, port, family, limit))
    trace.step("dns", f"{host} is {', '.join(_host_text(place[1]) for place in places)}")
    named = " and ".join(dict.fromkeys(_place_text(place[1]) for place in places))
    sock = _first_to_connect(places, named, limit, meanwhile)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        trace.step("tcp", f"connected to {_place_text(sock.getpeername())}")
    except OSError as exc:  # the connection is closed already
        sock.close()
        raise DialError("hung-up", hop=named) from exc
    return sock


def standard_socket(sock: _socket.socket) -> socket.socket:
    """Return a socket of the usual class for ``sock``, which must not be used any more."""
    import socket

    return sock if isinstance(sock, socket.socket) else socket.socket(fileno=sock.detach())


def resolve_name(host: str, port: int, family: int, limit: Limit) -> list[Place]:
    """Return the addresses of ``host``. A thread calls getaddrinfo, which cannot be interrupted."""
    found: list[Place] = []
    failed: list[OSError | UnicodeError] = []
    # Names below localhost are loopback (RFC 6761 section 6.3), which many resolvers do not know.
    known = "localhost" if f".{host.lower().removesuffix('.')}".endswith(".localhost") else host
    # As bytes, as Python would import its IDNA codec for text; the name is in ASCII already.
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
            unknown = "%" in host and "this machine has no network interface with that name"
            raise DialError("dns", host=host, reason=unknown or exc.strerror or exc) from exc
        # Not an address, but a name: the usual case.
    _thread.start_new_thread(ask_in_thread, ())
    if not done.acquire(timeout=limit.left()):
        raise DialError("answer-timeout", hop=f"the name server (asked for {host})", seconds=limit.seconds)
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
    """Return a socket connected to the one of ``places`` that answers first. Raises DialError with ``named``."""
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
                failures.append(_error(code))
                sock.close()
            if limit.over:
                raise DialError("tcp-timeout", address=named, seconds=limit.seconds)
    finally:
        for sock in pending.values():
            sock.close()


def _decided(descriptors: Iterable[int], seconds: float) -> Iterable[int]:
    """Return the sockets that have connected or failed, after at most ``seconds``."""
    if hasattr(select, "poll"):
        poll = select.poll()
        for fd in descriptors:
            poll.register(fd, select.POLLOUT)
        return [fd for fd, _ in poll.poll(seconds * 1000)]
    # Windows has no poll; its select reports a failure as an exceptional condition.
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
    failures.append(_error(code))
    sock.close()
    return None


def _error(code: int) -> OSError:
    from tunnel.net.error_texts import error_text  # late, as it is rarely needed

    return OSError(code, error_text(code))


def _tcp_error(named: str, failures: list[OSError]) -> DialError:
    if all(failure.errno == errno.ECONNREFUSED for failure in failures):
        return DialError("tcp-refused", address=named)
    reasons = dict.fromkeys(failure.strerror or str(failure) for failure in failures)
    refused = any(failure.errno == errno.ECONNREFUSED for failure in failures)
    return DialError("tcp", address=named, reason=", ".join(reasons), refused=refused)


def _place_text(place: Sequence[object]) -> str:
    return f"{bracketed(_host_text(place))}:{place[1]}"


def _host_text(place: Sequence[object]) -> str:
    """Return the host part of a socket's address, with its zone if it is link-local."""
    if len(place) < 4 or not place[3]:
        return str(place[0])
    from tunnel.net.names import zone_of

    return str(place[0]) + zone_of(place)
