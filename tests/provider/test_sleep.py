"""A sandbox that is paused while a session is open: the session waits for it, and the next key wakes it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS
from tests.provider.cloud import Cloud, Fault
from tests.provider.conftest import environment_of
from tests.provider.machines import PAUSED, RUNNING, Machine
from tunnel.client import outage as outages
from tunnel.client.outage import Outage
from tunnel.errors import ConnectionLost, ProviderError

Start = Callable[..., Process]


@pytest.fixture
def start(bed: Bed, tunnel_environ: dict[str, str]) -> Start:
    """Start a session with a sandbox, in which one byte has come back."""

    def run(machine: Machine, *words: str) -> Process:
        client = bed.start(*OURS, "connect", *words, machine.id, stdin=subprocess.PIPE, env=tunnel_environ)
        type_and_see(client, "x")
        return client

    return run


def type_and_see(client: Process, text: str) -> None:
    """Type, and wait until it has been sent back."""
    seen = client.out.read_text()
    client.feed(text.encode())
    for _ in ticks(20):
        if client.out.read_text() == seen + text:
            return
    raise AssertionError(f"no {text!r} behind {seen!r}\n{client.log()}")


def end(client: Process) -> list[str]:
    client.end_input()
    assert client.wait(20) == 0, client.log()
    return client.err.read_text().splitlines()


def paused(machine: Machine) -> str:
    return f"sandbox {machine.id} is paused"


def test_a_client_whose_input_has_ended_does_not_wake_the_sandbox(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine, "--reconnect-for", "2")
    machine.pause()
    client.wait_for_line(paused(machine))
    client.end_input()
    assert client.wait(60) == 75  # there is no key any more that could wake it: the limit counts
    assert (machine.state, len(cloud.asked("connect"))) == (PAUSED, 1)


def test_an_idle_session_that_comes_back_gives_its_sandbox_no_time(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, timeout=100)
    client = start(machine, "--sandbox-timeout", "4")
    time.sleep(2.5)  # the last access is more than half over
    asked = len(cloud.asked("connect"))
    machine.cut_connections()
    type_and_see(client, "x")
    assert (asked, len(cloud.asked("connect"))) == (1, 1)
    end(client)


@pytest.mark.parametrize("private", [False, True])
def test_a_key_wakes_it_and_nothing_is_lost(cloud: Cloud, start: Start, private: bool) -> None:
    machine = cloud.create(real=True, autoPause=True, network={"allowPublicTraffic": not private})
    client = start(machine)
    machine.pause()
    client.wait_for_line(paused(machine))
    if private:
        machine.rotate()
    assert machine.state == PAUSED
    asked = len(cloud.asked("connect"))
    type_and_see(client, "after a while")
    assert (machine.state, len(cloud.asked("connect"))) == (RUNNING, asked + 1)
    machine.pause()
    for _ in ticks(20):
        if client.log().count(paused(machine)) == 2:
            break
    type_and_see(client, "and again")
    line = f"wstunnel-py: {paused(machine)}; the next key wakes it"
    told = [each for each in end(client) if "connected again" not in each]
    assert told == [line, line]


def test_it_sleeps_when_its_time_is_over_and_nothing_was_typed(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True, timeout=5)
    client = start(machine, "--sandbox-timeout", "5")
    client.wait_for_line(paused(machine), 30)
    asked = len(cloud.asked("connect"))
    time.sleep(1)
    assert (machine.state, len(cloud.asked("connect"))) == (PAUSED, asked)
    type_and_see(client, "good morning")
    end(client)


def test_what_waits_is_not_read_before_it_can_be_sent(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine)
    machine.pause()
    client.wait_for_line(paused(machine))
    cloud.wake_seconds = 8.0  # much longer than it takes until the user is told
    client.feed(b"one ")
    client.wait_for_line(f"waiting for sandbox {machine.id} to wake up")
    client.feed(b"two")
    client.wait_for_line("xone two")
    end(client)


def test_the_limit_stands_still_while_it_sleeps(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine, "--reconnect-for", "2")
    machine.pause()
    client.wait_for_line(paused(machine))
    time.sleep(3)
    assert client.status is None
    type_and_see(client, "still here")
    end(client)


def test_it_is_woken_at_once_if_that_is_wanted(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine, "--wake", "always")
    machine.pause()
    for _ in ticks(20):
        if machine.state == RUNNING:
            break
    type_and_see(client, "awake")
    assert not any(paused(machine) in line for line in end(client))


def test_it_is_never_woken_if_that_is_not_wanted(
    bed: Bed, cloud: Cloud, start: Start, tunnel_environ: dict[str, str]
) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine, "--wake", "never")
    machine.pause()
    client.wait_for_line(rf"{paused(machine)}; this client does not wake it \(--wake\)")
    client.feed(b"hello?")
    finished = bed.run(*OURS, "connect", "--wake", "never", machine.id, stdin=b"", env=tunnel_environ)
    assert (finished.status, finished.stderr) == (75, f"wstunnel-py: {paused(machine)}; --wake on-input wakes it\n")
    assert machine.state == PAUSED
    machine.resume(300)  # by somebody else
    for _ in ticks(60):
        if client.out.read_text() == "xhello?":
            break
    assert client.out.read_text() == "xhello?"
    end(client)


def test_a_sandbox_that_has_ended_ends_the_session(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True)
    client = start(machine)
    machine.kill()
    assert client.wait(30) == 69
    (line,) = client.err.read_text().splitlines()
    assert f"the session is over and cannot be resumed: {cloud.url} has no sandbox {machine.id}" in line


def test_a_client_that_returns_from_an_outage_does_not_wake_the_sandbox(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True, autoPause=True)
    client = start(machine)
    fault = Fault("GET", 503, {"code": 503, "message": "busy"})
    cloud.faults.append(fault)
    machine.pause()
    for _ in ticks(20):
        if len(cloud.asked("GET")) > 3:
            break
    cloud.faults.clear()
    client.wait_for_line(paused(machine))
    assert (machine.state, len(cloud.asked("connect"))) == (PAUSED, 1)
    type_and_see(client, "now")
    end(client)


def test_an_outage_of_the_network_is_none_of_the_sandbox(cloud: Cloud, start: Start) -> None:
    machine = cloud.create(real=True)
    client = start(machine)
    cloud.faults.append(Fault("GET", 503, {"code": 503, "message": "busy"}))
    machine.cut_connections()
    type_and_see(client, "on")
    assert (len(cloud.asked("connect")), end(client)) == (1, [])


def test_a_session_keeps_its_access_where_no_file_can_be_written(
    bed: Bed, cloud: Cloud, tunnel_environ: dict[str, str], tmp_path: Path
) -> None:
    machine = cloud.create(real=True, network={"allowPublicTraffic": False})
    env = {**tunnel_environ, "XDG_CACHE_HOME": str(tmp_path / "file" / "cache")}
    (tmp_path / "file").touch()
    client = bed.start(*OURS, "connect", machine.id, stdin=subprocess.PIPE, env=env)
    type_and_see(client, "x")
    cloud.faults.append(Fault(status=503, body={"code": 503, "message": "busy"}))
    for word in ("one", "two"):
        machine.cut_connections()
        type_and_see(client, word)
    assert (len(cloud.asked("connect")), end(client)) == (1, [])


def test_ssh_goes_on_where_it_was(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    with Cloud(bed, sshd.port) as cloud:
        machine = cloud.create(real=True, autoPause=True)
        config = sshd.write_client_config(tmp_path / "config", (*OURS, "%h"))
        command = "while read -r word; do echo got $word; done"
        ssh = bed.start(
            "ssh", "-F", str(config), machine.id, command, stdin=subprocess.PIPE, env=environment_of(cloud, tmp_path)
        )
        ssh.feed(b"one\n")
        ssh.wait_for_line("got one")
        machine.pause()
        ssh.wait_for_line(f"{paused(machine)}; the next key wakes it")
        ssh.feed(b"two\n")
        ssh.wait_for_line("got two")
        ssh.end_input()
        assert ssh.wait(20) == 0


# ---- Sans-I/O


def test_time_while_the_sandbox_sleeps_does_not_count_as_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "backoff", lambda failures, **limits: min(limits["longest"], 10.0 * 2**failures))
    outage = Outage(100.0, 60.0, "it was lost", 0)
    looks = []
    now = 110.0
    for number in range(5):
        assert outage.asleep(now) == (number == 0)
        outage.check(now)
        looks.append(outage.next_look(dialling=False) - now)
        now += looks[-1]
    assert looks == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert outage.next_look(dialling=True) == float("inf")
    outage.awake(5000.0)
    outage.awake(6000.0)  # it is awake already
    assert outage.deadline == 160.0 + 4890.0
    outage.check(5049.0)
    with pytest.raises(ConnectionLost):
        outage.check(5050.0)


def test_a_sandbox_that_does_not_wake_is_reported() -> None:
    outage = Outage(100.0, 600.0, "it was lost", 0)
    outage.asleep(101.0)
    assert outage.notice(2000.0) == ""  # of its sleep the user was told then
    outage.awake(2000.0)
    outage.failed(ProviderError("api-quota", api="https://api.test", message="too many run"), 2000.0)
    assert outage.notice(2009.0) == ""
    line = "connection lost, trying again for 42 min (https://api.test answered 429: too many run)"
    assert (outage.notice(2010.0), outage.notice(2011.0)) == (line, "")
    assert outage.over(2020.0) == "connected again after 32 min"
