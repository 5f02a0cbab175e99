"""The plain stream's rules one by one: ends, pings, limits, and what a violation does."""

from __future__ import annotations

import pytest

from tunnel.errors import LocalProtocolError, RemoteProtocolError
from tunnel.protocol import frames
from tunnel.protocol.frames import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame_header
from tunnel.protocol.keepalive import STALL_LIMIT, Keepalive
from tunnel.protocol.plain_stream import CLOSE_LIMIT, PlainStream
from tunnel.protocol.read_buffers import FRAME_LIMIT, ReadBuffers

KEY = bytes(4)  # masking with it changes nothing


def server(*, sink_limit: float | None = STALL_LIMIT) -> PlainStream:
    keepalive = Keepalive(0.0, 20.0, 60.0)
    return PlainStream(client=False, buffers=ReadBuffers(), keepalive=keepalive, sink_limit=sink_limit)


def from_client(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    return frame_header(opcode, len(payload), KEY, final) + payload


def receive(stream: PlainStream, data: bytes, now: float = 0.0) -> None:
    stream.wire_space()[: len(data)] = data
    assert stream.wire_received(len(data), now) == len(data)


def read_source(stream: PlainStream, data: bytes, now: float = 0.0) -> None:
    stream.source_space()[: len(data)] = data
    stream.source_received(len(data), now)


def send(stream: PlainStream, now: float = 0.0) -> bytes:
    """Take everything that waits for the wire."""
    data = b"".join(stream.wire_output())
    stream.wire_sent(len(data), now)
    return data


def deliver(stream: PlainStream) -> bytes:
    """Take everything that waits for the sink."""
    data = b"".join(stream.sink_output())
    stream.sink_sent(len(data), 0.0)
    return data


def test_a_frame_of_the_server_is_one_piece_read_and_sent_from_the_same_memory() -> None:
    stream = server()
    space = stream.source_space()
    space[:5] = b"hello"
    stream.source_received(5, 0.0)
    (piece,) = stream.wire_output()
    assert bytes(piece) == b"\x82\x05hello"
    assert isinstance(piece, memoryview) and piece.obj is space.obj


def test_no_frame_is_larger_than_the_limit() -> None:
    assert len(server().source_space()) == FRAME_LIMIT


def test_every_client_frame_has_a_key_of_its_own() -> None:
    stream = PlainStream(client=True, buffers=ReadBuffers(), keepalive=Keepalive(0.0))
    keys = set()
    for _ in range(20):
        read_source(stream, b"x")
        keys.add(send(stream)[2:6])
    assert len(keys) == 20


def test_the_source_is_not_read_while_the_wire_is_blocked() -> None:
    stream = server()
    read_source(stream, b"x")
    assert stream.wants_source is False
    with pytest.raises(LocalProtocolError):
        stream.source_space()
    send(stream)
    assert stream.wants_source


def test_the_wire_is_not_read_while_the_sink_is_blocked() -> None:
    stream = server()
    receive(stream, from_client(BINARY, b"abc"))
    assert stream.wants_wire_read is False
    with pytest.raises(LocalProtocolError):
        stream.wire_space()
    assert deliver(stream) == b"abc"
    assert stream.wants_wire_read


def test_text_and_fragments_are_bytes_of_the_stream_and_empty_messages_are_nothing() -> None:
    stream = server()
    receive(stream, from_client(TEXT, "é".encode()) + from_client(BINARY) + from_client(BINARY, b"a", final=False))
    receive_rest = from_client(0, b"b")
    assert deliver(stream) == "éa".encode()
    receive(stream, receive_rest)
    assert deliver(stream) == b"b"


def test_the_sources_end_sends_close_behind_the_data() -> None:
    stream = server()
    read_source(stream, b"last")
    stream.source_ended()
    assert send(stream) == b"\x82\x04last" + b"\x88\x02\x03\xe8"
    assert stream.close_sent and not stream.wants_source


def test_after_the_peers_close_the_tail_still_goes_out_before_our_close() -> None:
    stream = server()
    receive(stream, from_client(BINARY, b"all") + from_client(CLOSE, close_payload(1000)))
    assert stream.wants_sink_write, "what came before the Close is not delivered yet"
    assert deliver(stream) == b"all"
    assert stream.sink_ended
    read_source(stream, b"tail")
    assert send(stream) == b"\x82\x04tail"
    stream.source_ended()
    assert send(stream) == b"\x88\x02\x03\xe8"


def test_only_the_first_close_goes_out() -> None:
    stream = server()
    stream.close(frames.GOING_AWAY, "stopping")
    stream.source_ended()
    assert send(stream) == b"\x88\x0a\x03\xe9stopping"


def test_a_ping_is_answered_with_its_data() -> None:
    stream = server()
    receive(stream, from_client(PING, b"42"))
    assert send(stream) == bytes((0x80 | PONG, 2)) + b"42"


def test_a_flood_of_pings_behind_a_blocked_wire_stays_bounded_and_the_last_is_answered() -> None:
    stream = server()
    read_source(stream, b"x")
    for i in range(1000):
        receive(stream, from_client(PING, str(i).encode()))
    assert len(stream.wire_output()) < 20
    send(stream)
    assert send(stream).endswith(b"999")


def test_a_violation_delivers_what_came_before_it_and_closes_with_its_code() -> None:
    stream = server()
    receive(stream, from_client(BINARY, b"good") + b"\x82\x01x")
    assert isinstance(stream.failure, RemoteProtocolError)
    assert deliver(stream) == b"good"
    assert send(stream).startswith(bytes((0x80 | CLOSE,)))
    assert not stream.wants_wire_read


def test_a_sink_that_fails_is_counted_and_the_wire_is_read_on() -> None:
    stream = server()
    receive(stream, from_client(BINARY, b"12345"))
    stream.sink_failed(0.0)
    assert stream.wants_wire_read
    receive(stream, from_client(BINARY, b"678"))
    assert stream.undelivered == 8
    assert not stream.wants_sink_write


def test_settle_leaves_nothing_in_the_shared_buffers() -> None:
    buffers = ReadBuffers()
    stream = PlainStream(client=False, buffers=buffers, keepalive=Keepalive(0.0))
    read_source(stream, b"mine")
    receive(stream, from_client(BINARY, b"yours"))
    stream.settle()
    buffers.source[:] = bytes(len(buffers.source))
    buffers.wire[:] = bytes(len(buffers.wire))
    assert send(stream) == b"\x82\x04mine"
    assert deliver(stream) == b"yours"


def cause(stream: PlainStream) -> str | None:
    """Return why the stream has failed, if it has."""
    return stream.failure.code if stream.failure else None


# ---- limits


def test_it_pings_after_silence_and_any_byte_is_life() -> None:
    stream = server()
    stream.tick(19.0)
    assert not stream.wants_wire_write
    stream.tick(20.0)
    assert send(stream) == b"\x89\x00"
    stream.tick(79.0)
    receive(stream, b"\x82", now=79.5)  # half a header will do
    stream.tick(81.0)
    assert cause(stream) is None


def test_a_ping_without_any_answer_ends_the_stream() -> None:
    stream = server()
    stream.tick(20.0)
    send(stream, 20.0)
    stream.tick(79.0)
    assert cause(stream) is None
    stream.tick(80.0)
    assert cause(stream) == "silent"


def test_while_its_own_sink_is_stalled_it_keeps_pinging_and_judges_nobody() -> None:
    stream = server(sink_limit=None)
    receive(stream, from_client(BINARY, b"stuck"))
    pings = 0
    for now in range(5, 3600, 5):
        stream.tick(float(now))
        pings += send(stream, float(now)).count(b"\x89\x00")
    assert cause(stream) is None
    assert 170 <= pings <= 180
    deliver(stream)
    stream.tick(3601.0)
    assert cause(stream) is None, "silence while it was deaf must not count"


def test_a_blocked_write_has_a_limit_of_its_own_which_progress_renews() -> None:
    stream = server()
    stream.tick(1.0)
    read_source(stream, b"x" * 1000)
    stream.tick(500.0)
    stream.wire_sent(10, 500.0)
    stream.tick(STALL_LIMIT + 400.0)
    assert cause(stream) is None
    stream.tick(STALL_LIMIT + 500.0)
    assert cause(stream) == "stalled"


def test_a_target_that_takes_nothing_is_given_up_in_the_end() -> None:
    stream = server()
    receive(stream, from_client(BINARY, b"x"))
    stream.tick(1.0)
    stream.tick(STALL_LIMIT)
    send(stream, STALL_LIMIT)  # a ping
    assert cause(stream) is None
    stream.tick(STALL_LIMIT + 1.0)
    assert cause(stream) == "sink-stalled"
    assert stream.undelivered == 1


def test_a_close_that_is_never_answered_has_a_limit() -> None:
    stream = server()
    stream.source_ended()
    send(stream)
    stream.tick(CLOSE_LIMIT - 1)
    assert cause(stream) is None
    stream.tick(CLOSE_LIMIT)
    assert cause(stream) == "silent"


def test_a_half_closed_target_that_says_nothing_has_a_limit_which_its_words_renew() -> None:
    stream = server()
    receive(stream, from_client(CLOSE, close_payload(1000)), now=10.0)
    read_source(stream, b"word", now=800.0)
    send(stream)
    stream.tick(STALL_LIMIT + 799.0)
    assert cause(stream) is None
    send(stream)
    stream.tick(STALL_LIMIT + 800.0)
    assert cause(stream) == "no-tail"
