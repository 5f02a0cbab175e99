"""How the directions of a plain stream end, with each codec, and how it hands over to a session."""

from __future__ import annotations

import pytest

from tests.protocol.wire import BINARY, PING, TEXT, deliver, frame, hear, messages, say, sent
from tunnel.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from tunnel.protocol.beginning import COPY_LIMIT, MESSAGE_SIZE, WAIT, Beginning
from tunnel.protocol.codec import BINARY_CODEC, BinaryCodec
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import (
    CLOSE,
    GOING_AWAY,
    INTERNAL_ERROR,
    NO_CODE,
    NORMAL,
    POLICY,
    PROTOCOL_ERROR,
    SILENT_PEER,
    close_payload,
)
from tunnel.protocol.keepalive import STALL_LIMIT, Keepalive
from tunnel.protocol.plain_stream import CLOSE_LIMIT, PlainStream
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers
from tunnel.websocat.messages import PARTING, SILENCE, MessageCodec, MessageOptions

LINE = SessionOffer("0123456789abcdef" * 2, "fedcba9876543210" * 4, 1 << 20, 60).line().encode()
BEGAN = 1000.0


class End:
    """One end of a plain tunnel, and the peer's voice."""

    def __init__(self, *, client: bool = False, beginning: bool = False, **options: object) -> None:
        self.client = client
        message_options = MessageOptions()
        for name in list(options):
            if name in MessageOptions.__slots__:
                setattr(message_options, name, options.pop(name))
                options["codec"] = None
        if "codec" in options:
            options["codec"] = MessageCodec(message_options)
        keepalive = options.pop("keepalive", None) or Keepalive(BEGAN)
        if beginning:
            options["beginning"] = Beginning(BEGAN)
        self.stream = PlainStream(client=client, buffers=ReadBuffers(), keepalive=keepalive, **options)  # type: ignore[arg-type]

    def hear(self, opcode: int, payload: bytes = b"", now: float = BEGAN) -> None:
        hear(self.stream, frame(opcode, payload, masked=not self.client), now)

    def hear_close(self, code: int = NORMAL, reason: str = "", now: float = BEGAN) -> None:
        self.hear(CLOSE, close_payload(code, reason), now)

    def sent(self, now: float = BEGAN) -> list[object]:
        return messages(sent(self.stream, now), masked=self.client)


def cause(end: End) -> str | None:
    return end.stream.failure.code if end.stream.failure else None


@pytest.fixture(params=[True, False], ids=["client", "bridge"])
def end(request: pytest.FixtureRequest) -> End:
    return End(client=request.param)


# ---- the usual end


def test_both_directions_end_with_a_close_each_in_either_order(end: End) -> None:
    assert (end.stream.sink_ended, end.stream.close_sent, end.stream.complete) == (False, False, False)
    end.stream.source_ended()
    assert not bool(end.stream.close_sent), "it is still to be written"
    assert end.sent() == [("close", NORMAL, "")]
    assert (end.stream.close_sent, end.stream.complete) == (True, False)
    masked = not end.client
    hear(end.stream, frame(BINARY, b"tail", masked=masked) + frame(CLOSE, close_payload(NORMAL), masked=masked))
    assert not bool(end.stream.sink_ended), "the tail is not delivered"
    assert deliver(end.stream) == b"tail"
    assert (end.stream.sink_ended, end.stream.complete) == (True, True)
    assert not bool(end.stream.wants_wire_read)


def test_after_the_peers_close_ours_says_that_we_have_ended_too(end: End) -> None:
    end.hear_close(GOING_AWAY, "stopping")
    assert (end.stream.close_received, end.stream.close_code, end.stream.close_reason) == (True, GOING_AWAY, "stopping")
    assert End(client=end.client).stream.close_reason == ""
    assert end.stream.sink_ended and not end.stream.complete and end.stream.wants_source
    end.stream.source_ended()
    assert end.sent() == [("close", GOING_AWAY, "")]
    assert end.stream.complete


def test_a_close_without_a_code_is_answered_without_one(end: End) -> None:
    end.hear(CLOSE)
    assert end.stream.close_code == NO_CODE
    end.stream.source_ended()
    assert end.sent() == [("close", NO_CODE, "")]


def test_nothing_is_read_from_the_source_behind_our_close(end: End) -> None:
    end.stream.close(INTERNAL_ERROR, "why")
    assert not end.stream.wants_source
    end.sent()
    assert not end.stream.wants_source
    with pytest.raises(LocalProtocolError, match="the source was read while the wire is blocked or closing"):
        end.stream.source_space()
    end.stream.source_ended()
    assert end.sent() == []


def test_a_wire_that_ends_ends_the_sink_behind_what_came(end: End) -> None:
    end.hear(BINARY, b"last")
    end.stream.wire_ended()
    assert (end.stream.wants_wire_read, end.stream.sink_ended) == (False, False)
    deliver(end.stream)
    assert (end.stream.sink_ended, end.stream.complete) == (True, True)
    assert not bool(end.stream.close_received)
    assert end.stream.close_code == NO_CODE
    with pytest.raises(LocalProtocolError, match="the wire was read while the sink is blocked, or after its end"):
        end.stream.wire_space()


def test_a_wire_that_takes_nothing_more_discards_what_waits_and_takes_no_close(end: End) -> None:
    say(end.stream, b"lost")
    end.stream.wire_write_failed()
    assert not end.stream.wants_wire_write and not end.stream.wants_source and end.stream.close_sent
    end.stream.source_ended()
    end.stream.close(INTERNAL_ERROR)
    assert not end.stream.wants_wire_write
    end.hear(BINARY, b"heard")
    assert deliver(end.stream) == b"heard"


def test_a_failure_closes_with_its_code_and_its_text_only_where_that_is_the_peers_business(end: End) -> None:
    for code, shown in ((PROTOCOL_ERROR, "it is your fault"), (POLICY, "it is your fault"), (INTERNAL_ERROR, "")):
        other = End(client=end.client)
        error = RemoteProtocolError("it is your fault")
        other.stream.fail(error, code)
        other.stream.fail(RemoteProtocolError("a second one"), code)
        assert other.stream.failure is error and other.stream.wire_is_over
        assert other.sent() == [("close", code, shown)]


def test_a_sink_that_fails_counts_what_it_did_not_take(end: End) -> None:
    end.hear(BINARY, b"12345")
    end.stream.sink_sent(2, BEGAN)
    end.stream.sink_failed(BEGAN)
    assert end.stream.undelivered == 3 and not end.stream.wants_sink_write
    for _ in range(2):
        end.hear(BINARY, b"678")
        assert not end.stream.wants_sink_write
    assert end.stream.undelivered == 9
    end.hear_close()
    assert end.stream.sink_ended


def test_a_preamble_goes_out_before_the_first_frame() -> None:
    end = End(preamble=b"HTTP/1.1 101\r\n\r\n")
    assert not end.stream.wants_source, "the source is read when that has gone"
    assert sent(end.stream) == b"HTTP/1.1 101\r\n\r\n"
    assert end.stream.wants_source


def test_no_message_is_larger_than_it_may_be() -> None:
    assert len(End(max_message=1000).stream.source_space()) == 1000
    assert len(End(max_message=FRAME_LIMIT + 1).stream.source_space()) == FRAME_LIMIT
    assert len(End(size=500).stream.source_space()) == 500


def test_what_was_taken_over_goes_out_in_front_of_the_source_in_messages_of_the_right_size(end: End) -> None:
    other = End(client=end.client, max_message=4)
    other.stream.send_first(b"0123456789")
    assert other.sent() == [b"0123", b"4567", b"89"]
    say(other.stream, b"more")
    assert other.sent() == [b"more"]
    other.stream.send_first(b"")
    assert other.sent() == []


# ---- pings and limits


def test_a_ping_is_answered_at_both_ends(end: End) -> None:
    end.hear(PING, b"42")
    assert end.sent() == [("pong", b"42")]


def test_it_does_not_ping_while_the_wire_is_blocked_or_behind_its_close(end: End) -> None:
    say(end.stream, b"blocked")
    end.stream.tick(BEGAN + 30.0)
    assert end.sent(BEGAN + 30.0) == [b"blocked"]
    end.stream.source_ended()
    end.sent(BEGAN + 30.0)
    end.stream.tick(BEGAN + 59.0)
    assert end.sent() == [] and end.stream.failure is None


def test_a_wire_that_was_idle_for_long_has_its_whole_limit_when_it_blocks(end: End) -> None:
    keepalive = Keepalive(BEGAN, 1e9, 1e9)
    other = End(client=end.client, keepalive=keepalive)
    other.stream.tick(BEGAN + 10_000.0)
    say(other.stream, b"x")
    other.stream.tick(BEGAN + 10_000.0 + STALL_LIMIT - 1.0)
    assert other.stream.failure is None
    other.stream.tick(BEGAN + 10_000.0 + STALL_LIMIT)
    assert cause(other) == "stalled"
    assert other.stream.wire_is_over
    assert other.sent()[-1] == ("close", SILENT_PEER, "")


def test_progress_of_the_sink_renews_its_limit(end: End) -> None:
    other = End(client=end.client, sink_limit=100.0)
    other.hear(BINARY, b"12345")
    other.stream.tick(BEGAN + 1.0)
    other.stream.sink_sent(1, BEGAN + 90.0)
    other.stream.tick(BEGAN + 189.0)
    assert cause(other) is None
    other.stream.tick(BEGAN + 190.0)
    assert cause(other) == "sink-stalled" and other.stream.undelivered == 4
    assert other.stream.failure is not None and other.stream.failure.fields == {"seconds": 100.0}


def test_a_sink_has_its_whole_limit_from_when_bytes_wait_for_it(end: End) -> None:
    other = End(client=end.client, sink_limit=100.0, keepalive=Keepalive(BEGAN, 1e9, 1e9))
    other.hear(BINARY, b"1")
    deliver(other.stream, BEGAN)
    other.stream.tick(BEGAN + 500.0)
    other.hear(BINARY, b"2", now=BEGAN + 600.0)
    other.stream.tick(BEGAN + 601.0)
    assert other.stream.failure is None
    other.stream.tick(BEGAN + 700.0)
    assert other.stream.failure is None
    other.stream.tick(BEGAN + 701.0)
    assert cause(other) == "sink-stalled"


def test_a_sink_without_a_limit_may_wait_for_ever(end: End) -> None:
    other = End(client=end.client, sink_limit=None)
    other.hear(BINARY, b"1")
    for now in range(0, 10_000, 10):
        other.stream.tick(BEGAN + now)
        other.sent(BEGAN + now)
    assert other.stream.failure is None


def test_the_tail_has_a_limit_that_the_source_renews(end: End) -> None:
    end.hear_close(now=BEGAN + 10.0)
    end.stream.tick(BEGAN + 10.0 + STALL_LIMIT - 1.0)
    end.sent(BEGAN + 10.0 + STALL_LIMIT - 1.0)
    assert cause(end) is None
    end.stream.tick(BEGAN + 10.0 + STALL_LIMIT)
    assert cause(end) == "no-tail"
    assert end.stream.failure is not None and end.stream.failure.fields == {"seconds": STALL_LIMIT}


def test_behind_our_own_close_the_tail_has_no_limit_here(end: End) -> None:
    end.hear_close()
    end.stream.close(INTERNAL_ERROR)
    end.sent()
    end.stream.tick(BEGAN + 2 * STALL_LIMIT)
    assert end.stream.failure is None


def test_a_peer_that_has_closed_is_still_pinged_while_the_tail_is_awaited(end: End) -> None:
    end.hear_close(now=BEGAN + 1.0)
    end.stream.tick(BEGAN + 21.0)
    assert end.sent(BEGAN + 21.0) == [("ping", b"")]
    end.stream.tick(BEGAN + 200.0)
    assert end.stream.failure is None, "it owes no answer"


def test_a_close_alone_is_no_reason_to_ping(end: End) -> None:
    end.hear_close(now=BEGAN + 5.0)
    end.stream.tick(BEGAN + 5.0)
    end.stream.tick(BEGAN + 24.9)
    assert end.sent() == []


def test_a_close_is_awaited_only_so_long_but_not_while_our_sink_is_blocked(end: End) -> None:
    other = End(client=end.client, sink_limit=None)
    other.stream.source_ended()
    other.sent()
    other.hear(BINARY, b"blocked")
    for now in range(0, 1000, 10):
        other.stream.tick(BEGAN + now)
    assert cause(other) is None
    deliver(other.stream, BEGAN + 990.0)
    other.stream.tick(BEGAN + 990.0 + CLOSE_LIMIT - 1.0)
    assert cause(other) is None
    other.stream.tick(BEGAN + 990.0 + CLOSE_LIMIT)
    assert cause(other) == "silent"
    assert other.stream.failure is not None and other.stream.failure.fields == {"seconds": CLOSE_LIMIT}


def test_silence_counts_only_while_it_reads(end: End) -> None:
    other = End(client=end.client, keepalive=Keepalive(BEGAN, 10.0, 20.0))
    other.stream.tick(BEGAN + 10.0)
    assert other.sent(BEGAN + 10.0) == [("ping", b"")]
    other.hear(BINARY, b"blocks", now=BEGAN + 15.0)
    other.stream.tick(BEGAN + 16.0)
    other.sent(BEGAN + 16.0)
    say(other.stream, b"blocked")
    deliver(other.stream, BEGAN + 20.0)
    for now in range(20, 60, 5):
        other.stream.tick(BEGAN + now)
    assert other.stream.failure is None


def test_it_asks_for_ticks_often_enough_for_every_limit() -> None:
    assert End().stream.next_tick(BEGAN) == Keepalive(BEGAN).tick
    assert End(exit_on_eof=True).stream.next_tick(BEGAN) < 1.0
    beginning = End(client=True, beginning=True)
    assert beginning.stream.next_tick(BEGAN + WAIT - 1.0) == 1.0
    assert beginning.stream.next_tick(BEGAN + WAIT + 1.0) == 0.0
    beginning.stream.tick(BEGAN + WAIT)
    assert beginning.stream.next_tick(BEGAN + WAIT) == Keepalive(BEGAN).tick


# ---- websocat's ways


def test_behind_the_last_message_that_may_be_sent_a_close_follows(end: End) -> None:
    other = End(client=end.client, sends=2)
    say(other.stream, b"one")
    assert other.sent() == [b"one"]
    assert other.stream.wants_source
    say(other.stream, b"two")
    assert other.sent() == [b"two", ("close", NORMAL, "")]
    assert not bool(other.stream.wants_source)
    other.hear(BINARY, b"answer")
    assert deliver(other.stream) == b"answer"


def test_an_end_that_may_send_nothing_says_so_at_once(end: End) -> None:
    other = End(client=end.client, sends=0)
    assert not other.stream.wants_source
    assert other.sent() == [("close", NORMAL, "")]


def test_a_close_may_have_another_code_which_comes_back_as_a_good_end(end: End) -> None:
    other = End(client=end.client, close_code=4321, close_reason="bye")
    other.stream.source_ended()
    assert other.sent() == [("close", 4321, "bye")]
    other.hear_close(4321)
    assert other.stream.close_code == NORMAL
    before = End(client=end.client, close_code=4321)
    before.hear_close(4321)
    assert before.stream.close_code == 4321


def test_an_end_that_says_no_close_goes_on_reading(end: End) -> None:
    other = End(client=end.client, close=False)
    say(other.stream, b"last")
    other.stream.source_ended()
    assert other.sent() == [b"last"] and not other.stream.wants_source
    assert not other.stream.complete
    other.hear(BINARY, b"answer")
    assert deliver(other.stream) == b"answer"
    other.hear_close()
    other.stream.source_ended()
    assert other.sent() == [("close", NORMAL, "")], "the peer's Close is answered"
    assert other.stream.complete


def test_a_peers_close_is_answered_even_where_none_is_said_of_our_own_accord(end: End) -> None:
    other = End(client=end.client, close=False)
    other.hear_close(GOING_AWAY)
    other.stream.source_ended()
    assert other.sent() == [("close", GOING_AWAY, "")]


def test_a_server_that_takes_no_more_messages_ends_its_sink_and_a_client_discards() -> None:
    server = End(receives=1)
    server.hear(BINARY, b"one")
    assert deliver(server.stream) == b"one"
    assert server.stream.sink_ended and not server.stream.wants_wire_read
    say(server.stream, b"answer")
    assert server.sent() == [b"answer"]
    client = End(client=True, receives=1)
    client.hear(BINARY, b"one")
    assert deliver(client.stream) == b"one"
    assert not client.stream.sink_ended
    client.hear(BINARY, b"two")
    assert not client.stream.wants_sink_write and client.stream.wants_wire_read


def test_an_end_that_may_take_nothing_knows_from_the_start() -> None:
    server, client = End(receives=0), End(client=True, receives=0)
    assert server.stream.sink_ended and not client.stream.sink_ended
    client.hear(BINARY, b"x")
    assert not client.stream.wants_sink_write


def test_a_client_that_ends_with_its_input_closes_behind_the_last_message() -> None:
    client = End(client=True, receives=1, exit_on_eof=True)
    client.hear(BINARY, b"one")
    assert client.sent() == [("close", NORMAL, "")]
    server = End(receives=1, exit_on_eof=True)
    server.hear(BINARY, b"one")
    assert server.sent() == []


def test_an_end_with_nothing_left_to_do_and_no_close_to_say_is_complete() -> None:
    client = End(client=True, close=False, receives=1)
    client.hear(BINARY, b"one")
    deliver(client.stream)
    assert not bool(client.stream.complete)
    client.stream.source_ended()
    assert (client.stream.sink_ended, client.stream.complete) == (True, True)
    assert client.sent() == []
    other = End(client=True, close=False, receives=1)
    other.stream.source_ended()
    assert not bool(other.stream.complete)
    other.hear(BINARY, b"one")
    deliver(other.stream)
    assert bool(other.stream.complete)


def test_after_some_silence_an_end_that_is_missing_is_not_waited_for() -> None:
    client = End(client=True, exit_on_eof=True)
    client.stream.source_ended()
    client.sent()
    client.hear(BINARY, b"x", now=BEGAN + 10.0)
    client.stream.tick(BEGAN + 10.0)
    client.stream.tick(BEGAN + 10.0 + 2 * SILENCE)
    assert not client.stream.close_received, "not while its sink is blocked"
    deliver(client.stream)
    client.stream.tick(BEGAN + 10.0 + 2 * SILENCE)
    assert not client.stream.close_received
    client.stream.tick(BEGAN + 10.0 + 3 * SILENCE)
    assert client.stream.complete and client.stream.close_code == NORMAL and client.stream.failure is None


def test_the_silence_counts_from_the_last_message_that_was_taken() -> None:
    server = End(receives=1, exit_on_eof=True)
    server.hear(BINARY, b"one", now=BEGAN + 50.0)
    deliver(server.stream)
    server.stream.tick(BEGAN + 50.0 + SILENCE - 0.1)
    assert server.sent() == []
    server.stream.tick(BEGAN + 50.0 + SILENCE)
    assert server.sent() == [("close", NORMAL, "")]


def test_a_peers_close_that_is_not_waited_for_any_longer_is_answered_with_its_code() -> None:
    server = End(exit_on_eof=True)
    server.hear_close(GOING_AWAY)
    server.stream.tick(BEGAN + SILENCE)
    assert server.sent() == [("close", GOING_AWAY, "")]


def test_an_end_that_is_missing_is_not_waited_for_where_no_close_is_said_either() -> None:
    client = End(client=True, close=False, exit_on_eof=True)
    client.stream.source_ended()
    client.stream.tick(BEGAN)
    assert not bool(client.stream.complete)
    client.stream.tick(BEGAN + SILENCE)
    assert client.sent() == []
    assert client.stream.complete


def test_what_waits_for_the_wire_is_not_cut_off_by_that() -> None:
    server = End(exit_on_eof=True)
    server.hear_close()
    say(server.stream, b"blocked", BEGAN)
    server.stream.tick(BEGAN + 2 * SILENCE)
    assert server.sent() == [b"blocked"]
    server.stream.tick(BEGAN + 2 * SILENCE)
    assert server.sent() == [("close", NORMAL, "")] and server.stream.complete


def test_where_all_is_done_the_peers_close_is_awaited_for_a_moment_only() -> None:
    client = End(client=True, receives=1)
    client.stream.source_ended()
    client.sent()
    client.hear(BINARY, b"one")
    deliver(client.stream)
    client.stream.tick(BEGAN + 1.0)
    assert not client.stream.complete
    client.stream.tick(BEGAN + 1.0 + PARTING)
    assert client.stream.complete


def test_a_text_that_is_not_whole_is_sent_with_the_end() -> None:
    client = End(client=True, text=True)
    say(client.stream, "é".encode()[:1])
    assert client.sent() == []
    client.stream.source_ended()
    assert client.sent() == ["\ufffd", ("close", NORMAL, "")]


# ---- a session instead


@pytest.fixture
def hidden() -> End:
    """A client that has offered to resume and got no answer to that."""
    return End(client=True, beginning=True)


def test_until_it_is_clear_messages_are_small_and_copied_to_a_limit(hidden: End) -> None:
    stream = hidden.stream
    assert stream.may_get_session and not stream.has_session
    assert len(stream.source_space()) == MESSAGE_SIZE
    small = End(client=True, beginning=True, max_message=100)
    assert len(small.stream.source_space()) == 100
    data = bytes(i % 251 for i in range(COPY_LIMIT))
    at = 0
    while stream.wants_source:
        n = min(len(stream.source_space()), 15_000, max(1, COPY_LIMIT - 1 - at))
        stream.source_space()[:n] = data[at : at + n]
        stream.source_received(n, BEGAN)
        hidden.sent()
        at += n
        assert stream.beginning is not None and stream.beginning.sent == data[:at]
    assert at == COPY_LIMIT


def test_a_session_takes_over_and_what_follows_its_line_is_left_for_it(hidden: End) -> None:
    stream = hidden.stream
    say(stream, b"SSH-2.0-x\r\n")
    line, behind = frame(TEXT, LINE, masked=False), frame(TEXT, b"ack 0", masked=False)
    data = line + behind
    stream.wire_space()[: len(data)] = data
    assert stream.wire_received(len(data), BEGAN) == len(line)
    assert stream.has_session and not stream.wants_wire_read and not stream.wants_source
    assert stream.beginning is not None and stream.beginning.sent == b"SSH-2.0-x\r\n"
    assert messages(b"".join(stream.take_outbox().pieces), masked=True) == [b"SSH-2.0-x\r\n"]
    assert not stream.sink_ended or not stream.wants_sink_write


def test_a_session_that_cannot_be_used_is_ended_with_a_close(hidden: End) -> None:
    hidden.hear(TEXT, LINE)
    hidden.stream.leave_session()
    hidden.stream.leave_session()
    assert hidden.sent() == ["end", ("close", NORMAL, "")]


def test_a_first_message_that_is_no_session_is_delivered_and_makes_the_tunnel_plain(hidden: End) -> None:
    hidden.hear(BINARY, b"hello")
    assert deliver(hidden.stream) == b"hello"
    assert not hidden.stream.may_get_session and not hidden.stream.has_session
    assert len(hidden.stream.source_space()) == FRAME_LIMIT
    hidden.hear(TEXT, LINE)
    assert deliver(hidden.stream) == LINE, "only the first message counts"


def test_no_session_begins_behind_an_end(hidden: End) -> None:
    hidden.hear_close()
    assert not hidden.stream.may_get_session
    other = End(client=True, beginning=True)
    other.stream.wire_ended()
    assert not other.stream.may_get_session


def test_a_session_that_comes_late_is_a_violation(hidden: End) -> None:
    hidden.stream.tick(BEGAN + WAIT)
    assert not hidden.stream.may_get_session and len(hidden.stream.source_space()) == FRAME_LIMIT
    hidden.hear(TEXT, LINE)
    assert cause(hidden) == "late-session" and "fedcba" not in str(hidden.stream.failure)
    assert isinstance(hidden.stream.failure, RemoteProtocolError | ConnectionLost)


def test_a_flood_of_empty_frames_before_the_first_message_ends_it(hidden: End) -> None:
    for _ in range(3000):
        if hidden.stream.failure:
            break
        hidden.hear(PING)
        hidden.sent()
    assert hidden.stream.failure is not None


# ---- memory


@pytest.mark.parametrize("client", [True, False])
def test_settle_copies_what_is_in_the_shared_buffers_only(client: bool) -> None:
    end = End(client=client)
    say(end.stream, b"x" * 5000)
    hear(end.stream, frame(BINARY, b"y" * 5000, masked=not client))
    end.stream.settle()
    out, into = list(end.stream.wire_output()), list(end.stream.sink_output())
    assert all(isinstance(piece, bytes) for piece in [*out, *into])
    end.stream.settle()
    assert [id(piece) for piece in end.stream.wire_output()] == [id(piece) for piece in out]
    assert [id(piece) for piece in end.stream.sink_output()] == [id(piece) for piece in into]


def test_bytes_may_go_past_a_plain_stream_only_if_messages_are_its_bytes() -> None:
    class Other(BinaryCodec):
        """Another form of messages."""

    for codec, may in ((BINARY_CODEC, True), (Other(), False)):
        stream = PlainStream(client=True, buffers=ReadBuffers(), keepalive=Keepalive(0.0), codec=codec)
        assert stream.may_pass(1) is may
