"""Tunnels for programs: a real socket for whatever takes one (paramiko, ssh2-python, any protocol of one's own).

The socket is one end of a socket pair; a thread relays between the other end and the bridge, resumable like the
command. So everything works that works with sockets: select, time limits, `makefile`, asyncio.
"""

from __future__ import annotations

import atexit
import errno
import os
import socket
import threading

from tunnel.client.local import LocalSocket, Stop
from tunnel.client.options import BY_NAME, HEADERS, parse_value
from tunnel.client.settings import resolve
from tunnel.client.trace import Trace
from tunnel.client.tunnel import Tunnel
from tunnel.protocol.errors import TunnelError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from tunnel.client.dial import Connection
    from tunnel.client.options import Value
    from tunnel.client.settings import Settings

    # `socket.recv_into` and its kin take any writable buffer.
    WritableBuffer = Any

EXIT_LIMIT = 2.0  # seconds that tunnels have to end when the program does


class TunnelSocket(socket.socket):
    """A connected socket whose other end is a tunnel.

    The end of the stream is an end only if it was one: if the tunnel broke, ``failure`` says why, and receiving raises
    ConnectionResetError with that text.
    """

    failure: TunnelError | None = None

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        data = super().recv(bufsize, flags)
        if not data and bufsize:
            self._check()
        return data

    def recv_into(self, buffer: WritableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        n = super().recv_into(buffer, nbytes, flags)
        if not n and (nbytes or len(buffer)):
            self._check()
        return n

    def _check(self) -> None:
        if self.failure is not None:
            raise ConnectionResetError(errno.ECONNRESET, str(self.failure)) from self.failure


def open_socket(
    host: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, **options: Value
) -> TunnelSocket:
    """Open a tunnel to ``host`` and return a connected, blocking socket for it; close it to end the tunnel.

    ``host`` is what the command takes: a ws(s):// URL, a name from the config file, or what goes into the URL template.
    ``token`` is the bridge's bearer token, ``headers`` are added to the request, and ``options`` are those of
    ``wstunnel-py connect`` with their long names (``ca_file=…``, ``connect_timeout=…`` in seconds, ``no_resume=True``).
    Environment variables and the config file count as they do for the command.

    Raises DialError when no tunnel comes about, UsageError for options that cannot be used.
    """
    make_settings = settings_maker(host, token=token, headers=headers, **options)
    tunnel = Tunnel(make_settings(), Trace(), make_settings, notice=lambda _: None)
    connection = tunnel.dial()
    ours, theirs = socket.socketpair()
    sock = TunnelSocket(theirs.family, theirs.type, theirs.proto, theirs.detach())
    relay_in_thread(tunnel, lambda: connection, ours, ended=lambda failure: setattr(sock, "failure", failure))
    return sock


def settings_maker(
    host: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, **options: Value
) -> Callable[[], Settings]:
    """Return what makes the settings for `open_socket`'s arguments, as often as it is called. Raises UsageError."""
    given: dict[str, Value] = {}
    for name, value in options.items():
        option = BY_NAME.get(name.replace("_", "-"))
        if option is None or option.kind == HEADERS:
            raise UsageError(f"there is no option {name}; headers are given as headers={{name: value}}")
        given[option.name] = parse_value(option, os.fspath(value) if isinstance(value, os.PathLike) else value, name)
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if lines:
        given["header"] = [str(parse_value(BY_NAME["header"], line, "headers")) for line in lines]
    return lambda: resolve(host, given)


def relay_in_thread(
    tunnel: Tunnel,
    dial: Callable[[], Connection],
    sock: socket.socket,
    *,
    ended: Callable[[TunnelError | None], None],
) -> Stop:
    """Relay between ``sock``, which is owned from now on, and what ``dial`` opens, in a thread of its own.

    ``ended`` is called in that thread with what went wrong, before the socket is closed. The tunnel can be ended with
    what is returned; it ends well when the program does.
    """
    stop = Stop()
    thread = threading.Thread(target=_relay, args=(tunnel, dial, sock, stop, ended), name="tunnel", daemon=True)
    with _lock:
        _running[stop] = thread
    thread.start()
    return stop


def _relay(
    tunnel: Tunnel,
    dial: Callable[[], Connection],
    sock: socket.socket,
    stop: Stop,
    ended: Callable[[TunnelError | None], None],
) -> None:
    local = LocalSocket(sock)
    failure: TunnelError | None = None
    try:
        tunnel.run(dial(), local, local, lambda: stop)
    except TunnelError as exc:
        failure = exc
    except OSError:
        pass  # the program has closed its end: nobody wants to know
    finally:
        with _lock:
            _running.pop(stop, None)
        stop.close()
        ended(failure)
        if failure is not None:
            local.abort()
        else:
            local.close()


# The tunnels of this process, by what stops them.
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
