"""The interface of a part of the service (the bridge, the terminal service) for a restart in place."""

from __future__ import annotations

from typing import Protocol

from tunnel.restart.state import Handed, Kept, Tree

HOLD_LIMIT = 2.0  # seconds for handshakes and short calls to finish before the state is captured


class Part(Protocol):
    """The order of the calls is `hold`, `capture`, then `go_on` or `let_go`; in the new version `restore`.

    The first four must not import anything, as a newer version of the package may be on the disk.
    """

    async def hold(self) -> None:
        """Stop accepting, and wait at most `HOLD_LIMIT` until short work is finished. Never raises."""

    def go_on(self) -> None:
        """Undo `hold`: there will be no restart."""

    def capture(self, kept: Kept) -> Tree:
        """Return the state, and keep its descriptors. Changes nothing, sends nothing and does not wait."""

    def let_go(self) -> None:
        """Notify the clients whose connections are not kept, right before the execution. Never waits or raises."""

    def restore(self, tree: Tree, handed: Handed) -> None:
        """Restore the state that `capture` returned, before the part is entered and so started.

        Starts, sends, signals and reads nothing, as it also runs on trial. Raises if the state cannot be used.
        """
