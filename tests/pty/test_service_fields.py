"""Every field of every method with every kind of wrong value: a 4xx or an error in the stream, never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.pty.beds import Service
from tests.pty.raw import Raw, envelope

# As JSON, because Python objects cannot express all of it.
VALUES = {
    "null": "null",
    "true": "true",
    "a fraction": "1.5",
    "a whole number with a fraction": "9.0",
    "infinity": "1e400",
    "Infinity": "Infinity",
    "NaN": "NaN",
    "negative": "-1",
    "negative zero": "-0.0",
    "2**32": str(1 << 32),
    "2**64": str(1 << 64),
    "5,000 digits": "9" * 5000,
    "a text of 5,000 digits": '"' + "9" * 5000 + '"',
    "other digits": '"٣"',
    "superscript": '"²"',
    "hexadecimal": '"0x10"',
    "underscored": '"1_0"',
    "an empty text": '""',
    "a text": '"nonsense"',
    "an empty array": "[]",
    "an array": "[1]",
    "an empty object": "{}",
    "an object": '{"nonsense": 1}',
    "deep arrays": "[" * 10_000 + "]" * 10_000,
    "deep objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "a lone surrogate": '"\\ud800"',
    "a NUL": '"a\\u0000b"',
    "a name twice": '{"a": 1, "a": 2}',
    "not closed": '"',
}
PID = "999999999"  # of nobody
PROCESS = f'"process": {{"pid": {PID}}}'
# A method, and a request with a placeholder for one field.
UNARY = [
    ("List", "@"),
    ("Update", "@"),
    ("Update", '{"process": @, "pty": {"size": {"cols": 1, "rows": 1}}}'),
    ("Update", '{"process": {"pid": @}, "pty": {"size": {"cols": 1, "rows": 1}}}'),
    ("Update", '{"process": {"tag": @}}'),
    ("Update", f'{{{PROCESS}, "pty": @}}'),
    ("Update", f'{{{PROCESS}, "pty": {{"size": @}}}}'),
    ("Update", f'{{{PROCESS}, "pty": {{"size": {{"cols": @, "rows": 1}}}}}}'),
    ("Update", f'{{{PROCESS}, "pty": {{"size": {{"cols": 1, "rows": @}}}}}}'),
    ("SendInput", '{"process": @, "input": {"pty": ""}}'),
    ("SendInput", '{"process": {"pid": @}, "input": {"pty": ""}}'),
    ("SendInput", '{"process": {"tag": @}, "input": {"pty": ""}}'),
    ("SendInput", f'{{{PROCESS}, "input": @}}'),
    ("SendInput", f'{{{PROCESS}, "input": {{"pty": @}}}}'),
    ("SendInput", f'{{{PROCESS}, "input": {{"stdin": @}}}}'),
    ("SendSignal", '{"process": @, "signal": 9}'),
    ("SendSignal", '{"process": {"pid": @}, "signal": 9}'),
    ("SendSignal", '{"process": {"tag": @}, "signal": 9}'),
    ("SendSignal", f'{{{PROCESS}, "signal": @}}'),
    ("CloseStdin", '{"process": @}'),
    ("CloseStdin", '{"process": {"pid": @}}'),
    ("CloseStdin", '{"process": {"tag": @}}'),
]
STREAMS = [
    ("Start", "@"),
    ("Start", '{"process": @}'),
    ("Start", '{"process": {"cmd": @}}'),
    ("Start", '{"process": {"cmd": "/bin/true", "args": @}}'),
    ("Start", '{"process": {"cmd": "/bin/true", "args": [@]}}'),
    ("Start", '{"process": {"cmd": "/bin/true", "envs": @}}'),
    ("Start", '{"process": {"cmd": "/bin/true", "envs": {"A": @}}}'),
    ("Start", '{"process": {"cmd": "/bin/true", "cwd": @}}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "pty": @}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "pty": {"size": @}}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "pty": {"size": {"cols": @, "rows": 1}}}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "pty": {"size": {"cols": 1, "rows": @}}}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "tag": @}'),
    ("Start", '{"process": {"cmd": "/bin/true"}, "stdin": @}'),
    ("Connect", "@"),
    ("Connect", '{"process": @}'),
    ("Connect", '{"process": {"pid": @}}'),
    ("Connect", '{"process": {"tag": @}}'),
    ("StreamInput", "@"),
    ("StreamInput", '{"start": @}'),
    ("StreamInput", '{"start": {"process": @}}'),
    ("StreamInput", '{"start": {"process": {"pid": @}}}'),
    ("StreamInput", '{"start": {"process": {"tag": @}}}'),
    ("StreamInput", '{"data": @}'),
    ("StreamInput", '{"data": {"input": @}}'),
    ("StreamInput", '{"data": {"input": {"pty": @}}}'),
    ("StreamInput", '{"data": {"input": {"stdin": @}}}'),
    ("StreamInput", '{"keepalive": @}'),
]
# Which of the values above each field accepts, because they are valid or mean that it is missing.
TEXTS = {"a text", "a text of 5,000 digits", "other digits", "superscript", "hexadecimal", "underscored"}
GOOD = {
    '"cmd": @': TEXTS,
    '"args": @': {"null", "an empty array"},
    '"args": [@]': {*TEXTS, "an empty text"},
    '"envs": @': {"null", "an empty object"},
    '"envs": {"A": @': {*TEXTS, "an empty text"},
    '"cwd": @': {"null", "an empty text"},
    '"pty": @': {"null", "an empty object", "an object"},
    '"size": @': {"null", "an empty object", "an object"},
    '"cols": @': {"a whole number with a fraction"},
    '"rows": @': {"a whole number with a fraction"},
    '"tag": @': {*TEXTS, "null", "an empty text", "a NUL"},
    '"stdin": @': {"null", "true"},
    "@": {"an empty object", "an object"},
}
BUGS = {"internal", "unknown", "data_loss", None}


def filled(template: str, value: str) -> bytes:
    return template.replace("@", value).encode()


def is_good(template: str, name: str) -> bool:
    best = max((field for field in GOOD if field in template), key=len)
    return name in GOOD[best]


@pytest.fixture
def watched(service: Service, raw: Raw) -> Iterator[Raw]:
    before = len(service.process.log())
    yield raw
    log = service.process.log()[before:]
    assert "internal-error" not in log and "Traceback" not in log, log


@pytest.mark.parametrize(("method", "template"), UNARY)
def test_a_unary_method_refuses_what_its_field_cannot_be(watched: Raw, method: str, template: str) -> None:
    for name, value in VALUES.items():
        reply = watched.call(method, filled(template, value))
        if reply.status == 200:
            assert method == "List" and is_good(template, name), (name, reply.body)
        else:
            # Missing parts are answered with 501, as by E2B's own service.
            assert reply.status // 100 == 4 or reply.code == "unimplemented", (name, reply.body)
            assert reply.code not in BUGS, (name, reply.body)
            assert len(reply.body) < 2000


@pytest.mark.parametrize(("method", "template"), STREAMS)
def test_a_stream_refuses_what_its_field_cannot_be(watched: Raw, method: str, template: str) -> None:
    for name, value in VALUES.items():
        body = envelope(filled(template, value))
        kind = {"Content-Type": "application/connect+json"}
        reply = watched.request("POST", f"/process.Process/{method}", body, kind)
        assert reply.status == 200
        last = json.loads(reply.body[reply.body.rindex(b"\x02\0\0") + 5 :])
        if "error" in last:
            assert last["error"]["code"] not in BUGS, (name, last)
            assert len(reply.body) < 2000
        else:
            assert method in ("Start", "Connect") and is_good(template, name), (name, reply.body)


@pytest.mark.parametrize("signal", ["9.0", "15.0", "9.5", '"9"', '"SIGKILL"', "true", "-9", "[9]"])
def test_a_signal_is_a_name_or_a_number_of_one(watched: Raw, signal: str) -> None:
    stream = watched.pipes("/bin/cat")
    reply = watched.call("SendSignal", f'{{"process": {{"pid": {stream.pid}}}, "signal": {signal}}}'.encode())
    assert (reply.status, reply.code) == (400, "invalid_argument"), reply.body
    for other in ("0", "1", "null", '"SIGNAL_UNSPECIFIED"'):
        reply = watched.call("SendSignal", f'{{"process": {{"pid": {stream.pid}}}, "signal": {other}}}'.encode())
        assert reply.code == "unimplemented"
    assert watched.send(stream.pid, b"", "stdin").status == 200  # it lives
    for good in ("9", '"SIGNAL_SIGKILL"'):
        assert watched.call(
            "SendSignal", f'{{"process": {{"pid": {stream.pid}}}, "signal": {good}}}'.encode()
        ).status in (200, 404)
    stream.finish()


def test_envelopes_of_nonsense_are_refused(watched: Raw) -> None:
    kind = {"Content-Type": "application/connect+json"}
    for body in (
        b"",
        b"\0",
        b"\0\0\0\0\0",
        b"\0\xff\xff\xff\xff",
        b"\x01\0\0\0\2{}",
        b"\xff\0\0\0\2{}",
        b"\2\0\0\0\2{}" * 2,
    ):
        for method in ("Start", "Connect", "StreamInput"):
            reply = watched.request("POST", f"/process.Process/{method}", body, kind)
            assert reply.status == 200
            assert b'"error":{"code":"' in reply.body
            assert b'"internal"' not in reply.body and b'"unknown"' not in reply.body


def test_a_tag_has_a_length_that_a_list_of_all_processes_can_hold(watched: Raw) -> None:
    stream = watched.terminal("/bin/true", tag="t" * 1025).finish()
    assert stream.error is not None and stream.error["code"] == "invalid_argument"
    assert watched.terminal("/bin/true", tag="t" * 1024).finish().ended is not None


def test_arguments_that_no_process_can_have_are_the_clients_fault(watched: Raw) -> None:
    for fields in ({"args": ["x" * 200_000]}, {"envs": {"X": "x" * 200_000}}):
        stream = watched.open("Start", {"process": {"cmd": "/bin/true", **fields}}).finish()
        assert stream.error is not None and stream.error["code"] == "invalid_argument"
