"""Dialling: DNS, TCP, the proxy, TLS and the upgrade, one after the other, within one time limit.

Every failure is a `DialError` that names the hop. Nothing is tried twice here, except that a host's addresses are tried
in turn, IPv6 and IPv4 alternating, with a head start of 250 ms for each (RFC 8305 in short).
"""

from __future__ import annotations

import _thread
import errno
import os
import selectors
import socket
import time

from tunnel.client.address import bracketed
from tunnel.client.proxy import Proxy, choose_proxy, connect_http, connect_socks
from tunnel.errors import DialError
from tunnel.net.channel import Channel, set_nodelay
from tunnel.protocol.upgrade import (
    NoFinalResponse,
    ResponseError,
    ResponseParser,
    check_upgrade,
    new_key,
    upgrade_request,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from tunnel.client.address import Address
    from tunnel.client.settings import Settings, TLSSettings
    from tunnel.client.trace import Trace

    Place = tuple[int, tuple[str, int] | tuple[str, int, int, int]]

HEAD_START = 0.25  # seconds that an address is given before the next is tried beside it
BODY_WAIT = 2.0  # seconds that are spent, once a refusal's head is there, on the body that says why
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))


class Connection:
    """An open WebSocket connection: its channel, the subprotocol the server selected, and its answer's headers.

    ``received`` is how much of a resumed session the bridge has, 0 for any other connection.
    """

    __slots__ = ("channel", "headers", "received", "subprotocol")

    def __init__(self, channel: Channel, subprotocol: str | None, headers: tuple[tuple[str, str], ...]) -> None:
        self.channel = channel
        self.subprotocol = subprotocol
        self.headers = headers
        self.received = 0


def dial(
    settings: Settings,
    trace: Trace,
    *,
    subprotocols: Sequence[str] = ("binary",),
    extra_headers: Sequence[tuple[str, str]] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Connection:
    """Open a WebSocket connection to ``settings.address`` within ``settings.connect_timeout`` seconds.

    ``extra_headers`` are added to the request as they are; ``meanwhile`` is called while the server thinks about it.
    Raises DialError, and UsageError for files and proxies
    that cannot be used.
    """
    try:
        return _dial(settings, trace, subprotocols, extra_headers, meanwhile)
    except (OSError, RuntimeError) as exc:  # no hop's fault: no descriptor, no thread, no memory is left
        raise DialError("resources", reason=getattr(exc, "strerror", None) or exc) from exc


def _dial(
    settings: Settings,
    trace: Trace,
    subprotocols: Sequence[str],
    extra_headers: Sequence[tuple[str, str]],
    meanwhile: Callable[[], None],
) -> Connection:
    limit = Limit(settings.connect_timeout)
    address = settings.address
    # Before any packet is sent: what the user wrote may be wrong.
    context = _tls_context(settings) if address.secure else None
    proxy = choose_proxy(settings.proxy, address)
    sock = _connect(proxy or address, settings, limit, trace)
    alarm = Alarm()
    try:
        if proxy:
            _pass_proxy(sock, proxy, address, settings, limit)
            trace.step("proxy", f"{proxy} connected us to {address.authority}")
        if context:
            from tunnel.client.tls import start_tls

            sock = start_tls(sock, context, address, limit, trace, alarm)
        headers = [*settings.headers, *extra_headers]
        connection = _upgrade(sock, address, subprotocols, headers, limit, trace, meanwhile)
        if alarm.cancel():
            raise DialError("answer-timeout", hop=str(address), seconds=limit.seconds)
        return connection
    except BaseException:
        alarm.cancel()
        sock.close()
        raise


def _tls_context(settings: TLSSettings) -> ssl.SSLContext:
    # Imported where TLS is used only, as `ssl` costs 10 ms.
    from tunnel.client.tls import tls_context

    return tls_context(settings)


def _tls_error(exc: OSError, address: Address) -> DialError | None:
    if not address.secure:
        return None
    from tunnel.client.tls import tls_error

    return tls_error(exc, address)


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

    def apply(self, sock: socket.socket) -> socket.socket:
        """Return ``sock``, whose next operation has what is left. Raises TimeoutError when nothing is.

        Without that, a loop whose every operation succeeds at once would never end.
        """
        if self.over:
            raise TimeoutError
        sock.settimeout(self.left())
        return sock

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Send all of ``data``; `sendall` of a TLS socket would give each of its writes the whole time anew."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.apply(sock).send(rest) :]


class Alarm:
    """Shuts a TLS connection down when the time is over, unless it is cancelled before.

    OpenSSL looks at no clock: it goes on by itself as long as messages come that it may ignore.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._cancelled = _thread.allocate_lock()
        self._cancelled.acquire()
        self._is_over = self._went_off = False

    def set(self, sock: socket.socket, seconds: float) -> None:
        """Go off in ``seconds``."""
        _thread.start_new_thread(self._wait, (sock, seconds))

    def cancel(self) -> bool:
        """Leave the connection alone from now on; return whether it was too late for that."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                self._cancelled.release()
            return self._went_off

    def _wait(self, sock: socket.socket, seconds: float) -> None:
        if self._cancelled.acquire(timeout=seconds):
            return
        with self._lock:
            if self._is_over:
                return
            self._is_over = self._went_off = True
            try:
                # Not that of TLS, which two threads must not use.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass  # it is broken already


# ---- DNS and TCP


def _connect(hop: Proxy | Address, settings: Settings, limit: Limit, trace: Trace) -> socket.socket:
    places = _interleave(_resolve(hop.host, hop.port, settings.family, limit))
    trace.step("dns", f"{hop.host} is {', '.join(_host_text(place[1]) for place in places)}")
    named = " and ".join(dict.fromkeys(_place_text(place[1]) for place in places))
    # An address of the proxy says nothing to a user who has forgotten that there is one.
    named = f"proxy {hop} ({named})" if isinstance(hop, Proxy) else named
    sock = _first_to_connect(places, named, limit)
    try:
        set_nodelay(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        trace.step("tcp", f"connected to {_place_text(sock.getpeername())}")
    except OSError as exc:  # what was connected a moment ago is not any more
        sock.close()
        raise DialError("hung-up", hop=named) from exc
    return sock


def _resolve(host: str, port: int, family: int, limit: Limit) -> list[Place]:
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


def _first_to_connect(places: list[Place], named: str, limit: Limit) -> socket.socket:
    """Return a socket connected to whichever of ``places`` answers first. Raises DialError, which shows ``named``."""
    waiting = list(places)
    failures: list[OSError] = []
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                if waiting:
                    begun = _begin_connect(waiting.pop(0), failures)
                    if begun is not None:
                        selector.register(begun, selectors.EVENT_WRITE)
                pending = selector.get_map()
                if not pending and not waiting:
                    raise _tcp_error(named, failures)
                if not pending:
                    continue
                for key, _ in selector.select(min(HEAD_START, limit.left()) if waiting else limit.left()):
                    sock = key.fileobj
                    if not isinstance(sock, socket.socket):
                        continue
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    selector.unregister(sock)
                    if code == 0:
                        return sock
                    failures.append(OSError(code, os.strerror(code)))
                    sock.close()
                if limit.over:
                    raise DialError("tcp-timeout", address=named, seconds=limit.seconds)
        finally:
            for key in list(selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()


def _begin_connect(place: Place, failures: list[OSError]) -> socket.socket | None:
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
    return DialError("tcp", address=named, reason=", ".join(reasons))


def _place_text(place: Sequence[object]) -> str:
    return f"{bracketed(_host_text(place))}:{place[1]}"


def _host_text(place: Sequence[object]) -> str:
    """Return the address, of the address that a socket has; of a link-local one with its zone."""
    if len(place) < 4 or not place[3]:
        return str(place[0])
    from tunnel.net.names import zone_of

    return str(place[0]) + zone_of(place)


# ---- the proxy


def _pass_proxy(sock: socket.socket, proxy: Proxy, address: Address, settings: Settings, limit: Limit) -> None:
    def send(data: bytes) -> None:
        limit.send(sock, data)

    def receive(n: int) -> bytes:
        return limit.apply(sock).recv(n)

    host = address.plain_host
    if not proxy.resolves:
        host = str(_resolve(host, address.port, settings.family, limit)[0][1][0])
    try:
        if proxy.scheme == "http":
            early = connect_http(proxy, host, address.port, send, receive, refused=lambda: limit.shorten(BODY_WAIT))
            if early:
                raise DialError("proxy-protocol", proxy=proxy, scheme="HTTP", reason="it sent data before we did")
        else:
            connect_socks(proxy, host, address.port, send, receive)
    except TimeoutError as exc:
        raise DialError("answer-timeout", hop=f"proxy {proxy}", seconds=limit.seconds) from exc
    except OSError as exc:
        raise DialError("hung-up", hop=f"proxy {proxy}") from exc


# ---- the upgrade


def _upgrade(
    sock: socket.socket,
    address: Address,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limit: Limit,
    trace: Trace,
    meanwhile: Callable[[], None],
) -> Connection:
    key, url = new_key(), str(address)
    parser = ResponseParser()
    try:
        try:
            limit.send(sock, upgrade_request(address.resource, address.host_field, key, subprotocols, headers))
        except (BrokenPipeError, ConnectionResetError):
            pass  # who refuses us before he has heard us has said why: that is still there to be read
        meanwhile()
        while not parser.done:
            data = limit.apply(sock).recv(65536)
            if not data:
                parser.end()
                break
            parser.feed(data)
            if parser.head is not None:
                limit.shorten(BODY_WAIT)
    except NoFinalResponse as exc:
        raise DialError("no-answer", hop=url) from exc
    except ResponseError as exc:
        if not parser.salvage():
            if limit.over:  # the alarm has ended the connection
                raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
            if not str(exc):
                raise DialError("hung-up", hop=url) from exc
            raise DialError("not-http", url=url, reason=exc) from exc
    except OSError as exc:
        if not parser.salvage():
            if isinstance(exc, TimeoutError) or limit.over:
                raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
            raise _tls_error(exc, address) or DialError("hung-up", hop=url) from exc
    if parser.head is None:
        raise DialError("hung-up", hop=url)
    # A refusal that did not come in time, or was cut off, is still a refusal.
    subprotocol = check_upgrade(parser.head, url=url, key=key, subprotocols=subprotocols)
    trace.step("upgrade", f"{url} opened a WebSocket" + (f", subprotocol {subprotocol}" if subprotocol else ""))
    if address.secure:
        import ssl

        from tunnel.net.tls import TLSChannel

        if isinstance(sock, ssl.SSLSocket):
            return Connection(TLSChannel(sock, parser.rest), subprotocol, parser.head.headers)
    return Connection(Channel(sock, parser.rest), subprotocol, parser.head.headers)
