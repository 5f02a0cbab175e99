"""What tunnels lead to, as the bridge sees it: an address, the embedded SSH server, the speed test, …"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod

from tunnel.net.address import Client


class Target(ABC):
    """Where tunnels lead; ``str()`` names it in the log, ``greeting`` tells whoever starts the bridge how to log in."""

    greeting = ""

    async def start(self) -> None:
        """Get ready, before the first `dial`; raises UsageError when that cannot be. Most need nothing."""
        return

    async def why_unanswered(self) -> str | None:
        """Return why no tunnel can be opened, when that is known; None if something answers, or is only slow."""
        return None

    async def close(self) -> None:
        """Let go of everything, when all tunnels have ended."""
        return

    @abstractmethod
    async def dial(self, seconds: float, client: Client) -> socket.socket:
        """Return a connected non-blocking socket within ``seconds``, for a tunnel of ``client``. Raises DialError."""
