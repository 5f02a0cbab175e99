"""The Sans-I/O core of the terminal clients: one output over many connections, and which errors end it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConnectionLost, DialError, RemoteProtocolError, TerminalError, TunnelError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.model import PtySize, Result
from tunnel.pty.client.stream import Gap, TerminalStream
from tunnel.pty.protocol import framing, messages

ENDPOINT = "http://box.test"
LOST = ConnectionLost("lost", reason="Connection reset by peer")
PID = 7


def stream_of(*, timeout: float = 0.0, strict: bool = True, reconnect_for: float = 60.0) -> TerminalStream:
    begin = calls.start(PtySize(rows=24, cols=80), "tag")
    return TerminalStream(
        begin, endpoint=ENDPOINT, now=0.0, timeout=timeout, strict=strict, reconnect_for=reconnect_for, tag="tag"
    )


def head(offset: int | None = None, status: int = 200, body: bytes = b"") -> Response:
    fields = () if offset is None else ((messages.OFFSET.lower(), str(offset)), (messages.PROCESS.lower(), "ab" * 16))
    response = Response(status, "", fields)
    response.body = body
    return response


def message(event: messages.Event) -> bytes:
    return framing.envelope(framing.encode(messages.event_message(event)))


STARTED = message(messages.Started(PID))


def answer(output: bytes, ending: bytes = b"") -> bytes:
    """Data of a stream, in small pieces."""
    pieces = [message(messages.Output("pty", output[at : at + 5])) for at in range(0, len(output), 5)]
    return STARTED + b"".join(pieces) + ending


EXIT = message(messages.Ended.of(7)) + framing.end_of_stream()


def error(code: str, text: str = "because") -> bytes:
    return framing.end_of_stream(framing.ConnectError(code, text))


def taken(stream: TerminalStream) -> bytes:
    output = b""
    while (item := stream.take()) is not None:
        assert isinstance(item, bytes)
        output += item
    return output


def live(offset: int | None = 0, output: bytes = b"hello", **settings: bool | float) -> TerminalStream:
    """A stream that has received some output."""
    stream = stream_of(**settings)  # type: ignore[arg-type]
    assert stream.answered(head(offset))
    assert stream.receive(answer(output))
    assert taken(stream) == output
    return stream


@given(output=st.binary(max_size=200), cuts=st.lists(st.integers(0, 400), max_size=12), step=st.integers(1, 50))
def test_however_often_it_breaks_each_byte_comes_once(output: bytes, cuts: list[int], step: int) -> None:
    stream, got = stream_of(), b""
    for cut in [*cuts, 10**6]:
        call = stream.call(0.0)
        if call.method == "Connect":
            assert call.message == {"process": {"tag": "tag"} if stream.pid is None else {"pid": PID}}
        begins = int(call.fields.get(messages.REPLAY_FROM, "0"))
        assert stream.answered(head(begins))
        data = answer(output[begins:], EXIT)[:cut]
        for at in range(0, len(data), step):
            more = stream.receive(data[at : at + step])
            got += taken(stream)
            if not more:
                break
        if stream.over:
            break
        stream.broke(LOST, 0.0)
    assert got == output
    assert stream.result == Result(7, "exit status 7", "exit status 7")


def test_a_start_whose_answer_got_lost_is_found_by_its_tag() -> None:
    stream = stream_of()
    assert stream.call(0.0).method == "Start"
    assert stream.broke(LOST, 0.0, arrived=True) > 0
    call = stream.call(1.0)
    assert (call.method, call.message) == ("Connect", {"process": {"tag": "tag"}})
    assert call.fields[messages.REPLAY_FROM] == "0"
    stream.answered(head(0))
    assert not stream.receive(answer(b"$ ", EXIT))
    assert (stream.pid, taken(stream)) == (PID, b"$ ")


def test_a_start_that_never_arrived_fails_with_the_first_error() -> None:
    stream = stream_of()
    stream.broke(LOST, 0.0, arrived=True)
    stream.call(1.0)
    stream.answered(head())
    assert not stream.receive(error("not_found"))
    with pytest.raises(ConnectionLost, match="Connection reset by peer"):
        stream.take()


def test_a_service_that_cannot_be_reached_is_tried_once() -> None:
    stream = stream_of()
    stream.broke(DialError("tcp-refused", address="box.test:80"), 0.0, arrived=False)
    assert stream.over
    with pytest.raises(DialError, match="refused"):
        stream.take()


def test_the_end_of_the_attempts_is_reported_with_the_last_reason() -> None:
    stream = live(reconnect_for=20.0)
    now, delays = 100.0, []
    while not stream.over:
        delays.append(stream.broke(LOST, now, arrived=False))
        now += delays[-1] + 1.0
    assert 0.12 < delays[0] <= 0.25 and max(delays) <= 10.0
    with pytest.raises(
        ConnectionLost,
        match=r"gave up after 20 s without a connection to http://box.test: connection lost: Connection reset by peer",
    ):
        stream.take()


def test_a_stream_that_fell_behind_comes_back_where_it_was() -> None:
    stream = live()
    assert not stream.receive(error("resource_exhausted"))
    stream.broke(LOST, 0.0)
    call = stream.call(0.0)
    assert (call.message, call.fields[messages.REPLAY_FROM]) == ({"process": {"pid": PID}}, "5")
    assert call.fields[messages.PROCESS] == "ab" * 16


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        (error("deadline_exceeded"), "pty-deadline"),
        (error("internal"), "pty-error"),
        (framing.envelope(b"no json"), "violation"),
        (b"\xff" + b"\0" * 4, "violation"),
    ],
)
def test_what_does_not_pass_ends_the_stream_behind_its_output(ending: bytes, cause: str) -> None:
    stream = stream_of()
    stream.answered(head(0))
    assert stream.receive(answer(b"hello"))
    assert not stream.receive(ending)
    assert stream.take() == b"hello"
    with pytest.raises(TunnelError) as caught:
        stream.take()
    assert caught.value.code == cause


def test_an_end_that_was_missed_is_said_to_be_unknown() -> None:
    stream = live()
    stream.broke(LOST, 0.0)
    stream.answered(head())
    stream.receive(error("not_found"))
    with pytest.raises(ConnectionLost, match=r"ended while the connection .* was lost"):
        stream.take()


def test_an_edge_that_refuses_for_a_moment_is_tried_again() -> None:
    stream = live()
    for status in (502, 503, 401, 403):
        stream.broke(LOST, 0.0)
        assert not stream.answered(head(status=status, body=b'{"message": "restarting"}'))
    stream.broke(LOST, 0.0)
    assert not stream.over
    stream.answered(head(status=401))
    with pytest.raises(TunnelError, match="answered 401"):
        stream.take()


def test_output_that_is_gone_is_an_error_with_its_size() -> None:
    stream = live()
    stream.broke(LOST, 0.0)
    stream.answered(head(12))
    assert not stream.receive(STARTED)
    with pytest.raises(ConnectionLost, match="and 7 bytes of the output with it"):
        stream.take()


def test_a_tolerant_stream_reports_the_gap_and_continues() -> None:
    stream = live(strict=False)
    stream.broke(LOST, 0.0)
    stream.answered(head(12))
    stream.receive(answer(b"!", EXIT))
    assert [stream.take(), stream.take(), stream.take()] == [Gap(7), b"!", None]


def test_without_offsets_a_strict_stream_does_not_pretend() -> None:
    stream = live(offset=None)
    stream.broke(LOST, 0.0)
    with pytest.raises(ConnectionLost, match="Connection reset"):
        stream.take()
    tolerant = live(offset=None, strict=False)
    tolerant.broke(LOST, 0.0)
    assert messages.REPLAY_FROM not in tolerant.call(0.0).fields
    tolerant.answered(head())
    tolerant.receive(STARTED)
    assert tolerant.take() == Gap(None)


def test_a_service_that_goes_back_in_time_is_not_believed() -> None:
    stream = live()
    stream.broke(LOST, 0.0)
    stream.answered(head(3))
    assert not stream.receive(STARTED)
    with pytest.raises(RemoteProtocolError, match="begins at byte 3 instead of 5"):
        stream.take()


def test_the_time_that_is_left_goes_with_each_connection() -> None:
    stream = live(timeout=60.0)
    stream.broke(LOST, 20.0)
    assert stream.call(20.5).fields[framing.TIMEOUT] == "39500"
    assert stream.read_timeout(59.0) == 6.0
    stream.broke(LOST, 61.0)
    with pytest.raises(TerminalError) as caught:
        stream.take()
    assert caught.value.connect_code == "deadline_exceeded"


# --- Replays


def joined(offset: int, live: int, *events: messages.Event, strict: bool = False) -> TerminalStream:
    """A stream that has joined a terminal."""
    begin = calls.connect(PID, replay_from=0)
    stream = TerminalStream(begin, endpoint=ENDPOINT, now=0.0, strict=strict)
    rejoin(stream, offset, live, *events)
    return stream


def rejoin(stream: TerminalStream, offset: int, live: int, *events: messages.Event) -> None:
    answer = head(offset)
    answer.headers = (*answer.headers, (messages.LIVE.lower(), str(live)))
    stream.call(0.0)
    assert stream.answered(answer)
    assert stream.receive(STARTED + b"".join(map(message, events)))


def output(data: bytes) -> messages.Event:
    return messages.Output("pty", data)


def test_the_replay_of_a_terminal_that_is_joined_asks_nothing() -> None:
    stream = joined(0, 10, output(b"ab\x1b[6"), output(b"ncd\x1b"), output(b"[6n"))
    assert taken(stream) == b"abcd\x1b[6n"
    assert stream.offset == 12


def test_a_replay_that_breaks_off_goes_on_as_one() -> None:
    stream = joined(0, 10, output(b"ab\x1b["))
    stream.broke(LOST, 0.0)
    rejoin(stream, 4, 20, output(b"6ncd"), output(b"\x1b[6n"))
    assert taken(stream) == b"abcd\x1b[6n"


def test_what_was_written_during_an_outage_may_ask() -> None:
    stream = joined(0, 2, output(b"ab"))
    stream.broke(LOST, 0.0)
    rejoin(stream, 2, 20, output(b"\x1b[6n"))
    assert taken(stream) == b"ab\x1b[6n"
    own = live(strict=False)
    own.broke(LOST, 0.0)
    rejoin(own, 5, 20, output(b"\x1b[6n"))
    assert taken(own) == b"\x1b[6n"


def test_the_state_where_a_replay_begins_is_shown_and_not_counted() -> None:
    restore = messages.Restore(b"\x1b[?1049h\x1b[?1004h")
    stream = joined(100, 102, restore, output(b"ab"))
    assert taken(stream) == b"\x1b[?1049hab\x1b[?1004h"
    assert stream.offset == 102
    assert stream.replay is not None and stream.replay.alternate and not stream.replay.running
    assert taken(joined(100, 102, restore, output(b"\x1b[6n"), strict=True)) == b"\x1b[6n"


def test_behind_lost_output_there_is_a_replay() -> None:
    stream = live(strict=False)
    stream.broke(LOST, 0.0)
    rejoin(stream, 12, 18, messages.Restore(b"\x1b[?1h"), output(b"\x1b[6n!"), output(b"?\x1b[6n"))
    assert stream.take() == Gap(7)
    assert taken(stream) == b"\x1b[?1h!?\x1b[6n"
