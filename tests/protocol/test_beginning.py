"""The first message decides what a stream is, however it comes in pieces; a session's secrets are never data."""

from __future__ import annotations

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.beginning import COPY_LIMIT, MESSAGE_SIZE, WAIT, WAIT_AFTER_END, WAIT_WHEN_FULL, Beginning
from tunnel.protocol.control import MESSAGE_LIMIT, SessionOffer
from tunnel.protocol.frames import BINARY, TEXT, Payload, frame_header
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


# ---- the parts of it, one by one

BEGAN = 1000.0


def test_it_waits_until_its_time_is_over_and_not_longer() -> None:
    beginning = Beginning(BEGAN)
    assert (beginning.open, beginning.decided) == (True, False)
    assert beginning.deadline == BEGAN + WAIT
    beginning.tick(BEGAN + WAIT - 0.1)
    assert bool(beginning.open)
    beginning.tick(BEGAN + WAIT)
    assert not bool(beginning.open)
    assert beginning.sent == b"" and beginning.room == COPY_LIMIT


def test_an_end_or_a_full_copy_shortens_the_wait_and_never_makes_it_longer() -> None:
    ended = Beginning(BEGAN)
    ended.source_ended(BEGAN + 1.0)
    assert ended.deadline == BEGAN + 1.0 + WAIT_AFTER_END
    ended.source_ended(BEGAN + 100.0)
    assert ended.deadline == BEGAN + 1.0 + WAIT_AFTER_END
    full = Beginning(BEGAN)
    full.sending(bytes(COPY_LIMIT - 1), BEGAN + 1.0)
    assert full.deadline == BEGAN + WAIT and full.room == 1
    full.sending(b"x", BEGAN + 2.0)
    assert full.deadline == BEGAN + 2.0 + WAIT_WHEN_FULL and full.room == 0
    late = Beginning(BEGAN)
    late.sending(bytes(COPY_LIMIT), BEGAN + WAIT)
    assert late.deadline == BEGAN + WAIT


def test_room_is_for_one_small_message_as_long_as_the_copy_has_some() -> None:
    beginning = Beginning(BEGAN)
    assert beginning.room == MESSAGE_SIZE
    beginning.sending(bytes(COPY_LIMIT - MESSAGE_SIZE - 1), BEGAN)
    assert beginning.room == MESSAGE_SIZE
    beginning.sending(b"xyz", BEGAN)
    assert beginning.room == MESSAGE_SIZE - 2
    assert beginning.sent[-3:] == b"xyz" and len(beginning.sent) == COPY_LIMIT - MESSAGE_SIZE + 2


def test_once_it_is_clear_that_it_is_plain_nothing_is_copied() -> None:
    beginning = Beginning(BEGAN)
    beginning.tick(BEGAN + WAIT)
    beginning.sending(b"data", BEGAN + WAIT)
    assert beginning.sent == b"" and beginning.room == COPY_LIMIT


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_session_that_has_begun_stays_whatever_time_it_is(opcode: int) -> None:
    beginning = Beginning(BEGAN)
    beginning.sending(b"kept", BEGAN)
    assert beginning.take(Payload(opcode, LINE, True)) is None
    assert beginning.decided and beginning.room == 0
    beginning.tick(BEGAN + 2 * WAIT)
    assert beginning.open and beginning.sent == b"kept"


def test_a_session_lines_fields_are_what_the_bridge_offered() -> None:
    beginning = Beginning(BEGAN)
    for piece, final in ((LINE[:5], False), (LINE[5:50], False), (b"", False), (LINE[50:], True)):
        assert beginning.take(Payload(TEXT, memoryview(piece), final)) is None
    assert beginning.offer is not None and beginning.offer.line().encode() == LINE
    assert not beginning.in_binary


def test_a_line_may_be_as_long_as_any_control_line() -> None:
    beginning = Beginning(BEGAN)
    long = LINE + b" " + b"x" * (MESSAGE_LIMIT - len(LINE) - 1)
    assert beginning.take(Payload(TEXT, long, True)) is None and beginning.offer is not None
    with pytest.raises(RemoteProtocolError, match=r"^the peer sent a session line that is too long$"):
        Beginning(BEGAN).take(Payload(TEXT, long + b"x", True))


def test_a_late_session_says_why() -> None:
    beginning = Beginning(BEGAN)
    beginning.tick(BEGAN + WAIT)
    with pytest.raises(RemoteProtocolError) as caught:
        beginning.take(Payload(TEXT, LINE, True))
    assert caught.value.code == "late-session"
    assert str(caught.value) == ("the bridge began a session too late: the tunnel was already taken for a plain one")


def test_what_only_begins_like_a_session_is_handed_on_whole_with_its_opcode_and_end() -> None:
    beginning = Beginning(BEGAN)
    assert beginning.take(Payload(BINARY, b"sess", False)) is None
    data = beginning.take(Payload(BINARY, b"!", False))
    assert data is not None and (data.opcode, bytes(data.data), data.final) == (BINARY, b"sess!", False)
    beginning = Beginning(BEGAN)
    data = beginning.take(Payload(TEXT, b"session", True))
    assert data is not None and (data.opcode, bytes(data.data), data.final) == (TEXT, b"session", True)


def test_an_empty_message_is_nothing_yet() -> None:
    beginning = Beginning(BEGAN)
    assert beginning.take(Payload(TEXT, b"", True)) is None
    assert beginning.take(Payload(TEXT, LINE, True)) is None and beginning.offer is not None
