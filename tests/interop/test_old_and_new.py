"""Our program as it is and as it was, at one end each: images keep old bridges for years, and laptops old clients.

Every byte of a transfer in both directions is checked, with connections that are cut in its middle.
"""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence

import pytest

from tests.bed import tunnels
from tests.bed.processes import Bed
from tests.bed.targets import Target, checksum, echo, read_to_end
from tests.bed.tunnels import OURS
from tests.faults.link import Cut, Link, Plan
from tests.restart.restarting import LIMIT, restart
from tests.server.clients import port_of

UP = random.Random("up").randbytes(3_000_000)
DOWN = random.Random("down").randbytes(3_000_000)
AFTER = 400_000  # bytes in either direction: however fast each of them is, some of both is left for the last connection
# The last two are felt by the client alone: the bridge still holds the connection for alive when that is taken over.
CUTS = {
    1: Plan(Cut(AFTER, "up", "rst"), Cut(AFTER, "down", "rst")),
    2: Plan(Cut(AFTER, "up", "fin"), Cut(AFTER, "down", "fin")),
    3: Plan(Cut(AFTER, "up", "rst", side="client"), Cut(AFTER, "down", "rst", side="client")),
    4: Plan(Cut(AFTER, "up", "fin", side="client"), Cut(AFTER, "down", "fin", side="client")),
}


def exchange(connection: socket.socket) -> bytes:
    """Send `DOWN` while reading what the client says, and end behind both; raises OSError where that is broken."""

    def send() -> None:
        with contextlib.suppress(OSError):  # the reader hears of it, too
            connection.sendall(DOWN)

    writer = threading.Thread(target=send)
    writer.start()
    try:
        return read_to_end(connection)
    finally:
        writer.join()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)


@pytest.fixture(params=["old client, new bridge", "new client, old bridge"])
def ends(request: pytest.FixtureRequest, old: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The commands of the client and of the bridge."""
    return (old, OURS) if request.param.startswith("old client") else (OURS, old)


@pytest.fixture
def target() -> Iterator[Target]:
    with Target(exchange) as target:
        yield target


def start_bridge(bed: Bed, words: Sequence[str], target: Target) -> int:
    """Return the port of a bridge to the target."""
    process = bed.start(*words, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target.port}")
    return port_of(process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1])


def test_a_session_goes_on_through_cuts_in_the_middle_of_both_directions(
    bed: Bed, target: Target, ends: tuple[Sequence[str], Sequence[str]]
) -> None:
    client, bridge = ends
    with Link(start_bridge(bed, bridge, target), CUTS) as link:
        done = bed.run(*client, "connect", link.url, stdin=UP)
        heard = target.result()
        assert link.broken == len(CUTS), "not all the cuts were in the transfer"
    assert isinstance(heard, bytes) and checksum(heard) == checksum(UP)
    assert checksum(done.stdout) == checksum(DOWN)
    assert (done.status, done.stderr) == (0, "")


def test_a_plain_tunnel_carries_both_directions_whole(
    bed: Bed, target: Target, ends: tuple[Sequence[str], Sequence[str]]
) -> None:
    client, bridge = ends
    with Link(start_bridge(bed, bridge, target)) as link:
        done = bed.run(*client, "connect", "--no-resume", link.url, stdin=UP)
        heard = target.result()
        assert len(link.connections) == 1
    assert isinstance(heard, bytes) and checksum(heard) == checksum(UP)
    assert checksum(done.stdout) == checksum(DOWN)
    assert (done.status, done.stderr) == (0, "")


@pytest.mark.parametrize("cut", [Cut(1_500_000, "up", "rst"), Cut(1_500_000, "down", "fin")], ids=["up", "down"])
def test_a_plain_tunnel_that_is_cut_ends_with_one_line_and_has_garbled_nothing(
    bed: Bed, target: Target, ends: tuple[Sequence[str], Sequence[str]], cut: Cut
) -> None:
    client, bridge = ends
    with Link(start_bridge(bed, bridge, target), {1: Plan(cut)}) as link:
        done = bed.run(*client, "connect", "--no-resume", link.url, stdin=UP)
        assert link.broken == len(link.connections) == 1
        try:
            heard = target.result()
        except OSError:  # the bridge has reset the target, which must not take half of it for the whole
            heard = b""
    assert isinstance(heard, bytes) and UP.startswith(heard)
    assert DOWN.startswith(done.stdout)
    assert done.status != 0 and done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", [(), ("--no-resume",)], ids=["session", "plain"])
def test_an_old_client_goes_on_when_the_new_bridge_is_restarted_in_place(
    bed: Bed, old: Sequence[str], options: Sequence[str]
) -> None:
    with Target(echo) as target:
        bridge = tunnels.start_bridge(bed, "ours", target.port)
        client = bed.start(*old, "connect", *options, bridge.url, stdin=subprocess.PIPE)
        client.feed(UP[: len(UP) // 2])
        restart(bridge.process)
        client.feed(UP[len(UP) // 2 :])
        client.end_input()
        assert client.wait(LIMIT) == 0
    assert checksum(client.out.read_bytes()) == checksum(UP)
    assert client.err.read_text() == ""
