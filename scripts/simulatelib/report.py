"""The figures of a run as Markdown: what is assumed, what the fleet needs, and how storms go."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from simulatelib.fleet import Costs, Fleet
from simulatelib.storm import PERCENTILES, Outcome, Scenario
from tunnel.client.outage import FIRST_DELAY, GROWTH, LONGEST_DELAY, NOTICE_AFTER
from tunnel.protocol.keepalive import PING_INTERVAL
from tunnel.server.settings import BridgeSettings

_EPHEMERAL_PORTS = 28_232  # that Linux lets one address dial another address's one port from, by default


def scenarios(fleet: Fleet) -> tuple[Scenario, ...]:
    """Return what is run: a crash, everything at once (with jitter and without), and a rolling update.

    In a rolling update a gateway's successor is there before it goes: it is away for no time, but comes back empty.
    """
    everything = tuple((gateway, 1.0, 6.0) for gateway in range(fleet.gateways))
    rolling = tuple((gateway, 20.0 * gateway, 20.0 * gateway) for gateway in range(fleet.gateways))
    return (
        Scenario("one gateway crashes", ((0, 1.0, 11.0),)),
        Scenario("all gateways are away for 5 s", everything),
        Scenario("the same, without jitter", everything, jitter=False),
        Scenario("rolling update", rolling, graceful=True),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def size(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}" if count < 100 * factor else f"{count / factor:.0f} {unit}"
    return f"{count:.0f} B"


def assumptions(fleet: Fleet, costs: Costs, seed: int) -> str:
    bridge, bridge_tunnel = size(costs.bridge_bytes), size(costs.bridge_tunnel_bytes)
    gateway, gateway_tunnel = size(costs.gateway_bytes), size(costs.gateway_tunnel_bytes)
    dials = (costs.bridge_dial_seconds, costs.gateway_dial_seconds)
    bridge_dial, gateway_dial = (f"{each * 1000:.2f} ms" for each in dials)
    nearest, farthest = (f"{each * 1000:g}" for each in (fleet.shortest_round_trip, fleet.longest_round_trip))
    first = f"{FIRST_DELAY / 4:.2f} to {FIRST_DELAY / 2:.2f} s"
    return f"""\
- {fleet.sandboxes:,} sandboxes; {fleet.tunnels:,} idle tunnels with an ssh session each, spread over them at random.
  {fleet.gateways} gateways with {fleet.gateway_cores} cores, evenly used at first; who comes back takes any.
- Measured on {costs.machine}, and scaled in proportion:
  a bridge has {bridge}, for each tunnel {bridge_tunnel} and {costs.bridge_tunnel_descriptors:.0f} descriptors more,
  and takes {bridge_dial} of a core to open it; an ssh session takes {size(costs.sshd_session_bytes)} of sshd;
  nginx as the gateway has {gateway}, for each tunnel {gateway_tunnel} and
  {costs.gateway_tunnel_descriptors:.0f} descriptors more, and takes {gateway_dial} of a core for each dial with TLS.
- Clients see at once that they are cut, and dial as they really do (`tunnel.client.outage`):
  {first} after the cut, then after {FIRST_DELAY:g} s growing by {GROWTH:g} up to {LONGEST_DELAY:g} s, each down to
  half of it by chance; {fleet.dial_timeout:g} s for a dial, {fleet.reconnect_for:g} s in all.
- Round trips take {nearest} to {farthest} ms, a dial three of them. A gateway does one dial after the other on each
  core; {fleet.accept_backlog} may wait, others are dropped, and TCP tries again. The load balancer notices a crash
  after {fleet.noticed_after:g} s. Bridges and the network take whatever comes.
- Random numbers come from seed {seed}."""


def sizes(fleet: Fleet, costs: Costs, seed: int, most: int) -> str:
    """Return the table of what the fleet needs while nothing happens; ``most`` tunnels are on one gateway at times."""
    source = random.Random(f"{seed} spread")
    busiest = max(Counter(source.randrange(fleet.sandboxes) for _ in range(fleet.tunnels)).values())
    usual = fleet.tunnels / fleet.sandboxes
    per_gateway = fleet.tunnels / fleet.gateways
    settings = BridgeSettings()

    def bridge(tunnels: float) -> list[str]:
        memory = costs.bridge_bytes + tunnels * costs.bridge_tunnel_bytes
        descriptors = costs.bridge_descriptors + tunnels * costs.bridge_tunnel_descriptors
        return [size(memory), f"{descriptors:,.0f}"]

    def gateway(tunnels: float) -> list[str]:
        memory = costs.gateway_bytes + tunnels * costs.gateway_tunnel_bytes
        return [size(memory), f"{tunnels * costs.gateway_tunnel_descriptors:,.0f}"]

    all_bridges = fleet.sandboxes * costs.bridge_bytes + fleet.tunnels * costs.bridge_tunnel_bytes
    all_gateways = fleet.gateways * costs.gateway_bytes + fleet.tunnels * costs.gateway_tunnel_bytes
    rows = [
        [f"bridge of a sandbox with {usual:g} tunnels", *bridge(usual)],
        [f"bridge of the busiest sandbox, {busiest} tunnels", *bridge(busiest)],
        [f"sshd of {usual:g} sessions", size(usual * costs.sshd_session_bytes), ""],
        [f"gateway with {per_gateway:,.0f} tunnels", *gateway(per_gateway)],
        [f"gateway that has most of them in a rolling update, {most:,} tunnels", *gateway(most)],
        ["all bridges", size(all_bridges),
         f"{fleet.sandboxes * costs.bridge_descriptors + fleet.tunnels * costs.bridge_tunnel_descriptors:,.0f}"],
        ["all gateways", size(all_gateways), f"{fleet.tunnels * costs.gateway_tunnel_descriptors:,.0f}"],
    ]  # fmt: skip
    pings = fleet.tunnels / PING_INTERVAL
    return (
        table(["", "memory", "descriptors"], rows)
        + f"""

A tunnel under load may hold more, up to two windows; a bridge allots at most {settings.resume_memory} MiB to all of its
tunnels (`--resume-memory`). Idle tunnels are pinged after {PING_INTERVAL:g} s of silence: {pings:,.0f} times a
second in all, {pings / fleet.gateways:,.0f} at each gateway. Between two addresses there are {_EPHEMERAL_PORTS:,} ports
to dial one port from, so a single hop in front (an ingress controller with one address) reaches {fleet.tunnels:,}
tunnels only by way of {math.ceil(fleet.tunnels / _EPHEMERAL_PORTS)} gateways or more."""
    )


def storms(outcomes: Sequence[Outcome]) -> str:
    """Return the table of how the storms went."""

    def back(outcome: Outcome, share: int) -> str:
        return f"{outcome.back_after()[share]:.1f} s"

    rows: list[tuple[str, list[str]]] = [
        ("connections cut", [f"{each.cuts:,}" for each in outcomes]),
        ("… of one tunnel, on average, at most",
         [f"{each.cuts / each.tunnels:.1f}, {each.most_cuts}" for each in outcomes]),
        ("sessions resumed", [f"{each.resumed:,}" for each in outcomes]),
        ("sessions given up", [f"{each.given_up:,}" for each in outcomes]),
        *((f"{share} % of outages over after", [back(each, share) for each in outcomes]) for share in PERCENTILES),
        (f"outages that users are told of ({NOTICE_AFTER:g} s)", [f"{each.told:,}" for each in outcomes]),
        ("dials", [f"{each.dials:,}" for each in outcomes]),
        ("… refused, timed out", [f"{each.refused:,}, {each.timed_out:,}" for each in outcomes]),
        ("… in one outage, at most", [f"{each.most_dials}" for each in outcomes]),
        ("… in the busiest second", [f"{each.most_in_a_second:,}" for each in outcomes]),
        ("… in the busiest 100 ms", [f"{each.most_in_100_ms:,}" for each in outcomes]),
        ("most tunnels on one gateway", [f"{each.most_on_one_gateway:,}" for each in outcomes]),
    ]  # fmt: skip
    head = ["", *(each.scenario.title for each in outcomes)]
    return table(head, [[name, *cells] for name, cells in rows])


def whole(fleet: Fleet, costs: Costs, seed: int, outcomes: Sequence[Outcome]) -> str:
    """Return all of it."""
    parts = (
        "**Assumed**",
        assumptions(fleet, costs, seed),
        "**At rest**",
        sizes(fleet, costs, seed, max(each.most_on_one_gateway for each in outcomes)),
        "**When gateways go**",
        storms(outcomes),
    )
    return "\n\n".join(parts)
