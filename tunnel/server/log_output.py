"""Where log lines go: a thread that writes them, so that neither a full disk nor a slow reader holds anything up.

The descriptor stays as it is: stderr is shared with other processes, so it is not made non-blocking, and the thread may
wait for it for ever. What comes meanwhile is kept up to a bound, then dropped and counted.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import re
import signal
import stat
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from tunnel.errors import UsageError, spelled

BACKLOG_LIMIT = 1 << 20  # bytes that wait to be written
FLUSH_LIMIT = 2.0  # seconds for what is left at the end
_BATCH = 4096  # bytes of one write, at most, but for a longer line: PIPE_BUF, so that nobody writes in between
_TURN = 1000  # lines between two looks at the clock
_OVERHEAD = 64  # bytes that a line costs beside its own
_RETRY = 0.05  # seconds until a descriptor is tried again that somebody has made non-blocking
_SILENCE = 60.0  # seconds between two lines elsewhere about a log that cannot be written
_INHERITED = re.compile(r"/dev/(?:fd/(\d+)|stdout|(stderr))|/proc/self/fd/(\d+)")
LOG_FILE = "log_file"


class Render(Protocol):
    """Makes a line of the log from a level, an event and its fields."""

    def __call__(self, level: int, name: str, /, **fields: str | int | float) -> bytes: ...


class _Order(Enum):
    """What the thread is to do between two lines."""

    REOPEN = auto()
    TELL_DROPPED = auto()
    END = auto()


def _nothing_due() -> float | None:
    return None


class Output:
    """Lines on their way to ``descriptor`` (None: nowhere), which belongs to this if ``path`` is its file.

    ``render`` makes the lines that this has to say itself; ``elsewhere`` is where it says that it cannot write.
    ``on_time`` is called by the thread, and returns the seconds until it wants to be called again (None: with the next
    line, or later). `put` never waits and never raises; it must not be called by several threads without a lock.
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
        self._queue: queue.SimpleQueue[bytes | _Order] = queue.SimpleQueue()  # may be used in signal handlers, too
        self._lock = threading.RLock()  # never held while something is written
        self._put = 0  # bytes …
        self._done = 0  # … of which are written, or lost; only the thread changes this
        self._is_dropping = False
        self._dropped = 0  # lines that never got into the queue
        self._reason = ""  # why
        self._unwritten = 0  # lines that could not be written
        self._problem = ""  # why
        self._told_at = float("-inf")
        self._is_torn = False  # the last line broke off in its middle
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            raise UsageError(f"the log needs a thread: {exc}") from exc

    def put(self, line: bytes) -> None:
        """Let ``line``, which ends with a newline, be written; it is dropped and counted when too much waits."""
        cost = len(line) + _OVERHEAD
        with self._lock:
            if not self._is_dropping and self._put - self._done + cost <= BACKLOG_LIMIT:
                self._put += cost
                self._queue.put(line)
            else:
                self.lose("they came faster than they could be written")

    def lose(self, reason: str) -> None:
        """Count a line that there is not, for ``reason``."""
        with self._lock:
            self._dropped += 1
            self._reason = reason
            if not self._is_dropping:
                # Everything before this order is written by the time that lines are taken again.
                self._is_dropping = True
                self._queue.put(_Order.TELL_DROPPED)

    def reopen(self) -> None:
        """Let lines that are put from now on go to a new file of the same path."""
        if self._path is not None:
            self._queue.put(_Order.REOPEN)

    def close(self, end: float) -> None:
        """Write what waits until the time ``end`` (monotonic, in seconds); give up then."""
        self._queue.put(_Order.END)
        self._thread.join(max(0.0, end - time.monotonic()))
        if not self._thread.is_alive() and self._path is not None and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # ---- the thread

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the event loop
        while True:
            try:
                if not self._turn():
                    return
            except Exception:
                time.sleep(_RETRY)  # out of memory, say: without this thread there is no log, so it goes on

    def _turn(self) -> bool:
        """Write what waits, in batches; return False at the end."""
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
            if item is _Order.REOPEN:
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
        """Write whole lines, or count those of them that cannot be written."""
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
        """Write ``lines``, behind a line about those that are missing; return how many were lost."""
        if self._unwritten:
            gap = self._render(logging.WARNING, "log-dropped", lines=self._unwritten, reason=self._problem)
            if self._send(gap) < len(gap):
                return count
            self._unwritten = 0
        return lines[self._send(lines) :].count(b"\n")

    def _send(self, data: bytes) -> int:
        """Write ``data`` for as long as it takes; return how many bytes were written."""
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
        """Write a line that has not waited in the queue."""
        line = self._render(level, name, **fields)
        self._done -= len(line) + _OVERHEAD
        self._write(line)


def open_log(path: str) -> int:
    """Open the log file ``path`` to append to it; return its descriptor. Never waits for another process.

    What is neither a regular file nor a character device is refused, except for descriptors that this process was
    started with, such as /dev/stderr. Raises UsageError.
    """
    try:
        inherited = _INHERITED.fullmatch(path)
        if inherited is not None:
            # Opening it by its path would not work for a socket, such as that of systemd's journal.
            number = inherited[1] or inherited[3] or ("2" if inherited[2] else "1")
            return os.dup(int(number))
        # With O_NONBLOCK the open of a FIFO does not wait for a reader.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            mode = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise UsageError(code="file", setting=LOG_FILE, path=path, reason="it is no regular file")
            if hasattr(os, "set_blocking"):
                os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        if getattr(exc, "errno", None) == errno.ENXIO:
            reason = "it is no regular file"  # but a FIFO without a reader, or a socket
        raise UsageError(code="file", setting=LOG_FILE, path=path, reason=reason) from exc
    return descriptor
