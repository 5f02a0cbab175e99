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

_EPHEMERAL_PORTS = 28_232  # from which, by default, Linux can connect from one address to one port of another


def scenarios(fleet: Fleet) -> tuple[Scenario, ...]:
    """Return what is run: a crash, everything at once (with jitter and without), and a rolling update.

    In a rolling update a gateway's successor is ready before it stops: there is no gap, but the successor starts empty.
    """
    everything = tuple((gateway, 1.0, 6.0) for gateway in range(fleet.gateways))
    rolling = tuple((gateway, 20.0 * gateway, 20.0 * gateway) for gateway in range(fleet.gateways))
    return (
        Scenario("one gateway crashes", ((0, 1.0, 11.0),)),
        Scenario("all gateways are down for 5 s", everything),
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
- {fleet.sandboxes:,} sandboxes with {fleet.tunnels:,} idle tunnels, distributed at random; each tunnel carries an ssh
  session. {fleet.gateways} gateways with {fleet.gateway_cores} cores each. At first all gateways have the same number
  of tunnels; a client that reconnects gets any gateway.
- Costs were measured by `scripts/simulate --measure` on {costs.machine}, and are scaled linearly. A bridge takes
  {bridge}; each tunnel takes {bridge_tunnel} and {costs.bridge_tunnel_descriptors:.0f} descriptors more, and
  {bridge_dial} of CPU time to open. sshd takes {size(costs.sshd_session_bytes)} for each ssh session. The gateway, an
  nginx, takes {gateway}; each tunnel takes {gateway_tunnel} and {costs.gateway_tunnel_descriptors:.0f} descriptors
  more, and {gateway_dial} of CPU time for each connection with TLS.
- Clients notice at once that their connection is lost, and reconnect on the real client's schedule
  (`tunnel.client.outage`): first after {first}, then after delays that start at {FIRST_DELAY:g} s and grow by a
  factor of {GROWTH:g} up to {LONGEST_DELAY:g} s. Random jitter shortens each delay by up to half. An attempt may take
  {fleet.dial_timeout:g} s; a client gives up after {fleet.reconnect_for:g} s.
- Round trips take {nearest} to {farthest} ms; an attempt takes three of them. Each core of a gateway handles one
  connection attempt at a time; {fleet.accept_backlog} may wait, further ones are dropped, and TCP tries again. The load
  balancer notices a crashed gateway after {fleet.noticed_after:g} s. Bridges and the network are never the bottleneck.
- The seed of the random numbers is {seed}."""


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
        [f"bridge with {usual:g} tunnels, the average", *bridge(usual)],
        [f"bridge with {busiest} tunnels, the busiest", *bridge(busiest)],
        [f"sshd with {usual:g} ssh sessions", size(usual * costs.sshd_session_bytes), ""],
        [f"gateway with {per_gateway:,.0f} tunnels", *gateway(per_gateway)],
        [f"gateway with {most:,} tunnels, the most in a rolling update", *gateway(most)],
        ["all bridges", size(all_bridges),
         f"{fleet.sandboxes * costs.bridge_descriptors + fleet.tunnels * costs.bridge_tunnel_descriptors:,.0f}"],
        ["all gateways", size(all_gateways), f"{fleet.tunnels * costs.gateway_tunnel_descriptors:,.0f}"],
    ]  # fmt: skip
    pings = fleet.tunnels / PING_INTERVAL
    return (
        table(["", "memory", "descriptors"], rows)
        + f"""

A tunnel under load can take more memory, up to two windows; a bridge gives all of its sessions together at most
{settings.resume_memory} MiB (`--resume-memory`). An idle tunnel sends a ping after {PING_INTERVAL:g} s of silence, so
there are {pings:,.0f} pings a second in all, {pings / fleet.gateways:,.0f} at each gateway. One address can open at
most {_EPHEMERAL_PORTS:,} connections to one port of another address. So an ingress controller with a single address
needs at least {math.ceil(fleet.tunnels / _EPHEMERAL_PORTS)} gateways behind it for {fleet.tunnels:,} tunnels."""
    )


def storms(outcomes: Sequence[Outcome]) -> str:
    """Return the table of how the storms went."""

    def back(outcome: Outcome, share: int) -> str:
        return f"{outcome.back_after()[share]:.1f} s"

    rows: list[tuple[str, list[str]]] = [
        ("connections lost", [f"{each.cuts:,}" for each in outcomes]),
        ("… by one tunnel: average, maximum",
         [f"{each.cuts / each.tunnels:.1f}, {each.most_cuts}" for each in outcomes]),
        ("sessions resumed", [f"{each.resumed:,}" for each in outcomes]),
        ("sessions given up", [f"{each.given_up:,}" for each in outcomes]),
        *((f"{share} % of outages ended within", [back(each, share) for each in outcomes]) for share in PERCENTILES),
        (f"outages that users are notified of (over {NOTICE_AFTER:g} s)", [f"{each.told:,}" for each in outcomes]),
        ("connection attempts", [f"{each.dials:,}" for each in outcomes]),
        ("… that were refused, that timed out", [f"{each.refused:,}, {each.timed_out:,}" for each in outcomes]),
        ("… in one outage, maximum", [f"{each.most_dials}" for each in outcomes]),
        ("… in the busiest second", [f"{each.most_in_a_second:,}" for each in outcomes]),
        ("… in the busiest 100 ms", [f"{each.most_in_100_ms:,}" for each in outcomes]),
        ("most tunnels on one gateway", [f"{each.most_on_one_gateway:,}" for each in outcomes]),
    ]  # fmt: skip
    head = ["", *(each.scenario.title for each in outcomes)]
    return table(head, [[name, *cells] for name, cells in rows])


def whole(fleet: Fleet, costs: Costs, seed: int, outcomes: Sequence[Outcome]) -> str:
    """Return all of it."""
    parts = (
        "**Assumptions**",
        assumptions(fleet, costs, seed),
        "**At rest**",
        sizes(fleet, costs, seed, max(each.most_on_one_gateway for each in outcomes)),
        "**When gateways fail or are updated**",
        storms(outcomes),
    )
    return "\n\n".join(parts)
