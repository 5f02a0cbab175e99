"""The messages of process.Process: each parser takes a message or raises ConnectError, and reads what we write."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

from tunnel.pty.protocol import messages
from tunnel.pty.protocol.framing import ConnectError, Object, decode, encode

TOKENS = (
    b'"process":{', b'"cmd":"sh"', b'"args":["-c"]', b'"envs":{"A":"b"}', b'"cwd":"/"', b'"pid":', b'"tag":"t"',
    b"null", b'"pty":{"size":{"cols":80,"rows":24}}', b'"input":{"pty":"YQ=="}', b'"signal":"SIGNAL_SIGTERM"',
    b'"signal":15', b'"start":{', b'"data":{', b'"keepalive":{}', b'"event":{', b'"end":{', b'"exitCode":',
    b'"exited":true', b"true", b"1e309", b"1.5", b"-1", b"4294967296", b'"7"', b"[[]]", b"{}", b'"\\ud800"',
    b'"\\u0000"', b"9.0", b"NaN", b",",
)  # fmt: skip
_PARSERS: tuple[Callable[[Object], object], ...] = (
    messages.parse_start_request,
    messages.parse_selector,
    messages.parse_update_request,
    messages.parse_input_request,
    messages.parse_signal_request,
    messages.parse_stream_message,
    messages.parse_list_reply,
    messages.parse_event_message,
)


# What is put in the place of any part of a message.
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 9, 15, -1, 1 << 31, 1 << 32, 1 << 80, 9.0, 1.5, float("nan"), float("inf"), "", "sh",
    "YQ==", "YQ", "Y Q", "-_", "7", "-7", "1e3", "\0", "\ud800", "=", "SIGNAL_SIGKILL", [], {}, [None], ["x"], {"": ""},
)  # fmt: skip


_MESSAGES: tuple[Object, ...] = (
    messages.start_request(
        messages.StartRequest("sh", ("-c",), {"A": "b"}, "/", messages.Size(80, 24), "tag", stdin=False)
    ),
    messages.update_request(7, messages.Size(80, 24)),
    messages.input_request("tag", messages.Input("pty", b"abc")),
    messages.signal_request(7, 15),
    {"start": {"process": {"pid": 7}}},
    {"data": {"input": {"stdin": "YWJj"}}},
    messages.list_reply([messages.ProcessInfo(7, "sh", ("-c",), {"A": "b"}, "/", "tag")]),
    messages.event_message(messages.Started(7)),
    messages.event_message(messages.Output("pty", b"abc")),
    messages.event_message(messages.Restore(b"\x1b[?1049h")),
    messages.event_message(messages.Keepalive()),
    messages.event_message(messages.Ended.of(1)),
)


def target(data: bytes) -> None:
    """``data`` is a message, or else it decides which message is made wrong, and how."""
    try:
        message = decode(data)
    except ConnectError:
        built = decode(encode(random.Random(data).choice(_MESSAGES)))
        spoil(built, random.Random(data))
        try:
            message = decode(encode(built))
        except ConnectError:
            return  # what it became is no JSON that the service takes
    for parse in _PARSERS:
        try:
            meaning = parse(message)
        except ConnectError:
            continue
        check(meaning)


def spoil(message: Any, chance: random.Random) -> None:
    """Make other things of some parts of ``message``."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        if places := list(parts(message)):
            holder, key = chance.choice(places)
            holder[key] = copy.deepcopy(chance.choice(_VALUES))


def parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each part of a message, however deep: what holds it, and its key or index there."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from parts(value[key])


def check(meaning: object) -> None:
    """What a parser has understood comes back as it is when it is written, and read again."""
    if isinstance(meaning, messages.StartRequest):
        again = messages.parse_start_request(decode(encode(messages.start_request(meaning))))
        assert again == meaning
        assert not any("\0" in text for text in (meaning.cmd, *meaning.args, meaning.cwd or ""))
    elif isinstance(meaning, messages.Started | messages.Output | messages.Keepalive):
        assert messages.parse_event_message(decode(encode(messages.event_message(meaning)))) == meaning
    elif isinstance(meaning, tuple) and isinstance(meaning[1], messages.Input):
        selector, given = meaning
        assert messages.parse_input_request(decode(encode(messages.input_request(selector, given)))) == meaning
    elif isinstance(meaning, tuple) and isinstance(meaning[1], int):
        assert meaning[1] in (9, 15)
