"""Clients that reconnect when gateways fail: a discrete-event simulation around the client's own `Outage`.

The client's real code decides when it connects, how long it waits after a failure and when it gives up; the simulation
only supplies the clock and the random numbers. Gateways are queues with a cost for each attempt. At any time, each
tunnel is in one place: on a gateway, reconnecting, or given up.
"""

from __future__ import annotations

import gc
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

from simulatelib.fleet import Costs, Fleet
from tunnel.client import outage as client_outage
from tunnel.errors import ConnectionLost, DialError
from tunnel.net import backoff

_SYN_AGAIN = (1.0, 2.0, 4.0, 8.0)  # seconds between TCP's attempts to connect
_REFUSED = DialError("tcp-refused", address="the gateway")
_TIMEOUT = DialError("answer-timeout", hop="the gateway", seconds=0)
_HUNG_UP = DialError("hung-up", hop="the gateway")
PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True)
class Scenario:
    """What happens to the gateways. ``restarts`` are (gateway, from, until): it is down in between, in seconds.

    ``graceful``: the load balancer knows of it before (a rolling update); otherwise it notices it later. ``jitter``:
    whether clients use random delays, for comparison.
    """

    title: str
    restarts: tuple[tuple[int, float, float], ...]
    graceful: bool = False
    jitter: bool = True


@dataclass
class Outcome:
    """What became of the tunnels."""

    scenario: Scenario
    tunnels: int
    cuts: int = 0  # connections that were lost, once or more for a tunnel
    cut_tunnels: int = 0
    most_cuts: int = 0
    resumed: int = 0  # tunnels that are on a gateway at the end, of those that were cut
    given_up: int = 0
    told: int = 0  # outages of which the user was notified
    dials: int = 0
    refused: int = 0
    timed_out: int = 0
    most_dials: int = 0  # of one tunnel in one outage
    most_in_a_second: int = 0
    most_in_100_ms: int = 0
    most_on_one_gateway: int = 0
    durations: list[float] = field(default_factory=list)  # of outages that ended well, sorted, seconds

    def back_after(self) -> dict[int, float]:
        """Return seconds by the percentage of outages that ended within them."""
        last = len(self.durations) - 1
        return {share: self.durations[max(0, round(last * share / 100))] for share in PERCENTILES}


class Storm:
    """One run of a scenario; `run` gives the outcome. The same seed gives the same outcome."""

    def __init__(self, fleet: Fleet, costs: Costs, scenario: Scenario, seed: int) -> None:
        self._fleet = fleet
        self._scenario = scenario
        self._random = random.Random(f"{seed} {scenario.title}")
        self._dial_cost = costs.gateway_dial_seconds / fleet.gateway_cores
        self._events: list[tuple[float, int, Callable[..., None], tuple[int, ...]]] = []
        self._count = 0
        self._up = [True] * fleet.gateways
        self._known = list(range(fleet.gateways))  # gateways to which the load balancer sends clients
        self._free_at = [0.0] * fleet.gateways  # when a gateway's queue will be empty
        self._on: list[int | None] = [each % fleet.gateways for each in range(fleet.tunnels)]
        spread = fleet.longest_round_trip - fleet.shortest_round_trip
        self._round_trip = [fleet.shortest_round_trip + spread * self._random.random() for _ in self._on]
        self._outages: dict[int, client_outage.Outage] = {}
        self._dials = [0] * fleet.tunnels  # of the present outage
        self._dialled_at = [0.0] * fleet.tunnels
        self._cuts = [0] * fleet.tunnels
        self._gone: set[int] = set()
        self._load = Counter(each for each in self._on if each is not None)
        self._per_second: Counter[int] = Counter()
        self._per_100_ms: Counter[int] = Counter()
        self._now = 0.0
        self.outcome = Outcome(scenario, fleet.tunnels)

    def run(self) -> Outcome:
        for gateway, begin, end in self._scenario.restarts:
            if self._scenario.graceful:
                self._at(begin, self._forget, gateway)
            self._at(begin, self._go, gateway)
            if not self._scenario.graceful:
                self._at(begin + self._fleet.noticed_after, self._forget, gateway)
            self._at(end, self._come, gateway)
        module = vars(backoff)
        real = module["os"]
        # The client's own jitter, from this run's random numbers.
        source = self._random.randbytes if self._scenario.jitter else lambda size: b"\xff" * size
        module["os"] = SimpleNamespace(urandom=source)
        gc.disable()  # a million events, none of them in a cycle
        try:
            while self._events:
                self._now, _, happen, arguments = heapq.heappop(self._events)
                happen(*arguments)
        finally:
            module["os"] = real
            gc.enable()
        return self._close()

    def _at(self, when: float, happen: Callable[..., None], *arguments: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, happen, arguments))

    # Gateways

    def _forget(self, gateway: int) -> None:
        if gateway in self._known and (self._scenario.graceful or not self._up[gateway]):
            self._known.remove(gateway)

    def _go(self, gateway: int) -> None:
        self._up[gateway] = False
        for tunnel, on in enumerate(self._on):
            if on == gateway:
                self._lose(tunnel)

    def _come(self, gateway: int) -> None:
        self._up[gateway] = True
        self._free_at[gateway] = self._now
        if gateway not in self._known:
            self._known.append(gateway)

    # Clients

    def _lose(self, tunnel: int) -> None:
        on = self._on[tunnel]
        if on is not None:
            self._load[on] -= 1
        self._on[tunnel] = None
        self._cuts[tunnel] += 1
        self.outcome.cuts += 1
        self._dials[tunnel] = 0
        outage = client_outage.Outage(self._now, self._fleet.reconnect_for, "cut", 0)
        self._outages[tunnel] = outage
        self._at(outage.next_at, self._dial, tunnel)

    def _dial(self, tunnel: int) -> None:
        outage = self._outages[tunnel]
        try:
            outage.check(self._now)
        except ConnectionLost:
            self._end(tunnel)
            self._gone.add(tunnel)
            return
        outage.begin_attempt()
        self.outcome.dials += 1
        self._dials[tunnel] += 1
        self._per_second[int(self._now)] += 1
        self._per_100_ms[int(self._now * 10)] += 1
        self._dialled_at[tunnel] = self._now
        gateway = self._known[int(self._random.random() * len(self._known))] if self._known else None
        if gateway is None or not self._up[gateway]:
            self.outcome.refused += 1
            self._again(tunnel, _REFUSED, self._now + self._round_trip[tunnel])
            return
        self._at(self._now + self._round_trip[tunnel] / 2, self._arrive, tunnel, gateway, 0)

    def _arrive(self, tunnel: int, gateway: int, tries: int) -> None:
        """A client's first packet reaches a gateway, which drops it or queues it."""
        limit = self._dialled_at[tunnel] + self._fleet.dial_timeout
        waits = max(0.0, self._free_at[gateway] - self._now)
        if waits > self._dial_cost * self._fleet.accept_backlog:
            again = self._now + _SYN_AGAIN[min(tries, len(_SYN_AGAIN) - 1)]
            if again < limit:
                self._at(again, self._arrive, tunnel, gateway, tries + 1)
            else:
                self._time_out(tunnel, limit)
            return
        self._free_at[gateway] = self._now + waits + self._dial_cost
        # TCP, TLS 1.3 and the upgrade take three round trips; half of the first is over.
        done = self._free_at[gateway] + 2.5 * self._round_trip[tunnel]
        if done > limit:
            self._time_out(tunnel, limit)
        else:
            self._at(done, self._succeed, tunnel, gateway)

    def _time_out(self, tunnel: int, when: float) -> None:
        self.outcome.timed_out += 1
        self._again(tunnel, _TIMEOUT, when)

    def _succeed(self, tunnel: int, gateway: int) -> None:
        if not self._up[gateway]:
            self._again(tunnel, _HUNG_UP, self._now)
            return
        self._on[tunnel] = gateway
        self._load[gateway] += 1
        self.outcome.most_on_one_gateway = max(self.outcome.most_on_one_gateway, self._load[gateway])
        self.outcome.durations.append(self._now - self._outages[tunnel].began)
        self._end(tunnel)

    def _again(self, tunnel: int, error: DialError, when: float) -> None:
        """Note that a client's attempt fails at ``when``, now or later."""
        outage = self._outages[tunnel]
        outage.failed(error, when)
        self._at(min(outage.next_at, outage.deadline), self._dial, tunnel)

    def _end(self, tunnel: int) -> None:
        outage = self._outages.pop(tunnel)
        self.outcome.most_dials = max(self.outcome.most_dials, self._dials[tunnel])
        if outage.notice(self._now):
            self.outcome.told += 1

    def _close(self) -> Outcome:
        outcome = self.outcome
        outcome.durations.sort()
        outcome.cut_tunnels = sum(1 for cuts in self._cuts if cuts)
        outcome.most_cuts = max(self._cuts)
        outcome.given_up = len(self._gone)
        outcome.resumed = sum(1 for cuts, on in zip(self._cuts, self._on, strict=True) if cuts and on is not None)
        outcome.most_in_a_second = max(self._per_second.values(), default=0)
        outcome.most_in_100_ms = max(self._per_100_ms.values(), default=0)
        placed = sum(self._load.values())
        if self._outages or placed + outcome.given_up != outcome.tunnels:
            raise RuntimeError(
                f"tunnels are missing or counted twice: {placed} + {outcome.given_up} of {outcome.tunnels}"
            )
        return outcome
