"""The interface of targets: an address, the embedded SSH server, the speed test, …"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod

from tunnel.net.address import Client
from tunnel.restart.state import Handed, Kept, Tree


class Target(ABC):
    """A target; ``str()`` is its name in the log, `greeting` is shown when the bridge starts."""

    @property
    def greeting(self) -> str:
        """How to log in, if that is known."""
        return ""

    async def start(self) -> None:
        """Get ready, before the first `dial`. Raises UsageError. Most targets need nothing."""
        return

    async def why_unanswered(self) -> str | None:
        """Return why no tunnel can be opened, if that is known; None if the target answers, or may just be slow."""
        return None

    async def close(self) -> None:
        """Release everything, when all tunnels have ended."""
        return

    def capture(self, kept: Kept) -> Tree:
        """Return the state for `restore` when the bridge is restarted; see `tunnel.restart.part.Part`."""
        return {}

    def restore(self, tree: Tree, handed: Handed) -> None:
        """Restore the captured state; `start` is called after this."""
        return

    @abstractmethod
    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a connected non-blocking socket within ``seconds``, for a tunnel of ``client``. Raises DialError."""
