"""What a user sees of an outage in a real terminal: an interactive ssh in tmux, scp's progress, and the screen."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Bridge, Route, start_bridge
from tests.faults.link import Link, Plan
from tests.pty.test_shell_tmux import Tmux
from tests.pty.typist import Typist

PROMPT = "box> "
SHELL = f"env PS1='{PROMPT}' /bin/bash --norc --noprofile -i"
LOST = r"connection lost, trying again for 10 min \(.*refused the connection: nothing is listening there\)"
COLUMNS = 250  # so that no line of ours is wrapped


def port_of(bridge: Bridge) -> int:
    return int(bridge.url.rpartition(":")[2])


def route_through(bed: Bed, sshd: Sshd, link: Link, bridge: Bridge, *options: str) -> Route:
    config = sshd.write_client_config(bed.folder / "ssh_config", (*OURS, "connect", *options, link.url))
    return Route(config, bridge)


@pytest.fixture
def tmux(bed: Bed, short_folder: Path) -> Iterator[Tmux]:
    tmux = Tmux(bed, short_folder, {"PYTHONPATH": os.environ["PYTHONPATH"]})
    yield tmux
    tmux.close()


def open_ssh(tmux: Tmux, route: Route) -> None:
    tmux.open("sh", "-c", '"$@"; echo "[ended with $?]"; read _', "sh", *route.ssh("-tt", "box", SHELL), cols=COLUMNS)
    tmux.see(rf"^{PROMPT.strip()}$")


def own_lines(screen: str) -> list[str]:
    """The lines that the client has printed. Each begins in the first column, and nothing else is on them."""
    lines = [line for line in screen.splitlines() if "wstunnel-py" in line]
    assert all(line.startswith("wstunnel-py: ") and line.count("wstunnel-py: ") == 1 for line in lines), screen
    return [line.removeprefix("wstunnel-py: ") for line in lines]


def test_the_beginning_and_end_of_an_outage_are_reported_on_separate_lines(tmux: Tmux, bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    with Link(port_of(bridge)) as link:
        open_ssh(tmux, route_through(bed, sshd, link, bridge))
        tmux.type("half a li")  # the cursor is in the middle of a line
        tmux.see(r"^box> half a li$")
        link.refuse_new()
        link.break_all("rst")
        tmux.see(r"^wstunnel-py: connection lost")
        link.accept_new()
        tmux.see(r"^wstunnel-py: connected again after")
        tmux.type("C-u", "echo $((40+2))", "Enter")
        screen = tmux.see(r"^42$")
        lost, back = own_lines(screen)
        assert re.fullmatch(LOST, lost)
        assert re.fullmatch(r"connected again after [1-9]\d s", back)
        assert re.search(r"^box> half a li", screen, re.MULTILINE), "what was on the screen stays there"
        tmux.type("exit 3", "Enter")
        tmux.see(r"^\[ended with 3\]$")


def test_an_outage_that_lasts_ends_with_a_line_that_says_what_to_do(tmux: Tmux, bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    with Link(port_of(bridge)) as link:
        open_ssh(tmux, route_through(bed, sshd, link, bridge, "--reconnect-for", "12"))
        link.refuse_new()
        link.break_all("rst")
        screen = tmux.see(r"^\[ended with 255\]$")
        lost, over = own_lines(screen)
        assert lost.startswith("connection lost, trying again for 12 s (")
        assert over.startswith("the session is over: gave up after 12 s without a connection: ")
        assert "connect again for a new one; --reconnect-for sets how long the client tries" in over


def test_a_bridge_that_stops_says_so_on_a_line_of_its_own(tmux: Tmux, bed: Bed, sshd: Sshd) -> None:
    bridge = start_bridge(bed, "ours", sshd.port, "--drain", "0.1")
    with Link(port_of(bridge)) as link:
        open_ssh(tmux, route_through(bed, sshd, link, bridge))
        bridge.process.end()
        (over,) = own_lines(tmux.see(r"^\[ended with 255\]$"))
        assert over.startswith("the session is over: the bridge is stopping")
        assert over.endswith("; connect again for a new one once the bridge is back")


def test_a_progress_bar_is_interrupted_twice_at_most(bed: Bed, sshd: Sshd, tmp_path: Path) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    sample, copy = tmp_path / "sample", tmp_path / "copy"
    sample.write_bytes(random.Random("progress").randbytes(8_000_000))
    with Link(port_of(bridge), Plan(rate=1_000_000)) as link:
        route = route_through(bed, sshd, link, bridge)
        with Typist("scp", "-F", str(route.config), f"box:{sample}", str(copy), cols=COLUMNS) as scp:
            link.wait_for_bytes("down", 1_000_000)
            link.refuse_new()
            link.break_all("rst")
            scp.see("connection lost")
            link.plan(Plan())
            link.accept_new()
            for _ in ticks(1.0, 0.1):  # short outages, of which nothing is told
                link.break_all("rst")
            assert scp.wait() == 0
        shown = scp.output.data.decode()
    assert copy.read_bytes() == sample.read_bytes()
    assert shown.count("wstunnel-py: ") == 2, shown
    assert "connected again after" in shown
