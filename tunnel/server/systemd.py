"""systemd's protocols for services: inherited sockets and notifications about the service's state.

See sd_listen_fds(3) and sd_notify(3). Both use environment variables; without these nothing happens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from tunnel.errors import UsageError

_FIRST_FD = 3  # SD_LISTEN_FDS_START


def take_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that were passed to this process, and remove the variables from ``environ``.

    Raises UsageError if a descriptor is not a listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []  # meant for a parent process
    if not (count.isascii() and count.isdigit()):
        raise UsageError(f"LISTEN_FDS: {count!r} is not a number")
    sockets: list[socket.socket] = []
    try:
        for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
            sockets.append(_take(fd))
    except UsageError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _take(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        raise UsageError(f"LISTEN_FDS: descriptor {fd} is not a socket: {exc.strerror}") from exc
    known = sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) and sock.type == socket.SOCK_STREAM
    if not known or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise UsageError(
            f"LISTEN_FDS: descriptor {fd} is not a listening stream socket; set Accept=no in the socket unit"
        )
    return sock


def notify(state: str) -> None:
    """Send ``state`` (``READY=1``, ``STOPPING=1``, …) to the service manager, if there is one.

    Raises OSError if it cannot be sent.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


def reloading() -> str:
    """Return the state for the beginning of a reload; ``READY=1`` ends it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
