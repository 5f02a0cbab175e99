"""The first message decides what a stream is, however it comes in pieces; a session's secrets are never data."""

from __future__ import annotations

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.beginning import COPY_LIMIT, WAIT, WAIT_AFTER_END, WAIT_WHEN_FULL, Beginning
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import BINARY, TEXT, frame_header
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers

LINE = SessionOffer("0123456789abcdef" * 2, "fedcba9876543210" * 4, 1 << 20, 60).line().encode()


def stream() -> PlainStream:
    return PlainStream(client=True, buffers=ReadBuffers(), keepalive=Keepalive(0.0), beginning=Beginning(0.0))


def message(opcode: int, data: bytes, fragment: int) -> bytes:
    """A message in fragments of this size."""
    pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)] or [b""]
    frames = b""
    for number, piece in enumerate(pieces):
        final = number == len(pieces) - 1
        frames += frame_header(opcode if not number else 0, len(piece), None, final) + piece
    return frames


def feed(plain: PlainStream, data: bytes, size: int) -> bytes:
    """Feed the stream pieces of this size; return what it delivers."""
    heard = b""
    while data and plain.wants_wire_read:
        piece = data[:size]
        plain.wire_space()[: len(piece)] = piece
        data = data[plain.wire_received(len(piece), 0.0) :]
        heard += b"".join(plain.sink_output())
        plain.sink_sent(sum(map(len, plain.sink_output())), 0.0)
    return heard


@pytest.mark.parametrize("size", [1, 3, 100, 1000])
@pytest.mark.parametrize("fragment", [1, 10, 1000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_session_is_found_and_nothing_of_it_delivered(opcode: int, fragment: int, size: int) -> None:
    plain = stream()
    assert feed(plain, message(opcode, LINE, fragment) + message(TEXT, b"ack 0", 100), size) == b""
    assert plain.has_session and plain.failure is None
    assert plain.beginning is not None
    assert plain.beginning.in_binary is (opcode == BINARY)
    assert (plain.beginning.offer is not None) is (opcode == TEXT)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_session_that_comes_too_late_is_a_violation_without_its_secrets(opcode: int, size: int) -> None:
    plain = stream()
    plain.tick(WAIT)
    assert feed(plain, message(opcode, LINE, 1000), size) == b""
    assert isinstance(plain.failure, RemoteProtocolError)
    assert "0123456789abcdef" not in str(plain.failure) and "fedcba" not in str(plain.failure)


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"s", b"session", b"session is over", b"x" + LINE])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [1, 1000])
def test_anything_else_is_plain_and_whole(opcode: int, data: bytes, size: int) -> None:
    plain = stream()
    assert feed(plain, message(opcode, data, 2) + message(BINARY, b"more", 4), size) == data + b"more"
    assert not plain.has_session and plain.failure is None


@pytest.mark.parametrize("line", [LINE[:30], LINE.replace(b"key", b"kex"), LINE + b"x" * 2000, LINE[:43]])
def test_a_line_that_is_none_ends_the_stream_undelivered(line: bytes) -> None:
    plain = stream()
    assert feed(plain, message(TEXT, line, 100), 7) == b""
    assert plain.failure is not None and "0123456789abcdef" not in str(plain.failure)


def fill(plain: PlainStream, now: float) -> int:
    count = 0
    while plain.wants_source and count <= 2 * COPY_LIMIT:
        n = len(plain.source_space())
        plain.source_received(n, now)
        plain.wire_sent(sum(map(len, plain.wire_output())), now)
        count += n
    return count


def test_the_copy_is_bounded_and_the_wait_too() -> None:
    plain = stream()
    assert fill(plain, 1.0) == COPY_LIMIT
    assert plain.next_tick(1.0) <= WAIT_WHEN_FULL
    plain.tick(1.0 + WAIT_WHEN_FULL)
    assert not plain.may_get_session
    assert fill(plain, 2.0) > COPY_LIMIT


def test_an_end_is_held_back_for_a_moment_only() -> None:
    plain = stream()
    assert plain.may_get_session and plain.beginning is not None
    plain.beginning.source_ended(0.5)
    assert plain.next_tick(0.5) <= WAIT_AFTER_END
    plain.tick(0.5 + WAIT_AFTER_END)
    assert not plain.may_get_session
