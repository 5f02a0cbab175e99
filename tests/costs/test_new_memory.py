"""How much memory a bulk transfer allocates. Buffers are reused, so little of it is for payload.

tracemalloc counts it at the peak of each step of the pumps of both ends. There are doubles for sockets and pipes, so
that the same bytes come in the same pieces each time.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from tests.costs.bounds import NEW_MEMORY, SLACK
from tests.protocol.test_stream_contract import Make, plain, resumable
from tunnel.net.pump import Pump
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers

if TYPE_CHECKING:
    from tunnel.protocol.frames import Buffer

TURNS, WARM_UP = 64, 8
ROOM = (TURNS + WARM_UP + 1) * (FRAME_LIMIT + 1024)  # bytes on the wire, at most
KINDS: dict[str, Make] = {"ours": resumable, "ours-plain": plain}


class Fountain:
    """A source that always has bytes, or never any."""

    def __init__(self, *, flows: bool) -> None:
        self._flows = flows

    def fileno(self) -> int:
        return -1

    def receive_into(self, space: memoryview) -> int | None:
        return len(space) if self._flows else None


class Drain:
    """A sink that takes everything, and counts it."""

    taken = 0

    def fileno(self) -> int:
        return -1

    def send(self, pieces: Sequence[Buffer]) -> int:
        n = sum(map(len, pieces))
        self.taken += n
        return n


class Wire(Drain):
    """One end of a connection, whose memory is there from the start."""

    pending = False
    peer: Wire

    def __init__(self) -> None:
        self._arrived = memoryview(bytearray(ROOM))
        self._from = self._to = 0

    def send(self, pieces: Sequence[Buffer]) -> int:
        peer = self.peer
        for piece in pieces:
            peer._arrived[peer._to : peer._to + len(piece)] = piece
            peer._to += len(piece)
        return super().send(pieces)

    def receive_into(self, space: memoryview) -> int | None:
        n = min(len(space), self._to - self._from)
        space[:n] = self._arrived[self._from : self._from + n]
        self._from += n
        if self._from == self._to:
            self._from = self._to = 0
        return n or None

    def put_back(self, data: memoryview) -> None:
        self._from -= len(data)


def step(pump: Pump) -> None:
    """One turn of a driver, in which everything is possible."""
    for act in (pump.read_wire, pump.write_wire, pump.read_source, pump.write_sink, pump.stream.settle):
        act()


def new_memory(pump: Pump) -> int:
    """Return by how many bytes the memory in use grows at the most during a turn."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    step(pump)
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("sender", ["client", "bridge"])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_in_bulk_take_no_more_new_memory_than_allowed(kind: str, sender: str) -> None:
    wires = Wire(), Wire()
    wires[0].peer, wires[1].peer = wires[1], wires[0]
    sinks = Drain(), Drain()
    pumps = [
        Pump(wire, Fountain(flows=end == sender), sink, KINDS[kind](end == "client", ReadBuffers()))  # type: ignore[arg-type]  # doubles
        for end, wire, sink in zip(("client", "bridge"), wires, sinks, strict=True)
    ]
    sending, receiving = pumps if sender == "client" else pumps[::-1]
    for _ in range(WARM_UP):
        for pump in (sending, receiving):
            step(pump)
    began = sum(sink.taken for sink in sinks)
    spent = {"sends": 0, "receives": 0}
    tracemalloc.start()
    for _ in range(TURNS):
        for what, pump in (("sends", sending), ("receives", receiving)):
            spent[what] += new_memory(pump)
    tracemalloc.stop()
    moved = sum(sink.taken for sink in sinks) - began
    assert moved > 4 << 20
    found = {what: spent[what] / moved for what in spent}
    print(f"counted: {found} per byte of {moved}", file=sys.stderr)
    for what in spent:
        assert found[what] <= SLACK * NEW_MEMORY[kind, sender, what]
