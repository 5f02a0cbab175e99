"""The output of ``-v`` and ``--log-file``: each step of a connection with the time since the start.

Steps never contain a secret: credentials and the values of added headers are not passed to this module.
"""

from __future__ import annotations

import os
import sys
import time

from tunnel.errors import UsageError, printable, redacted
from tunnel.net.standard_streams import encoding_of, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO


class Trace:
    """Writes steps to standard error if ``verbose``, and to ``log_file`` (created with mode 0600) if given."""

    def __init__(self, *, verbose: bool = False, log_file: str | None = None) -> None:
        """Raises UsageError for a file that cannot be written."""
        self._start = time.monotonic()
        self._verbose = verbose
        self._log = -1
        if log_file is not None:
            try:
                # Non-blocking: a pipe that nobody reads would block the tunnel.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
                self._log = os.open(log_file, flags, 0o600)
            except OSError as exc:
                reason = exc.strerror or str(exc)
                raise UsageError(code="file", setting="log_file", path=log_file, reason=reason) from exc

    def step(self, hop: str, text: str, *, expires: str = "", code: str = "") -> None:
        """Report a step: ``hop`` is dns, tcp, proxy, tls, upgrade, relay or end, ``text`` what was done or found.

        ``expires`` is when the server's certificate expires, in the format of `ssl` (parsing it would cost imports).
        ``code`` marks a finding for programs, such as the doctor; "" if all is well.
        """
        if not self._verbose and self._log < 0:
            return
        text += f", certificate expires {expires}" if expires else ""
        line = f"[{(time.monotonic() - self._start) * 1000:8.1f} ms] {hop}: {printable(text)}"
        if self._verbose:
            say(line)
        self.log(line)

    def log(self, line: str) -> None:
        """Write a line to the log file, if there is one, with the time and the process ID."""
        if self._log < 0:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            os.write(self._log, readable(f"{stamp} {os.getpid()} {line}\n", encoding_of(sys.stderr)))
        except OSError as exc:
            self._log = -1
            say(f"cannot write to the log file: {exc.strerror or exc}; logging has stopped")


def warn(lines: Iterable[str], *, quiet: bool = False) -> None:
    """Write warnings to standard error, unless ``quiet``."""
    if not quiet:
        for line in lines:
            say(f"warning: {line}")


def say(text: str) -> None:
    """Write one or several lines to standard error, where ssh shows them to the user.

    On a terminal in raw mode, which ssh uses during a session, each begins in the first column. Errors are ignored.
    """
    lines = [f"wstunnel-py: {line}" for line in redacted(text).split("\n")]
    try:
        written = "\r\n".join(["", *lines, ""]) if _is_raw(sys.stderr) else "\n".join([*lines, ""])
        sys.stderr.write(written)
        sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass  # there is no other place for the text


def end_line() -> None:
    """End the current line of a terminal in raw mode, before its modes are restored."""
    try:
        if _is_raw(sys.stderr):
            sys.stderr.write("\r\n")
            sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass  # there is no other place for the text


def _is_raw(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal on which a line feed does not move to the first column."""
    if not stream.isatty():
        return False
    try:
        import termios  # POSIX only
    except ImportError:
        return False
    try:
        output_modes: int = termios.tcgetattr(stream.fileno())[1]
    except termios.error:
        return False  # the terminal is gone
    return not output_modes & termios.OPOST
