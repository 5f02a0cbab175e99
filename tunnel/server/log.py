"""The bridge's log: one line for each tunnel when it ends, one for each refusal, as ``key=value`` text or as JSON.

Whatever comes from the network is escaped and bounded here, in one place: nothing can forge a line or reach a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback

from tunnel.protocol.errors import UsageError

LOGGER = logging.getLogger("tunnel.server")
VALUE_LIMIT = 300  # characters of one value
_TRACEBACK_LIMIT = 8000
_BARE = re.compile(r"[\w.:/\[\]@%+,*-]+", re.ASCII)  # what needs no quotes in key=value text

Value = str | int | float


def event(level: int, name: str, /, **fields: Value) -> None:
    """Log the event ``name`` with ``fields``; empty texts are left out."""
    if LOGGER.isEnabledFor(level):
        shown = {key: _bounded(value) for key, value in fields.items() if value != ""}
        LOGGER.log(level, "%s %s", name, _text(shown), extra={"event": name, "fields": shown})


def unexpected(error: BaseException, /, **fields: Value) -> None:
    """Log a failure that is a bug of ours, with its traceback."""
    trace = "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:]
    shown = {"error": repr(error), **fields}
    shown = {key: _bounded(value) for key, value in shown.items()} | {"traceback": trace}
    LOGGER.error("internal-error %s", _text(shown), extra={"event": "internal-error", "fields": shown})


class TextFormatter(logging.Formatter):
    """Lines such as ``2026-01-31T12:00:00.000Z info tunnel client=192.0.2.1:5000 … reason="client ended"``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_timestamp(record)} {record.levelname.lower()} {record.getMessage()}"


class JSONFormatter(logging.Formatter):
    """One JSON object a line, with ``time``, ``level``, ``event`` and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _timestamp(record), "level": record.levelname.lower()}
        name = getattr(record, "event", None)
        if name is None:  # a library's message
            return json.dumps({**head, "event": "message", "message": record.getMessage()})
        return json.dumps({**head, "event": name, **getattr(record, "fields", {})})


def set_up(log_format: str, path: str | None) -> logging.Handler:
    """Let the bridge's events go to the file ``path`` (None: stderr) as ``text`` or ``json``; return the handler.

    Raises UsageError when the file cannot be written.
    """
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as exc:
            raise UsageError("", cause="file", option="--log-file", path=path, reason=exc.strerror) from exc
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    return handler


def reopen(handler: logging.Handler) -> None:
    """Let go of the log file, so that the next line goes to a new one if it was moved away (logrotate)."""
    if isinstance(handler, logging.FileHandler):
        handler.close()


def _bounded(value: Value) -> Value:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str) and len(value) > VALUE_LIMIT:
        return value[: VALUE_LIMIT - 1] + "…"
    return value


def _text(fields: dict[str, Value]) -> str:
    # JSON's quoting escapes quotes, control characters and, as ASCII, all that a terminal might act on.
    shown = ((key, str(value)) for key, value in fields.items())
    return " ".join(f"{key}={value if _BARE.fullmatch(value) else json.dumps(value)}" for key, value in shown)


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
