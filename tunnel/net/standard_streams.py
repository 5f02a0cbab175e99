"""The standard streams of a program: always open, and readable in every locale.

Descriptors 0, 1 and 2 are opened if they are closed, so that no socket gets their number. A failure to write standard
output is an error; a failure to write standard error is ignored. Characters that the locale's encoding lacks are
written in ASCII (`readable`). Lines end with a line feed, except on Windows' console: programs read files and pipes.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys

from tunnel.errors import ConnectionLost, TunnelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

# The status that a shell reports for a program that SIGPIPE ended; this program ends without a message, too.
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
_replaced: list[object] = []  # streams that must not be collected, as that would close their descriptors


def open_standard_streams() -> None:
    """Prepare the standard streams of this process at its start, as this module describes.

    Raises ConnectionLost if a descriptor is closed and the null device cannot be opened.
    """
    fill_standard_descriptors()
    # Python uses None for a closed descriptor.
    if sys.stdin is None:
        sys.stdin = _opened(0, "r")
    sys.stdout = _guarded(sys.stdout or _opened(1, "w"), _Output)
    sys.stderr = _guarded(sys.stderr or _opened(2, "w"), _Messages)


def fill_standard_descriptors() -> None:
    """Open the null device for standard descriptors that were closed when the process was started.

    Otherwise a socket could get such a number, and everything that this process or its children write there. Raises
    ConnectionLost.
    """
    for descriptor, name in enumerate(("input", "output", "output")):
        try:
            os.fstat(descriptor)
        except OSError:
            try:
                null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            except OSError as exc:
                raise ConnectionLost(name, reason=f"it is closed, and {os.devnull}: {exc.strerror}") from exc
            os.set_inheritable(null, True)
            _missing.add(descriptor)


def write_for_programs() -> None:
    """Write standard output in UTF-8 whatever the locale is, if `open_standard_streams` has prepared it.

    This is for output that ssh or a shell reads: they would not find a file whose name is written differently.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == FALLBACK:
        sys.stdout.reconfigure(encoding="utf-8", errors=FALLBACK)


def is_missing(descriptor: int) -> bool:
    """Return whether the standard descriptor was closed when the process was started."""
    return descriptor in _missing


def is_closed_by_reader(error: OSError, platform: str = sys.platform) -> bool:
    """Return whether writing to a pipe failed because its reader is gone; on Windows that may also be EINVAL."""
    return isinstance(error, BrokenPipeError) or (platform == "win32" and error.errno == errno.EINVAL)


def readable(text: str, encoding: str) -> bytes:
    """Return ``text`` in ``encoding``; characters that it lacks are replaced by ASCII (``->`` for an arrow)."""
    _register()
    return text.encode(encoding, FALLBACK)


def encoding_of(stream: TextIO | None) -> str:
    """Return the encoding of ``stream``."""
    return getattr(stream, "encoding", None) or "utf-8"


class _Standard(io.RawIOBase):
    """A raw standard stream on top of ``raw``, the interpreter's own."""

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
            # After a failure the buffer is dropped: otherwise the interpreter's last flush would fail.
            while not self._has_failed:
                if (written := self._raw.write(data)) is not None:
                    return int(written)
                # Another process that has the same pipe open made it non-blocking.
                import select

                select.select((), (self._raw,), ())
        except OSError as exc:
            self._has_failed = True
            if is_closed_by_reader(exc):
                raise SystemExit(CLOSED_OUTPUT) from exc
            raise TunnelError("report", reason=exc.strerror or exc) from exc
        return len(data)


class _Messages(_Standard):
    """Standard error: text that cannot be written is dropped."""

    def write(self, data: Any) -> int:
        try:
            written = self._raw.write(data)
        except OSError:
            written = None
        return len(data) if written is None else int(written)


def _opened(descriptor: int, mode: str) -> Any:
    return open(descriptor, mode, closefd=False)


def _guarded(stream: Any, make_raw: Callable[[Any], io.RawIOBase]) -> TextIO:
    """Return a replacement for ``stream``, or ``stream`` itself if another library has replaced it."""
    if not hasattr(stream, "buffer"):
        result: TextIO = stream
        return result
    _register()
    _replaced.append(stream)
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with python -u the buffer is the raw stream
    encoding = stream.encoding
    if codecs.lookup(encoding).name == "ascii":
        # click assumes that ASCII is wrong, and writes UTF-8 instead.
        encoding = _ASCII
    buffer = io.BufferedWriter(make_raw(raw))
    newline = None if stream.isatty() else "\n"
    line_buffering, write_through = stream.line_buffering, stream.write_through
    return io.TextIOWrapper(buffer, encoding, FALLBACK, newline, line_buffering, write_through)


def _register() -> None:
    try:
        codecs.lookup_error(FALLBACK)
    except LookupError:
        codecs.register_error(FALLBACK, _fall_back)
        codecs.register(_find_codec)


def _fall_back(exc: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement for a character that cannot be encoded; see `codecs.register_error`."""
    if not isinstance(exc, UnicodeEncodeError):
        raise exc
    char = exc.object[exc.start]
    if "\udc80" <= char <= "\udcff":
        return bytes((ord(char) - 0xDC00,)), exc.start + 1  # an undecodable byte of a path or argument (PEP 383)
    shown = _IN_ASCII.get(ord(char))
    return char.encode("ascii", "backslashreplace").decode() if shown is None else shown, exc.start + 1


def _find_codec(name: str) -> codecs.CodecInfo | None:
    """Return ASCII under another name, if ``name`` is that."""
    if name.replace("_", "-") != _ASCII:
        return None
    plain = codecs.lookup("ascii")
    return codecs.CodecInfo(
        plain.encode, plain.decode, plain.streamreader, plain.streamwriter,
        plain.incrementalencoder, plain.incrementaldecoder, _ASCII,
    )  # fmt: skip
