"""Tunnels for programs: a real socket for any code that takes one (paramiko, ssh2-python, your own protocol).

The socket is one end of a pair; a thread relays between the other end and the bridge, and resumes like the command. So
everything works that works with sockets: select, timeouts, `makefile`, asyncio. The socket reads an EOF if the tunnel
has ended well; otherwise it is reset.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import threading

from tunnel.client.layers import bearer_field
from tunnel.client.local_socket import LocalSocket, Stop
from tunnel.client.options import BY_NAME, HEADERS, parse_value
from tunnel.client.settings import resolve
from tunnel.client.socket_pair import connected_pair
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.errors import ConnectionLost, DialError, TunnelError, UsageError
from tunnel.net.channel import reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar, Unpack

    from tunnel.client.dial import Connection
    from tunnel.client.options import Value
    from tunnel.client.settings import Settings
    from tunnel.client.tunnel_options import TunnelOptions

    # `socket.recv_into` and the like take any writable buffer.
    WritableBuffer = Any
    T = TypeVar("T")
    Base = socket.socket
else:
    Base = object

EXIT_LIMIT = 2.0  # seconds for tunnels to end when the program exits


class _ToldOfFailures(Base):
    """What a `TunnelSocket` adds to its socket class."""

    failures: Sequence[TunnelError | None] = ()  # what ended the tunnel, once it has ended

    @property
    def failure(self) -> TunnelError | None:
        """Why the tunnel broke; None while it is open, and if it ended well."""
        return next(filter(None, self.failures), None)

    def getpeername(self) -> Any:
        """Return no address: callers would take the pair's for the host's, in known hosts for example."""
        return ""

    def getsockname(self) -> Any:
        """As `getpeername`."""
        return ""

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        data = self._try(super().recv, bufsize, flags)
        if not data and bufsize:
            self._check()
        return data

    def recv_into(self, buffer: WritableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        n = self._try(super().recv_into, buffer, nbytes, flags)
        if not n and (nbytes or len(buffer)):
            self._check()
        return n

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: WritableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> tuple[bytes, list[Any], int, Any]:
        received = self._try(super().recvmsg, bufsize, ancbufsize, flags)
        if not received[0] and bufsize:
            self._check()
        return received

    # gevent, whose class may be the base class, passes more arguments than the standard library knows.

    def send(self, *words: Any, **named: Any) -> int:
        return self._try(super().send, *words, **named)

    def sendall(self, *words: Any, **named: Any) -> None:
        self._try(super().sendall, *words, **named)

    def sendmsg(self, *words: Any, **named: Any) -> int:
        return self._try(super().sendmsg, *words, **named)

    def _try(self, call: Callable[..., T], *words: object, **named: object) -> T:
        try:
            return call(*words, **named)
        except ConnectionError:
            self._check()
            raise

    def _check(self) -> None:
        if self.failure is not None:
            raise ConnectionResetError(errno.ECONNRESET, str(self.failure)) from self.failure


if not hasattr(socket.socket, "sendmsg"):  # Windows; `hasattr` must give the right answer
    del _ToldOfFailures.sendmsg, _ToldOfFailures.recvmsg


class TunnelSocket(_ToldOfFailures, socket.socket):
    """A connected socket whose other end is a tunnel.

    It reads an EOF only if the tunnel ended well. If the tunnel broke, ``failure`` says why, and receiving and sending
    raise ConnectionResetError with that text.
    """


def _socket_class() -> type[TunnelSocket]:
    """Return `TunnelSocket`, or the same on top of the class by which gevent or eventlet have replaced `socket.socket`.

    They may do that after this module was imported; a socket of the original class would block all their threads.
    """
    if issubclass(TunnelSocket, socket.socket):
        return TunnelSocket
    return type("TunnelSocket", (_ToldOfFailures, socket.socket), {})


def open_socket(
    host: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, **options: Unpack[TunnelOptions]
) -> TunnelSocket:
    """Open a tunnel to ``host`` and return a connected, blocking socket for it; close it to end the tunnel.

    ``host`` is as for the command: a ws(s):// URL, a name from the config file, or the text for {host} in the URL
    template. ``token`` is the bridge's bearer token, ``headers`` are added to the request, and ``options`` are those of
    ``wstunnel-py connect`` with their long names (``ca_file=…``, ``connect_timeout=…`` in seconds, ``no_resume=True``);
    `tunnel.TunnelOptions` lists them. Environment variables and the config file apply as for the command.

    Raises DialError if the tunnel cannot be opened, UsageError for options that cannot be used.
    """
    make_settings = settings_maker(host, token=token, headers=headers, **options)
    tunnel = Tunnel(make_settings(), Trace(), make_settings, notice=lambda _: None)
    connection = tunnel.dial()
    failures: list[TunnelError | None] = []
    plain, _ = relayed_socket(tunnel, connection, ended=failures.append, pair=connected_pair)
    sock = _socket_class()(plain.family, plain.type, plain.proto, plain.detach())
    sock.failures = failures
    return sock


def settings_maker(
    host: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, **options: Unpack[TunnelOptions]
) -> Callable[[], Settings]:
    """Return a function that makes the settings for `open_socket`'s arguments on each call. Raises UsageError."""
    given: dict[str, Value] = {}
    for name, value in options.items():
        option = BY_NAME.get(name.replace("_", "-"))
        if option is None or option.kind == HEADERS or option.name == "wait":
            raise UsageError(f"there is no option {name}; pass headers as headers={{name: value}}")
        given[option.name] = parse_value(option, os.fspath(value) if isinstance(value, os.PathLike) else value, name)
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    if token is not None:
        lines.append(": ".join(bearer_field(token)))
    if lines:
        given["header"] = [str(parse_value(BY_NAME["header"], line, "headers")) for line in lines]
    return lambda: resolve(host, given, has_token=token is not None)


def relayed_socket(
    tunnel: Tunnel,
    connection: Connection,
    *,
    ended: Callable[[TunnelError | None], None],
    pair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair,
) -> tuple[socket.socket, Stop]:
    """Return a socket whose peer is relayed to ``connection`` by a thread, and the `Stop` of the relay.

    ``ended`` is as for `relay_in_thread`. Raises DialError, and closes ``connection``, if this machine has no resources
    left.
    """
    try:
        ours, theirs = pair()
    except OSError as exc:
        connection.channel.close()
        raise DialError("resources", reason=exc.strerror or exc) from exc
    try:
        return ours, relay_in_thread(tunnel, lambda: connection, theirs, ended=ended)
    except BaseException:
        connection.channel.close()
        ours.close()
        raise


def relay_in_thread(
    tunnel: Tunnel,
    dial: Callable[[], Connection],
    sock: socket.socket,
    *,
    ended: Callable[[TunnelError | None], None],
) -> Stop:
    """Relay between ``sock``, which this function takes over, and the connection of ``dial``, in a thread.

    ``ended`` is called in that thread with the error, or None, before the socket is closed, or reset after an error.
    The returned `Stop` ends the tunnel, as does the end of the program. Raises DialError, and resets the socket, if no
    thread can be started.
    """
    try:
        stop = Stop()
    except OSError as exc:
        reset(sock)
        raise DialError("resources", reason=exc.strerror or exc) from exc
    thread = threading.Thread(target=_relay, args=(tunnel, dial, sock, stop, ended), name="tunnel", daemon=True)
    with _lock:
        _running[stop] = thread
    try:
        thread.start()
    except BaseException as exc:
        with _lock:
            _running.pop(stop, None)
        stop.close()
        reset(sock)
        if isinstance(exc, RuntimeError):
            raise DialError("resources", reason=exc) from exc
        raise
    return stop


def _relay(
    tunnel: Tunnel,
    dial: Callable[[], Connection],
    sock: socket.socket,
    stop: Stop,
    ended: Callable[[TunnelError | None], None],
) -> None:
    failure: TunnelError | None = None
    try:
        local = LocalSocket(sock)
        tunnel.run(dial(), local, local, lambda: stop)
    except BaseException as exc:  # passed to `ended`, as nobody waits for the thread
        failure = _failure_of(exc, tunnel)
    with _lock:
        _running.pop(stop, None)
    stop.close()
    try:
        ended(failure)
    finally:
        if failure is None:
            sock.close()
        else:
            reset(sock)


def _failure_of(exc: BaseException, tunnel: Tunnel) -> TunnelError | None:
    """Return the failure to report to the socket's owner for what ended a relay; None if the owner closed it."""
    if isinstance(exc, TunnelError):
        return exc
    if tunnel.relay is not None and exc is tunnel.relay.sink_error:
        return None
    if isinstance(exc, OSError):
        failure = ConnectionLost("lost", reason=exc.strerror or exc)
    else:
        failure = ConnectionLost("internal", problem=repr(exc))
    failure.__cause__ = exc
    return failure


# The `Stop` and the thread of each tunnel of this process.
_running: dict[Stop, threading.Thread] = {}
_lock = threading.Lock()


def _stop_all() -> None:
    with _lock:
        running = dict(_running)
        for stop in running:
            stop.set()
    for thread in running.values():
        thread.join(EXIT_LIMIT)


atexit.register(_stop_all)
