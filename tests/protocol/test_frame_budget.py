"""How many frames an end takes at once, and which count against the budget: floods end, honest peers never notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frame_budget import FRAMES_PER_TURN, IDLE_FRAMES, IDLE_FRAMES_PER_SECOND, FrameBudget
from tunnel.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    POLICY,
    PONG,
    TEXT,
    Close,
    FrameParser,
    Payload,
    close_payload,
    frame_header,
)
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.websocat.messages import MessageCodec, MessageOptions

KEY = bytes(4)  # masking with it changes nothing
FLOOD = 100_000
Stream = PlainStream | ResumableStream


def plain(*, client: bool = False) -> PlainStream:
    return PlainStream(client=client, buffers=ReadBuffers(), keepalive=Keepalive(0.0))


def websocat(*, client: bool = False) -> PlainStream:
    options = MessageOptions()
    options.text = options.lines = True
    return PlainStream(
        client=client, buffers=ReadBuffers(), keepalive=Keepalive(0.0), codec=MessageCodec(options)
    )  # fmt: skip


def resumable(*, client: bool = False) -> ResumableStream:
    offer = SessionOffer("0" * 32, "0" * 64, 1 << 20, 60)
    stream = ResumableStream(client=client, buffers=ReadBuffers(), now=0.0, offer=None if client else offer)
    if client:
        receive(stream, frame(TEXT, offer.line().encode(), masked=False))
    send(stream)
    return stream


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True) -> bytes:
    return frame_header(opcode, len(payload), KEY if masked else None, final) + payload


def take(stream: Stream, data: bytes, now: float = 0.0) -> int:
    """One turn: the stream reads ``data`` from the wire; return how much of it was used."""
    space = stream.wire_space()
    n = min(len(data), len(space))
    space[:n] = data[:n]
    used = stream.wire_received(n, now)
    stream.settle()
    return used


def receive(stream: Stream, data: bytes, now: float = 0.0) -> int:
    """Take ``data`` in, in as many turns as it needs, with a sink that takes everything; return the turns."""
    turns = 0
    while data and stream.wants_wire_read:
        data = data[take(stream, data[:4096], now) :]
        stream.sink_sent(sum(map(len, stream.sink_output())), now)
        turns += 1
    return turns


def send(stream: Stream) -> bytes:
    """Everything that goes to the wire."""
    sent = bytearray()
    while stream.wants_wire_write:
        output = b"".join(stream.wire_output())
        stream.wire_sent(len(output), 0.0)
        sent += output
    return bytes(sent)


def last_words(stream: Stream, *, masked: bool) -> tuple[list[bytes], bytes]:
    """The text messages, and the payload of the Close, that go to the wire."""
    lines, close = [], b""
    for event in FrameParser(masked=masked).feed(memoryview(send(stream))):
        if isinstance(event, Payload) and event.opcode == TEXT:
            lines.append(bytes(event.data))
        elif isinstance(event, Close):
            close = event.code.to_bytes(2, "big") + event.reason.encode()
    return lines, close


FLOODS: dict[str, Callable[[bool], bytes]] = {
    "empty binary messages": lambda masked: frame(BINARY, masked=masked) * FLOOD,
    "empty text messages": lambda masked: frame(TEXT, masked=masked) * FLOOD,
    "pings": lambda masked: frame(PING, b"p", masked=masked) * FLOOD,
    "pongs": lambda masked: frame(PONG, masked=masked) * FLOOD,
    "one message of empty fragments": lambda masked: (
        frame(BINARY, final=False, masked=masked) + frame(CONTINUATION, final=False, masked=masked) * FLOOD
    ),
    "messages of two empty fragments": lambda masked: (
        (frame(BINARY, final=False, masked=masked) + frame(CONTINUATION, masked=masked)) * FLOOD
    ),
    "one text message of empty fragments": lambda masked: (
        frame(TEXT, final=False, masked=masked) + frame(CONTINUATION, final=False, masked=masked) * FLOOD
    ),
}
LINES = {
    "the same ack": [b"ack 0"],
    "ping lines": [b"ping"],
    "unknown lines": [b"news"],
    "the same fin": [b"fin 0"],
    "unknown lines of one byte a fragment": [b"n", b"e", b"w", b"s"],
}


def flood_of_lines(fragments: list[bytes], *, masked: bool) -> bytes:
    opcodes = [TEXT, *[CONTINUATION] * (len(fragments) - 1)]
    last = len(fragments) - 1
    message = b"".join(
        frame(opcode, fragment, final=at == last, masked=masked)
        for at, (opcode, fragment) in enumerate(zip(opcodes, fragments, strict=True))
    )
    return message * FLOOD


@pytest.mark.parametrize("client", [False, True], ids=["at the bridge", "at the client"])
@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("make", [plain, websocat])
def test_a_flood_of_frames_that_say_nothing_closes_a_plain_tunnel_with_1008(
    make: Callable[..., PlainStream], kind: str, client: bool
) -> None:
    stream = make(client=client)
    turns = receive(stream, FLOODS[kind](not client))
    assert turns <= 2 * IDLE_FRAMES / FRAMES_PER_TURN + 2
    assert stream.wire_is_over and isinstance(stream.failure, RemoteProtocolError)
    _, close = last_words(stream, masked=client)
    assert int.from_bytes(close[:2], "big") == POLICY
    assert b"without effect" in close


@pytest.mark.parametrize("client", [False, True], ids=["at the bridge", "at the client"])
@pytest.mark.parametrize("kind", [*FLOODS, *LINES])
def test_a_flood_of_frames_that_change_nothing_ends_a_session_with_an_error_and_1008(kind: str, client: bool) -> None:
    stream = resumable(client=client)
    flood = FLOODS[kind](not client) if kind in FLOODS else flood_of_lines(LINES[kind], masked=not client)
    receive(stream, flood)
    assert stream.over and isinstance(stream.failure, RemoteProtocolError)
    lines, close = last_words(stream, masked=client)
    assert lines[-1].startswith(b"error policy ")
    assert int.from_bytes(close[:2], "big") == POLICY


def test_a_session_that_is_resumed_again_and_again_has_one_budget() -> None:
    stream = resumable()
    for _ in range(5):
        receive(stream, frame(PING) * (IDLE_FRAMES // 4))
        if stream.over:
            return
        stream.detach()
        stream.attach(0, 0.0)
    raise AssertionError("a flood goes on by resuming")


@pytest.mark.parametrize("make", [plain, websocat, resumable])
def test_one_turn_takes_so_many_frames_and_no_more(make: Callable[..., Stream]) -> None:
    stream = make()
    one = frame(BINARY, b"x")
    data = one * 1000
    for _ in range(3):
        used = take(stream, data)
        assert used == FRAMES_PER_TURN * len(one)
        output = b"".join(stream.sink_output())
        assert output.count(b"x") == FRAMES_PER_TURN
        stream.sink_sent(len(output), 0.0)
        data = data[used:]


def test_a_read_of_large_frames_is_taken_in_at_once() -> None:
    stream = plain()
    data = frame(BINARY, bytes(4096)) * 60
    assert take(stream, data) == len(data)


def test_a_read_full_of_line_ends_makes_no_more_messages_than_a_turn_can_bear() -> None:
    assert len(websocat().source_space()) <= 4096


def test_nothing_behind_a_close_is_asked_for_again() -> None:
    stream = plain()
    data = frame(CLOSE, close_payload(1000)) + frame(BINARY, b"x") * 1000
    assert take(stream, data) == len(data)


# ---- honest peers


def test_a_small_windows_acks_cost_nothing() -> None:
    stream = resumable()
    acked = 0
    for _ in range(50):
        space = stream.source_space()
        n = min(len(space), 2000)
        stream.source_received(n, 0.0)
        send(stream)
        receive(stream, b"".join(frame(TEXT, b"ack %d" % (acked + i)) for i in range(1, n + 1)))
        acked += n
    assert acked == 100_000 and not stream.over
    assert stream.session.unacknowledged == 0


@pytest.mark.parametrize("make", [plain, resumable])
def test_a_frame_for_each_byte_costs_nothing(make: Callable[..., Stream]) -> None:
    stream = make()
    receive(stream, frame(BINARY, b"x") * FLOOD)
    assert stream.failure is None and stream.wants_wire_read


@pytest.mark.parametrize("make", [plain, resumable])
def test_the_empty_end_of_a_fragmented_message_costs_nothing(make: Callable[..., Stream]) -> None:
    """`websockets`, for one, ends every message that it was given as an iterable so."""
    stream = make()
    receive(stream, (frame(BINARY, b"x", final=False) + frame(CONTINUATION)) * (FLOOD // 10))
    assert stream.failure is None and stream.wants_wire_read


@pytest.mark.parametrize("make", [plain, resumable])
def test_pings_pongs_and_ping_lines_may_come_for_hours(make: Callable[..., Stream]) -> None:
    stream = make()
    lines = frame(TEXT, b"ping") + frame(TEXT, b"ack 0") if make is resumable else b""
    for second in range(6 * 3600):
        receive(stream, frame(PING) + frame(PONG) + lines, second)
        send(stream)
    assert stream.failure is None and stream.wants_wire_read


def test_a_line_that_comes_byte_by_byte_is_one_frame() -> None:
    stream = resumable()
    for number in range(200):
        for byte in frame(TEXT, b"unknown words"):
            receive(stream, bytes([byte]), number / 100)
    assert not stream.over


def test_the_budget_comes_back_with_time_and_never_grows_beyond_itself() -> None:
    budget = FrameBudget()
    budget.spend(0.0, IDLE_FRAMES)
    with pytest.raises(RemoteProtocolError):
        FrameBudget().spend(0.0, IDLE_FRAMES + 1)
    budget.spend(1.0, 200)
    budget.spend(100_000.0, IDLE_FRAMES)
    with pytest.raises(RemoteProtocolError) as caught:
        budget.spend(100_000.0)
    assert caught.value.close_code == POLICY


def test_the_budget_is_full_from_the_start_and_earns_from_the_first_frame_on() -> None:
    budget = FrameBudget()
    budget.spend(0.5, IDLE_FRAMES)
    with pytest.raises(RemoteProtocolError, match=r"^the peer sent too many frames without effect$"):
        budget.spend(0.5)
    budget = FrameBudget()
    for _ in range(IDLE_FRAMES):
        budget.spend(5.0)
    with pytest.raises(RemoteProtocolError):
        budget.spend(5.0)


def test_what_is_earned_in_a_second_can_be_spent_in_it_for_ever() -> None:
    budget = FrameBudget()
    budget.spend(10.0, IDLE_FRAMES)
    for second in range(11, 100):
        budget.spend(float(second), int(IDLE_FRAMES_PER_SECOND))
    with pytest.raises(RemoteProtocolError):
        budget.spend(99.0)


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    budget = FrameBudget()
    budget.spend(100.0, IDLE_FRAMES)
    budget.spend(50.0, 0)
    with pytest.raises(RemoteProtocolError):
        budget.spend(50.0)


# ---- any cut, any limit


_frames = st.lists(
    st.one_of(
        st.builds(lambda size: frame(BINARY, bytes(range(size))), st.integers(0, 3)),
        st.sampled_from([frame(PING, b"1"), frame(PONG), frame(TEXT, b"ack 0"), frame(TEXT, b"unknown"), b"\xff"]),
        st.just(frame(BINARY, b"a", final=False) + frame(PING, b"2") + frame(CONTINUATION)),
        st.builds(lambda times: frame(BINARY, b"z") * times, st.integers(60, 200)),
        st.builds(lambda times: frame(BINARY) * times, st.integers(900, 2100)),
    ),
    max_size=8,
).map(b"".join)


def outcome(stream: Stream, data: bytes, sizes: list[int]) -> tuple[object, ...]:
    """What a sink and a user see of ``data`` that comes in reads of ``sizes``, in turn."""
    delivered = bytearray()
    at = turn = 0
    while at < len(data) and stream.wants_wire_read:
        at += take(stream, data[at : at + sizes[turn % len(sizes)]])
        turn += 1
        output = b"".join(stream.sink_output())
        delivered += output
        stream.sink_sent(len(output), 0.0)
    _, close = last_words(stream, masked=False)
    return bytes(delivered), str(stream.failure), stream.wire_is_over, close


@settings(deadline=None)
@given(_frames, st.lists(st.integers(1, 5000), min_size=1, max_size=5), st.sampled_from([plain, resumable]))
def test_however_the_bytes_are_cut_the_outcome_is_the_same(
    data: bytes, sizes: list[int], make: Callable[..., Stream]
) -> None:
    assert outcome(make(), data, sizes) == outcome(make(), data, [1 << 18])
