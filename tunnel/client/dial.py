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
from tunnel.net.channel import Channel, set_nodelay
from tunnel.protocol.errors import DialError, UsageError
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
    limit = _Limit(settings.connect_timeout)
    address = settings.address
    # Before any packet is sent: what the user wrote may be wrong.
    context = tls_context(settings) if address.secure else None
    proxy = choose_proxy(settings.proxy, address)
    sock = _connect(proxy or address, settings, limit, trace)
    alarm = _Alarm()
    try:
        if proxy:
            _pass_proxy(sock, proxy, address, settings, limit)
            trace.step("proxy", f"{proxy} connected us to {address.authority}")
        if context:
            sock = _start_tls(sock, context, address, limit, trace, alarm)
        headers = [*settings.headers, *extra_headers]
        connection = _upgrade(sock, address, subprotocols, headers, limit, trace, meanwhile)
        if alarm.cancel():
            raise DialError("answer-timeout", hop=str(address), seconds=limit.seconds)
        return connection
    except BaseException:
        alarm.cancel()
        sock.close()
        raise


class _Limit:
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


class _Alarm:
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


def _connect(hop: Proxy | Address, settings: Settings, limit: _Limit, trace: Trace) -> socket.socket:
    places = _interleave(_resolve(hop.host, hop.port, settings.family, limit))
    trace.step("dns", f"{hop.host} is {', '.join(place[1][0] for place in places)}")
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


def _resolve(host: str, port: int, family: int, limit: _Limit) -> list[Place]:
    """Return the addresses of ``host``. getaddrinfo cannot be interrupted, so a thread asks and may be left behind."""
    found: list[Place] = []
    failed: list[OSError | UnicodeError] = []
    # Names below localhost are loopback (RFC 6761 section 6.3), which many resolvers do not know.
    known = "localhost" if host.lower().rstrip(".").endswith(".localhost") else host
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
    except OSError:
        pass  # no address, but a name, as is usual
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


def _first_to_connect(places: list[Place], named: str, limit: _Limit) -> socket.socket:
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
    return f"{bracketed(str(place[0]))}:{place[1]}"


# ---- the proxy


def _pass_proxy(sock: socket.socket, proxy: Proxy, address: Address, settings: Settings, limit: _Limit) -> None:
    def send(data: bytes) -> None:
        limit.send(sock, data)

    def receive(n: int) -> bytes:
        return limit.apply(sock).recv(n)

    host = address.host
    if not proxy.resolves:
        host = str(_resolve(host, address.port, settings.family, limit)[0][1][0])
    try:
        if proxy.scheme == "http":
            early = connect_http(proxy, host, address.port, send, receive)
            if early:
                raise DialError("proxy-protocol", proxy=proxy, scheme="HTTP", reason="it sent data before we did")
        else:
            connect_socks(proxy, host, address.port, send, receive)
    except TimeoutError as exc:
        raise DialError("answer-timeout", hop=f"proxy {proxy}", seconds=limit.seconds) from exc
    except OSError as exc:
        raise DialError("hung-up", hop=f"proxy {proxy}") from exc


# ---- TLS


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return how certificates are checked and shown. Raises UsageError for a file that cannot be used."""
    import ssl

    from tunnel.net.files import check_regular

    # The default context honours SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR.
    try:
        if settings.ca_file:
            check_regular(settings.ca_file)
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise _unusable("--ca-file", settings.ca_file, exc) from exc
    if settings.client_cert:
        try:
            check_regular(settings.client_cert)
        except OSError as exc:
            raise _unusable("--client-cert", settings.client_cert, exc) from exc
        try:
            if settings.client_key:
                check_regular(settings.client_key)
        except OSError as exc:
            raise _unusable("--client-key", settings.client_key, exc) from exc
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key, password=_no_password)
        except (OSError, ssl.SSLError) as exc:
            raise _unusable("--client-cert", settings.client_cert, exc) from exc
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    raise OSError("its key is encrypted, and nobody is there to ask for the password")


def _unusable(option: str, path: str | None, exc: OSError) -> UsageError:
    reason = getattr(exc, "reason", None) or exc.strerror or str(exc) or "no certificate in it"
    return UsageError("", cause="file", option=option, path=path, reason=str(reason).replace("_", " ").lower())


def _start_tls(
    sock: socket.socket, context: ssl.SSLContext, address: Address, limit: _Limit, trace: Trace, alarm: _Alarm
) -> ssl.SSLSocket:
    import ssl

    hop = f"TLS with {address.host}"
    # As bytes for the reason that `_resolve` gives.
    name = address.host.encode("ascii")
    try:
        tls = context.wrap_socket(limit.apply(sock), server_hostname=name, do_handshake_on_connect=False)
        alarm.set(tls, limit.left())
        try:
            tls.do_handshake()
        except BaseException:
            alarm.cancel()
            tls.close()
            raise
    except ssl.SSLCertVerificationError as exc:
        raise DialError("tls-untrusted", host=address.host, reason=exc.verify_message or exc.reason) from exc
    except OSError as exc:
        if isinstance(exc, TimeoutError) or limit.over:
            raise DialError("answer-timeout", hop=hop, seconds=limit.seconds) from exc
        raise _tls_error(exc, address) or DialError("hung-up", hop=hop) from exc
    expires = (tls.getpeercert() or {}).get("notAfter", "")  # nothing with --insecure: it was not looked at
    trace.step("tls", f"{tls.version()} with {address.host}", expires=str(expires))
    return tls


# What a server tells by an alert (RFC 8446 section 6.2) of the certificate that we showed, or did not. In TLS 1.3 that
# comes when the handshake is done for us already.
_CLIENT_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (--client-cert)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it wants another client certificate, or one at all (--client-cert)",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client certificate is not for clients",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the client certificate gives no access",
}


def _tls_error(exc: OSError, address: Address) -> DialError | None:
    """Return what an error of a TLS connection stands for, None if it is the network's and not OpenSSL's."""
    if not address.secure:
        return None
    import ssl

    if not isinstance(exc, ssl.SSLError) or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if exc.reason in _CLIENT_ALERTS:
        return DialError("tls-refused", host=address.host, reason=_CLIENT_ALERTS[exc.reason])
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        reason = "the server does not speak TLS there; a URL without TLS begins with ws://"
    if exc.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # also TLS 1.2's answer to a certificate that is missing
        reason = "the server refused the handshake; does it want a client certificate (--client-cert)?"
    return DialError("tls", host=address.host, reason=reason)


# ---- the upgrade


def _upgrade(
    sock: socket.socket,
    address: Address,
    subprotocols: Sequence[str],
    headers: Sequence[tuple[str, str]],
    limit: _Limit,
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
        if limit.over:  # the alarm has ended the connection
            raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
        if not str(exc):
            raise DialError("hung-up", hop=url) from exc
        raise DialError("not-http", url=url, reason=exc) from exc
    except OSError as exc:
        if parser.head is None and (isinstance(exc, TimeoutError) or limit.over):
            raise DialError("answer-timeout", hop=url, seconds=limit.seconds) from exc
        if parser.head is None:
            raise _tls_error(exc, address) or DialError("hung-up", hop=url) from exc
    if parser.head is None:
        raise DialError("hung-up", hop=url)
    # A refusal whose body did not come in time is still a refusal.
    subprotocol = check_upgrade(parser.head, url=url, key=key, subprotocols=subprotocols)
    trace.step("upgrade", f"{url} opened a WebSocket" + (f", subprotocol {subprotocol}" if subprotocol else ""))
    if address.secure:
        import ssl

        from tunnel.net.tls import TLSChannel

        if isinstance(sock, ssl.SSLSocket):
            return Connection(TLSChannel(sock, parser.rest), subprotocol, parser.head.headers)
    return Connection(Channel(sock, parser.rest), subprotocol, parser.head.headers)
