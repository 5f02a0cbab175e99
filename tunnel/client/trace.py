"""What ``-v`` and ``--log-file`` show: each step of a connection with the time since the start.

Steps never carry a secret: credentials and the values of added headers are not passed to this room at all.
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
    """Tells of steps on standard error if ``verbose``, and in ``log_file`` (created with mode 0600) if given."""

    def __init__(self, *, verbose: bool = False, log_file: str | None = None) -> None:
        """Raises UsageError for a file that cannot be written."""
        self._start = time.monotonic()
        self._verbose = verbose
        self._log = -1
        if log_file is not None:
            try:
                # Without waiting: a pipe that nobody reads would hold up the tunnel.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
                self._log = os.open(log_file, flags, 0o600)
            except OSError as exc:
                reason = exc.strerror or str(exc)
                raise UsageError(code="file", setting="log_file", path=log_file, reason=reason) from exc

    def step(self, hop: str, text: str, *, expires: str = "", code: str = "") -> None:
        """Tell that ``hop`` (dns, tcp, proxy, tls, upgrade, relay, end) did or found ``text``.

        ``expires`` is when the server's certificate does, as `ssl` gives it: reading dates would cost imports.
        ``code`` is for programs, such as the doctor, if there is more to it than that all is well.
        """
        if not self._verbose and self._log < 0:
            return
        text += f", certificate expires {expires}" if expires else ""
        line = f"[{(time.monotonic() - self._start) * 1000:8.1f} ms] {hop}: {printable(text)}"
        if self._verbose:
            say(line)
        self.log(line)

    def log(self, line: str) -> None:
        """Write a line to the log file, if there is one, with the time of day and our process number."""
        if self._log < 0:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        try:
            os.write(self._log, readable(f"{stamp} {os.getpid()} {line}\n", encoding_of(sys.stderr)))
        except OSError as exc:
            self._log = -1
            say(f"cannot write to the log file any more: {exc.strerror or exc}")


def warn(lines: Iterable[str], *, quiet: bool = False) -> None:
    """Write warnings to standard error, unless the user wants none."""
    if not quiet:
        for line in lines:
            say(f"warning: {line}")


def say(text: str) -> None:
    """Write one line, or several, to standard error, where ssh shows it to the user.

    On a terminal in raw mode, as ssh has it during a session, the text gets lines of its own. A closed standard error
    is no reason to stop.
    """
    lines = [f"wstunnel-py: {line}" for line in redacted(text).split("\n")]
    try:
        written = "\r\n".join(["", *lines, ""]) if _is_raw(sys.stderr) else "\n".join([*lines, ""])
        sys.stderr.write(written)
        sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass  # nobody can be told


def end_line() -> None:
    """Leave the line that a terminal in raw mode is in, before somebody gives it back its modes."""
    try:
        if _is_raw(sys.stderr):
            sys.stderr.write("\r\n")
            sys.stderr.flush()
    except (OSError, AttributeError, ValueError):
        pass  # nobody can be told


def _is_raw(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal on which a line feed does not return to the first column."""
    if not stream.isatty():
        return False
    try:
        import termios  # POSIX only
    except ImportError:
        return False
    try:
        output_modes: int = termios.tcgetattr(stream.fileno())[1]
    except termios.error:
        return False  # it has gone
    return not output_modes & termios.OPOST
