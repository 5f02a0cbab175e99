"""A `tunnel.net.channel` over TLS. Imported only if TLS is used, as ``ssl`` costs 10 ms."""

from __future__ import annotations

import socket
import ssl

from tunnel.net.channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

# The most bytes that one send() encrypts, so that others need not wait long.
_SEND_LIMIT = 256 * 1024


class TLSChannel(Channel):
    """A non-blocking byte stream over an ``ssl.SSLSocket`` whose handshake is done."""

    __slots__ = ("_tls",)

    is_encrypted = True

    def __init__(self, sock: ssl.SSLSocket, prefetched: bytes = b"") -> None:
        super().__init__(sock, prefetched)
        self._tls = sock

    @property
    def pending(self) -> bool:
        """Whether the channel holds bytes for which the descriptor will not become readable."""
        return bool(self._held) or self._tls.pending() > 0

    def receive_into(self, space: memoryview) -> int | None:
        """As `Channel.receive_into`. EOF without close_notify is not an error: WebSocket's Close shows a clean end."""
        if self._held:
            return self._receive_held(space)
        # OpenSSL returns at most one record (16 KiB) at a time. Reading until the space is full means that the steps
        # after this (parsing, a write to the other side) are done once for many records.
        received = 0
        while received < len(space):
            try:
                n = self._tls.recv_into(space[received:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return received or None
            except OSError:
                if received:
                    return received  # the next call raises the error again
                raise
            if n == 0:
                return received
            received += n
        return received

    def send(self, pieces: Sequence[Buffer]) -> int:
        """As `Channel.send`. After a 0 the next call must begin with the same bytes, as OpenSSL requires."""
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))[:_SEND_LIMIT]
        sent = 0
        while sent < len(data):
            try:
                sent += self._tls.send(data[sent:])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
        return sent

    def end_writing(self) -> None:
        """Send close_notify and half-close. Data received after this is not decrypted; only its end matters."""
        send_close_notify(self._tls)
        self._tls.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify if that is possible without waiting, and close."""
        send_close_notify(self._tls)
        self.sock.close()


def send_close_notify(tls: ssl.SSLSocket | ssl.SSLObject) -> None:
    """Send close_notify, without waiting for the peer's."""
    try:
        tls.unwrap()
    except (OSError, ValueError):
        pass  # the peer's close_notify has not arrived, or the connection is broken
