"""The state of streams, field by field: nothing is forgotten, and what was captured is what is restored."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.restart.restarting import carried
from tunnel.errors import ConnectionLost, UsageError
from tunnel.protocol import capture
from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frame_budget import FrameBudget
from tunnel.protocol.frames import BINARY, TARGET_LOST, TEXT, FrameParser, Payload, frame_header
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.masking import apply_mask
from tunnel.protocol.message_size import MessageSize
from tunnel.protocol.outbox import Outbox
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.receiver import Receiver
from tunnel.protocol.replay import ReplayBuffer
from tunnel.protocol.resumable_stream import ResumableStream
from tunnel.protocol.sender import Sender
from tunnel.protocol.session_state import SessionState
from tunnel.restart import state

# Each class with what goes over besides its list of fields, and with what need not: who makes that instead.
FIELDS: dict[type, tuple[tuple[str, ...], set[str], dict[str, str]]] = {
    FrameParser: (
        capture.PARSER,
        {"_head", "_control", "_text"},
        {"_masked": "role", "size": "clients only", "used": "each turn"},
    ),
    Keepalive: (capture.KEEPALIVE, set(), {"_interval": "settings", "_timeout": "settings"}),
    FrameBudget: (capture.BUDGET, set(), {}),
    Outbox: ((), {"pieces", "_pong", "close_queued"}, {"_masks": "role"}),
    PlainStream: (
        capture.PLAIN,
        {"_budget", "_outbox", "_parser", "_sink", "keepalive"},
        {
            "_buffers": "bridge", "_codec": "bridge", "_decode": "bridge", "_encode": "bridge", "_is_client": "role",
            "_sink_limit": "default", "beginning": "clients only", "failure": "not captured then",
            "max_message": "settings",
        },
    ),
    SessionState: (
        capture.SESSION,
        {"_source_failure", "budget", "offer", "receiver", "sender"},
        {"_is_client": "role", "_last_words": "failure", "failure": "not captured then", "is_plain": "clients only"},
    ),
    Sender: (
        capture.SENDER,
        {"message_size", "replay"},
        {"_fin_sent": "connection", "_largest_sent": "connection", "window": "offer"},
    ),
    MessageSize: (capture.MESSAGE_SIZE, set(), {}),
    Receiver: (
        capture.RECEIVER,
        {"_fin_at", "_held", "_received", "pieces"},
        {
            "_acked": "connection", "_before": "each turn", "_settled": "each turn", "ack_at": "connection",
            "ack_due": "connection", "window": "offer",
        },
    ),
    ReplayBuffer: (
        (),
        {"_segments", "base"},
        {
            "_chunk": "segments", "_extends": "segments", "_fill": "segments", "_kept": "segments", "_size": "segments",
        "_spare": "memory",
            "_taken": "connection", "_unsent": "connection", "end": "segments", "is_full": "segments",
            "memory": "segments", "next": "connection",
        },
    ),
    ResumableStream: (
        (),
        {"session", "_receiver", "_sender"},
        {
            "_buffers": "bridge", "_is_client": "role", "_ping_limits": "settings", "attached": "connection",
            "connection": "connection",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("of", FIELDS, ids=lambda of: of.__name__)
def test_every_field_is_captured_or_made_by_somebody_else(of: type) -> None:
    listed, treated, made = FIELDS[of]
    slots: tuple[str, ...] = of.__slots__  # type: ignore[attr-defined]
    assert sorted([*listed, *treated, *made]) == sorted(slots)


def masked(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    return frame_header(opcode, len(payload), b"key!", final) + apply_mask(payload, b"key!")


def hear(stream: PlainStream | ResumableStream, data: bytes, now: float = 1.0) -> None:
    stream.wire_space()[: len(data)] = data
    assert stream.wire_received(len(data), now) == len(data)
    stream.settle()


def say(stream: PlainStream | ResumableStream, data: bytes) -> None:
    stream.source_space()[: len(data)] = data
    stream.source_received(len(data), 1.0)
    stream.settle()


def send_all(stream: ResumableStream) -> bytes:
    """Return all that waits for the wire, which takes it."""
    sent = b""
    while pieces := b"".join(stream.wire_output()):
        stream.wire_sent(len(pieces), 1.0)
        sent += pieces
    return sent


def new_plain() -> PlainStream:
    return PlainStream(client=False, buffers=ReadBuffers(), keepalive=Keepalive(0.0))


def new_session(offer: SessionOffer | None = None) -> ResumableStream:
    offer = offer or SessionOffer("ab" * 16, "cd" * 32, 123_456, 77)
    return ResumableStream(client=False, buffers=ReadBuffers(), now=0.0, offer=offer)


def restored(stream: ResumableStream) -> ResumableStream:
    tree = carried(capture.capture_resumable(stream))
    again = new_session(capture.offer_of(tree))
    capture.restore_resumable(again, tree)
    return again


PIECES = {
    "half a header": masked(BINARY, b"x" * 300)[:3],
    "half a payload": masked(BINARY, b"some words")[:11],
    "half a text": masked(TEXT, "ä€".encode())[:8],
    "half a message": masked(BINARY, b"first", final=False),
    "half a ping": masked(9, b"0123456789")[:9],
    "a ping": masked(9, b"0123456789"),
    "a close": masked(8, b"\x03\xe8why"),
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("backlog", [b"", b"unsent"], ids=["", "behind what waits"])
def test_a_plain_stream_is_captured_as_it_was_restored(piece: bytes, backlog: bytes) -> None:
    stream = new_plain()
    if backlog:
        say(stream, backlog)
    hear(stream, piece)
    tree = carried(capture.capture_plain(stream))
    again = new_plain()
    capture.restore_plain(again, tree)
    assert plain_values(capture.capture_plain(again)) == plain_values(tree) == plain_values(
        capture.capture_plain(stream)
    )  # fmt: skip
    assert b"".join(again.wire_output()) == b"".join(stream.wire_output())


def plain_values(tree: Any) -> Any:
    """Return a tree with all bytes as such, to compare it."""
    if isinstance(tree, dict):
        return {name: plain_values(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain_values(value) for value in tree]
    return bytes(tree) if isinstance(tree, bytearray | memoryview) else tree


def test_a_session_keeps_what_it_is() -> None:
    stream = new_session()
    say(stream, b"0123456789")
    send_all(stream)
    hear(stream, masked(TEXT, b"ack 4") + masked(BINARY, b"delivered, and not"))
    stream.sink_sent(9, 1.0)
    stream.session.sender.message_size.limit = 5000
    stream.source_failed(TARGET_LOST, "it broke")
    again = restored(stream)
    session = again.session
    assert session.offer is not None
    assert (session.offer.id, session.offer.key, session.offer.window, session.offer.retain) == (
        "ab" * 16, "cd" * 32, 123_456, 77,
    )  # fmt: skip
    assert session.confirmed and not session.over
    assert (session.delivered, session.unacknowledged, session.sender.acked) == (9, 6, 4)
    assert not again.wants_sink_write, "it comes again"
    assert session.sender.message_size.limit == 5000
    # Once all is acknowledged, the client is told of the target.
    again.attach(10, 2.0)
    assert isinstance(session.failure, ConnectionLost)
    assert b"error target-lost it broke" in send_all(again)


def test_bytes_and_the_end_are_sent_again() -> None:
    stream = new_session()
    for size in (1, 300_000, 7):
        data = bytes(n % 251 for n in range(size))
        while data:
            n = min(len(data), 100_000, len(stream.source_space()))
            say(stream, data[:n])
            data = data[n:]
            send_all(stream)
            if stream.session.unacknowledged > 50_000:
                stream.session.ack_came(stream.session.sender.acked + 30_000)
    stream.source_ended()
    kept = stream.session.unacknowledged
    again = restored(stream)
    assert again.session.unacknowledged == kept
    acked = again.session.sender.acked
    assert again.can_attach(acked) and again.can_attach(300_009 - 1)
    again.attach(acked + 1, 2.0)
    out = send_all(again)
    expected = b"".join(bytes(n % 251 for n in range(size)) for size in (1, 300_000, 7))[acked + 1 :]
    parser, heard, lines = FrameParser(masked=False), b"", []
    for event in parser.feed(memoryview(out)):
        assert isinstance(event, Payload)
        if event.opcode == BINARY:
            heard += bytes(event.data)
        else:
            lines.append(bytes(event.data))
    assert heard == expected
    assert lines[-1] == b"fin 300008"


def test_what_is_owed_to_the_target_of_a_client_that_is_done_is_kept() -> None:
    stream = new_session()
    hear(stream, masked(BINARY, b"the last words") + masked(TEXT, b"fin 14") + masked(TEXT, b"end"))
    assert stream.over
    stream.sink_sent(4, 1.0)
    again = restored(stream)
    assert again.over and b"".join(again.sink_output()) == b"last words"
    again.sink_sent(10, 2.0)
    assert again.sink_ended


@pytest.mark.parametrize("ended", [True, False])
def test_a_target_that_takes_nothing_stays_so(ended: bool) -> None:
    stream = new_session()
    hear(stream, masked(BINARY, b"delivered") + masked(BINARY, b"refused"))
    stream.sink_sent(9, 1.0)
    stream.sink_failed(1.0)
    if ended:
        hear(stream, masked(TEXT, b"fin 16"))
        stream.sink_half_closed()
    again = restored(stream)
    assert (again.session.undelivered, again.session.delivered) == (7, 17 if ended else 16)
    again.attach(0, 2.0)
    if not ended:
        hear(again, masked(BINARY, b"more"))
        assert (again.session.undelivered, again.session.delivered) == (11, 20)


# ---- the file


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda name: name != "$bytes"), inner),
    max_leaves=20,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text().filter(lambda name: name != "$bytes"), _values))
def test_whatever_a_part_says_comes_back(tree: state.Tree) -> None:
    assert plain_values(carried(tree)) == tree


def test_a_variable_with_the_name_of_a_reference_comes_back() -> None:
    """Whoever starts a process chooses the names of its variables."""
    tree = {"envs": {"$bytes": "1"}, "output": b"x"}
    assert plain_values(carried(tree)) == tree


def test_a_deadline_that_never_comes_comes_back() -> None:
    assert carried({"due": math.inf})["due"] == math.inf


@pytest.mark.parametrize("size", [0, 3, 15, 16, 40, 90])
def test_a_state_that_is_cut_off_is_refused(size: int) -> None:
    file = state.create()
    try:
        state.write(file, "0", {"part": {"data": b"x" * 50}}, state.Kept())
        os.truncate(file, size)
        with pytest.raises(UsageError):
            state.read(file, on_trial=True)
    finally:
        os.close(file)


def test_a_trial_needs_no_more_descriptors_than_the_service_has() -> None:
    numbers = range(1000, 1040)
    handed = state.Handed(numbers, on_trial=True)
    before = len(os.listdir("/proc/self/fd"))
    sockets = [handed.socket(number) for number in numbers[:20]]
    descriptors = [handed.descriptor(number) for number in numbers[20:]]
    try:
        assert len(os.listdir("/proc/self/fd")) <= before + len(numbers) + 4, "those that stand for them are shared"
        with pytest.raises(BlockingIOError):
            sockets[0].recv(1)
        with pytest.raises(BlockingIOError):
            os.read(descriptors[0], 1)
    finally:
        handed.close_rest()
        for sock in sockets:
            sock.close()
        for descriptor in descriptors:
            os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before


def test_each_descriptor_comes_once() -> None:
    handed = state.Handed([5], on_trial=True)
    handed.socket(5).close()
    handed.close_rest()
    for number in (5, 6):
        with pytest.raises(UsageError, match=f"no descriptor {number}, or has it twice"):
            handed.descriptor(number)
