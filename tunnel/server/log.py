"""The log: one line for each tunnel when it ends and one for each refusal, as ``key=value`` text or as JSON.

All values from the network are escaped and limited here, so nobody can forge a line or send control characters to a
terminal. Logging never raises and never waits: a thread writes the lines (`tunnel.server.log_output`), and lines that
strangers can cause at will are counted instead (`tunnel.server.repeats`).
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping

from tunnel.errors import printable
from tunnel.net.standard_streams import encoding_of, readable
from tunnel.server.log_output import FLUSH_LIMIT, Output, open_log
from tunnel.server.repeats import Fields, Repeats

LOGGER = logging.getLogger("tunnel.server")
VALUE_LIMIT = 300  # characters of one value
_FIELDS_LIMIT = 32  # fields of one line
_MESSAGE_LIMIT = 2000  # characters of a library's message
_TRACEBACK_LIMIT = 8000
_FRAMES_LIMIT = 50  # innermost frames of a traceback
_WHOLE = 1 << 64  # numbers below it are logged as they are
_BARE = re.compile(r"[\w.:/\[\]@%+,*-]+", re.ASCII)  # a value that needs no quotes in key=value text
_KEY_LIMIT = 64
_KEY = re.compile(rf"[\w.-]{{1,{_KEY_LIMIT}}}", re.ASCII)
_NO_KEY = re.compile(r"[^\w.-]", re.ASCII)

Value = str | int | float
Line = Callable[[float, int, str, Fields], str]  # (time, level, event, fields) -> line


def event(level: int, name: str, /, **fields: Value) -> None:
    """Log the event ``name`` with ``fields``, without empty ones. Never raises, never waits."""
    try:
        if LOGGER.isEnabledFor(level):
            _log(level, name, _shown(fields))
    except Exception:
        _lose()


def unexpected(error: BaseException, /, **fields: Value) -> None:
    """Log a failure that is a bug in this program, with its traceback. Never raises, never waits."""
    try:
        shown = _shown({"error": _text_of(error, repr), **fields})
        _log(logging.ERROR, "internal-error", {**shown, "traceback": _traceback_of(error)})
    except Exception:
        _lose()


def text_line(seconds: float, level: int, name: str, fields: Fields) -> str:
    """Return ``2026-01-31T12:00:00.000Z info tunnel client=192.0.2.1:5000 … reason="client ended"``."""
    return f"{_timestamp(seconds)} {logging.getLevelName(level).lower()} {name} {_text(fields)}".rstrip()


def json_line(seconds: float, level: int, name: str, fields: Fields) -> str:
    """Return a JSON object with ``time``, ``level``, ``event`` and the event's fields."""
    head = {"time": _timestamp(seconds), "level": logging.getLevelName(level).lower(), "event": name}
    return json.dumps({**head, **fields, **head})  # no field replaces these


class LogHandler(logging.Handler):
    """Passes events and log records of libraries to the thread that writes them, and counts repeated ones."""

    def __init__(self, line: Line, path: str | None) -> None:
        """Log to the file ``path``, or to stderr if it is None. Raises UsageError if the file cannot be opened."""
        descriptor = None if path is None else open_log(path)
        super().__init__()
        self._line = line
        self._repeats = Repeats()
        self._is_closed = False
        self._console = _code_page()
        self._log_console = self._console if path is None else None
        if path is None:
            self._stderr = self._log = Output(_stderr(), self._render, on_time=self._write_counts)
        else:
            self._stderr = Output(_stderr(), self._render)
            self._log = Output(descriptor, self._render, path=path, elsewhere=self._stderr, on_time=self._write_counts)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a record, from `event` or from a library."""
        try:
            if record.levelno < LOGGER.level:
                return
            name, fields = _event_of(record)
            if self._repeats.admit(record.levelno, name, fields, time.monotonic()):
                self._log.put(self._encoded(record.created, record.levelno, name, fields))
        except Exception:
            self.lose()

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: logging would print a traceback, and a full stderr would block."""

    def say(self, text: str) -> None:
        """Write a message of this program to stderr, in order with the log if that also goes there."""
        encoding = self._console or encoding_of(sys.stderr)
        self._stderr.put(readable(f"wstunnel-py: {printable(text)}\n", encoding))

    def reopen(self) -> None:
        """Write further lines to a new log file, after the old one was moved away (logrotate).

        If it cannot be created, the old file stays in use, and a line says so.
        """
        self._log.reopen()

    def write_out(self) -> None:
        """Write what is queued, and the counts of repeated lines, for at most `FLUSH_LIMIT` seconds; waits.

        `logging` calls something else `flush`, and calls it at the very end.
        """
        self._write_counts(to_the_end=True)
        end = time.monotonic() + FLUSH_LIMIT
        for output in dict.fromkeys((self._log, self._stderr)):
            output.write_out(end)

    def lose(self) -> None:
        """Note that a line could not be made."""
        self._log.lose("formatting failed")

    def close(self) -> None:
        """Write the remaining lines, for at most `FLUSH_LIMIT` seconds. Nothing is logged afterwards."""
        if self._is_closed:
            return
        self._is_closed = True
        self._write_counts(to_the_end=True)
        for logger in (LOGGER, logging.getLogger()):
            logger.removeHandler(self)
        logging.captureWarnings(False)
        end = time.monotonic() + FLUSH_LIMIT
        for output in dict.fromkeys((self._log, self._stderr)):
            output.close(end)
        super().close()

    def _write_counts(self, *, to_the_end: bool = False) -> float | None:
        """Write the counts that are due; return the seconds until the next one is due, None if there is none."""
        now = time.monotonic()
        self.acquire()
        try:
            for level, name, fields in self._repeats.take_counts(math.inf if to_the_end else now):
                self._log.put(self._encoded(time.time(), level, name, fields))
            due = self._repeats.next_count
        finally:
            self.release()
        return None if due is None else max(0.0, due - now)

    def _render(self, level: int, name: str, /, **fields: Value) -> bytes:
        return self._encoded(time.time(), level, name, _shown(dict(fields)))

    def _encoded(self, seconds: float, level: int, name: str, fields: Fields) -> bytes:
        line = self._line(seconds, level, name, fields) + "\n"
        if self._log_console is not None:
            return readable(line, self._log_console)
        return line.encode(errors="backslashreplace")


def _code_page() -> str | None:
    """Return the code page of Windows' console, if stderr is one: in it are bytes that do not pass sys.stderr."""
    return None if os.name == "posix" else os.device_encoding(2)


def set_up(log_format: str, path: str | None) -> LogHandler:
    """Log events to the file ``path`` (None: stderr) as ``text`` or ``json``; return the handler.

    Warnings of libraries, including asyncio, are logged as well. Raises UsageError if the file cannot be written.
    """
    handler = LogHandler(json_line if log_format == "json" else text_line, path)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    for name in ("logThreads", "logMultiprocessing", "logProcesses", "logAsyncioTasks"):
        setattr(logging, name, False)  # unused, and some cost a system call per line
    return handler


class _Text:
    """Fields as text, formatted only when needed."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return _text(self._fields)


def _log(level: int, name: str, fields: Fields) -> None:
    # Like Logger.log, but without searching for the caller.
    extra = {"event": name, "fields": fields}
    LOGGER.handle(LOGGER.makeRecord(LOGGER.name, level, "", 0, "%s %s", (name, _Text(fields)), None, extra=extra))


def _lose() -> None:
    for handler in LOGGER.handlers:
        if isinstance(handler, LogHandler):
            handler.lose()


def _event_of(record: logging.LogRecord) -> tuple[str, Fields]:
    """Return the event of a record and its fields; a record of a library becomes the event ``message``."""
    name = getattr(record, "event", None)
    if isinstance(name, str):
        fields: Fields = record.__dict__["fields"]
        return name, fields
    try:
        message = record.getMessage()
    except Exception:
        message = _text_of(record.msg, str)  # its arguments do not match
    fields = {"logger": _value(record.name), "message": _clean(message.strip(), _MESSAGE_LIMIT)}
    if record.exc_info and record.exc_info[1] is not None:
        fields["traceback"] = _traceback_of(record.exc_info[1])
    return "message", fields


def _shown(fields: Mapping[str, object]) -> Fields:
    shown: Fields = {}
    for key, value in itertools.islice(fields.items(), _FIELDS_LIMIT):
        text = _value(value)
        if text != "":
            shown[key if _KEY.fullmatch(key) else _NO_KEY.sub("_", key[:_KEY_LIMIT]) or "_"] = text
    return shown


def _value(value: object) -> Value:
    """Return ``value`` as a number or a text of limited length without lone surrogates."""
    try:
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            number = int.__int__(value)
            return number if -_WHOLE < number < _WHOLE else f"a number of {number.bit_length()} bits"
        if isinstance(value, float):
            return round(float.__float__(value), 3) if math.isfinite(value) else str(value)
        if isinstance(value, bytes | bytearray):
            return _clean(bytes(value[:VALUE_LIMIT]).decode("utf-8", "backslashreplace"), VALUE_LIMIT)
        return _clean(str.__str__(value) if isinstance(value, str) else _text_of(value, str), VALUE_LIMIT)
    except Exception:
        return f"({type(value).__name__} without a text)"


def _text_of(value: object, show: Callable[[object], str]) -> str:
    try:
        return str.__str__(show(value))
    except Exception:
        return f"({type(value).__name__} without a text)"


def _clean(text: str, limit: int) -> str:
    """Return ``text`` with at most ``limit`` characters, all of them encodable."""
    if not text.isascii():
        text = text[: limit + 1].encode(errors="backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _traceback_of(error: BaseException) -> str:
    try:
        trace = "".join(traceback.format_exception(error, limit=-_FRAMES_LIMIT))
    except Exception:
        return "(the traceback cannot be formatted)"
    return trace[-_TRACEBACK_LIMIT:].encode(errors="backslashreplace").decode()


def _text(fields: Fields) -> str:
    # JSON escapes quotes, control characters and everything that is not ASCII, so a terminal cannot be affected.
    shown = ((key, str(value)) for key, value in fields.items())
    return " ".join(f"{key}={value if _BARE.fullmatch(value) else json.dumps(value)}" for key, value in shown)


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03}Z"


def _stderr() -> int | None:
    """Return the descriptor of stderr; None if the process was started without one."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return None
