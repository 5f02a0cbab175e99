"""The bridge's side of a TLS connection, as a channel.

OpenSSL gets the records one by one from memory, not from the socket. From a socket it would continue reading as long as
it gets records without data: a client could block all others with key updates (RFC 8446 section 4.6.3), even without a
token, or later with records of one byte.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from typing import TYPE_CHECKING, cast

from tunnel.errors import RemoteProtocolError
from tunnel.net.channel import Channel
from tunnel.net.tls import send_close_notify
from tunnel.protocol.frame_budget import FrameBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunnel.protocol.frames import Buffer

RECORDS_PER_TURN = 64  # most records that one call takes; the rest waits for a later turn
_READ_SIZE = 64 * 1024  # bytes of one read from the socket
_CHUNK = 32 * 1024  # bytes that are encrypted at once; OpenSSL keeps that much memory
_SEND_LIMIT = 256 * 1024  # bytes of one `send`
_REPLY_LIMIT = 1 << 20  # bytes that may wait for a client that does not read
_RECORD_HEADER = 5  # RFC 8446 section 5.1: type, version, length
_RECORD_LIMIT = (1 << 14) + 2048  # bytes of an encrypted record's content (RFC 5246 section 6.2.3)
_RECORD_TYPES = range(20, 25)


class ServerTLSChannel(Channel):
    """A non-blocking byte stream over TLS; usable once `shake_hands` has returned True."""

    is_encrypted = True

    __slots__ = (
        "_at",
        "_budget",
        "_encrypted",
        "_error",
        "_has_ended",
        "_incoming",
        "_outgoing",
        "_owed",
        "_tls",
        "_unsent",
    )

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._encrypted = b""  # bytes from the socket; OpenSSL has not got those …
        self._at = 0  # … from here on
        self._has_ended = False  # the client sends no more
        self._error: OSError | None = None  # the next call raises it
        self._unsent = memoryview(b"")  # records that the socket did not accept
        self._owed = 0  # bytes of data in them that the last `send` has not counted
        self._budget = FrameBudget()  # for records without data

    def shake_hands(self) -> bool:
        """Continue the handshake; return whether it is complete. Raises OSError, including ssl.SSLError."""
        for _ in range(RECORDS_PER_TURN):
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not self._take_record():
                    return False
            except ssl.SSLError:
                self._flush_quietly()  # an alert with the reason for the client
                raise
            else:
                self.flush()
                return True
        return False

    @property
    def is_blocked(self) -> bool:
        """Whether data waits until the descriptor is writable."""
        return bool(self._unsent)

    @property
    def pending(self) -> bool:
        """Whether the channel holds bytes for which the descriptor will not become readable."""
        return bool(self._held) or self._tls.pending() > 0 or self._record_size() > 0

    def receive_into(self, space: memoryview) -> int | None:
        """As `Channel.receive_into`. EOF without close_notify is not an error: WebSocket's Close shows a clean end.

        None while `pending` means that there was no data in the records so far.
        """
        if self._held:
            return self._receive_held(space)
        if self._error is not None:
            raise self._error
        received = 0
        try:
            received, has_ended = self._decrypt(space)
        except OSError as exc:
            self._error = exc
            raise
        finally:
            self._flush_quietly()
        return received if received or has_ended else None

    def _decrypt(self, space: memoryview) -> tuple[int, bool]:
        """Decrypt as many records as allowed into ``space``; return the number of bytes, and whether it is the end."""
        received, records, is_silent = 0, 0, False
        while received < len(space):
            try:
                n = cast(int, self._tls.read(len(space) - received, space[received:]))
            except ssl.SSLWantReadError:
                if is_silent:
                    self._spend()
            except ssl.SSLEOFError:
                return received, True
            except OSError as exc:
                if not received:
                    raise
                self._error = exc
                break
            else:
                if not n:
                    return received, True
                received += n
                is_silent = False
                continue
            if records == RECORDS_PER_TURN or not self._take_record():
                break
            records += 1
            is_silent = not self._has_ended
        return received, False

    def _spend(self) -> None:
        """Count a record without data."""
        try:
            self._budget.spend(time.monotonic())
        except RemoteProtocolError as exc:
            raise ConnectionAbortedError(errno.ECONNABORTED, "too many TLS records without data") from exc
        if len(self._unsent) + self._outgoing.pending > _REPLY_LIMIT:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the client does not read what TLS sends")

    def _take_record(self) -> bool:
        """Pass the next record, or the end, to OpenSSL; return whether there was one. Raises OSError."""
        size = self._record_size()
        if not size:
            if self._has_ended:
                return False
            try:
                data = self.sock.recv(self._missing())
            except (BlockingIOError, InterruptedError):
                return False
            if not data:
                self._has_ended = True
                self._incoming.write_eof()
                return True
            self._encrypted = self._encrypted[self._at :] + data
            self._at = 0
            size = self._record_size()
        if not size:
            return False
        self._incoming.write(memoryview(self._encrypted)[self._at : self._at + size])
        self._at += size
        if self._at == len(self._encrypted):
            self._encrypted, self._at = b"", 0
        return True

    def _record_size(self) -> int:
        """Return the size of the next record, 0 if it is incomplete."""
        left = len(self._encrypted) - self._at
        if left < _RECORD_HEADER:
            return 0
        size = self._whole_size()
        kind, version = self._encrypted[self._at : self._at + 2]
        if kind not in _RECORD_TYPES or version != 3 or size > _RECORD_HEADER + _RECORD_LIMIT:
            return left  # not a record: OpenSSL answers it
        return size if size <= left else 0

    def _whole_size(self) -> int:
        """Return the size of the next record, whose header is complete."""
        return _RECORD_HEADER + int.from_bytes(self._encrypted[self._at + 3 : self._at + 5], "big")

    def _missing(self) -> int:
        """Return how many bytes to read: those that complete a record, so that little has to be copied."""
        left = len(self._encrypted) - self._at
        return _READ_SIZE if left < _RECORD_HEADER else self._whole_size() - left

    def send(self, pieces: Sequence[Buffer]) -> int:
        """As `Channel.send`. If not everything was sent, the next call must begin with the rest."""
        if self._owed:
            if not self.flush():
                return 0
            sent, self._owed = self._owed, 0
            return sent
        data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))[:_SEND_LIMIT]
        sent = 0
        while sent < len(data):
            n = self._tls.write(data[sent : sent + _CHUNK])
            if not self.flush():
                self._owed = n
                break
            sent += n
        return sent

    def flush(self) -> bool:
        """Send queued data as far as possible without waiting; return whether all is sent. Raises OSError."""
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
            except (BlockingIOError, InterruptedError):
                return False
        return True

    def _flush_quietly(self) -> None:
        try:
            self.flush()
        except OSError:
            pass  # the next `send` raises it

    def end_writing(self) -> None:
        """Send close_notify and half-close. Data received after this is not decrypted; only its end matters."""
        self._notify()
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Send close_notify if that is possible without waiting, and close."""
        self._notify()
        self.sock.close()

    def _notify(self) -> None:
        send_close_notify(self._tls)
        self._flush_quietly()
