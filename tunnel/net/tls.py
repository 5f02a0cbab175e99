"""The TLS twin of `tunnel.net.channel`. Imported only where TLS is used: ``ssl`` costs 10 ms."""

from __future__ import annotations

import socket
import ssl

from tunnel.net.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

# What one send() encrypts at most before it gives way to others.
_SEND_LIMIT = 256 * 1024


class TLSChannel(Channel):
    """A non-blocking byte stream over an ``ssl.SSLSocket`` whose handshake is done."""

    __slots__ = ("_tls",)

    def __init__(self, sock: ssl.SSLSocket, prefetched: bytes = b"") -> None:
        super().__init__(sock, prefetched)
        self._tls = sock

    @property
    def pending(self) -> bool:
        """Whether bytes wait inside the channel, for which the descriptor will not become readable."""
        return bool(self._held) or self._tls.pending() > 0

    def receive_into(self, space: memoryview) -> int | None:
        """As `Channel.receive_into`. An end without close_notify is an end: WebSocket's Close tells the two apart."""
        if self._held:
            return self._receive_held(space)
        # OpenSSL hands out one record (16 KiB at most) at a time; go on until the space is full, so that what
        # follows (parsing, one write to the other side) is done once for many records.
        received = 0
        while received < len(space):
            try:
                n = self._tls.recv_into(space[received:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return received or None
            except OSError:
                if received:
                    return received  # the error comes again at the next call
                raise
            if n == 0:
                return received
            received += n
        return received

    def send(self, pieces: Sequence[Buffer]) -> int:
        """As `Channel.send`. After a 0 the next call must begin with the same bytes, as OpenSSL demands."""
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))[:_SEND_LIMIT]
        sent = 0
        while sent < len(data):
            try:
                sent += self._tls.send(data[sent:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
        return sent

    def end_writing(self) -> None:
        """Half-close, behind a close_notify. What is received from then on is not decrypted: only its end counts."""
        send_close_notify(self._tls)
        self._tls.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify if that goes without waiting, and close."""
        send_close_notify(self._tls)
        self.sock.close()


def send_close_notify(tls: ssl.SSLSocket | ssl.SSLObject) -> None:
    """Say that no more data comes, without waiting for the peer to say so, too."""
    try:
        tls.unwrap()
    except (OSError, ValueError):
        pass  # the peer's close_notify has not come, or the connection is broken: nothing more is owed
