"""Frames on their way to the wire: their order, their pieces, and which ping is answered."""

from __future__ import annotations

import pytest

from tests.protocol.wire import messages
from tunnel.protocol.frames import MAX_HEADER, NO_CODE, TEXT
from tunnel.protocol.outbox import Outbox, consume

SMALL = 4096  # bytes of masked payload that go with their header as one piece


def written(outbox: Outbox) -> bytes:
    return b"".join(outbox.pieces)


@pytest.mark.parametrize("masks", [True, False])
def test_frames_go_out_in_their_order_behind_the_preamble(masks: bool) -> None:
    outbox = Outbox(masks=masks, preamble=b"HTTP/1.1 101\r\n\r\n")
    outbox.add(TEXT, b"one")
    outbox.add_data(memoryview(bytearray(MAX_HEADER) + b"two"), MAX_HEADER, MAX_HEADER + 3)
    outbox.add_close(1000, "three")
    assert not written(outbox).find(b"HTTP/1.1 101\r\n\r\n")
    found = messages(written(outbox).removeprefix(b"HTTP/1.1 101\r\n\r\n"), masked=masks)
    assert found == ["one", b"two", ("close", 1000, "three")]


def test_without_a_preamble_nothing_goes_out() -> None:
    assert Outbox(masks=True).pieces == []


def test_data_of_a_server_is_one_piece_with_its_header_where_there_is_room_for_that() -> None:
    chunk = memoryview(bytearray(b"#" * 20 + b"data"))
    outbox = Outbox(masks=False)
    outbox.add_data(chunk, 20, 24)
    assert [bytes(piece) for piece in outbox.pieces] == [b"\x82\x04data"]
    assert bytes(chunk) == b"#" * 18 + b"\x82\x04data"


def test_where_there_is_no_room_the_bytes_in_front_stay_what_they_are() -> None:
    chunk = memoryview(bytearray(b"#" * 20 + b"data"))
    outbox = Outbox(masks=False)
    outbox.add_data(chunk, 20, 24, has_room=False)
    assert [bytes(piece) for piece in outbox.pieces] == [b"\x82\x04", b"data"]
    assert bytes(chunk) == b"#" * 20 + b"data"


@pytest.mark.parametrize(("size", "pieces"), [(1, 1), (SMALL, 1), (SMALL + 1, 2)])
def test_large_masked_payloads_are_not_copied(size: int, pieces: int) -> None:
    outbox = Outbox(masks=True)
    payload = bytes(size)
    outbox.add_masked(payload, bytes(4))
    assert len(outbox.pieces) == pieces
    assert (outbox.pieces[-1] is payload) is (pieces == 2)
    assert messages(written(outbox), masked=True) == [payload]


def test_every_masked_frame_has_a_key_of_its_own() -> None:
    outbox = Outbox(masks=True)
    for _ in range(20):
        outbox.add(TEXT, b"x")
        outbox.add_data(memoryview(bytearray(20)), 14, 20)
    assert len({bytes(piece)[2:6] for piece in outbox.pieces}) == 40


def test_a_close_without_a_code_is_empty() -> None:
    outbox = Outbox(masks=False)
    assert not bool(outbox.close_queued)
    outbox.add_close(NO_CODE)
    assert bool(outbox.close_queued)
    assert written(outbox) == b"\x88\x00"


def test_what_has_pieces_of_its_own_goes_behind_what_waits() -> None:
    plain, masked = blocked(1), Outbox(masks=True)
    plain.add_data(memoryview(bytearray(b"#" * 20 + b"data")), 20, 24, has_room=False)
    assert messages(written(plain), masked=False) == ["x", b"data"]
    masked.add(TEXT, b"x")
    masked.add_masked(bytes(SMALL + 1), bytes(4))
    assert messages(written(masked), masked=True) == ["x", bytes(SMALL + 1)]


def test_a_close_says_no_reason_unless_it_is_given_one() -> None:
    outbox = Outbox(masks=False)
    outbox.add_close(1000)
    assert written(outbox) == b"\x88\x02\x03\xe8"


# ---- pings


def blocked(pieces: int) -> Outbox:
    """An outbox in which so many pieces wait for the wire."""
    outbox = Outbox(masks=False)
    for _ in range(pieces):
        outbox.add(TEXT, b"x")
    return outbox


def test_a_ping_is_answered_once_with_its_data() -> None:
    outbox = blocked(7)
    outbox.ping_came(b"42")
    outbox.answer_ping()
    outbox.answer_ping()
    assert messages(written(outbox), masked=False)[7:] == [("pong", b"42")]


def test_behind_many_pieces_only_the_last_ping_is_answered_once_they_have_gone() -> None:
    outbox = blocked(8)
    for data in (b"1", b"2"):
        outbox.ping_came(data)
        outbox.answer_ping()
    assert len(outbox.pieces) == 8
    outbox.sent(3 * 8 - 1)
    assert written(outbox) == b"x"
    outbox.sent(1)
    assert messages(written(outbox), masked=False) == [("pong", b"2")]
    outbox.sent(3)
    assert outbox.pieces == []


def test_behind_our_close_no_ping_is_answered() -> None:
    outbox = blocked(8)
    outbox.ping_came(b"before")
    outbox.add_close(1000)
    outbox.ping_came(b"behind")
    outbox.sent(len(written(outbox)))
    outbox.answer_ping()
    assert outbox.pieces == []


def test_a_wire_that_takes_nothing_more_is_owed_no_pong() -> None:
    outbox = blocked(8)
    outbox.ping_came(b"1")
    outbox.clear()
    outbox.answer_ping()
    assert outbox.pieces == []


# ---- what the wire took


@pytest.mark.parametrize(
    ("n", "left"),
    [
        (0, [b"ab", b"cde", b"f"]),
        (1, [b"b", b"cde", b"f"]),
        (2, [b"cde", b"f"]),
        (4, [b"e", b"f"]),
        (5, [b"f"]),
        (6, []),
    ],
)
def test_what_was_taken_is_gone_and_the_rest_is_not_copied(n: int, left: list[bytes]) -> None:
    pieces: list[bytes | bytearray | memoryview] = [b"ab", b"cde", b"f"]
    consume(pieces, n)
    assert [bytes(piece) for piece in pieces] == left
    if n in (1, 4):
        assert isinstance(pieces[0], memoryview)
