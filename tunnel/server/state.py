"""What all connections of a bridge share: what they may use up, and the rules that they are admitted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunnel.errors import spelled
from tunnel.net.forwarded import TrustedProxies
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.server.certificates import Certificates
from tunnel.server.handshake import Rules
from tunnel.server.http import Refusal, busy
from tunnel.server.session_registry import SessionRegistry
from tunnel.server.settings import BridgeSettings
from tunnel.server.shares import Place, Shares
from tunnel.server.speed_test import SpeedTarget
from tunnel.server.target import Target

if TYPE_CHECKING:
    from tunnel.protocol.codec import Codec

MAX_HANDSHAKES = 1024  # connections that have not sent their request yet, if there are descriptors enough
MAX_FAREWELLS = 256  # connections that were refused, and whose clients may still read why
_OTHER_DESCRIPTORS = 64  # listeners, log, event loop, …
_DESCRIPTORS_OF_TUNNEL = 3  # two, and one more for sessions that wait, and for terminals


@dataclass
class BridgeState:
    """See the module's text. Places in `handshakes` and `farewells` are never refused: the oldest gives way.

    `make_codec` and `tunnel_ended` are as for `Bridge`.
    """

    settings: BridgeSettings
    target: Target
    rules: Rules
    proxies: TrustedProxies
    handshakes: Shares
    farewells: Shares
    seats: Shares
    sessions: SessionRegistry
    certificates: Certificates | None
    make_codec: Callable[[], Codec]
    tunnel_ended: Callable[[], None]
    speed_test: SpeedTarget = field(default_factory=SpeedTarget)
    buffers: ReadBuffers = field(default_factory=ReadBuffers)
    draining: bool = False

    def full(self) -> Refusal:
        """Return the refusal for a client that finds no seat."""
        return busy("full", f"{self.seats.limit} tunnels are open, which is the limit ({spelled('max_tunnels')})")

    def free_descriptor(self, spared: Place | None = None) -> bool:
        """Let somebody give way, as the system has no descriptor left; return whether there was anybody.

        ``spared`` is the place of whoever needs the descriptor.

        First those who have been told all they need to know, then those who have not said what they want, then tunnels
        whose clients have shown nothing, and at last sessions whose clients are away.
        """
        all_shares = (self.farewells, self.handshakes, self.seats, self.sessions.waiting)
        return any(shares.drop_one(spared=spared) for shares in all_shares)


def handshake_limit(descriptors: int) -> int:
    """Return how many handshakes there may be at once, of a process that may open so many ``descriptors``."""
    return max(1, min(MAX_HANDSHAKES, descriptors // 8))


def farewell_limit(descriptors: int) -> int:
    """Return how many refused clients may be let read why, of a process that may open so many ``descriptors``."""
    return max(1, min(MAX_FAREWELLS, descriptors // 16))


def tunnel_limit(wanted: int, descriptors: int) -> int:
    """Return how many tunnels there may be, of ``wanted``, so that descriptors are left for everything else."""
    left = descriptors - _OTHER_DESCRIPTORS - handshake_limit(descriptors) - farewell_limit(descriptors)
    return max(1, min(wanted, left // _DESCRIPTORS_OF_TUNNEL))
