"""What a process has written: the last bytes of it, found by their offsets, and which stream each came from.

Every byte has an offset, counted from 0 over all that the process ever wrote; readers keep offsets, not copies.
"""

from __future__ import annotations

from bisect import bisect_right

from tunnel.pty.protocol.messages import OutputKind

_RUNS_LIMIT = 8192  # changes between standard output and standard error that are remembered


class Scrollback:
    """The bytes from offset ``start`` to offset ``end``; what is before has been trimmed."""

    def __init__(self) -> None:
        self.start = 0
        self._data = bytearray()
        # Runs of bytes of one kind: where each begins, and its kind.
        self._begins: list[int] = []
        self._kinds: list[OutputKind] = []

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    def append(self, kind: OutputKind, data: bytes) -> None:
        if not self._kinds or self._kinds[-1] != kind:
            if len(self._kinds) == _RUNS_LIMIT:
                self.trim(self._begins[_RUNS_LIMIT // 2])
            self._begins.append(self.end)
            self._kinds.append(kind)
        self._data += data

    def read(self, offset: int, limit: int) -> tuple[OutputKind, bytes]:
        """Return up to ``limit`` bytes from ``offset`` on, all of one kind, and that kind.

        Raises ValueError when there is no such byte: trimmed, or not yet written.
        """
        if not self.start <= offset < self.end:
            raise ValueError(f"{offset} is not within {self.start} to {self.end}")
        run = bisect_right(self._begins, offset)
        until = self._begins[run] if run < len(self._begins) else self.end
        first = offset - self.start
        with memoryview(self._data) as view:
            data = bytes(view[first : min(until - self.start, first + limit)])
        return self._kinds[run - 1], data

    def trim(self, offset: int) -> None:
        """Let go of what is before ``offset``."""
        if offset <= self.start:
            return
        del self._data[: offset - self.start]  # moves a pointer, not the bytes
        self.start = offset
        ended = bisect_right(self._begins, offset) - 1
        if ended > 0:
            del self._begins[:ended], self._kinds[:ended]
