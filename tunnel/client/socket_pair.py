"""A pair of connected sockets. One end can be reset, so that the other end does not read an EOF.

A Unix socket can only be closed, and its peer then reads an EOF, as after success. So this is a TCP pair over the
loopback interface, which can be reset (`tunnel.net.channel.reset`). After that, every read and write at the other end
fails, even in C code that only has the descriptor.
"""

from __future__ import annotations

import errno
import socket

from tunnel.net.channel import set_nodelay

_LIMIT = 1.0  # seconds, in case that a firewall drops packets over loopback
_STRANGERS = 16  # connections by other programs that are tolerated while the port is open
_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected, blocking stream sockets: TCP, or Unix sockets without a loopback. Raises OSError."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            return _tcp_pair(family, host)
        except OSError as exc:
            if exc.errno in _NONE_LEFT:
                raise
    return socket.socketpair()


def _tcp_pair(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen(_STRANGERS)
        listener.settimeout(_LIMIT)
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.settimeout(_LIMIT)
            one.connect(listener.getsockname())
            for _ in range(_STRANGERS):
                other, peer = listener.accept()
                if peer == one.getsockname():
                    for sock in (one, other):
                        sock.settimeout(None)
                        set_nodelay(sock)
                    return one, other
                other.close()  # any program on this machine may connect to that port
            raise OSError(errno.ECONNABORTED, "the port was taken by others")
        except BaseException:
            one.close()
            raise
