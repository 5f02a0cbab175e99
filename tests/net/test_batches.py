"""A socket on which much comes is reported as readable for whole batches only."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tunnel.net.batches import BATCH, IN_A_ROW, PAUSE, Batches
from tunnel.net.channel import Channel
from tunnel.net.pump import LARGE_READ


@pytest.fixture
def channel() -> Iterator[Channel]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            yield Channel(near)


def reported_at(channel: Channel) -> int:
    return channel.sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


def busy(channel: Channel) -> Batches:
    batches = Batches(channel)
    for _ in range(IN_A_ROW):
        assert not batches.is_on
        batches.came(LARGE_READ)
    return batches


def test_large_reads_in_a_row_make_a_socket_busy(channel: Channel) -> None:
    assert reported_at(channel) == 1
    batches = busy(channel)
    assert batches.is_on and reported_at(channel) == BATCH
    began = time.monotonic()
    batches.came(LARGE_READ)
    assert batches.is_on
    assert began + PAUSE <= batches.read_by <= time.monotonic() + PAUSE


def test_a_small_read_restarts_the_count(channel: Channel) -> None:
    batches = Batches(channel)
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            batches.came(LARGE_READ)
        batches.came(LARGE_READ - 1)
    assert not batches.is_on and reported_at(channel) == 1


@pytest.mark.parametrize("size", [0, 1, LARGE_READ - 1])
def test_one_small_read_ends_it(channel: Channel, size: int) -> None:
    batches = busy(channel)
    batches.came(size)
    assert (batches.is_on, reported_at(channel)) == (False, 1)
    for _ in range(IN_A_ROW):
        assert not batches.is_on
        batches.came(LARGE_READ)
    assert batches.is_on and reported_at(channel) == BATCH


def test_a_socket_that_is_let_go_of_is_reported_for_each_byte(channel: Channel) -> None:
    batches = busy(channel)
    batches.stop()
    batches.stop()
    assert not batches.is_on and reported_at(channel) == 1


def test_an_encrypted_channel_is_reported_for_each_byte(channel: Channel) -> None:
    class Encrypted(Channel):
        is_encrypted = True

    batches = busy(Encrypted(channel.sock))
    assert batches.is_on and reported_at(channel) == 1


def test_a_socket_that_is_closed_meanwhile_is_no_trouble(channel: Channel) -> None:
    batches = Batches(channel)
    channel.close()
    for _ in range(IN_A_ROW):
        batches.came(LARGE_READ)
    assert batches.is_on
    batches.came(0)
    assert not batches.is_on
