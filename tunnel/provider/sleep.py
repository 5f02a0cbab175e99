"""A sandbox that was paused while a session was open: when to wake it.

always     as soon as the client notices
on-input   when there is input for it; otherwise it could never stay paused
never      not by this client
"""

from __future__ import annotations

from tunnel.errors import spelled

ALWAYS, ON_INPUT, NEVER = "always", "on-input", "never"


class Sleep:
    """The state of the paused sandbox ``id`` in one session, shared by the waiting and the dialling code.

    ``has_input``: there is input for it. ``asks``: ask the provider before dialling the sandbox again.
    """

    __slots__ = ("_wake", "asks", "has_input", "id")

    def __init__(self, id: str, wake: str) -> None:
        self.id = id
        self._wake = wake
        self.has_input = False
        self.asks = True

    @property
    def waits_for_input(self) -> bool:
        """Whether the next input wakes it."""
        return self._wake == ON_INPUT and not self.has_input

    @property
    def may_wake(self) -> bool:
        """Whether to wake it if it is paused."""
        return self._wake == ALWAYS or (self._wake == ON_INPUT and self.has_input)

    @property
    def line(self) -> str:
        """The line for the user when it is paused."""
        goes_on = (
            "the next key wakes it" if self._wake == ON_INPUT else f"this client does not wake it ({spelled('wake')})"
        )
        return f"sandbox {self.id} is paused; {goes_on}"
