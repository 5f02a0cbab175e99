"""Lines and messages, sans I/O: however the bytes are split, the messages and the lines are the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.protocol.frames import (
    CLOSE,
    INTERNAL_ERROR,
    MAX_HEADER,
    NORMAL,
    TEXT,
    FrameParser,
    Payload,
    close_payload,
    frame_header,
)
from tunnel.protocol.keepalive import STALL_LIMIT, Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.websocat.messages import PARTING, SILENCE, MessageCodec, MessageOptions

LINES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30), max_size=8)
CUTS = st.lists(st.integers(1, 20), min_size=1, max_size=30)


def options(**values: object) -> MessageOptions:
    made = MessageOptions()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def stream(made: MessageOptions, *, client: bool = True) -> PlainStream:
    return stream_with(MessageCodec(made), client=client)


def stream_with(codec: MessageCodec, *, client: bool = True) -> PlainStream:
    return PlainStream(client=client, buffers=ReadBuffers(), keepalive=Keepalive(0.0), codec=codec)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    found, turn = [], 0
    while data:
        size = cuts[turn % len(cuts)]
        found.append(data[:size])
        data, turn = data[size:], turn + 1
    return found


def feed_source(tried: PlainStream, data: bytes) -> None:
    tried.source_space()[: len(data)] = data
    tried.source_received(len(data), 0.0)


def take_frames(tried: PlainStream) -> bytes:
    sent = b"".join(map(bytes, tried.wire_output()))
    tried.wire_sent(len(sent), 0.0)
    return sent


def messages(wire: bytes) -> list[bytes]:
    found, current = [], b""
    for event in FrameParser(masked=True).feed(memoryview(wire)):
        if isinstance(event, Payload):
            assert event.opcode == TEXT
            current += bytes(event.data)
            if event.final:
                found.append(current)
                current = b""
    return found


def receive(tried: PlainStream, data: bytes) -> bytes:
    """What the sink gets of ``data`` on the wire."""
    tried.wire_space()[: len(data)] = data
    tried.wire_received(len(data), 0.0)
    delivered = b"".join(map(bytes, tried.sink_output()))
    tried.sink_sent(len(delivered), 0.0)
    return delivered


def tick(tried: PlainStream, now: float) -> None:
    tried.tick(now)
    take_frames(tried)


def cause(tried: PlainStream) -> str | None:
    return tried.failure.code if tried.failure else None


def is_over(tried: PlainStream) -> bool:
    assert tried.failure is None
    return tried.complete


@given(LINES, CUTS)
def test_each_line_is_a_message_however_it_is_read(lines: list[str], cuts: list[int]) -> None:
    codec = MessageCodec(options(text=True, lines=True))
    tried = stream_with(codec)
    wire = b""
    for piece in pieces("".join(f"{line}\n" for line in lines).encode(), cuts):
        feed_source(tried, piece)
        wire += take_frames(tried)
    tried.source_ended()
    wire += take_frames(tried)
    assert messages(wire) == [f"{line}\n".encode() for line in lines]
    assert not codec.remark


@given(st.text(max_size=50), CUTS)
def test_text_without_lines_is_cut_between_characters_only(text: str, cuts: list[int]) -> None:
    tried = stream(options(text=True))
    wire = b""
    for piece in pieces(text.encode("utf-8", "replace"), cuts):
        feed_source(tried, piece)
        wire += take_frames(tried)
    tried.source_ended()
    wire += take_frames(tried)
    assert b"".join(messages(wire)) == text.encode("utf-8", "replace")


@given(LINES.map("\r\n".join), CUTS)
def test_each_message_is_a_line_however_it_comes(message: str, cuts: list[int]) -> None:
    tried = stream(options(lines=True))
    data = message.encode()
    wire = frame_header(TEXT, len(data), None) + data
    lines = b"".join(receive(tried, piece) for piece in pieces(wire, cuts))
    body = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
    assert lines == body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


def test_a_line_that_is_too_long_is_cut_between_characters() -> None:
    tried = stream(options(text=True, lines=True, size=4))
    feed_source(tried, "aäöüß€𝄞z\n".encode())
    found = messages(take_frames(tried))
    assert b"".join(found).decode() == "aäöüß€𝄞z\n"
    assert all(len(message) <= 4 and message.decode() for message in found)


def test_with_strict_nothing_of_a_line_that_is_too_long_is_sent() -> None:
    tried = stream(options(text=True, lines=True, size=4, strict=True))
    wire = b""
    for data in (b"1234567", b"890", b"12\nok\nalso too long\nha", b"lf"):
        feed_source(tried, data)
        wire += take_frames(tried)
    tried.source_ended()
    assert messages(wire + take_frames(tried)) == [b"ok\n"]


def test_bytes_that_are_not_utf8_are_replaced_and_counted() -> None:
    codec = MessageCodec(options(text=True, lines=True))
    tried = stream_with(codec)
    feed_source(tried, b"\xff\nfine\n\xc3\n")
    assert messages(take_frames(tried)) == ["\ufffd\n".encode(), b"fine\n", "\ufffd\n".encode()]
    assert codec.remark.startswith("2 text messages")


def test_an_empty_message_is_never_sent() -> None:
    tried = stream(options(text=True, lines=True, strip=True))
    feed_source(tried, b"\n\r\na\r\n")
    assert messages(take_frames(tried)) == [b"a"]


@pytest.mark.parametrize("code", [None, 4000])
def test_the_peer_s_echo_of_our_close_code_is_success(code: int | None) -> None:
    tried = stream(options(close_code=code))
    tried.source_ended()
    take_frames(tried)
    payload = close_payload(code or NORMAL)
    receive(tried, frame_header(CLOSE, len(payload), None) + payload)
    assert (tried.close_received, tried.close_code) == (True, NORMAL)


def test_with_exit_on_eof_silence_ends_what_the_other_end_does_not() -> None:
    tried = stream(options(exit_on_eof=True))
    feed_source(tried, b"request")
    tried.source_ended()
    take_frames(tried)
    tick(tried, 10.0)
    data = frame_header(TEXT, 4, None) + b"tail"
    tried.wire_space()[: len(data)] = data
    tried.wire_received(len(data), 12.0)
    tried.sink_sent(4, 12.0)
    tick(tried, 12.0 + SILENCE - 0.1)
    assert not is_over(tried)
    tick(tried, 12.0 + SILENCE)
    assert is_over(tried)


def test_with_exit_on_eof_the_source_has_the_same_time_behind_the_peer_s_close() -> None:
    tried = stream(options(exit_on_eof=True), client=False)
    data = frame_header(CLOSE, 0, b"\0\0\0\0")
    tried.wire_space()[: len(data)] = data
    tried.wire_received(len(data), 10.0)
    tried.source_space()[:4] = b"tail"
    tried.source_received(4, 12.0)
    assert take_frames(tried).endswith(b"tail")
    tick(tried, 12.0 + SILENCE - 0.1)
    assert not is_over(tried)
    tick(tried, 12.0 + SILENCE)
    assert is_over(tried)


def test_a_client_that_wants_no_more_waits_a_moment_for_the_close() -> None:
    tried = stream(options(receives=0))
    tried.source_ended()
    assert take_frames(tried)
    tick(tried, 5.0)
    assert not is_over(tried)
    tick(tried, 5.0 + PARTING)
    assert is_over(tried)


def test_a_server_that_receives_nothing_gives_its_source_all_the_time_there_is() -> None:
    codec = MessageCodec(options(receives=0))
    tried = PlainStream(client=False, buffers=ReadBuffers(), keepalive=Keepalive(5000.0), codec=codec)
    tick(tried, 5000.3)
    assert cause(tried) is None
    tick(tried, 5000.0 + STALL_LIMIT)
    assert cause(tried) == "no-tail"


def test_without_a_close_the_end_of_the_source_is_not_told() -> None:
    tried = stream(options(close=False))
    feed_source(tried, b"request")
    take_frames(tried)
    tried.source_ended()
    assert take_frames(tried) == b""
    assert not tried.close_sent
    assert receive(tried, frame_header(TEXT, 6, None) + b"answer") == b"answer"


def test_messages_are_of_the_size_that_is_wanted() -> None:
    assert len(stream(options(size=10)).source_space()) == 10
    assert len(stream(options()).source_space()) + MAX_HEADER == len(ReadBuffers().source)


def test_nothing_follows_a_close_not_even_the_rest_of_a_line() -> None:
    tried = stream(options(text=True, lines=True))
    feed_source(tried, b"half a line")
    tried.close(INTERNAL_ERROR, "the input broke off")
    assert take_frames(tried)
    tried.source_ended()
    assert take_frames(tried) == b"" and tried.close_sent
