"""What a new version finds at its start: a state to try, a state to take over, or nothing, as in a normal start.

An environment variable says which; `arrival` removes it, so that no child inherits it:

    take:PID:FILE            take over the state in descriptor FILE, if our process ID is PID
    try:FILE:SOCKET          try to restore the state in FILE, once the old version reports on SOCKET that it is written
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from tunnel.errors import UsageError
from tunnel.restart.state import Handed, Tree, read

VARIABLE = "_WSTUNNEL_PY_RESTART"
READY, GO, TRIED = b"ready\n", b"go\n", b"tried\n"  # the messages between the two versions


class Arrival:
    """A state for this process. Load it once, after everything else is set up."""

    def __init__(self, file: int, old: socket.socket | None) -> None:
        self._file = file
        self._old = old

    @property
    def on_trial(self) -> bool:
        """Whether the state is only to be tried."""
        return self._old is not None

    def load(self) -> tuple[dict[str, Tree], Handed]:
        """Return the states of all parts and the descriptors; on trial it waits for them. Raises UsageError."""
        if self._old is not None:
            self._old.sendall(READY)
            if self._old.recv(len(GO)) != GO:
                raise UsageError("the old version has cancelled the restart")
        try:
            return read(self._file, on_trial=self.on_trial)
        finally:
            os.close(self._file)

    def succeed(self) -> None:
        """Report to the old version that its state was restored, and end this process silently."""
        if self._old is not None:
            self._old.sendall(TRIED)
            os._exit(0)


def arrival(environ: MutableMapping[str, str]) -> Arrival | None:
    """Return the state for this process, if there is one, and remove the variable from ``environ``."""
    kind, *numbers = environ.pop(VARIABLE, "").split(":")
    if kind == "take" and len(numbers) == 2 and numbers[0] == str(os.getpid()):
        os.set_inheritable(int(numbers[1]), False)
        return Arrival(int(numbers[1]), None)
    if kind == "try" and len(numbers) == 2:
        for number in numbers:
            os.set_inheritable(int(number), False)
        return Arrival(int(numbers[0]), socket.socket(fileno=int(numbers[1])))
    return None


def to_take(file: int) -> dict[str, str]:
    """Return the environment variable for the new version of this process."""
    return {VARIABLE: f"take:{os.getpid()}:{file}"}


def to_try(file: int, sock: int) -> dict[str, str]:
    """Return the environment variable for a trial."""
    return {VARIABLE: f"try:{file}:{sock}"}
