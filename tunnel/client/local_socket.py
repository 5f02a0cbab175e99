"""A connected socket as the local end of a tunnel, and how such a tunnel is ended from another thread."""

from __future__ import annotations

import socket

from tunnel.net.channel import Channel


class LocalSocket(Channel):
    """One socket as source and sink; a half-close passes through it in both directions."""

    __slots__ = ()

    waitable = True
    is_pipe = False

    def end_stream(self) -> bool:
        """Half-close; whoever is at the other end may still have something to say."""
        try:
            self.end_writing()
        except OSError:
            return False
        return True


class Stop:
    """An interrupt for a relay that may be raised in any thread: what was read is sent, then the tunnel ends well."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: `Tunnel.run` enters it again for another relay, and `close` is called once all is over."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable, and stays so."""
        return self._reader.fileno()

    def caught(self) -> int:
        """Return 0: to be stopped is no failure."""
        return 0

    def set(self) -> None:
        """Stop the relay; once is enough."""
        try:
            self._writer.send(b"!")
        except OSError:
            pass  # the tunnel is over, or was told before

    def close(self) -> None:
        """Let go of the descriptors."""
        self._reader.close()
        self._writer.close()
