"""Dialling while a relay runs: in a thread, as a name lookup or a TLS handshake cannot be interrupted."""

from __future__ import annotations

import _thread
import socket

from tunnel.errors import DialError, TunnelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tunnel.client.dial import Connection

    Dial = Callable[[Sequence[tuple[str, str]]], Connection]


class Redial:
    """One attempt to dial, in progress. ``dial`` takes headers for the request, and has its own time limit.

    `fileno` becomes readable when there is a `result`; `abandon` drops the attempt. Raises OSError if no descriptor is
    left, RuntimeError if no thread can be started.
    """

    def __init__(self, dial: Dial, headers: Sequence[tuple[str, str]]) -> None:
        self._outcome: Connection | Exception | None = None
        self._lock = _thread.allocate_lock()
        self._abandoned = False
        self._reader, self._writer = socket.socketpair()
        _thread.start_new_thread(self._run, (dial, headers))

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reader.fileno()

    def result(self) -> Connection:
        """Return the connection; call this when the descriptor is readable. Raises TunnelError."""
        self._close()
        if isinstance(self._outcome, Exception):
            if isinstance(self._outcome, TunnelError):
                raise self._outcome
            raise DialError("internal", problem=repr(self._outcome)) from self._outcome
        if self._outcome is None:
            raise DialError("internal", problem="an attempt to dial ended without a result")
        return self._outcome

    def abandon(self) -> None:
        """Drop the attempt: if it still succeeds, its connection is closed."""
        with self._lock:
            self._abandoned = True
        self._hang_up()
        self._close()

    def _run(self, dial: Dial, headers: Sequence[tuple[str, str]]) -> None:
        try:
            self._outcome = dial(headers)
        except Exception as exc:
            self._outcome = exc
        with self._lock:
            abandoned = self._abandoned
            if not abandoned:
                self._writer.send(b"!")
        if abandoned:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._outcome is not None and not isinstance(self._outcome, Exception):
            self._outcome.channel.close()

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()
