"""Listeners: sockets opened from ``--listen`` or passed by systemd, and connections accepted from them.

They are plain non-blocking sockets rather than asyncio servers, because a session moves the bytes itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterable

from tunnel.protocol.errors import DialError
from tunnel.server.address import Address, Client, TCPAddress, UnixAddress, address_of, client_of, join, parse_address
from tunnel.server.log import event
from tunnel.server.waiting import readable

BACKLOG = 1024
_PAUSE = 1.0  # seconds without accepting after the system had no descriptor or no memory left
_SILENCE = 60.0  # seconds between two log lines about that


class Listener:
    """A listening socket; ``address`` is where it is really bound.

    With ``owns_path`` the file of a Unix socket is removed at the end, unless another bridge has put its own there.
    """

    def __init__(self, sock: socket.socket, *, owns_path: bool = False) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.address: Address = address_of(sock)
        self._path = self.address.path if owns_path and isinstance(self.address, UnixAddress) else None
        self._file = _identity(self._path)
        self._complained_at = float("-inf")

    async def accept(self) -> tuple[socket.socket, Client]:
        """Wait for the next connection, for as long as it takes; what keeps the system from accepting is logged."""
        while True:
            try:
                sock, sockaddr = self._sock.accept()
                return sock, client_of(sockaddr)
            except BlockingIOError:
                await readable(self._sock.fileno())
            except ConnectionAbortedError:
                continue  # that client has gone again
            except OSError as exc:
                self._complain(exc)
                await asyncio.sleep(_PAUSE)

    def _complain(self, exc: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained_at >= _SILENCE:
            self._complained_at = now
            event(logging.ERROR, "cannot-accept", listener=str(self.address), reason=exc.strerror or str(exc))

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for a server that accepts connections in its own way."""
        return self._sock

    def close(self) -> None:
        self._sock.close()
        if self._path is not None and self._file is not None and self._file == _identity(self._path):
            os.unlink(self._path)


def open_listeners(specs: Iterable[str], *, unix_mode: int, option: str = "--listen") -> list[Listener]:
    """Open a listener for each of ``specs``, values of ``option``; a host with several addresses gets several.

    Raises UsageError for what cannot be parsed, DialError (``listen``) for what cannot be bound.
    """
    addresses = [parse_address(spec, option) for spec in specs]
    listeners: list[Listener] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                listeners.append(_open_unix(address, unix_mode))
            else:
                listeners += [Listener(sock) for sock in _open_tcp(address)]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open_tcp(address: TCPAddress) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        if address.host in ("", "*"):
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            bound = ("::" if dual else "0.0.0.0", address.port)  # noqa: S104 - what an empty host asks for
            return [socket.create_server(bound, family=family, backlog=BACKLOG, dualstack_ipv6=dual)]
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, sockaddr in dict.fromkeys(found):
            # A dict drops the doubles that /etc/hosts may bring.
            sockets.append(socket.create_server(sockaddr[:2], family=family, backlog=BACKLOG))
    except (OSError, UnicodeError) as exc:
        for sock in sockets:
            sock.close()
        raise DialError("listen", place=join(address.host or "*", address.port), reason=_reason(exc)) from exc
    return sockets


def _open_unix(address: UnixAddress, mode: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path)
        # By umask, as a chmod would come too late for who connects in between.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(address.path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        return Listener(sock, owns_path=True)
    except OSError as exc:
        sock.close()
        raise DialError("listen", place=address, reason=_reason(exc)) from exc


def _remove_stale(path: str) -> None:
    """Remove the socket that a bridge left behind at ``path``; raises OSError when anything else is there."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # somebody listens there, and has a full backlog
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _identity(path: str | None) -> tuple[int, int] | None:
    """Return what tells the file at ``path`` from another one that takes its place."""
    if path is None:
        return None
    try:
        status = os.lstat(path)
    except OSError:
        return None  # moved away or out of reach: no longer ours to remove
    return status.st_dev, status.st_ino


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.partition(" (while attempting")[0]  # create_server repeats the address
    return str(exc)
