"""The faults of a soak: connections break, processes are stopped or killed, clocks jump, bridges restart.

A seed determines all of them. A fault that lasts is undone a moment later, while others may already be happening.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from soaklib.lab import Lab
from soaklib.sessions import Clients
from tests.faults.link import Break, Direction, Link, Side

LONGEST = 2.0  # seconds that a link, a bridge or a client is stopped
KILL, RESTART = "kill a client", "restart in place"
_DAY = 86400.0
_JUMPS = (-400 * _DAY, -_DAY, -3600.0, -30.0, 30.0, 3600.0, _DAY, 400 * _DAY)
_CUTS: tuple[tuple[Break, Side], ...] = (
    ("rst", "both"), ("rst", "both"), ("fin", "both"), ("fin", "client"), ("rst", "client"), ("rst", "bridge"),
    ("silence", "both"),
)  # fmt: skip
_STALLS: tuple[tuple[Direction, ...], ...] = (("up",), ("down",), ("up", "down"))


class Trouble:
    """Faults by their names in `ACTIONS`; ``done`` counts them. Those of ``without`` are left out.

    ``patient``: there is time for a browser's page to notice that a connection is silent, which takes it 40 s.
    """

    def __init__(self, lab: Lab, clients: Clients, seed: str, without: frozenset[str], *, patient: bool) -> None:
        self._lab = lab
        self._clients = clients
        self._patient = patient
        self._chance = random.Random(f"{seed} trouble")
        self._links: list[Link] = [*lab.links, lab.service]
        self._closed: set[Link] = set()
        self._undo: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._names = [name for name in ACTIONS if name not in without]
        self.done: Counter[str] = Counter(dict.fromkeys(self._names, 0))
        self._restartable = lab.try_restarts() if RESTART in self._names else []

    def last(self, until: float, *, kills_until: float) -> None:
        """Cause faults until ``until``, then undo them. After ``kills_until``, kill no client. Times are monotonic."""
        try:
            while (now := time.monotonic()) < until:
                while self._undo and self._undo[0][0] <= now:
                    heapq.heappop(self._undo)[2]()
                names = [name for name in self._names if name != KILL or now < kills_until]
                if names and ACTIONS[name := self._chance.choice(names)](self):
                    self.done[name] += 1
                time.sleep(self._chance.uniform(0.05, 1.0))
        finally:
            while self._undo:
                heapq.heappop(self._undo)[2]()

    def _later(self, undo: Callable[[], object]) -> None:
        at = time.monotonic() + self._chance.uniform(0.2, LONGEST)
        heapq.heappush(self._undo, (at, next(self._order), undo))

    # ---- one for each name; each returns whether there was something to apply it to

    def _cut(self) -> bool:
        how, side = self._chance.choice(_CUTS)
        link = self._chance.choice(self._links)
        if (how == "silence" or side == "bridge") and link is self._lab.service and not self._patient:
            how, side = "rst", "both"
        return link.break_all(how, side) > 0

    def _stall(self) -> bool:
        link = self._chance.choice(self._links)
        link.stall(*self._chance.choice(_STALLS))
        self._later(link.stall)
        return True

    def _refuse(self) -> bool:
        link = self._chance.choice(self._links)
        if link in self._closed:
            return False
        self._closed.add(link)
        link.refuse_new()
        link.break_all("rst")
        self._later(lambda: self._open(link))
        return True

    def _open(self, link: Link) -> None:
        link.accept_new()
        self._closed.remove(link)

    def _stop_bridge(self) -> bool:
        process = self._chance.choice(self._lab.servers).bridge.process
        process.send_signal(signal.SIGSTOP)
        self._later(lambda: process.send_signal(signal.SIGCONT))
        return True

    def _stop_client(self) -> bool:
        pid = self._clients.choose(self._chance)
        if pid is None or not _send(pid, signal.SIGSTOP):
            return False
        self._later(lambda: _send(pid, signal.SIGCONT))
        return True

    def _kill_client(self) -> bool:
        pid = self._clients.choose(self._chance, kill=True)
        return pid is not None and _send(pid, signal.SIGKILL)

    def _move_clock(self) -> bool:
        self._lab.move_clock(self._chance.choice(_JUMPS))
        return True

    def _restart(self) -> bool:
        server = self._chance.choice(self._restartable)
        return server.restart()

    def failed_restarts(self) -> list[str]:
        """Wait for the restarts that are under way; return a line for each that failed, except first ones."""
        failed = []
        for server in self._restartable:
            server.wait_for_restart()
            failed += [f"{server.name}: {how}" for how in server.restarted() if how != "restarted"]
        return failed


ACTIONS: dict[str, Callable[[Trouble], bool]] = {
    "cut": Trouble._cut,
    "stall": Trouble._stall,
    "refuse connections": Trouble._refuse,
    "stop a bridge": Trouble._stop_bridge,
    "stop a client": Trouble._stop_client,
    KILL: Trouble._kill_client,
    "move the clock": Trouble._move_clock,
    RESTART: Trouble._restart,
}


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
