"""What people do with ssh itself, through our two ends and through each of them paired with the real websocat."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.bed.processes import Bed, running, ticks
from tests.bed.targets import checksum
from tests.bed.tunnels import PROGRAMS, Route, assert_sessions_answer

SESSIONS = 50


def test_the_installed_command_takes_the_url_from_the_environment(bed: Bed, own_route: Route) -> None:
    assert (PROGRAMS / "wstunnel-py").exists(), "the project is not installed: scripts/test does it"
    environment = {"WSTUNNEL_PY_URL": f"{own_route.bridge.url}/", "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    ssh = own_route.ssh("-o", "ProxyCommand=wstunnel-py %h", "box", "echo through")
    assert bed.check(*ssh, env=environment).text == "through\n"


def test_exit_status_and_standard_error_come_back_apart(bed: Bed, route: Route) -> None:
    finished = bed.run(*route.ssh("box", "echo out; echo err >&2; exit 7"))
    assert (finished.status, finished.text, finished.stderr) == (7, "out\n", "err\n")


def test_a_command_killed_by_a_signal_is_told_apart_from_its_success(bed: Bed, route: Route) -> None:
    finished = bed.run(*route.ssh("box", "echo before; kill -9 $$"))
    assert (finished.status, finished.text) == (255, "before\n")


def test_a_remote_command_gets_a_terminal_when_ssh_requests_one(bed: Bed, route: Route) -> None:
    session = bed.start(
        *route.ssh("-tt", "box", 'test -t 0 && tty; read line; echo "got $line"; exit 3'), stdin=subprocess.PIPE
    )
    session.wait_for_line("/dev/pts/")
    session.feed(b"hello\n")
    assert session.wait(20) == 3
    assert "got hello" in session.log()


def test_standard_input_from_a_file_arrives_whole_and_ends(bed: Bed, route: Route, samples: list[Path]) -> None:
    for sample in samples[:5]:
        finished = bed.check(*route.ssh("box", "sha256sum"), stdin=sample)
        assert finished.text.split()[0] == checksum(sample.read_bytes())


def test_twenty_megabytes_both_ways_at_once_arrive_byte_for_byte(bed: Bed, route: Route, samples: list[Path]) -> None:
    data = samples[-1].read_bytes()[:20_000_000]
    finished = bed.check(*route.ssh("box", "cat"), stdin=data)
    assert checksum(finished.stdout) == checksum(data)


def test_a_command_put_in_the_background_runs_on_and_its_output_arrives(bed: Bed, route: Route) -> None:
    """``ssh -f`` ends its first process after the login and goes on as a daemon, which holds the output files open."""
    session = bed.start(*route.ssh("-f", "box", "echo first; sleep 0.5; echo last"))
    assert session.wait(20) == 0
    for _ in ticks(20):
        if session.out.read_text() == "first\nlast\n":
            break
    assert session.out.read_text() == "first\nlast\n"


def test_no_client_is_left_behind_when_ssh_has_ended(bed: Bed, route: Route) -> None:
    bed.check(*route.ssh("box", "true"))
    for _ in ticks(60):
        if not running(route.bridge.url):
            break
    assert running(route.bridge.url) == []


def test_one_connection_carries_many_sessions(bed: Bed, route: Route, short_folder: Path) -> None:
    control = str(short_folder / "control")
    master = bed.start(*route.ssh("-M", "-S", control, "-N", "box"))
    for _ in ticks(20):
        if Path(control).exists():
            break
    for number in range(10):
        finished = bed.check(*route.ssh("-S", control, "-o", "ProxyCommand=false", "box", f"echo {number}"))
        assert finished.text == f"{number}\n"
    bed.check(*route.ssh("-S", control, "-O", "exit", "box"))
    master.wait(20)


@pytest.mark.timeout(300)
def test_fifty_sessions_at_once_each_get_their_own_answer(bed: Bed, route: Route) -> None:
    assert_sessions_answer(bed, route, SESSIONS, 90)
