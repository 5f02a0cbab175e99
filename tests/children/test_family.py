"""Which processes a kill reaches, and which go on when the terminal's process ends or its client disconnects."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.pty.beds import alive, start_service
from tests.pty.raw import Raw, Stream, eventually

# Ways to leave a terminal. Each ends as a process whose pid is in the given file.
DAEMONS = {
    "setsid": "setsid sh -c 'echo $$ >{0}; exec sleep 600' &",
    "nohup": "nohup sh -c 'echo $$ >{0}; exec sleep 600' >/dev/null 2>&1 &",
    "double fork": "(setsid sh -c '(echo $$; exec sleep 600) & echo $! >{0}' >/dev/null 2>&1 &);",
    "daemon without environment": "env -i setsid sh -c 'echo $$ >{0}; exec sleep 600' &",
    "child of a daemon without environment": (
        "setsid sh -c 'env -i setsid sh -c \"echo \\$\\$ >{0}; exec sleep 600\" & wait' >/dev/null 2>&1 &"
    ),
    "deaf": "setsid sh -c 'trap \"\" HUP TERM INT; echo $$ >{0}; while :; do sleep 600; done' &",
    "stopped": "setsid sh -c 'echo $$ >{0}; kill -STOP $$; exec sleep 600' &",
}  # fmt: skip
LIVES_ON = ("setsid", "nohup", "double fork")
everyone = pytest.mark.parametrize("way", DAEMONS)


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[Path]:
    """A file for the pid of a daemon, which is killed after the test."""
    yield tmp_path / "pid"
    for path in (tmp_path / "pid", tmp_path / "other"):
        if path.exists() and path.read_text().strip() and alive(int(path.read_text())):
            os.kill(int(path.read_text()), signal.SIGKILL)


def daemon_in(noted: Path) -> int:
    assert eventually(lambda: noted.exists() and noted.read_text().strip())
    return int(noted.read_text())


def begin(raw: Raw, way: str, noted: Path, then: str = "exec sleep 600", **headers: str) -> tuple[Stream, int]:
    """Start a terminal whose shell starts a daemon and goes on."""
    script = f"{DAEMONS[way].format(noted)} while [ ! -s {noted} ]; do sleep 0.02; done; {then}"
    stream = raw.terminal("/bin/sh", "-c", script, headers=headers)
    pid = daemon_in(noted)
    if then.startswith("exec"):
        assert eventually(lambda: Path(f"/proc/{stream.pid}/comm").read_text() == "sleep\n")
    return stream, pid


def gone(pid: int) -> bool:
    return eventually(lambda: not alive(pid))


@everyone
def test_a_kill_reaches_what_has_left_the_terminal(raw: Raw, noted: Path, way: str) -> None:
    stream, daemon = begin(raw, way, noted)
    assert alive(daemon)
    assert raw.kill(stream.pid).status == 200
    assert gone(daemon)
    assert not Path(f"/proc/{stream.pid}").exists()


def test_a_kill_reaches_a_daemon_of_a_command_on_pipes(raw: Raw, noted: Path) -> None:
    stream = raw.pipes("/bin/sh", "-c", f"{DAEMONS['double fork'].format(noted)} exec sleep 600")
    daemon = daemon_in(noted)
    raw.kill(stream.pid)
    assert gone(daemon)


def test_a_kill_reaches_processes_that_are_forked_meanwhile(raw: Raw, tmp_path: Path) -> None:
    """Processes that fork, leave the session and end all the time, so that every look at /proc is outdated."""
    chain, beats = tmp_path / "chain", tmp_path / "beats"
    chain.write_text(f"#!/bin/sh\necho >>{beats}\nsetsid sh {chain} >/dev/null 2>&1 &\n")
    stream = raw.terminal("/bin/sh", "-c", f"for i in 1 2 3; do sh {chain} & done; exec sleep 600")

    def rests() -> bool:
        before = beats.stat().st_size
        time.sleep(1)
        return beats.stat().st_size == before

    try:
        assert eventually(lambda: beats.exists() and beats.stat().st_size > 30)
        raw.kill(stream.pid)
        assert eventually(rests, 10)
    finally:
        chain.write_text("")


def test_a_time_limit_reaches_it_too(raw: Raw, noted: Path) -> None:
    stream, daemon = begin(raw, "double fork", noted, **{"Connect-Timeout-Ms": "6000"})
    assert alive(daemon)
    assert gone(daemon)
    assert stream.finish().error is not None


def test_a_daemon_outlives_a_terminal_that_is_killed_on_disconnect(raw: Raw, noted: Path) -> None:
    stream, daemon = begin(raw, "double fork", noted, **{"Wstunnel-On-Disconnect": "kill; grace=0"})
    stream.close()
    assert gone(stream.pid)
    assert alive(daemon)


@pytest.mark.parametrize("way", LIVES_ON)
def test_a_service_that_stops_takes_it_along(bed: Bed, noted: Path, way: str) -> None:
    service = start_service(bed)
    with Raw(service.url) as raw:
        _, daemon = begin(raw, way, noted)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        assert gone(daemon)


@pytest.mark.parametrize("way", LIVES_ON)
def test_it_lives_on_when_the_shell_ends_by_itself(raw: Raw, noted: Path, way: str) -> None:
    stream, daemon = begin(raw, way, noted, then="exit 5")
    stream.finish()
    assert stream.ended is not None and stream.ended["exitCode"] == 5
    assert not eventually(lambda: not alive(daemon), 0.5)


def test_it_lives_on_when_the_client_goes(raw: Raw, noted: Path) -> None:
    stream, daemon = begin(raw, "setsid", noted)
    stream.close()
    assert not eventually(lambda: not alive(daemon), 0.5)
    assert alive(stream.pid)
    raw.kill(stream.pid)


def test_sigterm_is_for_the_session_and_spares_what_has_left_it(raw: Raw, noted: Path) -> None:
    stream, daemon = begin(raw, "setsid", noted)
    raw.kill(stream.pid, "SIGNAL_SIGTERM")
    assert gone(stream.pid)
    assert not eventually(lambda: not alive(daemon), 0.5)


def test_a_kill_spares_what_other_terminals_have_started(raw: Raw, noted: Path) -> None:
    other = noted.with_name("other")
    stream, daemon = begin(raw, "double fork", noted)
    neighbour, spared = begin(raw, "double fork", other)
    raw.kill(stream.pid)
    assert gone(daemon)
    assert alive(spared) and alive(neighbour.pid)
    raw.kill(neighbour.pid)
    assert gone(spared)


def test_a_client_cannot_take_the_mark_away(raw: Raw, noted: Path) -> None:
    stream = raw.terminal(
        "/bin/sh", "-c", f"{DAEMONS['double fork'].format(noted)} exec sleep 600", envs={"WSTUNNEL_CHILD": ""}
    )
    daemon = daemon_in(noted)
    raw.kill(stream.pid)
    assert gone(daemon)


def test_a_kill_reaches_through_a_service_that_runs_in_a_terminal(raw: Raw, noted: Path) -> None:
    command = (sys.executable, "-m", "tunnel", "serve", "--listen", "none", "--pty", "127.0.0.1:0")
    stream = raw.terminal(*command, envs={"PYTHONPATH": os.environ["PYTHONPATH"]})
    stream.wait_for(b"(auth: none)")
    url = next(word for word in stream.output.decode().split() if word.startswith("http"))
    with Raw(url) as inner:
        _, daemon = begin(inner, "double fork", noted)
        raw.kill(stream.pid)
        assert gone(daemon)
