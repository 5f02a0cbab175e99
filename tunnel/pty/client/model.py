"""The data types of the terminal API: sizes, processes, results. Their names are those of E2B's SDK."""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.errors import UsageError
from tunnel.protocol.numbers import parse_decimal
from tunnel.pty.protocol.messages import SIGNAL_TEXTS, SIZE_LIMIT, Ended, ProcessInfo

__all__ = ["ProcessInfo", "PtySize", "Result", "size_of"]

_NUMBERS = {text: number for number, text in SIGNAL_TEXTS.items()}


@dataclass(frozen=True)
class PtySize:
    """The size of a terminal in characters. Raises UsageError for an impossible size."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        for name, number in (("rows", self.rows), ("cols", self.cols)):
            if not 1 <= number <= SIZE_LIMIT:
                raise UsageError(f"{name}: {number!r} is not a whole number from 1 to {SIZE_LIMIT}")


def size_of(size: PtySize | None, rows: int | None, cols: int | None) -> PtySize:
    """Return the size that was given as ``size`` or as ``rows`` and ``cols``. Raises UsageError if it was both."""
    if size is None:
        return PtySize(24 if rows is None else rows, 80 if cols is None else cols)
    if rows is not None or cols is not None:
        raise UsageError("give either size or rows and cols, not both")
    return size


@dataclass(frozen=True)
class Result:
    """How a process ended.

    ``exit_code`` is its exit code, or -1 if a signal ended it. ``status`` says the same in words (``exit status 7``,
    ``signal: killed``). ``error`` equals ``status`` after a failure and is None after a success.
    """

    exit_code: int
    status: str
    error: str | None

    @classmethod
    def of(cls, end: Ended) -> Result:
        """Return the result for the last event of a process."""
        return cls(end.exit_code, end.status, end.error)

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the process, 0 if its name is unknown; None if the process exited."""
        kind, _, name = self.status.partition(": ")
        if kind != "signal":
            return None
        name = name.removesuffix(" (core dumped)")
        number = name.removeprefix("signal ")
        return _NUMBERS.get(name, parse_decimal(number, 3) or 0)
