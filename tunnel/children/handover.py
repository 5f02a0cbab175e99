"""Replacing this program by another one, which gets its terminal, standard streams and exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

from tunnel.errors import TunnelError, UsageError


def find_program(name: str, remedy: str) -> str:
    """Return the path of a program. Raises TunnelError, which ends with the ``remedy``, if there is none."""
    found = shutil.which(name)
    if found is None:
        raise TunnelError("no-program", program=name, reason="it is not on the PATH", remedy=remedy)
    return os.path.abspath(found)


def hand_over(path: str, words: Sequence[str], remedy: str) -> int:
    """Become the program at ``path`` with the arguments ``words``. Raises TunnelError if that fails.

    On Windows, which cannot do that, the program is run, and its exit code returned.
    """
    sys.stdout.flush()
    argv = [path, *words]
    try:
        if os.name == "posix":
            from tunnel.children.dispositions import restore_ignored  # late, as it needs POSIX signals

            restore_ignored()
            os.execv(path, argv)  # noqa: S606 - no shell is wanted
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the program itself
        try:
            return subprocess.run(_for_windows(argv), check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)
    except OSError as exc:
        raise TunnelError("no-program", program=path, reason=exc.strerror or str(exc), remedy=remedy) from exc


def _for_windows(argv: Sequence[str]) -> str:
    """Return the command line for ``argv``. Raises UsageError if its program is a batch file that cannot get a word.

    Editors have such a file (``code.cmd``). The program that runs it would take an & outside of quotes for the end of
    the command, and expands variables even inside of them.
    """
    if not argv[0].lower().endswith((".bat", ".cmd")):
        return subprocess.list2cmdline(argv)
    for word in argv[1:]:
        if any(c in word for c in '%"\r\n'):
            raise UsageError(f'{word!r} cannot be passed to {argv[0]}: batch files take % and " for their own')
    return " ".join(_quoted(word) for word in argv)


def _quoted(word: str) -> str:
    # Backslashes before a quote stand for half as many.
    return f'"{word}' + "\\" * (len(word) - len(word.rstrip("\\"))) + '"'
