"""What all connections of a bridge share: limited resources and access rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunnel.errors import spelled
from tunnel.net.forwarded import TrustedProxies
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.server.busy import BusyQueue
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

MAX_HANDSHAKES = 1024  # connections without a request yet, if there are enough descriptors
MAX_FAREWELLS = 256  # refused connections, whose clients may still read the reason
_OTHER_DESCRIPTORS = 64  # listeners, log, event loop, …
_TERMINAL_DESCRIPTORS = 512  # connections to terminals


@dataclass
class BridgeState:
    """See the module. Slots in `handshakes` and `farewells` are never refused: the oldest is evicted.

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
    busy: BusyQueue = field(default_factory=BusyQueue)
    draining: bool = False

    def full(self) -> Refusal:
        """Return the refusal for a client that gets no slot for a tunnel."""
        return busy("full", f"{self.seats.limit} tunnels are open, which is the limit ({spelled('max_tunnels')})")

    def free_descriptor(self, spared: Place | None = None) -> bool:
        """Free descriptors, as the system has none left; return whether that was possible.

        ``spared`` is the slot of the connection that needs the descriptor. The order is: refused connections,
        handshakes, tunnels whose clients have sent nothing, detached sessions. Splices are ended first.
        """
        if self.busy.splices.end_one():
            return True
        all_shares = (self.farewells, self.handshakes, self.seats, self.sessions.waiting)
        return any(shares.drop_one(spared=spared) for shares in all_shares)


def handshake_limit(descriptors: int) -> int:
    """Return the limit of handshakes at once, for a process that may have so many ``descriptors``."""
    return max(1, min(MAX_HANDSHAKES, descriptors // 8))


def farewell_limit(descriptors: int) -> int:
    """Return the limit of refused connections at once, for a process that may have so many ``descriptors``."""
    return max(1, min(MAX_FAREWELLS, descriptors // 16))


def tunnel_limit(wanted: int, descriptors: int, waiting: int) -> int:
    """Return the limit of tunnels, at most ``wanted``, so that descriptors are left for everything else.

    Each tunnel needs two. At most a third is kept for terminals and for up to ``waiting`` detached sessions.
    """
    left = descriptors - _OTHER_DESCRIPTORS - handshake_limit(descriptors) - farewell_limit(descriptors)
    kept = min(left // 3, _TERMINAL_DESCRIPTORS + waiting)
    return max(1, min(wanted, (left - kept) // 2))
