"""The messages and envelopes of the protocol, written and read by both ends."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.pty.protocol import framing, messages
from tunnel.pty.protocol.framing import ConnectError, Decoder, Envelope, Malformed

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
selectors = st.integers(0, 2**32 - 1) | texts
inputs = st.builds(messages.Input, st.sampled_from(["pty", "stdin"]), st.binary())
sizes = st.builds(messages.Size, st.integers(1, 65535), st.integers(1, 65535))
starts = st.builds(
    messages.StartRequest,
    cmd=texts,
    args=st.lists(texts).map(tuple),
    envs=st.dictionaries(texts.filter(lambda name: "=" not in name), texts),
    cwd=st.none() | texts,
    size=st.none() | sizes,
    tag=st.none() | texts,
    stdin=st.booleans(),
)
events = st.one_of(
    st.builds(messages.Started, st.integers(0, 2**32 - 1)),
    st.builds(messages.Output, st.sampled_from(["pty", "stdout", "stderr"]), st.binary()),
    st.builds(messages.Restore, st.binary()),
    st.just(messages.Keepalive()),
    st.builds(messages.Ended.of, st.integers(-64, 255)),
)


def over_json(message: framing.Object) -> framing.Object:
    return framing.decode(framing.encode(message))


@given(st.lists(st.binary(max_size=300)), st.data())
def test_any_chunking_gives_the_same_envelopes(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(framing.envelope, messages)) + framing.end_of_stream()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    decoder = Decoder()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[start:end])
    decoder.finish()
    assert found == [*map(Envelope, messages), Envelope(b"{}", last=True)]


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_stream_that_ends_within_a_message_is_malformed(message: bytes, data: st.DataObject) -> None:
    stream = framing.envelope(message)
    decoder = Decoder()
    decoder.feed(stream[: data.draw(st.integers(1, len(stream) - 1))])
    with pytest.raises(Malformed):
        decoder.finish()


def test_a_message_above_the_limit_is_refused_at_its_head() -> None:
    decoder = Decoder(limit=10)
    assert decoder.feed(framing.envelope(b"x" * 10)) == [Envelope(b"x" * 10)]
    with pytest.raises(ConnectError, match="resource_exhausted"):
        decoder.feed(framing.envelope(b"x" * 11)[:5])


@pytest.mark.parametrize(("flags", "code"), [(1, "unimplemented"), (3, "unimplemented"), (4, "invalid_argument")])
def test_other_envelopes_are_refused(flags: int, code: str) -> None:
    with pytest.raises(ConnectError) as caught:
        Decoder().feed(bytes([flags, 0, 0, 0, 0]))
    assert caught.value.code == code


@given(starts)
def test_a_start_request_survives_the_wire(request: messages.StartRequest) -> None:
    assert messages.parse_start_request(over_json(messages.start_request(request))) == request


@given(selectors, inputs, sizes, st.sampled_from([9, 15]))
def test_the_other_requests_survive_the_wire(
    selector: messages.Selector, sent: messages.Input, size: messages.Size, number: int
) -> None:
    assert messages.parse_selector(over_json(messages.selector_request(selector))) == selector
    assert messages.parse_input_request(over_json(messages.input_request(selector, sent))) == (selector, sent)
    assert messages.parse_update_request(over_json(messages.update_request(selector, size))) == (selector, size)
    assert messages.parse_signal_request(over_json(messages.signal_request(selector, number))) == (selector, number)
    assert messages.parse_stream_message(over_json({"start": messages.selector_request(selector)})) == selector
    data = {"data": {"input": messages.input_request(selector, sent)["input"]}}
    assert messages.parse_stream_message(over_json(data)) == sent
    assert messages.parse_stream_message(over_json({"keepalive": {}})) is None


@given(events)
def test_an_event_survives_the_wire(event: messages.Event) -> None:
    assert messages.parse_event_message(over_json(messages.event_message(event))) == event


@given(
    st.lists(st.builds(messages.ProcessInfo, st.integers(1, 2**32 - 1), texts, envs=st.just({}), tag=st.none() | texts))
)
def test_a_list_survives_the_wire(processes: list[messages.ProcessInfo]) -> None:
    assert messages.parse_list_reply(over_json(messages.list_reply(processes))) == processes


@pytest.mark.parametrize(
    ("returncode", "expected"),
    [
        (0, {"exited": True, "status": "exit status 0"}),
        (7, {"exitCode": 7, "exited": True, "status": "exit status 7", "error": "exit status 7"}),
        (-9, {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}),
        (-15, {"exitCode": -1, "status": "signal: terminated", "error": "signal: terminated"}),
        (-64, {"exitCode": -1, "status": "signal: signal 64", "error": "signal: signal 64"}),
    ],
)
def test_an_end_is_reported_as_e2b_reports_it(returncode: int, expected: dict[str, Any]) -> None:
    assert messages.event_message(messages.Ended.of(returncode)) == {"event": {"end": expected}}


def test_unknown_fields_and_events_are_ignored() -> None:
    message = {"event": {"start": {"pid": "12", "more": [1]}, "else": 1}, "new": {}}
    assert messages.parse_event_message(message) == messages.Started(12)
    assert messages.parse_event_message({"event": {"resized": {}}}) is None
    assert messages.parse_event_message({}) is None


@given(st.binary())
def test_base64_is_taken_in_both_alphabets_with_padding_or_without(data: bytes) -> None:
    for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
        text = encode(data).decode()
        for spelling in (text, text.rstrip("=")):
            message = {"process": {"pid": 1}, "input": {"pty": spelling}}
            assert messages.parse_input_request(message) == (1, messages.Input("pty", data))


@pytest.mark.parametrize("text", ["a", "ab=c", "ab==ab==", "a b=", "äbcd", "abc=\n", 7, None, {}])
def test_other_base64_is_refused(text: object) -> None:
    with pytest.raises(ConnectError):
        messages.parse_input_request({"process": {"pid": 1}, "input": {"pty": text}})


@pytest.mark.parametrize("pid", [-1, 2**32, 1.5, "1.5", "x", "", True, [], {}, "9" * 30])
def test_an_invalid_pid_is_refused(pid: object) -> None:
    with pytest.raises(Malformed):
        messages.parse_selector({"process": {"pid": pid}})


@pytest.mark.parametrize("size", [(0, 0), (0, 24), (80, 0), (65536, 24), (100000, 100000), (-1, 24)])
def test_a_size_beyond_what_a_terminal_can_have_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(Malformed):
        messages.parse_update_request({"process": {"pid": 1}, "pty": {"size": {"cols": size[0], "rows": size[1]}}})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'"x"', b"\xff", b"[" * 100_000, b"\0"])
def test_a_message_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        framing.decode(body)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (404, b'{"code":"not_found","message":"gone"}', "not_found", "gone"),
        (404, b"<html>", "unimplemented", "HTTP status 404"),
        (502, b'{"message":"The sandbox was not found"}', "unavailable", "The sandbox was not found"),
        (503, b'{"code":7}', "unavailable", ""),
        (418, b"", "unknown", "HTTP status 418"),
    ],
)
def test_an_error_is_understood_in_every_writers_form(status: int, body: bytes, code: str, message: str) -> None:
    error = framing.parse_error(status, body)
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize("code", framing.STATUS)
def test_the_end_of_a_stream_has_its_error(code: str) -> None:
    last = framing.end_of_stream(ConnectError(code, "why"))
    assert last[0] == 2
    assert json.loads(last[5:]) == {"error": {"code": code, "message": "why"}}
    error = framing.parse_end_of_stream(last[5:])
    assert error is not None
    assert (error.code, error.message) == (code, "why")
    assert framing.parse_end_of_stream(framing.end_of_stream()[5:]) is None
