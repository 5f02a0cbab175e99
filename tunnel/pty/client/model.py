"""The nouns of the terminal API: a size, a process, a result. Their names are those of E2B's SDK."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.protocol.numbers import parse_decimal
from tunnel.pty.protocol.messages import SIGNAL_TEXTS, SIZE_LIMIT, Ended, ProcessInfo

__all__ = ["ProcessInfo", "PtySize", "Result", "size_of"]

_NUMBERS = {text: number for number, text in SIGNAL_TEXTS.items()}


@dataclass(frozen=True)
class PtySize:
    """The size of a terminal in characters. Raises UsageError for one that no terminal can have."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        for name, number in (("rows", self.rows), ("cols", self.cols)):
            if not 1 <= number <= SIZE_LIMIT:
                raise UsageError(f"{name}: {number!r} is not a whole number from 1 to {SIZE_LIMIT}")


def size_of(size: PtySize | None, rows: int | None, cols: int | None) -> PtySize:
    """Return the size that a call gives either as ``size`` or as ``rows`` and ``cols``. Raises UsageError."""
    if size is None:
        return PtySize(24 if rows is None else rows, 80 if cols is None else cols)
    if rows is not None or cols is not None:
        raise UsageError("give either size, or rows and cols")
    return size


@dataclass(frozen=True)
class Result:
    """How a process ended.

    ``exit_code`` is what it returned, -1 if a signal ended it; ``status`` says it in words (``exit status 7``,
    ``signal: killed``), and so does ``error``, which is None for success.
    """

    exit_code: int
    status: str
    error: str | None

    @classmethod
    def of(cls, end: Ended) -> Result:
        """Make it from the event that tells of the end."""
        return cls(end.exit_code, end.status, end.error)

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the process, 0 if its name is not known; None if the process exited."""
        kind, _, name = self.status.partition(": ")
        if kind != "signal":
            return None
        name = name.removesuffix(" (core dumped)")
        number = name.removeprefix("signal ")
        return _NUMBERS.get(name, parse_decimal(number, 3) or 0)
