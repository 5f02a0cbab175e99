"""Runs real sessions while everything around them fails, and reports what was lost, which should be nothing.

The sessions are shells and copies through ssh, terminals, and a terminal in a browser. The faults are cut and stalled
connections, refused connections, processes that are stopped or killed, jumps of the wall clock, and restarts in place.
Every byte is checked. After each round all sessions end, and memory, descriptors, tasks and processes must be as
before. The same seed gives the same faults in the same order, but not at the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from playwright.sync_api import Error as BrowserError

from soaklib.lab import Lab, NoRestart
from soaklib.page import KIND, use_page
from soaklib.sessions import STEP, Clients, User
from soaklib.trouble import ACTIONS, RESTART, Trouble
from tests.bed.processes import descendants, program
from tests.pty.browsing import chromium

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROGRAMS = ("ssh", "scp", "ssh-keygen", "sshd", "chromium")
ROUND = 60.0  # seconds of faults between two checks
LEAST = 15.0  # seconds of faults, even if everything took long to start
RESERVE = 12.0  # seconds of the given time for sessions to end and for the last check
HURRY = 20.0  # seconds for all to end when a signal ends the soak
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


class Stopped(Exception):
    """A signal has ended the soak."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: stopping what it started")
        self.status = 128 + number


def stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the soak for a signal. Further ones are ignored, because ending everything takes seconds."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def main() -> int:
    options = arguments()
    try:
        for name in PROGRAMS:
            program(name)
    except AssertionError as exc:
        return _failed(exc)
    began = time.monotonic()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the links hold both ends of every connection
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="soak-") as folder,
            Lab(Path(folder), 20 if options.minutes < 2 else 60) as lab,
        ):
            return _soak(lab, str(seed), frozenset(options.without), began, began + options.minutes * 60)
    except NoRestart as exc:
        return _failed(f"{exc}; leave it out with --without '{RESTART}'")
    except NoBrowser as exc:
        return _failed(exc)
    except Stopped as exc:
        _failed(exc)
        return exc.status


def _failed(why: object) -> int:
    print(f"soak: {why}", file=sys.stderr, flush=True)
    return 1


def _soak(lab: Lab, seed: str, without: frozenset[str], began: float, deadline: float) -> int:
    clients = Clients()
    trouble = Trouble(lab, clients, seed, without, patient=deadline - began >= 2 * ROUND)
    crowd = _Crowd(lab, clients, seed)
    left: list[str] = []
    try:
        _rounds(lab, clients, trouble, crowd, left, began, deadline)
    except Stopped as exc:
        _failed(exc)
        crowd.stop()
        _report(clients, trouble, left)
        print("The last round was not checked.")
        return exc.status
    crowd.close()
    if not any("," not in kind for kind in clients.done):
        clients.was_lost("all", "not a single session was whole")
    return _report(clients, trouble, left)


def _rounds(
    lab: Lab, clients: Clients, trouble: Trouble, crowd: _Crowd, left: list[str], began: float, deadline: float
) -> None:
    """Cause trouble, and check what is left after each minute of it, until the time is over or something is left."""
    last = max(deadline - RESERVE, time.monotonic() + LEAST)
    number = 0
    while not number or (not left and time.monotonic() < last):
        number, now = number + 1, time.monotonic()
        until = last if now + ROUND + RESERVE >= last else now + ROUND
        crowd.begin()
        trouble.last(until, kills_until=deadline - lab.resume_for if until == last else until)
        if stuck := crowd.rest():
            left.append(f"round {number}: {stuck} did not finish")
            return
        for link in (*lab.links, lab.service):
            link.let_go_of_broken()
        found = [*trouble.failed_restarts(), *lab.check()]
        left += [f"round {number}: {line}" for line in found]
        minutes = (time.monotonic() - began) / 60
        print(f"{minutes:5.1f} min  {clients.done.total()} sessions, {trouble.done.total()} faults, "
              f"{len(clients.lost)} lost, {len(found)} left; {lab.memory()}", flush=True)  # fmt: skip


class _Crowd:
    """All users, in threads of their own; between two rounds they rest."""

    def __init__(self, lab: Lab, clients: Clients, seed: str) -> None:
        self._clients = clients
        self._users = [User(lab, clients, f"user-{number}", seed, kinds) for number, kinds in enumerate(USERS)]
        self._browser = _Browser(lab, clients, seed)
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def begin(self) -> None:
        """Let all begin. Raises NoBrowser."""
        self._over = threading.Event()
        self._browser.begin(self._over)
        self._threads = [threading.Thread(target=user.run, args=(self._over,), daemon=True) for user in self._users]
        for thread in self._threads:
            thread.start()

    def rest(self, seconds: float = 2 * STEP) -> str:
        """Let all sessions end; return who did not finish, "" for nobody."""
        self._over.set()
        for thread in self._threads:
            thread.join(seconds)
        stuck = sum(thread.is_alive() for thread in self._threads)
        who = [f"{stuck} users"] if stuck else []
        if not self._browser.rest(seconds):
            who.append("the browser")
        return " and ".join(who)

    def stop(self) -> None:
        """End all sessions now."""
        self._clients.stop()
        self._over.set()
        self._browser.kill()
        self.rest(HURRY)
        self._browser.close(HURRY)

    def close(self) -> None:
        self._browser.close(STEP)


class NoBrowser(Exception):
    """The browser cannot be started."""


class _Browser:
    """The browser, which stays in one thread, because its library requires that."""

    def __init__(self, lab: Lab, clients: Clients, seed: str) -> None:
        self._lab, self._clients, self._seed = lab, clients, seed
        self._begin = threading.Semaphore(0)
        self._is_up, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._problem = ""
        self._over: threading.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, over: threading.Event) -> None:
        """Let it visit its page until ``over``. Raises NoBrowser."""
        self._is_up.wait()
        if self._problem:
            raise NoBrowser(f"no browser: {self._problem}")
        if self._thread.is_alive():  # otherwise it has crashed, which is reported already
            self._idle.clear()
            self._over = over
            self._begin.release()

    def rest(self, seconds: float) -> bool:
        """Wait until it has left its page; return whether it has."""
        return self._idle.wait(seconds)

    def kill(self) -> None:
        """Kill the browser itself, so that nothing waits for its page. Python would crash if its thread did not end."""
        self._is_up.wait()
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                if b"chromium" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def close(self, seconds: float) -> None:
        self._over = None
        self._begin.release()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with chromium() as browser:
                self._is_up.set()
                while self._begin.acquire() and self._over is not None:
                    use_page(self._lab, self._clients, self._seed, browser, self._over)
                    self._idle.set()
        except (BrowserError, AssertionError) as exc:
            if self._is_up.is_set():
                self._clients.was_lost(KIND, f"no browser any more: {exc}")
            else:
                self._problem = str(exc)
            self._idle.set()
            self._is_up.set()


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
