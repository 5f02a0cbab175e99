"""Who is measured: the command lines of every client and bridge, and the pairs that are made of them.

websocat's are those that people paste today, so that the comparison is with what they have.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASYNCIO_PEER = str(Path(__file__).with_name("asyncio_peer.py"))
PLAIN = ("binary",)


@dataclass(frozen=True)
class Door:
    """Where a client dials on loopback: a bridge (``ws``, ``wss``), or the target itself (``tcp``)."""

    scheme: str
    port: int

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"


@dataclass(frozen=True)
class Peer:
    """One way from a client to a target.

    Attributes:
        client: The ProxyCommand for a door; None if ssh connects by itself.
        bridge: The bridge's command for a port to listen on and a target's port; None if there is no bridge.
        offer: The WebSocket subprotocols that the client offers.
        embedded: Whether the bridge is the SSH server, too.
    """

    name: str
    says: str
    client: Callable[[Door], list[str]] | None = None
    bridge: Callable[[int, int], list[str]] | None = None
    offer: tuple[str, ...] = PLAIN
    embedded: bool = False


def program(name: str) -> str | None:
    """The program beside the interpreter (a virtual environment's own), or else on the PATH; None if there is none."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def ours() -> list[str]:
    """The installed console script, whose start-up is what users pay; ``python -m tunnel`` where it isn't installed."""
    beside = Path(sys.executable).with_name("wstunnel-py")
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "tunnel"]


def our_client(door: Door) -> list[str]:
    return [*ours(), "connect", door.url]


def our_plain_client(door: Door) -> list[str]:
    return [*ours(), "connect", "--no-resume", door.url]


def our_bridge(listen: int, target: int) -> list[str]:
    listening = ["--listen", f"127.0.0.1:{listen}", "--target", f"127.0.0.1:{target}"]
    return [*ours(), "serve", *listening, "--drain", "0"]


def websocat_client(door: Door) -> list[str]:
    return [program("websocat") or "websocat", "--binary", "-B", "65536", "-", door.url]


def websocat_bridge(listen: int, target: int) -> list[str]:
    websocat = program("websocat") or "websocat"
    return [websocat, "-b", "--exit-on-eof", f"ws-l:127.0.0.1:{listen}", f"tcp:127.0.0.1:{target}"]


def asyncio_client(door: Door) -> list[str]:
    return [sys.executable, ASYNCIO_PEER, "connect", door.url]


def asyncio_bridge(listen: int, target: int) -> list[str]:
    return [sys.executable, ASYNCIO_PEER, "bridge", str(listen), str(target)]


def nc_client(door: Door) -> list[str]:
    return ["nc", "127.0.0.1", str(door.port)]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("direct", "no ProxyCommand, no bridge: what everything is compared with"),
        Peer("nc", "OpenBSD netcat as ProxyCommand, no bridge: the floor of any ProxyCommand", nc_client),
        Peer("ours", "wstunnel-py on both ends, as it is by default: resumable", our_client, our_bridge),
        Peer("ours-plain", "wstunnel-py on both ends, --no-resume", our_plain_client, our_bridge),
        Peer("embedded", "wstunnel-py on both ends, and as the SSH server", our_client, our_bridge, embedded=True),
        Peer("websocat", "websocat on both ends", websocat_client, websocat_bridge),
        Peer("websockets", "Python's websockets (asyncio) on both ends", asyncio_client, asyncio_bridge),
    )
}
MIXED = {
    peer.name: peer
    for peer in (
        Peer("ours-websocat", "our client, websocat's bridge", our_client, websocat_bridge),
        Peer("websocat-ours", "websocat's client, our bridge", websocat_client, our_bridge),
    )
}
