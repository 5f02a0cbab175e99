"""The sending direction of a session: what may be sent, what is kept, what the peer can have delivered."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.protocol.wire import messages
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.masked_replay import MaskedReplay
from tunnel.protocol.message_size import LARGEST_MESSAGE, SMALLER_MESSAGE
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.replay import MAX_SEGMENTS, ReplayBuffer
from tunnel.protocol.sender import READ_AHEAD, SOME, Sender

WINDOW = 4 << 20
Make = Callable[..., Sender]


def at_the_bridge(max_message: int = LARGEST_MESSAGE, window: int = WINDOW) -> Sender:
    sender = Sender(max_message, ReplayBuffer())
    sender.window = window
    return sender


def at_the_client(max_message: int = LARGEST_MESSAGE, window: int = WINDOW) -> Sender:
    sender = Sender(max_message, MaskedReplay(memoryview(bytearray(1 << 20))))
    sender.window = window
    return sender


@pytest.fixture(params=[at_the_bridge, at_the_client])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


def read(sender: Sender, data: bytes) -> None:
    while data:
        space = sender.space()
        n = min(len(space), len(data))
        space[:n] = data[:n]
        sender.replay.extend(n)
        data = data[n:]


def send(sender: Sender) -> list[bytes]:
    """All that goes now, as messages."""
    masks = isinstance(sender.replay, MaskedReplay)
    outbox = Outbox(masks=masks)
    while sender.send_some(outbox):
        pass
    found = messages(b"".join(outbox.pieces), masked=masks)
    return [message for message in found if isinstance(message, bytes)]


def test_what_was_sent_is_kept_until_it_is_acknowledged(make: Make) -> None:
    sender = make()
    read(sender, b"12345")
    assert (sender.unacknowledged, sender.ever_sent, sender.is_acknowledged) == (5, 0, False)
    assert send(sender) == [b"12345"]
    assert (sender.unacknowledged, sender.ever_sent) == (5, 5)
    sender.ack_came(2)
    assert (sender.unacknowledged, sender.acked, sender.is_acknowledged) == (3, 2, False)
    sender.ack_came(5)
    assert (sender.unacknowledged, sender.is_acknowledged) == (0, True)


@pytest.mark.parametrize("count", [1, 6])
def test_an_ack_of_less_than_before_or_more_than_was_sent_cannot_be(make: Make, count: int) -> None:
    sender = make()
    read(sender, b"12345")
    send(sender)
    read(sender, b"6")
    sender.ack_came(2)
    with pytest.raises(RemoteProtocolError, match=f"^the peer acknowledged {count}, which is not possible$"):
        sender.ack_came(count)
    assert (sender.acked, sender.unacknowledged) == (2, 4), "it has changed nothing"
    assert [sender.can_be_acked(number) for number in (1, 2, 5, 6)] == [False, True, True, False]


def test_the_fin_follows_the_data_and_takes_a_number(make: Make) -> None:
    sender = make()
    read(sender, b"12345")
    assert sender.take_fin() == ""
    sender.ended = True
    assert bool(sender.owes_fin)
    assert sender.take_fin() == "", "not before the data have gone"
    send(sender)
    assert sender.take_fin() == "fin 5"
    assert not bool(sender.owes_fin)
    assert sender.take_fin() == ""
    assert sender.ever_sent == 6
    sender.ack_came(5)
    assert not bool(sender.fin_acked)
    sender.ack_came(6)
    assert bool(sender.fin_acked)
    assert sender.unacknowledged == 0


def test_on_a_new_connection_the_rest_goes_again_and_the_fin_too_unless_it_was_acknowledged(make: Make) -> None:
    sender = make()
    read(sender, b"12345")
    sender.ended = True
    send(sender)
    sender.take_fin()
    sender.ack_came(2)
    sender.begin_connection()
    assert send(sender) == [b"345"]
    assert sender.take_fin() == "fin 5"
    sender.ack_came(6)
    sender.begin_connection()
    assert send(sender) == [] and sender.take_fin() == "" and not sender.owes_fin


def test_the_source_is_read_while_window_and_read_ahead_have_room(make: Make) -> None:
    sender = make(window=READ_AHEAD + 10)
    assert bool(sender.has_room)
    read(sender, bytes(READ_AHEAD - 1))
    assert bool(sender.has_room)
    read(sender, b"x")
    assert not bool(sender.has_room), "so much waits for the wire"
    send(sender)
    assert bool(sender.has_room)
    read(sender, bytes(9))
    assert len(sender.space()) == 1
    read(sender, b"x")
    send(sender)
    assert not bool(sender.has_room), "the window is full"
    sender.ack_came(1)
    assert bool(sender.has_room)
    assert len(sender.space()) == 1
    sender.ended = True
    assert not bool(sender.has_room)


def test_before_there_is_a_window_and_behind_the_last_segment_nothing_is_read(make: Make) -> None:
    assert not make(window=0).has_room
    sender = make()
    for _ in range(MAX_SEGMENTS):
        assert sender.has_room
        read(sender, b"x")
        send(sender)
    assert not sender.has_room
    sender.ack_came(1)
    assert sender.has_room


def test_no_message_is_larger_than_it_may_be_and_some_are_framed_at_once(make: Make) -> None:
    sender = make(1000)
    read(sender, bytes(READ_AHEAD))
    read(sender, bytes(SOME))
    outbox = Outbox(masks=False) if isinstance(sender.replay, ReplayBuffer) else Outbox(masks=True)
    assert sender.send_some(outbox)
    assert SOME <= sender.replay.next < SOME + 1000
    sizes = [
        len(message)
        for message in messages(b"".join(outbox.pieces), masked=isinstance(sender.replay, MaskedReplay))
        if isinstance(message, bytes)
    ]
    assert max(sizes) == 1000
    assert sender.ever_sent == sender.replay.next
    outbox.clear()
    while sender.send_some(outbox):
        outbox.clear()
    assert sender.ever_sent == READ_AHEAD + SOME


def test_what_went_out_before_there_was_a_session_is_kept_and_not_sent_again(make: Make) -> None:
    sender = make()
    sent = bytes(i % 251 for i in range(600_000))
    sender.adopt(sent)
    assert (sender.unacknowledged, sender.ever_sent) == (600_000, 600_000)
    assert send(sender) == []
    read(sender, b"more")
    assert send(sender) == [b"more"]
    sender.ack_came(500_000)
    sender.begin_connection()
    assert b"".join(send(sender)) == sent[500_000:] + b"more"


# ---- what lost connections teach


def lose(sender: Sender, *, too_big: bool = False, blames_size: bool = True) -> int:
    sender.lost_connection(too_big=too_big, blames_size=blames_size)
    sender.begin_connection()
    send(sender)
    return sender.message_size.limit


def test_two_losses_with_a_large_message_outstanding_make_messages_smaller(make: Make) -> None:
    sender = make()
    read(sender, bytes(100_000))
    send(sender)
    assert lose(sender) == LARGEST_MESSAGE
    assert lose(sender) == SMALLER_MESSAGE


def test_losses_for_other_reasons_teach_nothing(make: Make) -> None:
    sender = make()
    read(sender, bytes(100_000))
    send(sender)
    for _ in range(4):
        assert lose(sender, blames_size=False) == LARGEST_MESSAGE
    sender.ack_came(100_000)
    for _ in range(4):
        assert lose(sender) == LARGEST_MESSAGE, "nothing is outstanding"
    read(sender, b"small")
    for _ in range(4):
        assert lose(sender) == LARGEST_MESSAGE, "what is outstanding is small"


def test_progress_is_an_ack_on_this_connection(make: Make) -> None:
    sender = make()
    read(sender, bytes(100_000))
    send(sender)
    assert not bool(sender.progress)
    sender.ack_came(1)
    assert bool(sender.progress)
    for acked in range(2, 6):
        assert lose(sender) == LARGEST_MESSAGE
        assert not bool(sender.progress)
        sender.ack_came(acked)


def test_a_peer_that_says_too_big_is_believed_at_once(make: Make) -> None:
    sender = make()
    read(sender, bytes(100_000))
    send(sender)
    assert lose(sender, too_big=True) == SMALLER_MESSAGE
