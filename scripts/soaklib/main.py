"""Runs real sessions while everything around them fails, and reports what was lost, which should be nothing.

The sessions are shells and copies through ssh, terminals, and a terminal in a browser. The faults are cut and stalled
connections, refused connections, processes that are stopped or killed, jumps of the wall clock, and restarts in place.
Every byte is checked. After each round all sessions end, and memory, descriptors, tasks and processes must be as
before. The same seed gives the same faults in the same order, but not at the same bytes.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Error as BrowserError

from soaklib.lab import Lab, NoRestart
from soaklib.page import KIND, use_page
from soaklib.sessions import STEP, Clients, User
from soaklib.trouble import ACTIONS, RESTART, Trouble
from tests.pty.browsing import chromium

ROUND = 60.0  # seconds of faults between two checks
RESERVE = 12.0  # seconds of the given time for sessions to end and for the last check
USERS = (
    ("ssh", "scp"),
    ("ssh to the embedded server", "scp to the embedded server"),
    ("shell",),
    ("ssh", "scp", "ssh to the embedded server", "scp to the embedded server", "shell"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="default: %(default)g")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the random numbers (default: a new one)")
    parser.add_argument(
        "--without", action="append", default=[], choices=ACTIONS, metavar="TROUBLE",
        help=f"leave out one of: {', '.join(ACTIONS)}; may be repeated",
    )  # fmt: skip
    options = parser.parse_args()
    if not 0.5 <= options.minutes <= 24 * 60:
        parser.error(f"--minutes {options.minutes:g}: from 0.5 to {24 * 60}")
    return options


def main() -> int:
    options = arguments()
    began = time.monotonic()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the links hold both ends of every connection
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        Lab(Path(folder), 20 if options.minutes < 2 else 60) as lab,
    ):
        try:
            return _soak(lab, str(seed), frozenset(options.without), began, began + options.minutes * 60)
        except NoRestart as exc:
            print(f"soak: {exc}; leave it out with --without '{RESTART}'", file=sys.stderr)
            return 1


def _soak(lab: Lab, seed: str, without: frozenset[str], began: float, deadline: float) -> int:
    clients = Clients()
    trouble = Trouble(lab, clients, seed, without, patient=deadline - began >= 2 * ROUND)
    left: list[str] = []
    users = [User(lab, clients, f"user-{number}", seed, kinds) for number, kinds in enumerate(USERS)]
    browser = _Browser(lab, clients, seed)
    last = deadline - RESERVE
    rounds = max(1, math.ceil((last - time.monotonic()) / (ROUND + RESERVE)))
    for number in range(1, rounds + 1):
        until = last if number == rounds else min(last, time.monotonic() + ROUND)
        over = threading.Event()
        threads = [threading.Thread(target=user.run, args=(over,), daemon=True) for user in users]
        for thread in threads:
            thread.start()
        browser.begin(over)
        trouble.last(until, kills_until=deadline - lab.resume_for if number == rounds else until)
        over.set()
        stuck = [thread for thread in threads if not _joined(thread)]
        if stuck or not browser.rest():
            left.append(f"round {number}: {len(stuck)} users and the browser did not finish")
            break
        for link in (*lab.links, lab.service):
            link.let_go_of_broken()
        found = [*trouble.failed_restarts(), *lab.check()]
        left += [f"round {number}: {line}" for line in found]
        minutes = (time.monotonic() - began) / 60
        print(f"{minutes:5.1f} min  {clients.done.total()} sessions, {trouble.done.total()} faults, "
              f"{len(clients.lost)} lost, {len(found)} left; {lab.memory()}", flush=True)  # fmt: skip
        if found:
            break
    browser.close()
    return _report(clients, trouble, left)


def _joined(thread: threading.Thread) -> bool:
    thread.join(2 * STEP)
    return not thread.is_alive()


class _Browser:
    """The browser, which stays in one thread, because its library requires that."""

    def __init__(self, lab: Lab, clients: Clients, seed: str) -> None:
        self._lab, self._clients, self._seed = lab, clients, seed
        self._begin = threading.Semaphore(0)
        self._idle = threading.Event()
        self._over: threading.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, over: threading.Event) -> None:
        self._idle.clear()
        self._over = over
        self._begin.release()

    def rest(self) -> bool:
        """Wait until it has left its page."""
        return self._idle.wait(2 * STEP)

    def close(self) -> None:
        self._over = None
        self._begin.release()
        self._thread.join(STEP)

    def _run(self) -> None:
        try:
            with chromium() as browser:
                while self._begin.acquire() and self._over is not None:
                    use_page(self._lab, self._clients, self._seed, browser, self._over)
                    self._idle.set()
        except (BrowserError, AssertionError) as exc:
            self._clients.was_lost(KIND, f"no browser: {exc}")
            self._idle.set()


def _report(clients: Clients, trouble: Trouble, left: list[str]) -> int:
    print("\nFaults:")
    for name, count in trouble.done.items():
        print(f"{count:8}  {name}")
    print("Sessions that were not lost, and the size of their data:")
    for kind, count in sorted(clients.done.items()):
        print(f"{count:8}  {kind}" + ("" if "," in kind else f" ({clients.sizes[kind] / 1e6:.1f} MB)"))
    for title, lines in (("Lost", clients.lost), ("Left behind", left)):
        print(f"{title}: {'nothing' if not lines else ''}")
        for line in lines:
            print(f"          {line}")
    return 1 if clients.lost or left else 0
