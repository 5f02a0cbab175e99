"""How each end of a session reacts, and what it sends by itself: docs/wire.md, Wire 2."""

from __future__ import annotations

import pytest

from tests.protocol.wire import BINARY, PING, PONG, TEXT, deliver, frame, hear, messages, say, sent
from tunnel.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frame_budget import IDLE_FRAMES
from tunnel.protocol.frames import CLOSE, TARGET_LOST, TARGET_REFUSED_DATA, close_payload
from tunnel.protocol.liveness import PROBE_LIMIT, SILENCE_AFTER_REQUEST, SILENCE_BEFORE_REQUEST
from tunnel.protocol.message_size import SMALLER_MESSAGE
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.receiver import ACK_DELAY
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.session_state import WINDOW

OFFER = SessionOffer("0" * 32, "1" * 64, 1 << 20, 60)
NO_FRAMES = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"


class End:
    """One end of a session, and the peer's voice. What is sent is read as `tests.protocol.wire.messages` says."""

    def __init__(self, *, client: bool, begun: bool = True, **options: object) -> None:
        self.client = client
        offer = None if client else OFFER
        self.stream = ResumableStream(client=client, buffers=ReadBuffers(), now=0.0, offer=offer, **options)  # type: ignore[arg-type]
        if begun:
            if client:
                self.hear_text(OFFER.line())
            else:
                self.hear_text("ack 0")
            self.sent()

    def hear(self, opcode: int, payload: bytes = b"", now: float = 0.0) -> None:
        hear(self.stream, frame(opcode, payload, masked=not self.client), now)

    def hear_text(self, *lines: str, now: float = 0.0) -> None:
        for line in lines:
            self.hear(TEXT, line.encode(), now)

    def hear_close(self, code: int, now: float = 0.0) -> None:
        self.hear(CLOSE, close_payload(code), now)

    def sent(self, now: float = 0.0) -> list[object]:
        return messages(sent(self.stream, now), masked=self.client)

    def resume(self, received: int, now: float = 0.0) -> None:
        self.stream.detach()
        self.stream.attach(received, now)


@pytest.fixture(params=[True, False], ids=["client", "bridge"])
def end(request: pytest.FixtureRequest) -> End:
    return End(client=request.param)


@pytest.fixture
def client() -> End:
    return End(client=True)


@pytest.fixture
def bridge() -> End:
    return End(client=False)


def code(end: End) -> str | None:
    return end.stream.failure.code if end.stream.failure else None


# ---- how a session begins


def test_the_bridge_begins_with_its_101_and_the_session_line() -> None:
    bridge = End(client=False, begun=False, preamble=b"HTTP/1.1 101\r\n\r\n")
    assert bridge.stream.wants_wire_write
    data = sent(bridge.stream)
    assert data.startswith(b"HTTP/1.1 101\r\n\r\n")
    assert messages(data.removeprefix(b"HTTP/1.1 101\r\n\r\n"), masked=False) == [OFFER.line()]


def test_a_client_whose_source_ends_before_there_is_a_session_says_so_in_it() -> None:
    client = End(client=True, begun=False)
    client.stream.source_ended()
    assert not bool(client.stream.wants_wire_write)
    client.hear_text(OFFER.line())
    assert client.sent() == ["ack 0", "fin 0"]


def test_whether_anything_came_over_a_connection_is_known() -> None:
    client = End(client=True, begun=False)
    assert not bool(client.stream.connection.was_heard)
    hear(client.stream, frame(TEXT, b"", masked=False)[:1])
    assert client.stream.connection.was_heard


def test_the_clock_runs_from_when_the_stream_was_made() -> None:
    for client in (True, False):
        stream = ResumableStream(client=client, buffers=ReadBuffers(), now=1000.0, offer=None if client else OFFER)
        hear(stream, frame(TEXT, b"ack 0" if not client else OFFER.line().encode(), masked=not client), 1000.0)
        sent(stream)
        assert stream.next_tick(1000.0) == 20.0


def test_a_client_keeps_no_more_memory_than_it_has_bytes_to_send_again(client: End) -> None:
    say(client.stream, b"12345")
    assert client.stream.session.memory == 5
    client.sent()
    client.hear_text("ack 2")
    assert client.stream.session.memory == 3


def test_a_line_that_says_nothing_new_costs_as_much_as_it_has_frames(end: End) -> None:
    masked = not end.client
    line = b"".join(frame(TEXT if not at else 0, b"news"[at : at + 1], final=at == 3, masked=masked) for at in range(4))
    for _ in range(IDLE_FRAMES // 4):
        hear(end.stream, line, 1.0)
    assert not bool(end.stream.over)
    end.hear_text("news", now=1.0)
    assert end.stream.over


def test_the_client_says_nothing_before_there_is_a_session_and_then_that_it_knows_of_it() -> None:
    client = End(client=True, begun=False)
    stream = client.stream
    assert (stream.wants_source, stream.wants_wire_write, stream.offer) == (False, False, None)
    assert (stream.session.established, stream.session.waits_for_peer) == (False, True)
    client.hear_text(OFFER.line())
    assert stream.offer is not None and (stream.offer.id, stream.offer.key) == (OFFER.id, OFFER.key)
    assert (stream.session.established, stream.wants_source) == (True, True)
    assert client.sent() == ["ack 0"]


@pytest.mark.parametrize(("opcode", "payload"), [(TEXT, b"ack 0"), (BINARY, b"x")])
def test_the_bridge_is_confirmed_when_the_client_has_spoken(opcode: int, payload: bytes) -> None:
    bridge = End(client=False, begun=False)
    assert not bool(bridge.stream.session.confirmed)
    bridge.hear(opcode, payload)
    assert bridge.stream.session.confirmed


def test_a_second_session_inside_a_session_is_a_violation(client: End) -> None:
    client.hear_text(OFFER.line())
    assert client.stream.over and str(client.stream.failure) == "the peer offered a session inside a session"
    assert client.sent() == ["error protocol the peer offered a session inside a session", ("close", 1000, "")]


def test_we_need_not_keep_as_much_as_a_peer_would_take_but_take_what_we_have_offered() -> None:
    client = End(client=True, begun=False)
    client.hear_text(SessionOffer(OFFER.id, OFFER.key, 2 * WINDOW, 60).line())
    assert client.stream.session.sender.window == WINDOW
    assert client.stream.session.receiver.window == 2 * WINDOW


def test_bytes_that_are_no_frame_after_the_session_line_break_only_the_connection() -> None:
    client = End(client=True, begun=False)
    hear(client.stream, frame(TEXT, OFFER.line().encode(), masked=False) + NO_FRAMES)
    stream = client.stream
    assert stream.offer is not None and stream.offer.id == OFFER.id
    assert not stream.over and stream.failure is None
    assert stream.wire_is_over and stream.connection.violation is not None


def test_bytes_that_are_no_frame_before_the_session_line_are_a_violation() -> None:
    client = End(client=True, begun=False)
    hear(client.stream, NO_FRAMES)
    assert client.stream.over and client.stream.failure is not None
    assert not client.stream.session.established


@pytest.mark.parametrize(("opcode", "payload"), [(BINARY, b"data"), (TEXT, b"hello"), (TEXT, b"ack 0")])
def test_a_peer_that_begins_with_something_else_knows_of_no_sessions(opcode: int, payload: bytes) -> None:
    client = End(client=True, begun=False)
    client.hear(opcode, payload)
    assert client.stream.session.is_plain and client.stream.wire_is_over
    assert not client.stream.over and deliver(client.stream) == b""


@pytest.mark.parametrize("ack", [b"ack 0", b"ack 3"])
def test_a_bridge_that_gets_the_clients_first_line_as_data_says_what_to_do(ack: bytes) -> None:
    bridge = End(client=False, begun=False)
    say(bridge.stream, b"SSH")
    bridge.sent()
    bridge.hear(BINARY, ack)
    assert bridge.stream.over and deliver(bridge.stream) == b""
    assert str(bridge.stream.failure) == "an edge turned the client's control lines into data: use no_resume"


@pytest.mark.parametrize("data", [b"ack 4", b"ack", b"ack x", b"ping", b"SSH-2.0-x\r\n", b"ack 0" + b" " * 1020, b"x"])
def test_data_that_only_look_like_a_first_line_are_data(data: bytes) -> None:
    bridge = End(client=False, begun=False)
    say(bridge.stream, b"SSH")
    bridge.sent()
    bridge.hear(BINARY, data)
    assert not bridge.stream.over and deliver(bridge.stream) == data


def test_behind_a_control_line_data_may_look_like_one(bridge: End) -> None:
    bridge.hear(BINARY, b"ack 0")
    assert not bridge.stream.over and deliver(bridge.stream) == b"ack 0"


def test_data_in_fragments_are_no_first_line() -> None:
    bridge = End(client=False, begun=False)
    hear(bridge.stream, frame(BINARY, b"ack 0", final=False) + frame(0, b"!"))
    assert not bridge.stream.over and deliver(bridge.stream) == b"ack 0!"


def test_a_client_that_was_plain_until_then_goes_on_with_what_it_has_sent() -> None:
    client = End(client=True, begun=False)
    outbox = Outbox(masks=True)
    outbox.add(BINARY, b"last")
    assert not bool(client.stream.connection.was_heard)
    client.stream.adopt(OFFER, outbox, b"first last")
    assert (client.stream.connection.was_heard, client.stream.session.established) == (True, True)
    assert client.sent() == [b"last", "ack 0"]
    assert client.stream.session.unacknowledged == 10
    client.hear_text("ack 10")
    assert not bool(client.stream.over)
    assert client.stream.session.unacknowledged == 0


# ---- data, acks, fins


def test_a_frame_of_the_bridge_is_one_piece_with_its_header(bridge: End) -> None:
    say(bridge.stream, b"hello")
    assert [bytes(piece) for piece in bridge.stream.wire_output()] == [b"\x82\x05hello"]


def test_data_go_out_and_are_kept_until_they_are_acknowledged(end: End) -> None:
    say(end.stream, b"12345")
    assert end.stream.session.waits_for_peer is False, "nothing was sent yet"
    assert end.sent() == [b"12345"]
    assert bool(end.stream.session.waits_for_peer)
    assert end.stream.session.unacknowledged == 5
    end.hear_text("ack 5")
    assert not bool(end.stream.session.waits_for_peer)
    assert end.stream.session.unacknowledged == 0


def test_what_is_delivered_is_acknowledged_a_moment_later(end: End) -> None:
    end.hear(BINARY, b"12345", now=1.0)
    assert deliver(end.stream, 1.0) == b"12345"
    assert not end.stream.wants_wire_write
    assert end.stream.next_tick(1.0) == pytest.approx(ACK_DELAY)
    end.stream.tick(1.0 + ACK_DELAY)
    assert end.sent() == ["ack 5"]


def test_an_ack_goes_before_data_and_the_fin_behind_them(end: End) -> None:
    end.hear_text("ping")
    say(end.stream, b"data")
    end.stream.source_ended()
    assert end.sent() == ["ack 0", b"data", "fin 4"]
    assert not end.stream.wants_source
    assert not end.stream.wants_wire_write


def test_both_ends_are_complete_when_both_fins_are_delivered(end: End) -> None:
    end.stream.source_ended()
    end.sent()
    end.hear_text("fin 0", "ack 1")
    assert (end.stream.sink_ended, end.stream.session.complete) == (True, False)
    end.stream.sink_half_closed()
    assert bool(end.stream.session.complete)
    assert end.sent() == ["ack 1"]


def test_a_peers_ping_line_is_answered_with_the_current_ack_though_nothing_is_new(end: End) -> None:
    for _ in range(2):
        end.hear_text("ping")
        assert end.stream.wants_wire_write
        assert end.sent() == ["ack 0"]


def test_a_websocket_ping_is_answered_with_its_data(end: End) -> None:
    end.hear(PING, b"are you there?")
    assert end.sent() == [("pong", b"are you there?")]
    end.hear(PONG, b"unasked")
    assert end.sent() == []


def test_an_ack_of_what_was_never_sent_is_a_violation(end: End) -> None:
    end.hear_text("ack 1")
    assert end.stream.over and str(end.stream.failure) == "the peer acknowledged 1, which is not possible"
    assert end.sent()[-2:] == ["error protocol the peer acknowledged 1, which is not possible", ("close", 1000, "")]


def test_lines_of_other_kinds_and_lines_in_pieces_are_no_trouble(end: End) -> None:
    masked = not end.client
    hear(end.stream, frame(TEXT, b"ne", final=False, masked=masked) + frame(0, b"ws", masked=masked))
    say(end.stream, b"12345")
    end.sent()
    for byte in frame(TEXT, b"ack 5", masked=masked):
        hear(end.stream, bytes([byte]))
    assert end.stream.session.unacknowledged == 0 and not end.stream.over


def test_data_inside_a_frame_are_held_back_until_more_of_it_comes(end: End) -> None:
    whole = frame(BINARY, b"x" * 1000, masked=not end.client)
    hear(end.stream, whole[:-100])
    held = 1000 - 100 - len(deliver(end.stream))
    assert 0 < held <= 131
    hear(end.stream, whole[-100:])
    assert len(deliver(end.stream)) == 100 + held


def test_a_sink_that_fails_is_given_nothing_more_and_all_is_acknowledged(end: End) -> None:
    end.hear(BINARY, b"12345")
    end.stream.sink_failed(0.0)
    assert not bool(end.stream.wants_sink_write)
    assert end.stream.session.undelivered == 5
    end.hear(BINARY, b"678")
    assert not bool(end.stream.wants_sink_write)
    assert end.stream.session.undelivered == 8
    assert end.stream.session.delivered == 8


@pytest.mark.parametrize("waits", ["a line", "a frame"])
def test_what_waits_for_a_connection_that_has_ended_goes_nowhere(end: End, waits: str) -> None:
    if waits == "a line":
        end.stream.request_ack()
    else:
        say(end.stream, b"12345")
        assert end.stream.wire_output()
    end.stream.wire_ended()
    assert not end.stream.wants_wire_write
    assert end.sent() == []


def test_reading_out_of_turn_is_a_mistake_of_ours(end: End) -> None:
    end.stream.detach()
    with pytest.raises(LocalProtocolError, match="the source was read while the window is full, or without a"):
        end.stream.source_space()
    with pytest.raises(LocalProtocolError, match="the wire was read after its end"):
        end.stream.wire_space()


def test_acks_that_say_something_new_cost_nothing_and_the_first_one_either() -> None:
    bridge = End(client=False, begun=False)
    say(bridge.stream, bytes(3 * IDLE_FRAMES))
    bridge.sent()
    for count in range(2 * IDLE_FRAMES):
        bridge.hear_text(f"ack {count}")
    for _ in range(IDLE_FRAMES):
        bridge.hear_text(f"ack {2 * IDLE_FRAMES - 1}")
    assert not bool(bridge.stream.over)
    bridge.hear_text("ping")
    assert bridge.stream.over, "what says nothing new is paid for, and all of that has been spent"


# ---- connections


def test_what_is_kept_for_long_is_kept_in_little_memory(bridge: End) -> None:
    say(bridge.stream, b"x")
    assert bridge.stream.session.memory > 10_000
    bridge.stream.session.compact()
    assert bridge.stream.session.memory < 100


def test_what_was_not_delivered_is_asked_for_again_and_what_was_not_acknowledged_sent_again(end: End) -> None:
    say(end.stream, b"12345")
    end.sent()
    end.hear(BINARY, b"abcdef")
    end.stream.sink_sent(2, 0.0)
    end.stream.detach()
    assert (end.stream.wants_source, end.stream.wants_wire_read, end.stream.wants_wire_write) == (False, False, False)
    assert not bool(end.stream.wants_sink_write)
    assert end.stream.session.delivered == 2
    assert (end.stream.wire_is_over, end.stream.attached) == (True, False)
    end.stream.attach(3, 0.0)
    assert (end.stream.attached, end.stream.wire_is_over, end.stream.wants_wire_read) == (True, False, True)
    again = end.sent()
    assert again == ([b"45"] if end.client else ["ack 2", b"45"])
    end.hear(BINARY, b"cdef")
    assert not bool(end.stream.over)
    assert deliver(end.stream) == b"cdef"


def test_a_bridge_says_what_it_has_delivered_behind_its_101(bridge: End) -> None:
    bridge.stream.detach()
    bridge.stream.attach(0, 0.0, b"HTTP/1.1 101\r\n\r\n")
    data = sent(bridge.stream)
    assert data.startswith(b"HTTP/1.1 101\r\n\r\n")
    assert messages(data.removeprefix(b"HTTP/1.1 101\r\n\r\n"), masked=False) == ["ack 0"]


@pytest.mark.parametrize("received", [1, 6])
def test_a_resume_from_where_the_peer_cannot_be_changes_nothing(end: End, received: int) -> None:
    say(end.stream, b"12345")
    end.sent()
    end.hear_text("ack 2")
    end.stream.detach()
    assert [end.stream.can_attach(number) for number in (1, 2, 5, 6)] == [False, True, True, False]
    with pytest.raises(RemoteProtocolError, match=f"^the peer resumes at {received}, which is not between 2 and 5$"):
        end.stream.attach(received, 0.0)
    assert not end.stream.attached
    end.stream.attach(2, 0.0)
    assert b"345" in end.sent()


def test_a_fin_that_the_peer_has_not_delivered_goes_again(end: End) -> None:
    say(end.stream, b"12345")
    end.stream.source_ended()
    end.sent()
    end.resume(5)
    assert end.sent()[-1] == "fin 5"
    end.resume(6)
    assert "fin 5" not in end.sent()


def test_the_peers_close_ends_the_connection_and_not_the_session(end: End) -> None:
    end.hear_close(1001)
    assert end.stream.wire_is_over and not end.stream.over
    assert end.stream.connection.close_frame is not None and end.stream.connection.close_frame.code == 1001
    assert not end.stream.wants_wire_read


def test_messages_become_smaller_when_the_peer_says_too_big_or_twice_hangs_up_on_large_ones(end: End) -> None:
    size = end.stream.session.sender.message_size
    full = size.limit
    say(end.stream, bytes(100_000))
    end.sent()
    for close in (1001, 1009):
        end.hear_close(close)
        end.resume(0)
        end.sent()
        assert size.limit == (SMALLER_MESSAGE if close == 1009 else full)


@pytest.mark.parametrize("how", ["silence", "taken over"])
def test_a_network_that_is_away_says_nothing_of_the_size(end: End, how: str) -> None:
    size = end.stream.session.sender.message_size
    full, now = size.limit, 0.0
    say(end.stream, bytes(100_000))
    for _ in range(4):
        end.sent(now)
        if how == "silence":
            while not end.stream.wire_is_over:
                now += 1.0
                end.stream.tick(now)
                end.sent(now)
        end.resume(0, now)
    assert size.limit == full


def test_a_connection_that_ends_twice_without_progress_is_blamed_on_large_messages(end: End) -> None:
    say(end.stream, bytes(100_000))
    for _ in range(2):
        end.sent()
        end.stream.wire_ended()
        end.stream.detach()
        end.stream.detach()  # the second time it is known
        end.stream.attach(0, 0.0)
    assert end.stream.session.sender.message_size.limit == SMALLER_MESSAGE


def test_a_wire_that_takes_nothing_more_is_read_on(end: End) -> None:
    say(end.stream, b"lost")
    end.stream.request_ack()
    end.stream.wire_write_failed()
    assert not end.stream.wants_wire_write
    end.hear(BINARY, b"last words")
    assert deliver(end.stream) == b"last words"
    end.resume(0)
    assert b"lost" in end.sent()


# ---- time


def test_an_idle_connection_is_pinged_and_dead_if_nothing_comes(end: End) -> None:
    assert end.stream.next_tick(0.0) == 20.0
    end.stream.tick(19.9)
    assert not end.stream.wants_wire_write
    end.stream.tick(20.0)
    assert end.sent() == [("ping", b"")]
    end.stream.tick(20.0 + SILENCE_AFTER_REQUEST)
    assert end.stream.wire_is_over and end.stream.connection.is_silent and not end.stream.over
    assert end.stream.next_tick(100.0) == float("inf")


def test_nothing_goes_out_behind_the_close_of_a_session(bridge: End) -> None:
    say(bridge.stream, b"unsent")
    bridge.stream.fail("shutdown", ConnectionLost("going-away", reason=""), close_code=1001)
    assert sent(bridge.stream).endswith(b"\x88\x02\x03\xe9")


def test_before_anything_came_the_clock_runs_from_the_beginning() -> None:
    bridge = ResumableStream(client=False, buffers=ReadBuffers(), now=1000.0, offer=OFFER)
    assert bridge.next_tick(1000.0) == 20.0
    client = ResumableStream(client=True, buffers=ReadBuffers(), now=1000.0)
    assert client.next_tick(1000.0) == SILENCE_BEFORE_REQUEST, "the bridge owes a session"


def test_what_is_outstanding_is_asked_for_after_some_silence(end: End) -> None:
    say(end.stream, b"12345")
    end.sent()
    assert end.stream.next_tick(0.0) == SILENCE_BEFORE_REQUEST
    end.stream.tick(0.0)
    assert end.stream.next_tick(1.0) == SILENCE_BEFORE_REQUEST - 1.0
    end.stream.tick(SILENCE_BEFORE_REQUEST)
    assert end.sent() == ["ping"]
    assert end.stream.next_tick(SILENCE_BEFORE_REQUEST) == SILENCE_AFTER_REQUEST
    end.stream.tick(SILENCE_BEFORE_REQUEST + SILENCE_AFTER_REQUEST)
    assert end.stream.wire_is_over


def test_an_ack_is_asked_for_in_front_of_data_and_a_ping_only_on_an_empty_wire() -> None:
    client = End(client=True)
    client.stream.request_ack()
    say(client.stream, b"data")
    assert client.sent() == ["ping", b"data"]
    client = End(client=True, ping_interval=3.0)
    client.hear_text("ping")
    client.stream.wire_output()
    client.stream.tick(3.0)
    assert client.sent() == ["ack 0"], "what waits for the wire will be a sign of life, too"


def test_the_users_limits_of_pings_hold() -> None:
    client = End(client=True, ping_interval=3.0, ping_timeout=2.0)
    client.stream.tick(3.0)
    assert client.sent() == [("ping", b"")]
    client.stream.tick(4.9)
    assert not client.stream.wire_is_over
    client.stream.tick(5.0)
    assert client.stream.wire_is_over


def test_any_byte_keeps_the_connection_alive(end: End) -> None:
    end.stream.tick(20.0)
    end.sent()
    hear(end.stream, frame(PONG, b"", masked=not end.client)[:1], 27.0)
    end.stream.tick(28.5)
    assert not end.stream.wire_is_over


def test_a_client_that_gets_data_asks_when_they_stop_and_a_bridge_need_not() -> None:
    for end, asks in ((End(client=True), True), (End(client=False), False)):
        end.hear(BINARY, b"x", now=1.0)
        deliver(end.stream, 1.0)
        end.stream.tick(2.0)
        end.sent()
        end.stream.tick(1.0 + SILENCE_BEFORE_REQUEST)
        assert end.sent() == (["ping"] if asks else [])


def test_a_probe_is_answered_soon_or_the_connection_is_dead(end: End) -> None:
    end.stream.probe(100.0)
    assert end.sent() == ["ping"]
    end.stream.tick(100.0 + PROBE_LIMIT - 0.1)
    assert not end.stream.wire_is_over
    end.stream.tick(100.0 + PROBE_LIMIT)
    assert end.stream.wire_is_over


def test_a_new_connection_on_which_nothing_answers_is_dead(end: End) -> None:
    end.stream.detach()
    end.stream.attach(0, 100.0)
    end.stream.ask(100.0)
    assert "ping" in end.sent()
    end.stream.tick(100.0 + SILENCE_AFTER_REQUEST - 0.1)
    assert not end.stream.wire_is_over
    end.stream.tick(100.0 + SILENCE_AFTER_REQUEST)
    assert end.stream.wire_is_over


def test_an_ack_is_progress_for_the_clock(end: End) -> None:
    for second in range(0, 120, 4):
        say(end.stream, b"x")
        end.sent(float(second))
        end.hear_text(f"ack {second // 4}", now=float(second))
        end.stream.tick(float(second))
    assert not end.stream.wire_is_over


def test_a_hop_that_talks_but_never_acknowledges_is_dead(end: End) -> None:
    say(end.stream, b"x")
    second = 0.0
    while not end.stream.wire_is_over and second < 100.0:
        second += 4.0
        end.sent(second)
        end.hear(PONG, now=second)
        end.stream.tick(second)
    assert 60.0 <= second <= 68.0


def test_while_it_is_detached_no_clock_runs(end: End) -> None:
    end.stream.detach()
    assert end.stream.next_tick(0.0) == float("inf")
    end.stream.request_ack()
    end.stream.tick(1000.0)
    end.stream.attach(0, 1000.0)
    assert "ping" not in end.sent()
    end.stream.tick(1001.0)
    assert not end.stream.wire_is_over


def test_memory_that_is_only_kept_for_more_is_given_back_when_nothing_is_outstanding() -> None:
    bridge = End(client=False)
    total = 0
    for _ in range(60):
        while bridge.stream.wants_source:
            n = len(bridge.stream.source_space())
            bridge.stream.source_received(n, 0.0)
            total += n
        bridge.sent()
        bridge.hear_text(f"ack {total}")
    assert bridge.stream.session.memory > 0
    bridge.stream.tick(1.0)
    assert bridge.stream.session.memory == 0


def test_a_new_connection_owes_no_ack_of_the_last_one(client: End) -> None:
    client.hear_text("ping")
    client.resume(0)
    assert client.sent() == []
    client.hear(BINARY, b"x", now=5.0)
    deliver(client.stream, 5.0)
    client.resume(0, 5.0)
    client.stream.tick(5.0 + ACK_DELAY)
    assert client.sent() == []


def test_what_a_failed_sink_does_not_get_is_acknowledged_in_time(end: End) -> None:
    end.stream.sink_failed(0.0)
    end.hear(BINARY, b"12345", now=5.0)
    assert end.stream.next_tick(5.0) == pytest.approx(ACK_DELAY)
    end.stream.tick(5.0 + ACK_DELAY)
    assert end.sent() == ["ack 5"]


def test_no_clock_runs_for_a_connection_or_a_session_that_is_over(end: End) -> None:
    end.stream.wire_ended()
    assert end.stream.next_tick(0.0) == float("inf")
    end.stream.tick(1000.0)
    assert not end.stream.connection.is_silent
    other = End(client=end.client)
    other.stream.fail("shutdown", ConnectionLost("going-away", reason=""), text="")
    assert other.stream.next_tick(0.0) == float("inf")
    other.stream.tick(20.0)
    other.stream.request_ack()
    assert other.sent() == ["error shutdown ", ("close", 1000, "")]


def test_no_ack_is_asked_for_before_there_is_a_session_or_behind_the_end_of_a_connection(end: End) -> None:
    client = End(client=True, begun=False)
    client.stream.request_ack()
    client.hear_text(OFFER.line())
    assert client.sent() == ["ack 0"]
    end.stream.wire_ended()
    end.stream.request_ack()
    assert not end.stream.wants_wire_write


# ---- how a session ends


def test_a_client_ends_with_what_it_has_read_its_last_ack_end_and_a_close(client: End) -> None:
    client.hear(BINARY, b"123")
    deliver(client.stream)
    say(client.stream, b"last")
    client.stream.end()
    assert client.stream.over and client.stream.failure is None
    assert client.sent() == [b"last", "ack 3", "end", ("close", 1000, "")]
    client.stream.end()
    assert client.sent() == []


def test_a_client_without_a_session_just_closes() -> None:
    client = End(client=True, begun=False)
    client.stream.end()
    assert client.stream.over and client.sent() == [("close", 1000, "")]


def test_a_client_that_is_detached_ends_without_a_word(client: End) -> None:
    client.stream.detach()
    client.stream.end()
    assert client.stream.over and client.sent() == []


def test_the_clients_end_is_over_for_the_bridge_and_what_was_sent_before_is_delivered(bridge: End) -> None:
    bridge.hear(BINARY, b"last")
    bridge.hear_text("end")
    assert bridge.stream.over and bridge.stream.failure is None
    assert deliver(bridge.stream) == b"last"
    assert not bridge.stream.wants_wire_read and not bridge.stream.wants_source
    assert bridge.stream.next_tick(0.0) == float("inf")


def test_an_end_from_the_bridge_is_a_violation(client: End) -> None:
    client.hear_text("end")
    assert str(client.stream.failure) == "the bridge sent an end line, which only clients may send"


@pytest.mark.parametrize("peer_is_bridge", [True, False])
def test_an_error_from_the_peer_ends_the_session_with_its_words(peer_is_bridge: bool) -> None:
    end = End(client=peer_is_bridge)
    end.hear_text("error policy too much of it")
    name = "the bridge" if peer_is_bridge else "the client"
    assert end.stream.over
    assert str(end.stream.failure) == f"the session is over: {name} ended it (policy): too much of it"
    assert end.sent() == []
    end.stream.fail("other", ConnectionLost("input", reason="too late"))
    assert code(end) == "session-error" and end.sent() == []


def test_what_follows_the_end_of_a_session_is_not_looked_at(bridge: End) -> None:
    data = frame(TEXT, b"end") + frame(BINARY, b"late") + frame(TEXT, b"ack 99")
    bridge.stream.wire_space()[: len(data)] = data
    bridge.stream.wire_received(len(data), 0.0)
    assert bridge.stream.failure is None and deliver(bridge.stream) == b""


def test_our_own_failure_is_sent_with_its_code_and_text(end: End) -> None:
    end.stream.request_ack()
    say(end.stream, b"unsent")
    end.stream.fail("shutdown", ConnectionLost("going-away", reason=""), text="be back soon", close_code=1001)
    assert code(end) == "going-away"
    assert end.sent() == ["ping", "error shutdown be back soon", ("close", 1001, "")]
    assert not end.stream.wants_source and not end.stream.wants_wire_read
    other = End(client=True)
    other.stream.fail("x", ConnectionLost("input", reason="why"))
    assert other.sent() == ["error x cannot read standard input: why", ("close", 1000, "")]


def test_behind_the_end_of_a_connection_nothing_is_said(end: End) -> None:
    end.stream.request_ack()
    end.hear_close(1001)
    end.stream.fail("shutdown", ConnectionLost("going-away", reason=""))
    assert end.sent() == []


# ---- a source that breaks


@pytest.mark.parametrize(
    ("close", "reason", "line", "said"),
    [
        (TARGET_LOST, "reset", "error target-lost reset", "the target behind the bridge broke the connection: reset"),
        (TARGET_LOST, "", "error target-lost ", "the target behind the bridge broke the connection"),
        (
            TARGET_REFUSED_DATA,
            "full",
            "error undelivered full",
            "the target behind the bridge did not accept everything that was sent: full",
        ),
        (0, "is a folder", "error input is a folder", "cannot read standard input: is a folder"),
    ],
)
def test_a_source_that_breaks_ends_the_session_once_the_peer_has_the_rest(
    end: End, close: int, reason: str, line: str, said: str
) -> None:
    say(end.stream, b"rest")
    end.stream.source_failed(close, reason)
    assert not bool(end.stream.over)
    assert end.sent() == [b"rest"]
    end.stream.source_ended()
    assert end.sent() == [], "an end that it is not is not told of"
    end.hear_text("ack 3")
    assert not bool(end.stream.over)
    end.hear_text("ack 4")
    assert bool(end.stream.over)
    assert str(end.stream.failure) == said
    assert end.sent() == [line, ("close", 1000, "")]


def test_a_source_that_breaks_when_all_is_acknowledged_ends_the_session_at_once(end: End) -> None:
    end.stream.source_failed(TARGET_LOST, "reset")
    assert end.sent() == ["error target-lost reset", ("close", 1000, "")]


def test_the_first_reason_counts(end: End) -> None:
    say(end.stream, b"rest")
    end.stream.source_failed(TARGET_LOST, "first")
    end.stream.source_failed(0, "second")
    end.sent()
    end.hear_text("ack 4")
    assert code(end) == "target-lost"


def test_a_source_that_has_ended_cannot_break_any_more(end: End) -> None:
    end.stream.source_ended()
    end.stream.source_failed(TARGET_LOST, "late")
    assert end.sent() == ["fin 0"]
    end.hear_text("ack 1")
    assert not end.stream.over


def test_a_source_that_broke_while_detached_is_reported_by_the_ack_of_the_resume(end: End) -> None:
    say(end.stream, b"rest")
    end.sent()
    end.stream.detach()
    end.stream.source_failed(TARGET_LOST, "reset")
    assert not bool(end.stream.over)
    end.stream.attach(4, 0.0)
    assert bool(end.stream.over)
    assert "error target-lost reset" in end.sent()


def test_bytes_may_go_past_a_session_from_its_line_to_its_end() -> None:
    assert not End(client=True, begun=False).stream.may_pass(1)
    client = End(client=True)
    assert client.stream.may_pass(1 << 20) and not client.stream.may_pass((1 << 20) + 1)
    client.stream.end()
    assert not client.stream.may_pass(1)
