"""The receiving direction of a session: what counts as delivered, when it is acknowledged, what is held back."""

from __future__ import annotations

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import MAX_CLOSE
from tunnel.protocol.receiver import ACK_BYTES, ACK_DELAY, Receiver

WINDOW = 8 << 20


def came(receiver: Receiver, data: bytes, now: float = 0.0) -> None:
    receiver.begin_chunk()
    receiver.data_came(memoryview(bytearray(data)), now)


def waiting(receiver: Receiver) -> bytes:
    return b"".join(receiver.pieces)


def test_what_the_sink_took_is_delivered_and_nothing_else() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"12345")
    assert (receiver.delivered, waiting(receiver)) == (0, b"12345")
    receiver.sink_took(2, 0.0)
    assert (receiver.delivered, waiting(receiver)) == (2, b"345")
    receiver.sink_took(3, 0.0)
    assert (receiver.delivered, waiting(receiver)) == (5, b"")


def test_an_ack_is_due_a_moment_after_the_first_byte_or_at_once_after_many() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, bytes(ACK_BYTES + 1))
    receiver.sink_took(1, 5.0)
    assert not bool(receiver.ack_due)
    assert receiver.ack_at == 5.0 + ACK_DELAY
    receiver.sink_took(ACK_BYTES - 2, 5.05)
    assert not bool(receiver.ack_due)
    assert receiver.ack_at == 5.0 + ACK_DELAY
    receiver.sink_took(1, 5.05)
    assert bool(receiver.ack_due)
    assert receiver.take_ack() == ACK_BYTES
    assert not bool(receiver.ack_due)
    receiver.sink_took(1, 6.0)
    assert receiver.ack_at == 6.0 + ACK_DELAY


def test_the_clock_makes_an_ack_due_once() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"x")
    receiver.sink_took(1, 0.0)
    receiver.tick(ACK_DELAY / 2)
    assert not bool(receiver.ack_due)
    receiver.tick(ACK_DELAY)
    assert bool(receiver.ack_due)
    assert receiver.ack_at is None


def test_an_ack_that_is_due_soon_does_not_wait_for_another_look_at_the_clock() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"x")
    receiver.sink_took(1, 0.0)
    receiver.tick(ACK_DELAY * 0.6)
    assert receiver.ack_due
    assert receiver.ack_at is None


def test_with_a_small_window_an_ack_is_due_after_a_quarter_of_it() -> None:
    receiver = Receiver(100)
    came(receiver, bytes(25))
    receiver.sink_took(24, 0.0)
    assert not receiver.ack_due
    receiver.sink_took(1, 0.0)
    assert receiver.ack_due


def test_the_quarter_of_an_odd_window_is_rounded_down() -> None:
    receiver = Receiver(11)
    came(receiver, bytes(2))
    receiver.sink_took(2, 0.0)
    assert receiver.ack_due


def test_an_ack_that_says_nothing_new_is_not_due() -> None:
    receiver = Receiver(WINDOW)
    receiver.sink_failed(0.0)
    assert not receiver.ack_due and receiver.ack_at is None


def test_the_window_holds_for_what_is_not_delivered() -> None:
    receiver = Receiver(10)
    came(receiver, bytes(10))
    receiver.sink_took(4, 0.0)
    came(receiver, bytes(4))
    with pytest.raises(RemoteProtocolError, match=r"^the peer sent more than the window allows$"):
        came(receiver, b"x")


def test_no_data_may_come_behind_the_fin() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"all")
    assert receiver.fin_came(3) is True
    with pytest.raises(RemoteProtocolError, match=r"^the peer sent data after its fin$"):
        came(receiver, b"x")


def test_a_fin_is_where_the_data_end_and_may_come_twice() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"all")
    for wrong in (2, 4):
        with pytest.raises(RemoteProtocolError, match=f"^the peer's fin at {wrong} is not where its data ended$"):
            receiver.fin_came(wrong)
    assert receiver.fin_came(3) is True
    assert receiver.fin_came(3) is False


def test_the_fin_is_delivered_and_acknowledged_once_the_sink_knows_of_it() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"all")
    receiver.fin_came(3)
    receiver.sink_half_closed()
    assert not bool(receiver.has_ended), "not before the sink has all of the data"
    assert receiver.delivered == 0, "not before the sink has all of the data"
    receiver.sink_took(2, 0.0)
    assert not bool(receiver.has_ended)
    receiver.sink_took(1, 0.0)
    assert bool(receiver.has_ended)
    assert receiver.delivered == 3
    receiver.take_ack()
    receiver.sink_half_closed()
    assert (receiver.fin_delivered, receiver.ack_due) == (True, True)
    assert receiver.delivered == 4
    assert receiver.take_ack() == 4
    receiver.sink_half_closed()
    assert not bool(receiver.ack_due), "the second time nothing is new"


def test_without_a_fin_nothing_has_ended() -> None:
    receiver = Receiver(WINDOW)
    assert not receiver.has_ended
    receiver.sink_half_closed()
    assert not receiver.fin_delivered and not receiver.ack_due


# ---- a sink that fails


def test_what_waits_for_a_sink_that_fails_and_all_that_follows_counts_as_delivered() -> None:
    receiver = Receiver(10)
    came(receiver, b"12345")
    receiver.sink_took(1, 0.0)
    receiver.sink_failed(0.0)
    assert (receiver.delivered, receiver.undelivered, waiting(receiver)) == (5, 4, b"")
    for _ in range(5):
        came(receiver, b"12345678")  # more than the window in all
    assert (receiver.delivered, receiver.undelivered, waiting(receiver)) == (45, 44, b"")
    assert receiver.ack_due
    assert receiver.fin_came(45) and receiver.has_ended


def test_what_is_held_back_counts_too_when_the_sink_fails_and_never_comes_out_again() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"12345")
    receiver.hold_back()
    assert waiting(receiver) == b""
    receiver.sink_failed(0.0)
    assert (receiver.delivered, receiver.undelivered) == (5, 5)
    came(receiver, b"678")
    assert (receiver.delivered, receiver.undelivered, waiting(receiver)) == (8, 8, b"")


def test_what_comes_for_a_failed_sink_is_acknowledged_in_time() -> None:
    receiver = Receiver(WINDOW)
    receiver.sink_failed(0.0)
    came(receiver, b"12345", 5.0)
    assert receiver.ack_at == 5.0 + ACK_DELAY


def test_a_sink_can_fail_but_once() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"12345")
    for _ in range(2):
        receiver.sink_failed(0.0)
        assert (receiver.delivered, receiver.undelivered) == (5, 5)


# ---- what is held back


def test_the_last_bytes_inside_a_frame_are_held_back_until_more_comes() -> None:
    receiver = Receiver(WINDOW)
    data = bytes(i % 251 for i in range(MAX_CLOSE + 100))
    came(receiver, data)
    receiver.hold_back()
    assert waiting(receiver) == data[:100]
    came(receiver, b"more")
    assert waiting(receiver) == data + b"more"
    receiver.hold_back()
    assert waiting(receiver) == (data + b"more")[:104], "a Close may come in pieces, too"


def test_what_came_before_a_chunk_is_not_held_back_any_more() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"before")
    came(receiver, b"12345")
    receiver.hold_back()
    assert waiting(receiver) == b"before"


def test_what_is_held_back_may_be_several_pieces() -> None:
    receiver = Receiver(WINDOW)
    receiver.begin_chunk()
    for piece in (b"a" * 50, b"b" * 50, b"c" * 50):
        receiver.data_came(piece, 0.0)
    receiver.hold_back()
    assert waiting(receiver) == b"a" * (150 - MAX_CLOSE)
    receiver.begin_chunk()
    assert waiting(receiver) == b"a" * 50 + b"b" * 50 + b"c" * 50


def test_what_was_held_back_on_a_connection_that_is_lost_comes_again_on_the_next() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"12345")
    receiver.hold_back()
    receiver.begin_connection()
    came(receiver, b"12345")
    assert waiting(receiver) == b"12345"


# ---- connections


def test_what_was_not_delivered_is_dropped_with_the_connection() -> None:
    receiver = Receiver(10)
    came(receiver, b"1234567890")
    receiver.sink_took(3, 0.0)
    receiver.drop()
    assert waiting(receiver) == b"" and receiver.delivered == 3
    receiver.begin_connection()
    assert not receiver.ack_due and receiver.ack_at is None, "the resume itself says what is delivered"
    came(receiver, b"4567890")
    receiver.fin_came(10)
    receiver.sink_took(7, 0.0)
    assert receiver.has_ended


def test_a_fin_that_was_not_delivered_comes_again_and_one_that_was_stays() -> None:
    receiver = Receiver(WINDOW)
    came(receiver, b"all")
    receiver.fin_came(3)
    receiver.begin_connection()
    assert not bool(receiver.has_ended)
    came(receiver, b"all")
    assert receiver.fin_came(3) is True
    receiver.sink_took(3, 0.0)
    receiver.sink_half_closed()
    receiver.begin_connection()
    assert bool(receiver.has_ended)
    assert receiver.delivered == 4
    with pytest.raises(RemoteProtocolError, match="after its fin"):
        came(receiver, b"x")


def test_a_resumed_connection_counts_its_acks_from_what_was_delivered_before() -> None:
    receiver = Receiver(100)
    came(receiver, bytes(24))
    receiver.sink_took(24, 0.0)
    receiver.begin_connection()
    came(receiver, bytes(24))
    receiver.sink_took(24, 0.0)
    assert not receiver.ack_due


# ---- memory


def test_what_waits_leaves_the_read_buffer_when_a_turn_is_over() -> None:
    space = memoryview(bytearray(100_000))
    receiver = Receiver(WINDOW)
    space[:50_000] = b"a" * 50_000
    receiver.begin_chunk()
    receiver.data_came(space[:20_000], 0.0)
    receiver.data_came(space[20_000:50_000], 0.0)
    receiver.settle(space)
    space[:] = bytes(len(space))
    assert waiting(receiver) == b"a" * 50_000


def test_large_pieces_that_are_no_views_of_the_read_buffer_are_not_copied() -> None:
    receiver = Receiver(WINDOW)
    pieces = [b"a" * 20_000, b"b" * 20_000]
    receiver.begin_chunk()
    for piece in pieces:
        receiver.data_came(piece, 0.0)
    receiver.settle(memoryview(bytearray(10)))
    assert [id(piece) for piece in receiver.pieces] == [id(piece) for piece in pieces]


@pytest.mark.parametrize(("sizes", "count"), [((16 * 1024,), 1), ((10_000,) * 3, 1), ((30_000, 3000), 2)])
def test_pieces_are_joined_if_they_are_small_on_the_average(sizes: tuple[int, ...], count: int) -> None:
    receiver = Receiver(WINDOW)
    receiver.begin_chunk()
    pieces = [bytes(size) for size in sizes]
    for piece in pieces:
        receiver.data_came(piece, 0.0)
    receiver.settle(memoryview(bytearray(10)))
    assert len(receiver.pieces) == count
    assert (receiver.pieces[0] is pieces[0]) is (len(pieces) == count)


def test_what_is_settled_stays_so_when_the_sink_takes_some_of_it() -> None:
    space = memoryview(bytearray(b"x" * 60_000))
    receiver = Receiver(WINDOW)
    for _ in range(2):
        receiver.begin_chunk()
        receiver.data_came(space[:20_000], 0.0)
        receiver.settle(space)
    second = receiver.pieces[1]
    receiver.sink_took(20_000, 0.0)
    receiver.begin_chunk()
    receiver.data_came(space[:10], 0.0)
    receiver.settle(space)
    assert receiver.pieces[0] is second
    receiver.sink_took(20_010, 0.0)
    receiver.begin_chunk()
    receiver.data_came(space[:7], 0.0)
    receiver.settle(space)
    space[:] = bytes(len(space))
    assert waiting(receiver) == b"x" * 7


def test_only_what_is_small_is_joined_with_what_comes() -> None:
    receiver = Receiver(WINDOW)
    sizes = (20_000, 16 * 1024, 100)
    for size in sizes:
        receiver.begin_chunk()
        receiver.data_came(bytes(size), 0.0)
        receiver.settle(memoryview(bytearray(10)))
    large = receiver.pieces[:2]
    receiver.begin_chunk()
    receiver.data_came(b"x" * 10, 0.0)
    receiver.settle(memoryview(bytearray(10)))
    assert [len(piece) for piece in receiver.pieces] == [20_000, 16 * 1024, 110]
    assert receiver.pieces[0] is large[0] and receiver.pieces[1] is large[1]
    receiver.sink_took(36_494, 0.0)
    for size in (16 * 1024, 10):
        receiver.begin_chunk()
        receiver.data_came(bytes(size), 0.0)
        receiver.settle(memoryview(bytearray(10)))
    assert [len(piece) for piece in receiver.pieces] == [16 * 1024, 10]


def test_what_comes_on_a_new_connection_leaves_the_read_buffer_like_all_else() -> None:
    space = memoryview(bytearray(b"x" * 40_000))
    receiver = Receiver(WINDOW)
    for _ in range(2):
        receiver.begin_chunk()
        receiver.data_came(space[:20_000], 0.0)
        receiver.settle(space)
    receiver.begin_connection()
    receiver.begin_chunk()
    receiver.data_came(space[:20_000], 0.0)
    receiver.settle(space)
    space[:] = bytes(len(space))
    assert waiting(receiver) == b"x" * 20_000


def test_a_window_full_of_tiny_frames_is_few_objects() -> None:
    space = memoryview(bytearray(b"x" * 64))
    receiver = Receiver(WINDOW)
    for _ in range(2000):
        receiver.begin_chunk()
        for at in range(64):
            receiver.data_came(space[at : at + 1], 0.0)
        receiver.settle(space)
        if len(receiver.pieces) > 1:
            receiver.sink_took(1, 0.0)  # a sink that takes little does not make more of them
    assert len(receiver.pieces) <= 2000 * 64 // (16 * 1024) + 2
    assert set(waiting(receiver)) == {ord("x")}


def test_what_is_settled_is_not_copied_again_at_every_turn() -> None:
    space = memoryview(bytearray(b"x" * 20_000))
    receiver = Receiver(WINDOW)
    receiver.begin_chunk()
    receiver.data_came(space[:], 0.0)
    receiver.settle(space)
    (first,) = receiver.pieces
    receiver.begin_chunk()
    receiver.data_came(space[:10], 0.0)
    receiver.settle(space)
    assert receiver.pieces[0] is first
    receiver.settle(space)
    assert receiver.pieces[0] is first and len(receiver.pieces) == 2
    receiver.sink_took(20_000, 0.0)
    receiver.begin_chunk()
    receiver.data_came(space[:5], 0.0)
    receiver.settle(space)
    space[:] = bytes(len(space))
    assert waiting(receiver) == b"x" * 15


def test_bytes_may_go_past_only_where_nothing_waits_and_the_window_has_space() -> None:
    receiver = Receiver(WINDOW)
    assert receiver.may_pass(WINDOW) and not receiver.may_pass(WINDOW + 1)
    came(receiver, b"12345")
    assert not receiver.may_pass(1)
    receiver.sink_took(5, 0.0)
    assert receiver.may_pass(WINDOW) and not receiver.may_pass(WINDOW + 1)
    receiver.fin_came(5)
    assert not receiver.may_pass(1)
    broken = Receiver(WINDOW)
    broken.sink_failed(0.0)
    assert not broken.may_pass(1)


def test_what_went_past_is_delivered_and_acknowledged() -> None:
    receiver = Receiver(WINDOW)
    receiver.passed(1000, 5.0)
    assert (receiver.delivered, receiver.ack_at) == (1000, 5.0 + ACK_DELAY)
    receiver.passed(ACK_BYTES, 5.0)
    assert receiver.ack_due and receiver.may_pass(WINDOW)
