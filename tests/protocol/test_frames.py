"""The frame parser and writer against RFC 6455, and against `websockets` and `wsproto` as peers in both roles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import wsproto.connection
import wsproto.events
import wsproto.frame_protocol as wsproto_frames
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side

from tunnel.errors import RemoteProtocolError
from tunnel.protocol import frames
from tunnel.protocol.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Close,
    FrameParser,
    Payload,
    Ping,
    Pong,
    close_payload,
    frame_header,
)
from tunnel.protocol.masking import apply_mask

KEY = b"\x11\x22\x33\x44"


def frame(opcode: int, payload: bytes = b"", *, masked: bool = True, final: bool = True) -> bytes:
    """Return a frame as our writer makes it."""
    if masked:
        return frame_header(opcode, len(payload), KEY, final) + apply_mask(payload, KEY)
    return frame_header(opcode, len(payload), None, final) + payload


def parse(data: bytes, cuts: Iterable[int] = (), *, masked: bool = True) -> list[tuple[object, ...]]:
    """Return the events of ``data`` cut at ``cuts``, with the chunks of one message joined.

    A violation is the last event: ("violation", close code).
    """
    parser = FrameParser(masked=masked)
    events: list[tuple[object, ...]] = []
    message = b""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        try:
            for event in parser.feed(memoryview(data)[start:end]):
                if isinstance(event, Payload):
                    message += event.data
                    if event.final:
                        events.append((event.opcode, message))
                        message = b""
                elif isinstance(event, Close):
                    events.append((CLOSE, event.code, event.reason))
                else:
                    events.append((type(event).__name__, event.data))
        except RemoteProtocolError as exc:
            return [*events, ("violation", exc.close_code)]
    return events


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 65537, 300_000])
@pytest.mark.parametrize("masked", [True, False])
def test_a_frame_of_each_length_form_comes_back_whole(length: int, masked: bool) -> None:
    payload = bytes(i % 251 for i in range(length))
    assert parse(frame(BINARY, payload, masked=masked), masked=masked) == [(BINARY, payload)]


def test_payload_is_handed_on_as_slices_of_what_was_read() -> None:
    header = frame_header(BINARY, 100_000_000, None)
    parser = FrameParser(masked=False)
    assert list(parser.feed(memoryview(header))) == []
    chunk = memoryview(bytearray(65536))
    (event,) = parser.feed(chunk)
    assert isinstance(event, Payload) and isinstance(event.data, memoryview)
    assert event.data.obj is chunk.obj
    assert not event.final


VIOLATIONS = {
    "a reserved bit": (b"\xc2\x80" + KEY, 1002),
    "an unknown data opcode": (b"\x83\x80" + KEY, 1002),
    "an unknown control opcode": (b"\x8b\x80" + KEY, 1002),
    "an unmasked frame of a client": (frame(BINARY, b"x", masked=False), 1002),
    "a fragmented ping": (frame(PING, b"x", final=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message inside a message": (frame(BINARY, b"x", final=False) + frame(BINARY, b"y"), 1002),
    "a 16-bit length below 126": (b"\x82\xfe\x00\x7d" + KEY, 1002),
    "a 64-bit length below 65536": (b"\x82\xff" + (65535).to_bytes(8, "big") + KEY, 1002),
    "a length of 64 bits": (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + KEY, 1002),
    "a Close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a Close with code 999": (frame(CLOSE, b"\x03\xe7"), 1002),
    "a Close with code 1005": (frame(CLOSE, b"\x03\xed"), 1002),
    "a Close with code 1006": (frame(CLOSE, b"\x03\xee"), 1002),
    "a Close with code 1015": (frame(CLOSE, b"\x03\xf7"), 1002),
    "a Close with code 2999": (frame(CLOSE, b"\x0b\xb7"), 1002),
    "a Close with code 5000": (frame(CLOSE, b"\x13\x88"), 1002),
    "a Close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "a text message that is not UTF-8": (frame(TEXT, b"\xc3\x28"), 1007),
    "a text message that ends in mid-character": (frame(TEXT, b"\xc3"), 1007),
}


SAID = {
    "a reserved bit": "the peer set a reserved bit without a negotiated extension",
    "an unknown data opcode": "the peer sent a frame with the unknown opcode 0x3",
    "an unknown control opcode": "the peer sent a frame with the unknown opcode 0xb",
    "an unmasked frame of a client": "the peer did not mask a frame",
    "a fragmented ping": "the peer fragmented a control frame",
    "a ping of 126 bytes": "the peer sent a control frame of more than 125 bytes",
    "a continuation of nothing": "the peer sent a continuation frame without a message to continue",
    "a message inside a message": "the peer began a message inside another one",
    "a 16-bit length below 126": "the peer sent a length that is not in its shortest form",
    "a 64-bit length below 65536": "the peer sent a length that is not in its shortest form",
    "a length of 64 bits": "the peer sent a length of more than 63 bits",
    "a Close of one byte": "the peer sent a Close frame with half a status code",
    "a Close with code 999": "the peer sent a Close frame with the invalid status code 999",
    "a Close reason that is not UTF-8": "the peer sent a Close reason that is not UTF-8",
    "a text message that is not UTF-8": "the peer sent a text message that is not UTF-8",
}


@pytest.mark.parametrize("name", SAID)
def test_a_violation_says_what_the_peer_did(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        list(FrameParser(masked=True).feed(memoryview(VIOLATIONS[name][0])))
    assert str(caught.value) == SAID[name]


def test_each_reserved_bit_is_one() -> None:
    for bit in (0x10, 0x20, 0x40):
        assert parse(bytes((0x82 | bit, 0x80)) + KEY) == [("violation", 1002)]


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_no_opcode_is_known_that_the_standard_leaves_open(opcode: int) -> None:
    assert parse(frame(opcode)) == [("violation", 1002)]


@pytest.mark.parametrize(
    ("code", "is_good"),
    [
        *((999, False), (1000, True), (1003, True), (1004, False), (1005, False), (1006, False), (1007, True)),
        *((1011, True), (1012, True), (1014, True), (1015, False), (1016, False), (2999, False), (3000, True)),
        *((4999, True), (5000, False), (65535, False), (0, False)),
    ],
)
def test_a_close_code_is_one_that_may_go_over_the_wire(code: int, is_good: bool) -> None:
    expected = (CLOSE, code, "") if is_good else ("violation", 1002)
    assert parse(frame(CLOSE, code.to_bytes(2, "big"))) == [expected]


def test_by_default_a_frame_is_a_whole_message_and_a_close_says_no_reason() -> None:
    assert frame_header(BINARY, 0, None) == b"\x82\x00"
    assert close_payload(1000) == b"\x03\xe8"


def test_a_close_may_be_empty_and_its_reason_as_long_as_a_control_frame() -> None:
    assert parse(frame(CLOSE)) == [(CLOSE, 1005, "")]
    assert parse(frame(CLOSE, close_payload(1000, "x" * 123))) == [(CLOSE, 1000, "x" * 123)]
    assert close_payload(1000, "x" * 200) == close_payload(1000, "x" * 123)
    assert close_payload(1005, "not sent") == b""


@pytest.mark.parametrize("opcode", [PING, frames.PONG])
@pytest.mark.parametrize("size", [0, 125])
def test_a_control_frame_has_125_bytes_at_most(opcode: int, size: int) -> None:
    assert parse(frame(opcode, b"x" * size)) == [("Ping" if opcode == PING else "Pong", b"x" * size)]
    for too_much in (126, 127, 65536):
        assert parse(frame(opcode, b"x" * too_much)) == [("violation", 1002)]


@pytest.mark.parametrize("length", [126, 65535, 65536, (1 << 63) - 1])
def test_the_shortest_form_of_a_length_is_taken_up_to_63_bits(length: int) -> None:
    parser = FrameParser(masked=False)
    assert list(parser.feed(memoryview(frame_header(BINARY, length, None)))) == []
    assert parser.in_data and parser.in_frame


def test_a_continuation_goes_on_with_text_and_its_characters_may_be_cut() -> None:
    data = "é".encode()
    assert parse(frame(TEXT, data[:1], final=False) + frame(CONTINUATION, data[1:])) == [(TEXT, data)]
    bad = frame(TEXT, data[:1], final=False) + frame(CONTINUATION, b"x")
    assert parse(bad) == [("violation", 1007)]
    assert parse(frame(TEXT, b"", final=False) + frame(CONTINUATION)) == [(TEXT, b"")]
    assert parse(frame(BINARY, b"\xff", final=False) + frame(CONTINUATION, b"\xff")) == [(BINARY, b"\xff\xff")]


def test_text_that_is_not_utf8_is_known_with_its_first_wrong_byte() -> None:
    whole = frame(TEXT, b"good" + b"\xff" + b"x" * 1000, masked=False)
    with pytest.raises(RemoteProtocolError):
        list(FrameParser(masked=False).feed(memoryview(whole[:20])))


def test_a_text_behind_another_begins_anew() -> None:
    assert parse(frame(TEXT, b"a") + frame(BINARY, b"\xff") + frame(TEXT, b"b")) == [
        (TEXT, b"a"),
        (BINARY, b"\xff"),
        (TEXT, b"b"),
    ]


# ---- where the parser is, and how far it goes


def test_a_parser_tells_whether_it_is_inside_a_frame_and_whether_data_are_to_come() -> None:
    parser = FrameParser(masked=False)

    def state(data: bytes) -> tuple[bool, bool]:
        list(parser.feed(memoryview(data)))
        return parser.in_frame, parser.in_data

    assert state(b"") == (False, False)
    assert state(b"\x82") == (False, False), "half a header"
    assert state(b"\x03") == (True, True)
    assert state(b"ab") == (True, True)
    assert state(b"c") == (False, False)
    assert state(b"\x89\x02a") == (True, False), "a ping has no data"
    assert state(b"b") == (False, False)
    assert state(b"\x02\x00") == (False, False), "an empty fragment is whole with its header"
    assert state(b"\x80\x02a") == (True, True), "a continuation is data, too"
    assert state(b"b\x88\x02") == (True, False), "a Close is none"


def test_with_the_last_chunk_of_a_frame_its_data_have_come() -> None:
    parser = FrameParser(masked=False)
    data = memoryview(b"\x02\x02ab\x80\x02cd")
    assert [parser.in_data for _ in parser.feed(data[:3])] == [True]
    assert [parser.in_data for _ in parser.feed(data[3:])] == [False, False]


def test_a_parser_tells_whether_an_event_continues_a_message() -> None:
    parser = FrameParser(masked=False)
    data = b"\x02\x01a" + b"\x00\x01b" + b"\x80\x01c" + b"\x82\x01d"
    assert [parser.in_continuation for _ in parser.feed(memoryview(data))] == [False, True, True, False]


def test_feed_stops_before_the_frame_that_is_one_too_many() -> None:
    one = frame(BINARY, b"x", masked=False)
    data = memoryview(one * 5)
    for limit in range(6):
        parser = FrameParser(masked=False)
        assert len(list(parser.feed(data, limit))) == min(limit, 5)
        assert parser.used == min(limit, 5) * len(one)
    assert len(list(FrameParser(masked=False).feed(data))) == 5


def test_a_frame_that_is_begun_goes_on_whatever_the_limit() -> None:
    parser = FrameParser(masked=False)
    data = frame(BINARY, b"xyz", masked=False) * 2
    list(parser.feed(memoryview(data[:3]), 1))
    events = list(parser.feed(memoryview(data[3:]), 0))
    assert [bytes(event.data) for event in events if isinstance(event, Payload)] == [b"yz"]
    assert parser.used == 2


def test_behind_a_close_everything_is_taken_in_and_nothing_understood() -> None:
    parser = FrameParser(masked=False)
    assert not bool(parser.closed)
    list(parser.feed(memoryview(frame(CLOSE, masked=False) + b"\xff" * 10), 1))
    assert bool(parser.closed)
    assert parser.used == 12
    assert list(parser.feed(memoryview(b"\xff" * 10))) == [] and parser.used == 10


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("final", [True, False])
def test_a_header_is_as_short_as_can_be(length: int, final: bool) -> None:
    size = 2 + (0 if length < 126 else 2 if length < 65536 else 8)
    plain, masked = frame_header(BINARY, length, None, final), frame_header(BINARY, length, KEY, final)
    assert (len(plain), len(masked)) == (size, size + 4)
    assert plain[0] == masked[0] == (0x82 if final else 0x02)
    assert masked[1] == plain[1] | 0x80 and masked[2:] == plain[2:] + KEY


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_named_with_its_close_code_however_it_is_cut(name: str) -> None:
    data, code = VIOLATIONS[name]
    before = frame(BINARY, b"before")
    for cuts in ((), range(len(before + data))):
        assert parse(before + data, cuts) == [(BINARY, b"before"), ("violation", code)]


def test_a_server_that_masks_is_refused() -> None:
    assert parse(frame(BINARY, b"x", masked=True), masked=False) == [("violation", 1002)]
    with pytest.raises(RemoteProtocolError, match=r"^the peer masked a frame$"):
        list(FrameParser(masked=False).feed(memoryview(frame(BINARY, b"x", masked=True))))


def test_what_follows_a_close_is_ignored() -> None:
    data = frame(CLOSE, close_payload(1000, "done")) + frame(BINARY, b"late") + b"\xff\xff"
    assert parse(data) == [(CLOSE, 1000, "done")]


def test_a_close_reason_is_cut_at_a_character() -> None:
    payload = close_payload(4001, "é" * 100)
    assert len(payload) == 124
    assert payload[2:].decode() == "é" * 61


# ---- properties

_small = st.binary(max_size=200)
_lengths = st.one_of(_small, st.integers(0, 70_000).map(lambda n: b"\x5a" * n))
_message = st.tuples(st.just(BINARY), st.lists(_lengths, min_size=1, max_size=3))
_text = st.tuples(st.just(TEXT), st.text(max_size=80).map(lambda s: [s.encode()]))
_control = st.tuples(st.sampled_from([PING, frames.PONG]), st.binary(max_size=125).map(lambda b: [b]))


def encode(script: list[tuple[int, list[bytes]]], *, masked: bool) -> tuple[bytes, list[tuple[object, ...]]]:
    """Return the bytes of messages (in fragments, with a ping between them) and the events they should give."""
    data = b""
    events: list[tuple[object, ...]] = []
    for opcode, parts in script:
        if opcode in (PING, frames.PONG):
            data += frame(opcode, parts[0], masked=masked)
            events.append(("Ping" if opcode == PING else "Pong", parts[0]))
            continue
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            data += frame(opcode if i == 0 else CONTINUATION, part, masked=masked, final=last)
            if not last:
                data += frame(PING, b"between", masked=masked)
                events.append(("Ping", b"between"))
        events.append((opcode, b"".join(parts)))
    return data, events


@given(st.lists(st.one_of(_message, _text, _control), max_size=5), st.lists(st.integers(0), max_size=12), st.booleans())
def test_any_chunking_of_the_same_bytes_gives_the_same_events(
    script: list[tuple[int, list[bytes]]], cuts: list[int], masked: bool
) -> None:
    data, events = encode(script, masked=masked)
    assert parse(data, cuts, masked=masked) == events


@given(st.binary(max_size=60), st.lists(st.integers(0), max_size=60), st.booleans())
def test_any_chunking_of_garbage_gives_the_same_events(data: bytes, cuts: list[int], masked: bool) -> None:
    assert parse(data, cuts, masked=masked) == parse(data, masked=masked)


# ---- peers


def websockets_peer(side: Side) -> Protocol:
    return Protocol(side, state=OPEN, max_size=None)


@given(st.lists(st.one_of(_message, _text, _control), max_size=5), st.booleans())
def test_websockets_understands_what_we_write(script: list[tuple[int, list[bytes]]], client: bool) -> None:
    data, events = encode(script, masked=client)
    peer = websockets_peer(SERVER if client else CLIENT)
    peer.receive_data(data)
    assert peer.parser_exc is None
    received: list[tuple[object, ...]] = []
    parts: list[bytes] = []
    opcode = Opcode.BINARY
    for event in peer.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.PING, Opcode.PONG):
            received.append(("Ping" if event.opcode is Opcode.PING else "Pong", event.data))
            continue
        if event.opcode is not Opcode.CONT:
            opcode = event.opcode
        parts.append(bytes(event.data))
        if event.fin:
            received.append((int(opcode), b"".join(parts)))
            parts = []
    assert received == events


@given(st.lists(st.one_of(_message, _text, _control), max_size=5), st.lists(st.integers(0), max_size=9), st.booleans())
def test_we_understand_what_websockets_writes(
    script: list[tuple[int, list[bytes]]], cuts: list[int], client: bool
) -> None:
    peer = websockets_peer(CLIENT if client else SERVER)
    expected: list[tuple[object, ...]] = []
    for opcode, parts in script:
        if opcode == PING:
            peer.send_ping(parts[0])
            expected.append(("Ping", parts[0]))
        elif opcode == frames.PONG:
            peer.send_pong(parts[0])
            expected.append(("Pong", parts[0]))
        else:
            send = peer.send_binary if opcode == BINARY else peer.send_text
            send(parts[0], fin=len(parts) == 1)
            for i, part in enumerate(parts[1:], 2):
                peer.send_continuation(part, fin=i == len(parts))
            expected.append((opcode, b"".join(parts)))
    peer.send_close(4321, "bye")
    data = b"".join(peer.data_to_send())
    assert parse(data, cuts, masked=client) == [*expected, (CLOSE, 4321, "bye")]


@given(st.lists(_message, max_size=4), st.booleans())
def test_wsproto_understands_what_we_write(script: list[tuple[int, list[bytes]]], client: bool) -> None:
    data, events = encode(script, masked=client)
    peer = wsproto.connection.Connection(
        wsproto.connection.ConnectionType.SERVER if client else wsproto.connection.ConnectionType.CLIENT
    )
    peer.receive_data(data + frame(CLOSE, close_payload(1000, "done"), masked=client))
    received: list[tuple[object, ...]] = []
    message = b""
    for event in peer.events():
        if isinstance(event, wsproto.events.BytesMessage):
            message += event.data
            if event.message_finished:
                received.append((BINARY, message))
                message = b""
        elif isinstance(event, wsproto.events.Ping):
            received.append(("Ping", bytes(event.payload)))
        elif isinstance(event, wsproto.events.CloseConnection):
            received.append((CLOSE, event.code, event.reason))
    assert received == [*events, (CLOSE, 1000, "done")]


@given(st.lists(st.binary(max_size=70_000), max_size=4), st.lists(st.integers(0), max_size=9), st.booleans())
def test_we_understand_what_wsproto_writes(messages: list[bytes], cuts: list[int], client: bool) -> None:
    writer = wsproto_frames.FrameProtocol(client=client, extensions=[])
    data = b"".join(writer.send_data(message) for message in messages) + writer.ping(b"p") + writer.close(1001, "gone")
    expected = [*((BINARY, message) for message in messages), ("Ping", b"p"), (CLOSE, 1001, "gone")]
    assert parse(data, cuts, masked=client) == expected


# websockets leaves lengths and the decoding of text to others.
_NOT_ITS_BUSINESS = ("length", "text message")


@pytest.mark.parametrize("name", [name for name in VIOLATIONS if not any(word in name for word in _NOT_ITS_BUSINESS)])
def test_websockets_refuses_what_we_refuse_with_the_same_code(name: str) -> None:
    data, code = VIOLATIONS[name]
    peer = websockets_peer(SERVER)
    peer.receive_data(data)
    assert peer.close_sent is not None and peer.close_sent.code == code


def test_pings_and_pongs_are_told_apart() -> None:
    parser = FrameParser(masked=True)
    first, second = parser.feed(memoryview(frame(PING, b"a") + frame(frames.PONG, b"b")))
    assert isinstance(first, Ping) and isinstance(second, Pong)
