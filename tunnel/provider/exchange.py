"""One HTTP exchange with a time limit, in a thread.

A name lookup, a TLS handshake or a slow answer cannot be interrupted. So a thread does the work; after the time limit
its connection is shut down, and nobody waits for it.
"""

from __future__ import annotations

import _thread
import http.client
import socket
from collections.abc import Callable, Mapping

from tunnel.protocol.upgrade import Response

BODY_LIMIT = 4 << 20  # bytes of an answer: a page of a list has a hundred sandboxes, with their metadata
SLOW = 3.0  # seconds after which ``slow`` is called


class Exchange:
    """A request, and its answer.

    ``open_socket`` opens the connection, with its own time limit, and may raise TunnelError or OSError.
    """

    def __init__(
        self,
        open_socket: Callable[[], socket.socket],
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> None:
        self._open_socket = open_socket
        self._request = (method, path, headers, body)
        self._outcome: Response | BaseException | None = None
        self._sock: socket.socket | None = None
        self._lock = _thread.allocate_lock()
        self._is_over = False

    def run(self, limit: float, slow: Callable[[], object] | None = None) -> Response:
        """Return the answer; call ``slow`` once if it takes long.

        Raises TimeoutError after ``limit`` seconds, and OSError, HTTPException or TunnelError for failures before that.
        """
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(self._work, (done,))
        if slow is not None and limit > SLOW:
            came = done.acquire(timeout=SLOW)
            if not came:
                slow()
                came = done.acquire(timeout=limit - SLOW)
        else:
            came = done.acquire(timeout=limit)
        if not came:
            self._cut_off()
            raise TimeoutError
        if isinstance(self._outcome, Response):
            return self._outcome
        raise self._outcome or RuntimeError("an exchange ended without an answer")

    def _work(self, done: _thread.LockType) -> None:
        try:
            self._outcome = self._ask()
        except BaseException as exc:  # raised in the waiting thread
            self._outcome = exc
        finally:
            done.release()

    def _ask(self) -> Response:
        sock = self._open_socket()
        with self._lock:
            self._sock = sock
            is_over = self._is_over
        try:
            if is_over:
                raise TimeoutError
            return self._answer(sock)
        finally:
            with self._lock:
                self._sock = None
            sock.close()

    def _answer(self, sock: socket.socket) -> Response:
        method, path, headers, body = self._request
        connection = http.client.HTTPConnection("unused")
        connection.auto_open = 0  # a connection that it opened would have neither our proxy nor our TLS
        connection.sock = sock
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        fields = tuple((name.lower(), value) for name, value in answer.getheaders())
        response = Response(answer.status, answer.reason, fields)
        response.body = answer.read(BODY_LIMIT + 1)
        if len(response.body) > BODY_LIMIT:
            raise http.client.HTTPException(f"its answer is longer than {BODY_LIMIT} bytes")
        return response

    def _cut_off(self) -> None:
        with self._lock:
            self._is_over = True
            if self._sock is not None:
                try:
                    # Not the method of the TLS socket, which two threads must not use.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # it is broken already
