"""A small conversation, its connection cut at every byte of either direction: nothing is lost, nothing comes twice."""

from __future__ import annotations

import itertools
import os
import random
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, checksum, read_exactly, read_to_end
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.faults.link import Break, Connection, Cut, Direction, Link, Plan

AT_ONCE = 12
LIMIT = 90.0  # seconds for one conversation, among many others on a busy machine
GREETING = b"220 who are you?\r\n"
NAME_SIZE = 12
BODY = random.Random("body").randbytes(300)
PAGE = random.Random("page").randbytes(400)
_names = itertools.count(1)
pytestmark = pytest.mark.timeout(400)  # a hundred programs are started in each test


class Listener(Target):
    """The target of the conversation; ``heard`` has what each client said in whole, by the client's name."""

    def __init__(self) -> None:
        super().__init__(self._talk)
        self.heard: dict[bytes, list[bytes]] = {}

    def _talk(self, connection: socket.socket) -> None:
        connection.sendall(GREETING)
        name = read_exactly_or_nothing(connection, NAME_SIZE)
        if not name:
            return  # a client whose connection was cut before it had a session: it has dialled anew
        connection.sendall(b"hello " + name + PAGE)
        body = read_to_end(connection)
        self.heard.setdefault(name, []).append(body)
        connection.sendall(checksum(body).encode())


def read_exactly_or_nothing(connection: socket.socket, size: int) -> bytes:
    try:
        return read_exactly(connection, size)
    except (AssertionError, OSError):
        return b""


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed, listener: Listener) -> Bridge:
    return start_bridge(shared_bed, "ours", listener.port)


def converse(bridge: Bridge, listener: Listener, plan: dict[int, Plan], *, begins: bool = True) -> Link:
    """Hold one conversation through a link with this plan, and check every byte of it at both ends.

    One that does not begin, as its first handshake is cut, is one line for the user and nothing for the target.
    """
    name = f"client-{next(_names):05}".encode()
    answer = b"hello " + name + PAGE
    with Link(int(bridge.url.rpartition(":")[2]), plan) as link:
        client = subprocess.Popen(
            [*OURS, "connect", link.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert client.stdin and client.stdout and client.stderr
        with client:
            try:
                out = client.stdout.fileno()
                heard = [read_pipe(out, len(GREETING))]
                if begins:
                    client.stdin.write(name)
                    client.stdin.flush()
                    heard.append(read_pipe(out, len(answer)))
                    client.stdin.write(BODY)
                    client.stdin.close()
                    heard.append(read_pipe(out, 1000))
                status = client.wait(LIMIT)
                errors = client.stderr.read().decode()
            finally:
                if client.poll() is None:
                    client.kill()
        if begins:
            assert (status, errors) == (0, "")
            assert heard == [GREETING, answer, checksum(BODY).encode()]
            assert listener.heard[name] == [BODY]
        else:
            assert heard == [b""] and status in (69, 76) and errors.count("\n") == 1, (heard, status, errors)
    return link


def read_pipe(fd: int, size: int) -> bytes:
    """Read ``size`` bytes, or all until the end of file."""
    data = b""
    deadline = time.monotonic() + LIMIT
    while len(data) < size and (left := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            chunk = os.read(fd, size - len(data))
            if not chunk:
                break
            data += chunk
    return data


def converse_all(bridge: Bridge, listener: Listener, plans: Sequence[dict[int, Plan]], at_once: int = AT_ONCE) -> int:
    """Hold a conversation for each of ``plans``, several at a time; return how many of them were cut."""
    handshake = converse(bridge, listener, {}).connections[0]

    def attempt(plan: dict[int, Plan]) -> tuple[str, int]:
        begins = not any(in_handshake(cut, handshake) for cut in plan[1].cuts)
        try:
            return "", converse(bridge, listener, plan, begins=begins).broken
        except (AssertionError, OSError) as exc:
            cuts = {number: each.cuts for number, each in plan.items()}
            return f"{cuts}: {str(exc)[:1500]}", 0

    with ThreadPoolExecutor(at_once) as pool:
        outcomes = list(pool.map(attempt, plans))
    failures = [failure for failure, _ in outcomes if failure]
    assert not failures, f"{len(failures)} of {len(plans)} failed:\n" + "\n".join(failures[:5])
    return sum(broken > 0 for _, broken in outcomes)


def in_handshake(cut: Cut, connection: Connection) -> bool:
    """Whether a cut hits before the client has the bridge's 101: then there is no tunnel yet that could be kept."""
    if cut.direction == "up":
        return cut.after <= len(connection.request)
    return cut.after < len(connection.response)


def sizes(bridge: Bridge, listener: Listener, plan: dict[int, Plan], number: int) -> dict[Direction, int]:
    """How many bytes each direction of connection ``number`` has."""
    connection = converse(bridge, listener, plan).connections[number - 1]
    return {"up": connection.up, "down": connection.down}


def spread(size: int, count: int) -> list[int]:
    """``count`` offsets from 0 to ``size``: some of each part, and always both ends."""
    return sorted({round(n * size / (count - 1)) for n in range(count)})


HOWS: list[Break] = ["rst", "fin"]
DIRECTIONS: list[Direction] = ["up", "down"]


def test_a_conversation_without_cuts_needs_one_connection(bridge: Bridge, listener: Listener) -> None:
    link = converse(bridge, listener, {})
    assert len(link.connections) == 1
    assert b"binary, v1.resume.wstunnel-py" in link.connections[0].request


def every_cut(bridge: Bridge, listener: Listener, count: int | None) -> list[dict[int, Plan]]:
    """Plans that cut the first connection at ``count`` places of each direction, None: at all."""
    plans = []
    for direction, size in sizes(bridge, listener, {}, 1).items():
        for offset, how in itertools.product(spread(size, count or size + 1), HOWS):
            plans.append({1: Plan(Cut(offset, direction, how))})
    return plans


def test_a_conversation_survives_cuts_at_many_bytes(bridge: Bridge, listener: Listener) -> None:
    plans = every_cut(bridge, listener, 30)
    assert converse_all(bridge, listener, plans) > len(plans) * 0.8


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_conversation_survives_a_cut_at_every_byte(bridge: Bridge, listener: Listener) -> None:
    plans = every_cut(bridge, listener, None)
    assert converse_all(bridge, listener, plans) > len(plans) * 0.8


MIDDLES: list[tuple[Direction, float]] = [("down", 0.6), ("down", 0.9), ("up", 0.8)]  # of the first connection


def cuts_of_the_resume(bridge: Bridge, listener: Listener, count: int | None) -> list[dict[int, Plan]]:
    """Plans that cut the first connection in its middle, and the second one anywhere."""
    whole = sizes(bridge, listener, {}, 1)
    plans: list[dict[int, Plan]] = []
    for (direction, part), how_at_first in zip(MIDDLES, itertools.cycle(HOWS), strict=False):
        first = Plan(Cut(int(part * whole[direction]), direction, how_at_first))
        for again, size in sizes(bridge, listener, {1: first}, 2).items():
            for where, how in itertools.product(spread(size, count or size + 1), HOWS):
                plans.append({1: first, 2: Plan(Cut(where, again, how))})
    return plans


def test_a_conversation_survives_cuts_during_the_resume(bridge: Bridge, listener: Listener) -> None:
    converse_all(bridge, listener, cuts_of_the_resume(bridge, listener, 8))


@pytest.mark.full
@pytest.mark.timeout(2400)
def test_a_conversation_survives_a_cut_at_every_byte_of_the_resume(bridge: Bridge, listener: Listener) -> None:
    converse_all(bridge, listener, cuts_of_the_resume(bridge, listener, None))


def test_a_conversation_survives_cuts_that_only_the_client_notices(bridge: Bridge, listener: Listener) -> None:
    """The bridge holds the old connection for alive when the client resumes: it takes over."""
    plans = []
    for direction, size in sizes(bridge, listener, {}, 1).items():
        # Silence in the handshake is waited out by --connect-timeout, which has tests of its own.
        for offset in spread(size - 450, 12):
            plans.append({1: Plan(Cut(450 + offset, direction, "rst", side="client"))})
    converse_all(bridge, listener, plans)


def test_a_conversation_survives_silence_at_many_bytes(bridge: Bridge, listener: Listener) -> None:
    """No reset, no end: only time tells, so many conversations wait at once."""
    plans = []
    for direction, size in sizes(bridge, listener, {}, 1).items():
        for offset in spread(size - 450, 12):
            plans.append({1: Plan(Cut(450 + offset, direction, "silence"))})
    converse_all(bridge, listener, plans, at_once=len(plans))


def test_a_conversation_survives_five_cuts_in_a_row(bridge: Bridge, listener: Listener) -> None:
    source = random.Random("five cuts")
    plans = [
        {
            number: Plan(Cut(source.randrange(450, 900), source.choice(DIRECTIONS), source.choice(HOWS)))
            for number in range(1, 6)
        }
        for _ in range(20)
    ]
    converse_all(bridge, listener, plans)
