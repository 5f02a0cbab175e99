"""The simulated fleet and the costs of its parts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tunnel.client.options import OPTIONS

RECORDED = Path(__file__).with_name("costs.json")


def _default(name: str) -> float:
    """Return the default of an option of `wstunnel-py connect`."""
    (value,) = (option.default for option in OPTIONS if option.name == name)
    if not isinstance(value, float):
        raise TypeError(f"--{name} has no number as its default")
    return value


@dataclass(frozen=True)
class Costs:
    """Costs that were measured on one machine: bytes, descriptors, seconds of CPU time."""

    machine: str
    bridge_bytes: float  # of a bridge without tunnels: its proportional set size
    bridge_tunnel_bytes: float  # more for each idle tunnel
    bridge_descriptors: float
    bridge_tunnel_descriptors: float
    bridge_dial_seconds: float  # for each tunnel that is opened
    sshd_session_bytes: float  # of the processes of one ssh session, without the shell
    gateway_bytes: float  # of an nginx with one worker and no tunnels
    gateway_tunnel_bytes: float
    gateway_tunnel_descriptors: float
    gateway_dial_seconds: float  # TLS 1.3 (ECDSA P-256, no resumption), request, dial of the bridge, answer

    @classmethod
    def recorded(cls) -> Costs:
        """Return the recorded costs, on which the documentation's figures are based."""
        return cls(**json.loads(RECORDED.read_text()))

    def record(self) -> None:
        RECORDED.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class Fleet:
    """The numbers of sandboxes, tunnels and gateways, and the behaviour of the network. Times are in seconds."""

    sandboxes: int = 10_000
    tunnels: int = 100_000
    gateways: int = 10
    gateway_cores: int = 2
    accept_backlog: int = 511  # length of nginx's accept queue, its default
    shortest_round_trip: float = 0.02  # between a client and its gateway; each tunnel has its own, evenly spread
    longest_round_trip: float = 0.2
    dial_timeout: float = _default("connect-timeout")  # the client's own
    reconnect_for: float = _default("reconnect-for")
    noticed_after: float = 5.0  # until the load balancer notices a crashed gateway
