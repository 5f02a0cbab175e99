"""Real ssh and scp over a connection that is killed again and again: neither notices."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.sshd import Sshd
from tests.bed.targets import checksum
from tests.bed.tunnels import OURS, Bridge, Route, start_bridge
from tests.faults.link import Break, Cut, Direction, Link, Plan

HOWS: tuple[Break, ...] = ("rst", "fin")
DIRECTIONS: tuple[Direction, ...] = ("up", "down")

# The far end of the conversation: for each line ``<number> <lines to answer> <padding>`` its checksum and that many
# numbered lines. It is long enough to be seen whole, and to be checked, at the near end.
TALKER = """
import hashlib, sys
for line in sys.stdin:
    number, count, _ = line.split()
    print("got", number, hashlib.sha256(line.encode()).hexdigest())
    for n in range(int(count)):
        print(number, n, "." * 90)
    print("done", number, flush=True)
"""


def question(source: random.Random, number: int) -> tuple[str, str]:
    """A line to say, and all that must come back for it: a few bytes mostly, now and then much, in either direction."""
    padding = "x" * source.choice((1, 1, 1, 10, 1000, 100_000))
    count = source.choice((0, 0, 1, 1, 10, 1000))
    line = f"{number} {count} {padding}\n"
    answer = f"got {number} {hashlib.sha256(line.encode()).hexdigest()}\n"
    answer += "".join(f"{number} {n} {'.' * 90}\n" for n in range(count))
    return line, answer + f"done {number}\n"


class Killer:
    """Plans for a link that kills each connection at a random byte, until it has killed enough."""

    def __init__(self, kills: int, sizes: Callable[[random.Random], int]) -> None:
        self._source = random.Random("killer")
        self._left = kills
        self._sizes = sizes

    def __call__(self, number: int) -> Plan:
        if self._left == 0:
            return Plan()
        self._left -= 1
        cut = Cut(self._sizes(self._source), self._source.choice(DIRECTIONS), self._source.choice(HOWS))
        return Plan(cut)


def route_through(bed: Bed, sshd: Sshd, link: Link, bridge: Bridge) -> Route:
    config = sshd.write_client_config(bed.folder / "ssh_config", (*OURS, "connect", link.url))
    return Route(config, bridge)


def port_of(bridge: Bridge) -> int:
    return int(bridge.url.rpartition(":")[2])


def wait_for_text(process: Process, end: str, seconds: float = 60) -> None:
    """Wait until standard output ends with ``end``."""
    for _ in ticks(seconds, 0.005):
        with process.out.open("rb") as out:
            out.seek(max(0, process.out.stat().st_size - len(end)))
            if out.read() == end.encode():
                return
        assert process.status is None, f"ssh ended with {process.status}\n{process.err.read_text()}"
    raise AssertionError(f"no {end!r} within {seconds} s\n{process.err.read_text()}")


@pytest.mark.parametrize(
    "kills", [30, pytest.param(300, marks=[pytest.mark.full, pytest.mark.timeout(900)])], ids="{} kills".format
)
def test_a_session_of_questions_and_bulk_outlives_kills_at_random_bytes(bed: Bed, sshd: Sshd, kills: int) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    killer = Killer(kills, lambda source: int(10 ** source.uniform(1, 5.3)))
    source = random.Random("questions")
    said, expected = hashlib.sha256(), ""
    with Link(port_of(bridge), killer) as link:
        route = route_through(bed, sshd, link, bridge)
        talker = bed.folder / "talker.py"
        talker.write_text(TALKER)
        session = bed.start(*route.ssh("box", f"{sys.executable} -u {talker}"), stdin=subprocess.PIPE)
        number = 0
        while link.broken < kills or number < 50:
            number += 1
            line, answer = question(source, number)
            said.update(line.encode())
            session.feed(line.encode())
            expected += answer
            if number % 3:  # else it is said into the answer of the one before
                wait_for_text(session, f"done {number}\n")
        session.end_input()
        assert session.wait(60) == 0
        # Kills that hit one handshake after the other may last so long that the user is told.
        lines = session.err.read_text().splitlines()
        assert all(re.match("wstunnel-py: (connection lost, trying again|connected again)", line) for line in lines)
        assert checksum(session.out.read_bytes()) == checksum(expected.encode())
        assert link.broken >= kills


@pytest.mark.parametrize(
    "size",
    [10_000_000, pytest.param(200_000_000, marks=[pytest.mark.full, pytest.mark.timeout(1200)])],
    ids=lambda size: f"{size // 1_000_000} MB",
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_scp_with_a_cut_about_every_500_kB_copies_every_byte(
    bed: Bed, sshd: Sshd, tmp_path: Path, direction: Direction, size: int
) -> None:
    bridge = start_bridge(bed, "ours", sshd.port)
    source = random.Random("scp")
    sample, copy = tmp_path / "sample", tmp_path / "copy"
    sample.write_bytes(source.randbytes(size))
    lengths = lambda number: Plan(Cut(source.randrange(300_000, 700_000), direction, HOWS[number % 2]))  # noqa: E731
    with Link(port_of(bridge), lengths) as link:
        route = route_through(bed, sshd, link, bridge)
        near, far = str(sample), f"box:{copy}"
        if direction == "down":
            near, far = f"box:{sample}", str(copy)
        finished = bed.check("scp", "-F", str(route.config), "-q", near, far, seconds=1000)
        assert finished.stderr == ""
        assert checksum(copy.read_bytes()) == checksum(sample.read_bytes())
        assert link.broken >= size // 700_000
