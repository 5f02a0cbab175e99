"""Listening TCP and Unix sockets, for bridges and for forwarded ports."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Iterable

from tunnel.errors import DialError
from tunnel.net.address import Address, TCPAddress, UnixAddress, address_of, join, parse_address
from tunnel.net.error_texts import error_text

# Errors for which `tunnel.cli.hints` knows a step; Windows describes them in other words, in the user's language.
_OUR_WORDS = (errno.EADDRINUSE, errno.EACCES)
BACKLOG = 4096  # connections; the kernel may have a lower limit (net.core.somaxconn)


class ListeningSocket:
    """A non-blocking listening socket; ``address`` is its real address.

    With ``owns_path`` the file of a Unix socket is removed at the end, unless another one has replaced it: ``file``
    identifies it; None if there is nothing to remove.
    """

    def __init__(self, sock: socket.socket, *, owns_path: bool = False, file: tuple[int, int] | None = None) -> None:
        """Take over ``sock``. ``file``: device and inode of the socket's file, if known."""
        sock.setblocking(False)
        self.sock = sock
        self.address: Address = address_of(sock)
        self._path = self.address.path if owns_path and isinstance(self.address, UnixAddress) else None
        self.file = file or _identity(self._path)

    def has_connection(self) -> bool:
        """Return whether a connection can be accepted; accept(2) itself needs a free descriptor to find out."""
        if not hasattr(select, "poll"):  # Windows, where select accepts all sockets of the process
            return bool(select.select([self.sock], [], [], 0)[0])
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self.sock.close()
        if self._path is not None and self.file is not None and self.file == _identity(self._path):
            with contextlib.suppress(OSError):  # it may stay: nobody listens there, so the next start removes it
                os.unlink(self._path)


def open_listening(specs: Iterable[tuple[str, str]], *, unix_mode: int) -> list[ListeningSocket]:
    """Open the sockets for ``specs`` (text, name of the setting); a host with several addresses gets several.

    Raises UsageError for an invalid address, DialError (``listen``) for one that cannot be bound.
    """
    addresses = [(parse_address(text, setting), setting) for text, setting in specs]
    listeners: list[ListeningSocket] = []
    try:
        for address, setting in addresses:
            listeners += _open(address, setting, unix_mode)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open(address: Address, setting: str, unix_mode: int) -> list[ListeningSocket]:
    """Open the sockets for one address; the field ``setting`` of a DialError is the ``setting`` that has it."""
    try:
        if isinstance(address, UnixAddress):
            return [_open_unix(address, unix_mode)]
        return [ListeningSocket(sock) for sock in _open_tcp(address)]
    except DialError as exc:
        exc.fields["setting"] = setting
        raise


def _open_tcp(address: TCPAddress) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        if address.host in ("", "*"):
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            bound = ("::" if dual else "0.0.0.0", address.port)  # noqa: S104 - the meaning of an empty host
            return [socket.create_server(bound, family=family, backlog=BACKLOG, dualstack_ipv6=dual)]
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, sockaddr in dict.fromkeys(found):
            # A dict drops duplicates, which /etc/hosts may cause.
            # The whole address is kept, as the last part of an IPv6 address is the zone.
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
        # With the umask, as other users could connect before a chmod.
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
    """Remove a stale socket at ``path``. Raises OSError if anything else is there."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket exists there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # another process listens there, and its backlog is full
    raise OSError(errno.EADDRINUSE, error_text(errno.EADDRINUSE))


def _identity(path: str | None) -> tuple[int, int] | None:
    """Return what distinguishes the file at ``path`` from one that replaces it."""
    if path is None:
        return None
    try:
        status = os.lstat(path)
    except OSError:
        return None  # moved or not accessible: not to be removed
    return status.st_dev, status.st_ino


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.errno in _OUR_WORDS:
        return error_text(exc.errno)
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.partition(" (while attempting")[0]  # create_server repeats the address
    return str(exc)
