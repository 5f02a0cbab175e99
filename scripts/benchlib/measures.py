"""What can be measured, by name. Each measure runs once for one peer and gives one number per quantity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchlib import transfers
from benchlib.lab import Lab
from benchlib.latency import latency
from benchlib.peers import Peer
from benchlib.request import request
from benchlib.scale import fairness, idle_tunnels, keystrokes
from benchlib.terminal_rows import terminals

SFTP_PEERS = ("direct", "ours", "embedded")  # what is told apart here is the server's side of it
TERMINAL_PEERS = ("ours", "envd")


@dataclass(frozen=True)
class Measure:
    """Something to run: for which peers it makes sense, and in how many rounds by default, in full and quickly."""

    run: Callable[[Lab, Peer, int], dict[str, float]]
    rounds: int
    quick_rounds: int
    fits: Callable[[Peer], bool] = lambda peer: peer.is_tunnel


def _is_tunnel(peer: Peer) -> bool:
    return peer.is_tunnel and not peer.embedded


def _takes_crowds(peer: Peer) -> bool:
    """Whether tunnels can be opened without its client; netcat's are direct ones."""
    return peer.name == "direct" or (peer.bridge is not None and peer.offer is not None and not peer.embedded)


def _holds_tunnels(peer: Peer) -> bool:
    return _takes_crowds(peer) and peer.bridge is not None


def _sends_request(peer: Peer) -> bool:
    """Whether its client begins with a request; ``direct`` stands for the interpreter."""
    return peer.name == "direct" or (peer.bridge is not None and not peer.embedded)


MEASURES = {
    "startup": Measure(transfers.startup, 30, 16),
    "request": Measure(request, 40, 20, _sends_request),
    "ssh-download": Measure(transfers.ssh_download, 7, 4),
    "ssh-upload": Measure(transfers.ssh_upload, 7, 4),
    "sftp-download": Measure(transfers.sftp_download, 5, 4, lambda peer: peer.name in SFTP_PEERS),
    "sftp-upload": Measure(transfers.sftp_upload, 5, 4, lambda peer: peer.name in SFTP_PEERS),
    "raw-download": Measure(transfers.raw_download, 7, 4, _is_tunnel),
    "raw-upload": Measure(transfers.raw_upload, 7, 4, _is_tunnel),
    "latency": Measure(latency, 10, 5, _is_tunnel),
    "keystrokes": Measure(keystrokes, 5, 1, _takes_crowds),
    "fairness": Measure(fairness, 3, 1, _takes_crowds),
    "terminals": Measure(terminals, 5, 2, lambda peer: peer.name in TERMINAL_PEERS),
    "memory": Measure(idle_tunnels, 3, 1, _holds_tunnels),
}
