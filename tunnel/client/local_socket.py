"""A connected socket as the local end of a tunnel, and a way to end such a tunnel from another thread."""

from __future__ import annotations

import socket

from tunnel.net.channel import Channel


class LocalSocket(Channel):
    """One socket as source and sink; it passes half-closes in both directions."""

    __slots__ = ()

    waitable = True
    is_pipe = False

    def end_stream(self) -> bool:
        """Half-close: the program at the other end may still send."""
        try:
            self.end_writing()
        except OSError:
            return False
        return True


class Stop:
    """An interrupt for a relay, from any thread: the relay sends what was read, then ends the tunnel cleanly."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: `Tunnel.run` may enter this again for another relay; `close` is called at the end."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the relay is to stop, and stays so."""
        return self._reader.fileno()

    def caught(self) -> int:
        """Return 0: this is not a failure."""
        return 0

    def set(self) -> None:
        """Stop the relay; further calls do nothing."""
        try:
            self._writer.send(b"!")
        except OSError:
            pass  # the tunnel is over, or was stopped before

    def close(self) -> None:
        """Close the descriptors."""
        self._reader.close()
        self._writer.close()
