"""The control lines of Wire 2: what is understood, what is ignored, what is a violation."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import (
    LINE_LIMIT,
    Ack,
    AckRequest,
    End,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
    parse_resume,
    resume_request,
)

ID, KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 4


def test_a_session_line_comes_back_as_it_was_offered() -> None:
    session = parse_control(SessionOffer(ID, KEY, 1 << 24, 3600).line().encode())
    assert isinstance(session, SessionOffer)
    assert (session.id, session.key, session.window, session.retain) == (ID, KEY, 1 << 24, 3600)


def test_each_line_is_understood() -> None:
    ack, fin, error = parse_control(b"ack 42"), parse_control(b"fin 0"), parse_control(b"error shutdown the end")
    assert isinstance(ack, Ack) and ack.count == 42
    assert isinstance(fin, Fin) and fin.count == 0
    assert isinstance(error, SessionError) and (error.code, error.text) == ("shutdown", "the end")
    assert isinstance(parse_control(b"ping"), AckRequest)
    assert isinstance(parse_control(b"end"), End)


@pytest.mark.parametrize("line", [b"", b"pong", b"window 5", b"\xff\xfe", b"ACK 1"])
def test_lines_of_other_kinds_are_ignored(line: bytes) -> None:
    assert parse_control(line) is None


@pytest.mark.parametrize(
    "line",
    [
        *(b"ack", b"ack -1", b"ack 1x", b"ack 1 2", b"ack " + b"9" * 30, b"fin", b"fin ", b"ping 1", b"end now"),
        *(b"session", b"session id=1 key=2 window=3 retain=4"),
        f"session id={ID} key={KEY} window=0 retain=1".encode(),
        f"session id={ID.upper()} key={KEY} window=1 retain=1".encode(),
    ],
)
def test_a_known_line_that_is_malformed_is_a_violation(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_control(line)


def test_an_error_line_is_one_short_line_of_ascii() -> None:
    line = error_line("protocol", "zu späť\nforged " + "x" * 500)
    assert line.isascii() and "\n" not in line and len(line) <= LINE_LIMIT


def test_a_resume_request_proves_the_key_over_all_that_it_says() -> None:
    request = resume_request(ID, KEY, 7, 1000)
    expected = hmac.new(bytes.fromhex(KEY), f"{ID} 7 1000".encode(), hashlib.sha256).hexdigest()
    assert request.proof == expected
    parsed = parse_resume(request.header())
    assert (parsed.id, parsed.epoch, parsed.received, parsed.proof) == (ID, 7, 1000, expected)


@pytest.mark.parametrize(
    "value",
    [
        *("", "id=1", f"id={ID}, epoch=1, received=2", f"id={ID}, epoch=x, received=2, proof={'0' * 64}"),
        *(f"id={ID}, epoch=1, received=-2, proof={'0' * 64}", f"id={ID}, epoch=1, received=2, proof=00"),
    ],
)
def test_a_malformed_resume_header_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_resume(value)
