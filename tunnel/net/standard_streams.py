"""The standard streams of a program: never missing, never in the way of an end, and readable in every locale.

Descriptors 0, 1 and 2 are open, so that no socket gets their number. Standard output that cannot be written is an error
as any other; standard error that cannot be written is nothing that anybody could be told of. What a locale's encoding
does not have is written in ASCII, as `readable` has it.
"""

from __future__ import annotations

import codecs
import io
import os
import sys

from tunnel.errors import ConnectionLost, TunnelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

# What a shell reports for a program that SIGPIPE ended; like those, we end without a word.
CLOSED_OUTPUT = 128 + 13
FALLBACK = "wstunnel-py-fallback"  # the name of an error handler: see `codecs.register_error`
_ASCII = "wstunnel-py-ascii"
_IN_ASCII = {  # by code points, as some of these signs look alike
    0x00A0: " ", 0x202F: " ",  # spaces
    0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2013: "-", 0x2014: "-", 0x2212: "-",  # hyphens, dashes, minus
    0x2018: "'", 0x2019: "'", 0x201A: "'", 0x201C: '"', 0x201D: '"', 0x201E: '"', 0x00AB: '"', 0x00BB: '"',  # quotes
    0x2190: "<-", 0x2192: "->", 0x2264: "<=", 0x2265: ">=",
    0x2713: "ok", 0x2717: "!!",  # ✓ and ✗
    0x2026: "...", 0x00D7: "x", 0x00B7: "-", 0x2022: "*",
}  # fmt: skip

_missing: set[int] = set()
_replaced: list[object] = []  # streams that must not be collected, as that would close what is written instead


def open_standard_streams() -> None:
    """Make the standard streams of this process, which has just been started, what this module says.

    Raises ConnectionLost when there is no null device to put in the place of a closed descriptor.
    """
    fill_standard_descriptors()
    # Python has None where a descriptor was closed.
    if sys.stdin is None:
        sys.stdin = _opened(0, "r")
    sys.stdout = _guarded(sys.stdout or _opened(1, "w"), _Output)
    sys.stderr = _guarded(sys.stderr or _opened(2, "w"), _Messages)


def fill_standard_descriptors() -> None:
    """Open the null device in the place of standard descriptors that were closed when the process was started.

    Else the next socket would get such a number, and with it whatever this process or its children read and write
    there. Raises ConnectionLost.
    """
    for descriptor, name in enumerate(("input", "output", "output")):
        try:
            os.fstat(descriptor)
        except OSError:
            try:
                null = os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            except OSError as exc:
                raise ConnectionLost(name, reason=f"it is closed, and {os.devnull}: {exc.strerror}") from exc
            os.set_inheritable(null, True)
            _missing.add(descriptor)


def is_missing(descriptor: int) -> bool:
    """Return whether the standard descriptor was closed when the process was started."""
    return descriptor in _missing


def readable(text: str, encoding: str) -> bytes:
    """Return ``text`` in ``encoding``; what that does not have is written in ASCII (``->`` for an arrow)."""
    _register()
    return text.encode(encoding, FALLBACK)


def encoding_of(stream: TextIO | None) -> str:
    """Return the encoding of what people read at ``stream``."""
    return getattr(stream, "encoding", None) or "utf-8"


class _Standard(io.RawIOBase):
    """A raw standard stream, written by way of ``raw``, the interpreter's own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())


class _Output(_Standard):
    """Standard output: a failure ends the command."""

    _has_failed = False

    def write(self, data: Any) -> int:
        try:
            # What is still in the buffer after a failure is dropped: the interpreter's last flush would fail on it.
            while not self._has_failed:
                if (written := self._raw.write(data)) is not None:
                    return int(written)
                # Somebody who has the same pipe open made it non-blocking.
                import select

                select.select((), (self._raw,), ())
        except OSError as exc:
            self._has_failed = True
            if isinstance(exc, BrokenPipeError):
                raise SystemExit(CLOSED_OUTPUT) from exc
            raise TunnelError("report", reason=exc.strerror or exc) from exc
        return len(data)


class _Messages(_Standard):
    """Standard error: what cannot be written now is dropped, as nobody can be told."""

    def write(self, data: Any) -> int:
        try:
            written = self._raw.write(data)
        except OSError:
            written = None
        return len(data) if written is None else int(written)


def _opened(descriptor: int, mode: str) -> Any:
    return open(descriptor, mode, closefd=False)


def _guarded(stream: Any, make_raw: Callable[[Any], io.RawIOBase]) -> TextIO:
    """Return a stream that is written in the place of ``stream``, unless that is something of somebody else's."""
    if not hasattr(stream, "buffer"):
        result: TextIO = stream
        return result
    _register()
    _replaced.append(stream)
    raw = getattr(stream.buffer, "raw", stream.buffer)  # the latter with python -u
    encoding = stream.encoding
    if codecs.lookup(encoding).name == "ascii":
        # click takes ASCII for a mistake, and writes UTF-8.
        encoding = _ASCII
    buffer = io.BufferedWriter(make_raw(raw))
    line_buffering, write_through = stream.line_buffering, stream.write_through
    return io.TextIOWrapper(buffer, encoding, FALLBACK, line_buffering=line_buffering, write_through=write_through)


def _register() -> None:
    try:
        codecs.lookup_error(FALLBACK)
    except LookupError:
        codecs.register_error(FALLBACK, _fall_back)
        codecs.register(_find_codec)


def _fall_back(exc: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written for one character that cannot be encoded: see `codecs.register_error`."""
    if not isinstance(exc, UnicodeEncodeError):
        raise exc
    char = exc.object[exc.start]
    if "\udc80" <= char <= "\udcff":
        return bytes((ord(char) - 0xDC00,)), exc.start + 1  # a byte of a path or an argument that is no text (PEP 383)
    shown = _IN_ASCII.get(ord(char))
    return char.encode("ascii", "backslashreplace").decode() if shown is None else shown, exc.start + 1


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """Return ASCII under another name, if it is asked for."""
    if name.replace("_", "-") != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, plain.streamreader, plain.streamwriter,
        plain.incrementalencoder, plain.incrementaldecoder, _ASCII,
    )  # fmt: skip
