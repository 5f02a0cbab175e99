"""What is small is not held back by what was large before it, with whatever batches sockets are read in."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, read_exactly
from tests.bed.tunnels import OWN_PAIR, PLAIN_PAIR, Pair, start_bridge
from tunnel.net.batches import BATCH, IN_A_ROW

BULK = os.urandom(4 * IN_A_ROW * BATCH)
ROUNDS = 5


def answer_each(connection: socket.socket) -> str:
    """After each piece of bulk, in either direction, a single byte goes there and back before anything else."""
    for _ in range(ROUNDS):
        connection.sendall(BULK)
        connection.sendall(b"?")
        assert read_exactly(connection, 1) == b"!"
        assert read_exactly(connection, len(BULK)) == BULK
        assert read_exactly(connection, 1) == b"?"
        connection.sendall(b"!")
    return "done"


@pytest.mark.parametrize("pair", [OWN_PAIR, PLAIN_PAIR, Pair("websocat", "ours"), Pair("ours", "websocat")], ids=str)
def test_a_byte_behind_a_bulk_arrives_by_itself(bed: Bed, pair: Pair) -> None:
    with Target(answer_each) as target:
        bridge = start_bridge(bed, pair.bridge, target.port)
        with subprocess.Popen(pair.command(bridge.url), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdin is not None and client.stdout is not None
            for _ in range(ROUNDS):
                assert client.stdout.read(len(BULK)) == BULK
                assert client.stdout.read(1) == b"?"
                client.stdin.write(b"!" + BULK)
                client.stdin.write(b"?")
                client.stdin.flush()
                assert client.stdout.read(1) == b"!"
            client.stdin.close()
            assert target.result() == "done"
