"""A thread that writes log lines, so that neither a full disk nor a slow reader blocks the service.

The descriptor stays blocking, because stderr is shared with other processes; the thread may wait for it forever.
Meanwhile lines are queued up to a limit, then dropped and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from tunnel.errors import UsageError, spelled
from tunnel.net.event_loop import leave_signals_to_main_thread

BACKLOG_LIMIT = 1 << 20  # bytes of queued lines
FLUSH_LIMIT = 2.0  # seconds for the remaining lines at the end
_BATCH = 4096  # bytes of one write, unless a line is longer; PIPE_BUF makes the write to a pipe atomic
_TURN = 1000  # lines before `on_time` is called again
_OVERHEAD = 64  # bytes of memory per line, in addition to its own
_RETRY = 0.05  # seconds until the next write, if another process has made the descriptor non-blocking
_SILENCE = 60.0  # seconds between two lines on stderr about a log that cannot be written
_INHERITED = re.compile(r"/dev/(?:fd/(\d+)|stdout|(stderr))|/proc/self/fd/(\d+)")
LOG_FILE = "log_file"


class Render(Protocol):
    """Formats a line of the log from a level, an event and its fields."""

    def __call__(self, level: int, name: str, /, **fields: str | int | float) -> bytes: ...


class _Order(Enum):
    """What the thread is to do between two lines."""

    REOPEN = auto()
    TELL_DROPPED = auto()
    END = auto()


def _nothing_due() -> float | None:
    return None


class Output:
    """Writes lines to ``descriptor`` (None: discards them), which it owns if ``path`` is given.

    ``render`` formats lines about the log itself; ``elsewhere`` gets a line when this log cannot be written. The thread
    calls ``on_time``, which returns the seconds until its next call (None: with the next line or later). `put` never
    waits and never raises; several threads must not call it without a lock.
    """

    def __init__(
        self,
        descriptor: int | None,
        render: Render,
        *,
        path: str | None = None,
        elsewhere: Output | None = None,
        on_time: Callable[[], float | None] = _nothing_due,
    ) -> None:
        self._descriptor = descriptor
        self._render = render
        self._path = path
        self._elsewhere = elsewhere
        self._on_time = on_time
        # A queue of this kind is safe in signal handlers. An event is set once all that was queued before is written.
        self._queue: queue.SimpleQueue[bytes | _Order | threading.Event] = queue.SimpleQueue()
        self._lock = threading.RLock()  # never held during a write
        self._put = 0  # bytes queued so far
        self._done = 0  # bytes written or lost so far; changed only by the thread
        self._is_dropping = False
        self._dropped = 0  # lines that were not queued
        self._reason = ""  # why lines were dropped
        self._unwritten = 0  # lines that could not be written
        self._problem = ""  # why they could not be written
        self._told_at = float("-inf")
        self._is_torn = False  # the last line was written only in part
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise UsageError(f"cannot start a thread for the log: {exc}") from exc

    def put(self, line: bytes) -> None:
        """Queue ``line``, which ends with a newline; if the queue is full, drop and count it."""
        cost = len(line) + _OVERHEAD
        with self._lock:
            if not self._is_dropping and self._put - self._done + cost <= BACKLOG_LIMIT:
                self._put += cost
                self._queue.put(line)
            else:
                self.lose("they came faster than they could be written")

    def lose(self, reason: str) -> None:
        """Count a line that was lost for ``reason``."""
        with self._lock:
            self._dropped += 1
            self._reason = reason
            if not self._is_dropping:
                # Lines are queued again only when everything before this order has been written.
                self._is_dropping = True
                self._queue.put(_Order.TELL_DROPPED)

    def reopen(self) -> None:
        """Write lines that are queued from now on to a new file with the same path."""
        if self._path is not None:
            self._queue.put(_Order.REOPEN)

    def write_out(self, end: float) -> None:
        """Wait until the queued lines are written, until the time ``end`` (monotonic, in seconds) at most."""
        done = threading.Event()
        self._queue.put(done)
        done.wait(max(0.0, end - time.monotonic()))

    def close(self, end: float) -> None:
        """Write the queued lines until the time ``end`` (monotonic, in seconds), then give up."""
        self._queue.put(_Order.END)
        self._thread.join(max(0.0, end - time.monotonic()))
        if not self._thread.is_alive() and self._path is not None and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # --- The thread

    def _run(self) -> None:
        leave_signals_to_main_thread()
        while True:
            try:
                if not self._turn():
                    return
            except Exception:
                time.sleep(_RETRY)  # for example out of memory; without this thread there is no log, so continue

    def _turn(self) -> bool:
        """Write the queued lines in batches; return False at the end."""
        try:
            items = [self._queue.get(timeout=self._seconds_left())]
        except queue.Empty:
            return True
        while len(items) < _TURN and not self._queue.empty():
            items.append(self._queue.get())
        batch = b""
        for item in items:
            if isinstance(item, bytes) and len(batch) + len(item) <= _BATCH:
                batch += item
                continue
            self._write(batch)
            batch = item if isinstance(item, bytes) else b""
            if item is _Order.END:
                return False
            if isinstance(item, threading.Event):
                item.set()
            elif item is _Order.REOPEN:
                self._reopen()
            elif item is _Order.TELL_DROPPED:
                self._tell_dropped()
        self._write(batch)
        return True

    def _seconds_left(self) -> float | None:
        try:
            return self._on_time()
        except Exception:
            return 1.0

    def _write(self, lines: bytes) -> None:
        """Write complete lines; count those that cannot be written."""
        if not lines:
            return
        count = lines.count(b"\n")
        try:
            lost = self._send_after_gap(lines, count)
            if lost:
                self._tell_elsewhere()
            self._unwritten += lost
        finally:
            self._done += len(lines) + count * _OVERHEAD

    def _send_after_gap(self, lines: bytes, count: int) -> int:
        """Write ``lines``, after a line about lost ones, if any; return how many could not be written."""
        if self._unwritten:
            gap = self._render(logging.WARNING, "log-dropped", lines=self._unwritten, reason=self._problem)
            if self._send(gap) < len(gap):
                return count
            self._unwritten = 0
        return lines[self._send(lines) :].count(b"\n")

    def _send(self, data: bytes) -> int:
        """Write ``data``, however long it takes; return the number of bytes written."""
        sent = 0
        if self._descriptor is None:
            return len(data)
        try:
            if self._is_torn:
                self._is_torn = not os.write(self._descriptor, b"\n")
            while sent < len(data):
                try:
                    sent += os.write(self._descriptor, data[sent:])
                except BlockingIOError:
                    time.sleep(_RETRY)
        except OSError as exc:
            self._problem = exc.strerror or str(exc)
            self._is_torn = self._is_torn or (sent > 0 and data[sent - 1 : sent] != b"\n")
        return sent

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped, self._is_dropping = self._dropped, 0, False
            reason = self._reason
        self._write_own(logging.WARNING, "log-dropped", lines=dropped, reason=reason)

    def _tell_elsewhere(self) -> None:
        now = time.monotonic()
        if self._elsewhere is not None and self._path is not None and now - self._told_at >= _SILENCE:
            self._told_at = now
            failed = self._render(
                logging.ERROR, "log-failed", option=spelled(LOG_FILE), path=self._path, reason=self._problem
            )
            self._elsewhere.put(failed)

    def _reopen(self) -> None:
        if self._path is None or self._descriptor is None:
            return
        try:
            descriptor = open_log(self._path)
        except UsageError as exc:
            self._write_own(logging.ERROR, "reload-failed", what="log", reason=str(exc), kept="the file in use")
            return
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._is_torn = False
        self._write_own(logging.INFO, "reloaded", what="log")

    def _write_own(self, level: int, name: str, **fields: str | int) -> None:
        """Write a line that was not queued."""
        line = self._render(level, name, **fields)
        self._done -= len(line) + _OVERHEAD
        self._write(line)


def open_log(path: str) -> int:
    """Open the log file ``path`` for appending and return its descriptor. Never waits for another process.

    Only regular files, character devices and inherited descriptors such as /dev/stderr are accepted. Raises UsageError.
    """
    try:
        inherited = _INHERITED.fullmatch(path)
        if inherited is not None:
            # A socket, such as systemd's journal, cannot be opened by its path.
            number = inherited[1] or inherited[3] or ("2" if inherited[2] else "1")
            return os.dup(int(number))
        # With O_NONBLOCK, opening a FIFO does not wait for a reader.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        flags |= sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_NOINHERIT"))
        descriptor = os.open(path, flags, 0o666)
        try:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise UsageError(code="file", setting=LOG_FILE, path=path, reason="it is not a regular file")
            if os.name == "posix":
                os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        if getattr(exc, "errno", None) == errno.ENXIO:
            reason = "it is not a regular file"  # a FIFO without a reader, or a socket
        raise UsageError(code="file", setting=LOG_FILE, path=path, reason=reason) from exc
    return descriptor
