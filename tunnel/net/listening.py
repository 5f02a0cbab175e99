"""Listening sockets: TCP addresses and Unix sockets opened as people name them, for bridges and for forwarded ports."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Iterable

from tunnel.errors import DialError
from tunnel.net.address import Address, TCPAddress, UnixAddress, address_of, join, parse_address

BACKLOG = 4096  # connections; the kernel may have a lower limit (net.core.somaxconn)


class ListeningSocket:
    """A non-blocking socket that listens; ``address`` is where it is really bound.

    With ``owns_path`` the file of a Unix socket is removed at the end, unless somebody else has put one there.
    """

    def __init__(self, sock: socket.socket, *, owns_path: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.address: Address = address_of(sock)
        self._path = self.address.path if owns_path and isinstance(self.address, UnixAddress) else None
        self._file = _identity(self._path)

    def has_connection(self) -> bool:
        """Return whether a connection waits to be accepted: accept(2) takes a descriptor before it looks for one."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.sock.close()
        if self._path is not None and self._file is not None and self._file == _identity(self._path):
            os.unlink(self._path)


def open_listening(specs: Iterable[tuple[str, str]], *, unix_mode: int) -> list[ListeningSocket]:
    """Open a socket for each of ``specs`` (text, name of the setting); a host with several addresses gets several.

    Raises UsageError for what cannot be parsed, DialError (``listen``) for what cannot be bound.
    """
    addresses = [parse_address(text, setting) for text, setting in specs]
    listeners: list[ListeningSocket] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                listeners.append(_open_unix(address, unix_mode))
            else:
                listeners += [ListeningSocket(sock) for sock in _open_tcp(address)]
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
            # The whole address, as the last part of IPv6's is the zone.
            bound = (str(sockaddr[0]), int(sockaddr[1]), *sockaddr[2:])
            sockets.append(socket.create_server(bound, family=family, backlog=BACKLOG))
    except (OSError, UnicodeError) as exc:
        for sock in sockets:
            sock.close()
        raise DialError("listen", place=join(address.host or "*", address.port), reason=_reason(exc)) from exc
    return sockets


def _open_unix(address: UnixAddress, mode: int) -> ListeningSocket:
    if not hasattr(socket, "AF_UNIX"):
        raise DialError("listen", place=address, reason="this platform has no Unix sockets")
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
        return ListeningSocket(sock, owns_path=True)
    except OSError as exc:
        sock.close()
        raise DialError("listen", place=address, reason=_reason(exc)) from exc


def _remove_stale(path: str) -> None:
    """Remove the socket that somebody left behind at ``path``; raises OSError when anything else is there."""
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
