"""A sandbox's time while a session is open: extended when it is due, never made shorter, and its end announced."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.provider.cloud import Cloud, Fault
from tests.provider.conftest import environment_of
from tests.provider.machines import PAUSED, RUNNING, Machine
from tunnel.client.sandbox_time import LOOK, SandboxTime
from tunnel.client.settings import resolve
from tunnel.errors import ProviderError
from tunnel.provider.keepalive import ACTIVE, FIRST_LOOK, NEVER, OPEN, KeepAlive

TIME = 5  # seconds that a sandbox has in these tests
LENGTH = 2.5 * TIME  # of the sessions


class Session:
    """A session with a sandbox of its own, in which a byte is sent back now and then until ``typed_until``.

    The sandbox has `TIME` from the moment when the client has access, as a busy machine may take long to start one; or
    as long as the ``request`` says. ``fault`` is what happens when the client asks about it.
    """

    def __init__(
        self,
        bed: Bed,
        cloud: Cloud,
        env: dict[str, str],
        *words: str,
        until: float,
        fault: dict[str, Any] | None = None,
        **request: Any,
    ) -> None:
        self.machine = cloud.create(**{"timeout": 60, **request})
        if fault is not None:
            cloud.faults.append(Fault(f"GET .*{self.machine.id}", **fault))
        options = ("--sandbox-timeout", str(TIME), *words)
        command = (*OURS, "connect", *options, self.machine.id)
        self.client = bed.start(*command, stdin=subprocess.PIPE, env=env)
        self.typed_until = until
        self.typed = 0
        self.asked: list[str] = []
        self.state = ""  # of the sandbox in the end
        self._cloud = cloud
        self._began: float | None = None
        self._has_time = "timeout" in request

    def go_on(self) -> bool:
        """Do what is due; return False once it has lasted for `LENGTH`."""
        now = time.monotonic()
        if self._began is None:
            if not self._cloud.asked(f"POST .*{self.machine.id}"):
                return True
            self._began = now
            if not self._has_time:
                self.machine.extend(TIME, shorter=True)
        if now - self._began < LENGTH:
            if now - self._began < self.typed_until or not self.typed:
                self.type()
            return True
        if not self.state:
            self.state = self.machine.state
            self.asked = [request.method for request in self._cloud.asked(self.machine.id)]
            if self.state == RUNNING:
                self.client.end_input()  # at once, before the sandbox's time is over
        return False

    def type(self) -> None:
        self.client.feed(b"x")
        self.typed += 1

    def end(self) -> str:
        """End it cleanly, and return its output."""
        self.client.end_input()
        assert self.client.wait(20) == 0, self.client.log()
        assert self.client.out.read_bytes() == b"x" * self.typed
        return self.client.err.read_text()


@pytest.fixture(scope="module")
def sessions(
    shared_bed: Bed, echo_target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Sessions of all kinds at once, after more than twice the time that their sandboxes have."""
    with Cloud(shared_bed, echo_target.port) as cloud:
        env = environment_of(cloud, tmp_path_factory.mktemp("cache"))

        def session(*words: str, until: float = LENGTH, **request: Any) -> Session:
            return Session(shared_bed, cloud, env, *words, until=until, **request)

        found = {
            "active": session(),
            "plain": session("--no-resume"),
            "open": session("--keep-alive", "open", until=0.1),
            "idle": session("--wake", "never", until=0.1, autoPause=True),
            "never": session("--keep-alive", "never", "--wake", "never", until=TIME / 2, autoPause=True),
            "long": session("--keep-alive", "open", until=0.1, timeout=3000),
            "failing": session(timeout=60, fault={"status": 500, "body": {"code": 500, "message": "broken"}}),
            "slow": session(timeout=60, fault={"delay": 8.0}),
        }
        ends = found["long"].machine.ends
        for _ in ticks(60, 0.2):
            going_on = [each.go_on() for each in found.values()]
            if not any(going_on):
                break
        assert found["long"].machine.ends == ends
        yield found


@pytest.mark.parametrize("kind", ["active", "plain", "open"])
def test_a_session_is_longer_than_its_sandboxs_time(sessions: dict[str, Session], kind: str) -> None:
    session = sessions[kind]
    assert (session.state, session.end()) == (RUNNING, "")
    assert 2 <= session.asked.count("POST") <= 7


@pytest.mark.parametrize("kind", ["idle", "never"])
def test_a_session_in_which_nothing_is_typed_or_that_is_left_alone_lets_it_sleep(
    sessions: dict[str, Session], kind: str
) -> None:
    assert sessions[kind].state == PAUSED
    assert kind == "idle" or sessions[kind].asked.count("POST") == 1


def test_time_is_never_made_shorter(sessions: dict[str, Session]) -> None:
    assert sessions["long"].end() == ""
    assert sessions["long"].asked == ["POST", "GET"]  # it has time enough


def test_a_failure_causes_a_warning_once(sessions: dict[str, Session]) -> None:
    (line,) = sessions["failing"].end().splitlines()
    assert line.startswith("wstunnel-py: the sandbox's time cannot be extended: request to http://127.0.0.1:")
    assert line.endswith(": it answered 500: broken")
    assert sessions["failing"].asked.count("GET") > 2


def test_an_api_that_is_slow_holds_nothing_up(sessions: dict[str, Session]) -> None:
    assert sessions["slow"].asked == ["POST", "GET"]
    assert sessions["slow"].end() == ""


def test_the_end_of_a_sandbox_that_may_not_live_longer_is_announced(
    bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str]
) -> None:
    cloud.longest = 10.0
    session = Session(bed, cloud, tunnel_environ, "--sandbox-timeout", "9", "--keep-alive", "open", until=0)
    pattern = rf"sandbox {session.machine.id} ends or is paused in [\d.]+ s: its time cannot be extended further\n"
    session.client.wait_for_line(pattern)
    assert session.client.log().count("its time cannot be extended") == 1


@pytest.mark.full
def test_a_session_of_a_minute_in_a_sandbox_of_twenty_seconds(
    bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str]
) -> None:
    session = Session(bed, cloud, tunnel_environ, "--sandbox-timeout", "20", until=60, timeout=20)
    for _ in ticks(60, 1.0):
        session.type()
    assert (session.machine.state, session.end()) == (RUNNING, "")


# ---- when


def times(mode: str, timeout: float = 300.0) -> KeepAlive:
    return KeepAlive(mode, timeout, timeout, 0.0)


def test_the_time_is_first_extended_after_ten_seconds() -> None:
    for mode in (ACTIVE, OPEN, NEVER):
        assert not times(mode).is_due(9.9)
    assert [times(mode).is_due(10.0) for mode in (ACTIVE, OPEN, NEVER)] == [True, True, False]


def test_time_is_extended_a_minute_after_the_last() -> None:
    open_ = times(OPEN)
    open_.lives(290.0, 10.0)
    assert (open_.next_look(10.0), open_.is_due(59.9), open_.is_due(60.0)) == (60.0, False, True)
    assert open_.expected(60.0) == 264.0
    open_.extended(300.0, 60.0)
    assert open_.next_look(60.0) == 120.0


def test_after_an_idle_period_the_next_key_extends_the_time() -> None:
    active = times(ACTIVE)
    active.note_sent(5, 10.0)
    active.extended(300.0, 100.0)
    assert active.is_due(309.0)
    assert not active.is_due(310.0)
    assert active.next_look(310.0) == float("inf")  # no call is due until something is typed
    active.note_sent(6, 350.0)
    assert active.is_due(350.0)


def test_the_longest_life_is_announced_five_minutes_before_its_end_once() -> None:
    long = times(OPEN, 3600.0)
    long.extended(2000.0, 0.0)
    assert not long.is_due(2000.0)
    assert (long.next_look(0.0), long.announcement(1699.0), long.announcement(1700.0)) == (1700.0, None, 300.0)
    assert (long.announcement(1701.0), long.next_look(1701.0)) == (None, 2010.0)


def test_a_sandbox_that_was_woken_after_its_longest_life_is_extended_again() -> None:
    open_ = times(OPEN)
    open_.extended(100.0, 0.0)
    assert open_.announcement(0.0) == 100.0
    assert not open_.is_due(109.9) and open_.is_due(110.0)
    open_.extended(50.0, 110.0)  # its end is near again, as it was before
    assert (open_.announcement(110.0), open_.is_due(169.9), open_.is_due(170.0)) == (None, False, True)
    open_.sleeps(170.0)
    open_.extended(300.0, 320.0)  # somebody has typed: it begins a life of its own
    assert (open_.next_look(320.0), open_.announcement(320.0)) == (380.0, None)
    open_.extended(100.0, 380.0)
    assert open_.announcement(380.0) == 100.0


def test_time_in_which_this_machine_was_suspended_counts() -> None:
    active = times(ACTIVE)
    active.extended(300.0, 10.0)
    active.note_sent(1, 20.0)
    active.jumped(200.0, 25.0)
    assert active.is_due(25.0)
    assert active.expected(25.0) == 264.0
    active.lives(85.0, 26.0)
    active.jumped(200.0, 27.0)
    assert not active.is_due(27.0)  # nothing was typed for longer than the sandbox's time
    active.note_sent(2, 28.0)
    assert active.is_due(28.0)


def times_of(cloud: Cloud, machine: Machine, folder: Path, notice: Callable[[str], object]) -> SandboxTime:
    """The time of a sandbox to which access was given only just."""
    sandbox = resolve(machine.id, {}, environment_of(cloud, folder)).sandbox
    assert sandbox is not None
    sandbox.access(print)
    return SandboxTime(sandbox, notice, print)


def test_a_client_that_was_suspended_asks_at_once(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, clock = cloud.create(), time.time
    times = times_of(cloud, machine, tmp_path, print)
    now = time.monotonic()
    assert times.look(now, 0) > now + LOOK
    monkeypatch.setattr(time, "time", lambda: clock() + 200.0)
    for _ in ticks(20):
        if times.look(now, 0) > now + LOOK:
            break
    assert [request.method for request in cloud.requests] == ["POST", "GET", "POST", "GET"]


def test_the_end_is_announced_soon_although_access_was_given_only_just(cloud: Cloud, tmp_path: Path) -> None:
    cloud.longest = 400.0
    machine = cloud.create()
    machine.started -= 330.0
    machine.ends = machine.started + 400.0
    told: list[str] = []
    times = times_of(cloud, machine, tmp_path, told.append)
    soon = time.monotonic() + FIRST_LOOK
    for _ in ticks(20):
        times.look(soon, 0)
        if told:
            break
    (line,) = told
    assert re.fullmatch(rf"sandbox {machine.id} ends or is paused in (69|70|71) s: its time .*", line)
    assert times.look(soon, 0) > soon + 60.0


def test_after_failures_it_is_tried_later_and_later() -> None:
    open_, error = times(OPEN), ProviderError("api-failed", api="a", problem="p")
    at, delays = 10.0, []
    for number in range(8):
        assert bool(open_.failed(error, at)) == (number == 0)
        delays.append(open_.next_look(at) - at)
        at += delays[-1]
    assert delays == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]


def test_an_unknown_sandbox_is_left_alone() -> None:
    open_ = times(OPEN)
    open_.is_over()
    assert not open_.is_due(1e6) and open_.next_look(0.0) == float("inf")
