"""The latest output of a process, and which stream each byte came from.

Every byte has an offset, counted from the first byte that the process wrote; readers keep offsets, not copies.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from tunnel.pty.protocol.messages import OutputKind

_RUNS_LIMIT = 8192  # remembered changes between standard output and standard error


class Scrollback:
    """The bytes from offset ``start`` to offset ``end``; older ones were trimmed, and given to ``on_trim``."""

    def __init__(self, on_trim: Callable[[bytes], None] | None = None) -> None:
        self.start = 0
        self._on_trim = on_trim
        self._data = bytearray()
        # Runs of bytes from one stream: the offset at which each begins, and its kind.
        self._begins: list[int] = []
        self._kinds: list[OutputKind] = []

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.start + len(self._data)

    def capture(self) -> dict[str, Any]:
        """Return all of it as plain data, for `adopt`."""
        return {"start": self.start, "data": self._data, "begins": self._begins, "kinds": self._kinds}

    def adopt(self, tree: dict[str, Any]) -> None:
        """Restore a captured scrollback; this one must be empty."""
        self.start, self._data = tree["start"], bytearray(tree["data"])
        self._begins, self._kinds = list(tree["begins"]), list(tree["kinds"])

    def append(self, kind: OutputKind, data: bytes) -> None:
        """Add output."""
        if not self._kinds or self._kinds[-1] != kind:
            if len(self._kinds) == _RUNS_LIMIT:
                self.trim(self._begins[_RUNS_LIMIT // 2])
            self._begins.append(self.end)
            self._kinds.append(kind)
        self._data += data

    def read(self, offset: int, limit: int) -> tuple[OutputKind, bytes]:
        """Return up to ``limit`` bytes from ``offset``, all of one kind, and that kind.

        Raises ValueError if that byte was trimmed or is not written yet.
        """
        if not self.start <= offset < self.end:
            raise ValueError(f"offset {offset} is not between {self.start} and {self.end}")
        run = bisect_right(self._begins, offset)
        until = self._begins[run] if run < len(self._begins) else self.end
        first = offset - self.start
        with memoryview(self._data) as view:
            data = bytes(view[first : min(until - self.start, first + limit)])
        return self._kinds[run - 1], data

    def trim(self, offset: int) -> None:
        """Drop the bytes before ``offset``."""
        if offset <= self.start:
            return
        if self._on_trim is not None:
            self._on_trim(bytes(self._data[: offset - self.start]))
        del self._data[: offset - self.start]  # moves a pointer, not the bytes
        self.start = offset
        ended = bisect_right(self._begins, offset) - 1
        if ended > 0:
            del self._begins[:ended], self._kinds[:ended]
