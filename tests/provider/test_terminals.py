"""Terminals in sandboxes that sleep: ``shell``, ``pty ps`` and the classes for Python, with E2B's key alone."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunnel
from tests.bed.processes import Bed, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.provider.cloud import KEY, Cloud, Fault
from tests.provider.machines import DAEMON, KILLED, PAUSED, RUNNING, Machine
from tests.pty.typist import Typist

PRIVATE: dict[str, Any] = {"network": {"allowPublicTraffic": False}, "autoPause": True}


@pytest.fixture
def secure(
    bed: Bed,
    echo_target: Target,
    cloud_tls: tuple[ssl.SSLContext, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cloud]:
    """A cloud as E2B's is, and the variables of its user in this process's environment."""
    context, ca_file = cloud_tls
    with Cloud(bed, echo_target.port, context) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield cloud


@pytest.fixture
def machine(secure: Cloud) -> Machine:
    return secure.create(real=True, **PRIVATE)


def test_a_paused_private_sandbox_is_reached_with_a_key_alone(bed: Bed, secure: Cloud, machine: Machine) -> None:
    machine.pause()
    for host in (machine.id, f"{machine.id}.e2b"):
        finished = bed.check(*OURS, "shell", host, "--", "echo", "here")
        assert (finished.stdout, finished.stderr) == (b"here\r\n", "")
    assert bed.check(*OURS, "pty", "ps", machine.id).text.startswith("PID")
    assert [each.path for each in secure.requests] == [f"/sandboxes/{machine.id}/connect"]
    assert all(KEY not in head for head in secure.edge.heads)
    port = f"host: 8081-{machine.id}"
    assert all(machine.envd_token in head for head in secure.edge.heads if port not in head.lower())


def test_an_idle_shell_lets_it_sleep_and_a_key_wakes_it(secure: Cloud, machine: Machine) -> None:
    with Typist(*OURS, "shell", machine.id, "--", "sh", "-c", "while read -r w; do echo got-$w; done") as typist:
        typist.type("one\r")
        typist.see("got-one")
        machine.pause()
        typist.see(f"sandbox {machine.id} is paused; the next key wakes it")
        assert (machine.state, len(secure.asked("connect"))) == (PAUSED, 1)
        typist.type("two\r")
        typist.see("got-two")
        assert (machine.state, len(secure.asked("connect"))) == (RUNNING, 2)


def test_a_window_that_was_resized_while_it_slept_has_its_size_there(secure: Cloud, machine: Machine) -> None:
    command = "while :; do stty size; sleep 0.1; done"
    with Typist(*OURS, "shell", machine.id, "--", "sh", "-c", command) as typist:
        typist.see("24 80")
        machine.pause()
        typist.see(f"sandbox {machine.id} is paused")
        typist.resize(30, 100)
        for _ in ticks(20):
            if len(secure.asked("GET")) >= 2:  # of the output, and of the size
                break
        assert machine.state == PAUSED
        typist.type("x")
        typist.see("30 100")


def test_a_sandbox_that_has_ended_ends_the_shell(secure: Cloud, machine: Machine) -> None:
    with Typist(*OURS, "shell", machine.id, "--", "sh", "-c", "echo re''ady; read -r w") as typist:
        typist.see("ready")
        machine.state = KILLED  # without a last word of the terminal service
        machine.cut_connections()
        typist.see(f"{secure.url} has no sandbox {machine.id}")  # nothing is typed
        assert typist.wait() == 255


@pytest.mark.parametrize("leave", ["~.", "signal"])
def test_a_user_who_leaves_does_not_wake_the_sandbox(secure: Cloud, machine: Machine, leave: str) -> None:
    with Typist(*OURS, "shell", machine.id, "--", "sh", "-c", "while read -r w; do echo got-$w; done") as typist:
        typist.type("one\r")
        typist.see("got-one")
        machine.pause()
        typist.see(f"sandbox {machine.id} is paused")
        if leave == "signal":
            typist.send_signal(signal.SIGHUP)
        else:
            typist.type(leave)
        assert typist.wait() == (129 if leave == "signal" else 0)
        typist.see(f"the service could not be notified that this client has left (sandbox {machine.id} is paused)")
        assert (machine.state, len(secure.asked("connect"))) == (PAUSED, 1)


@pytest.mark.parametrize(("status", "pauses"), [(429, True), (500, True), (0, False)])
def test_a_key_waits_for_an_api_or_an_edge_that_refuses_for_a_moment(
    secure: Cloud, machine: Machine, status: int, pauses: bool
) -> None:
    with Typist(*OURS, "shell", machine.id, "--", "sh", "-c", "while read -r w; do echo got-$w; done") as typist:
        typist.type("one\r")
        typist.see("got-one")
        if pauses:
            machine.pause()
            typist.see(f"sandbox {machine.id} is paused")
            secure.faults.append(Fault("connect", status, {"code": status, "message": "not now"}))
        else:
            machine.connection_limit = 0
            machine.cut_connections()
        refused = len(secure.edge.answers)
        typist.type("two\r")
        for _ in ticks(20):
            if [status for _, status in secure.edge.answers[refused:]].count(502 if pauses else 429) >= 3:
                break
        secure.faults.clear()
        machine.connection_limit = 1000
        typist.see("got-two")


def test_a_shell_is_longer_than_its_sandboxs_time(secure: Cloud) -> None:
    machine = secure.create(real=True, timeout=60)
    words = ("shell", "--sandbox-timeout", "5", machine.id, "--", "sh", "-c", "while read -r w; do echo got-$w; done")
    with Typist(*OURS, *words) as typist:
        typist.type("begun\r")
        typist.see("got-begun")
        machine.extend(5, shorter=True)  # not before, as the client may take long to start
        for number, _ in enumerate(ticks(8, 0.5)):
            typist.type(f"{number}\r")
            typist.see(f"got-{number}")
        assert machine.state == RUNNING


def test_what_goes_wrong_is_reported_in_one_line(bed: Bed, secure: Cloud, machine: Machine) -> None:
    finished = bed.run(*OURS, "shell", machine.id, env={"E2B_API_KEY": "wrong"})
    line = f"{secure.url} refused the API key from E2B_API_KEY: Unauthorized, please check your credentials."
    assert (finished.status, finished.stderr) == (255, f"wstunnel-py: {line}\n")
    finished = bed.run(*OURS, "shell", "--provider", "none", machine.id, "--", "true")
    assert finished.status == 255 and finished.stderr.count("\n") == 1
    secure.faults.append(Fault("connect", 500, {"code": 500, "message": "broken"}))
    finished = bed.run(*OURS, "shell", machine.id, "--", "true")
    first, second = finished.stderr.splitlines()
    assert first == f"wstunnel-py: warning: request to {secure.url} failed: it answered 500: broken; connecting anyway"
    assert finished.status == 255 and "refused access" in second  # without its token
    secure.faults[:] = [Fault("connect", 409, {"code": 409, "message": "being paused"})]
    for words in (("shell", machine.id, "--", "true"), ("pty", "ps", machine.id)):
        finished = bed.run(*OURS, *words)  # which have no --wait
        line = f"wstunnel-py: sandbox {machine.id} is changing state: being paused; try again in a while\n"
        assert finished.stderr == line
    machine.pause()
    secure.faults.clear()
    finished = bed.run(*OURS, "shell", "--wake", "never", machine.id, "--", "true")
    line = f"wstunnel-py: sandbox {machine.id} is paused; --wake on-input wakes it\n"
    assert (finished.status, finished.stderr) == (255, line)


def test_a_sandbox_is_woken_by_the_calls_of_a_program(secure: Cloud, machine: Machine) -> None:
    machine.pause()
    with tunnel.Sandbox(machine.id) as sandbox:
        assert secure.requests == []
        with sandbox.pty.create(command=["sh", "-c", "read -r w; echo got-$w"], timeout=0) as terminal:
            machine.pause()
            time.sleep(0.2)
            terminal.send_stdin(b"word\n")
            output = b"".join(terminal)
            assert b"got-word\r\n" in output
        machine.pause()
        assert sandbox.pty.list() == []
        assert len(secure.asked("connect")) == 3
    with pytest.raises(tunnel.DialError):
        tunnel.Sandbox("i" + "0" * 19).pty.list()


def test_a_sandbox_is_woken_by_the_calls_of_an_asynchronous_program(secure: Cloud, machine: Machine) -> None:
    async def run() -> bytes:
        async with tunnel.AsyncSandbox(machine.id) as sandbox:
            terminal = await sandbox.pty.create(command=["sh", "-c", "read -r w; echo got-$w"], timeout=0)
            machine.pause()
            await asyncio.sleep(0.2)
            await terminal.send_stdin(b"word\n")
            return b"".join([data async for data in terminal])

    machine.pause()
    assert b"got-word\r\n" in asyncio.run(run())


def test_a_program_decides_who_is_asked(secure: Cloud, machine: Machine) -> None:
    with pytest.raises(tunnel.TunnelError):
        tunnel.Sandbox(machine.id, provider="none", connect_timeout=1.0).pty.list()
    with tunnel.Sandbox(f"https://{DAEMON}-{machine.id}.{secure.domain}", token=machine.envd_token) as sandbox:
        assert sandbox.pty.list() == []
    assert secure.requests == []
    with pytest.raises(tunnel.UsageError):
        tunnel.Sandbox(machine.id, provider="other")
