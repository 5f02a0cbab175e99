"""Control lines and the header of a resume: each is understood or a violation, and we read what we write."""

from __future__ import annotations

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import (
    COUNT_LIMIT,
    LINE_LIMIT,
    Ack,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
    parse_resume,
    resume_request,
)

TOKENS = (
    b"ack ", b"fin ", b"ping", b"end", b"session ", b"error ", b"id=", b"key=", b"window=", b"retain=", b"epoch=",
    b"received=", b"proof=", b", ", b"0" * 32, b"f" * 64, b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", "٣".encode(), b"\xb2", b"-1", b"+1", b"1_0",
)  # fmt: skip


def target(data: bytes) -> None:
    check_line(data)
    check_resume(data)


def check_line(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    line = error_line("policy", text)
    assert len(line) <= LINE_LIMIT and line.isascii() and line.isprintable()
    try:
        control = parse_control(data)
    except RemoteProtocolError as exc:
        assert str(exc).isprintable()
        return
    if isinstance(control, Ack | Fin):
        assert 0 <= control.count < COUNT_LIMIT
        again = parse_control(f"{type(control).__name__.lower()} {control.count}".encode())
        assert isinstance(again, Ack | Fin) and again.count == control.count
    elif isinstance(control, SessionOffer):
        assert 0 < control.window < COUNT_LIMIT and 0 <= control.retain < COUNT_LIMIT
        bytes.fromhex(control.id + control.key)
        again = parse_control(control.line().encode("ascii"))
        assert isinstance(again, SessionOffer) and again.line() == control.line()
    elif isinstance(control, SessionError):
        assert (control.code + control.text).isprintable()


def check_resume(data: bytes) -> None:
    try:
        request = parse_resume(data.decode("latin-1"))
    except RemoteProtocolError as exc:
        assert data.decode("latin-1") not in str(exc) or len(data) < 8, "a header's value is quoted"
        return
    assert 0 <= request.epoch < COUNT_LIMIT and 0 <= request.received < COUNT_LIMIT
    assert parse_resume(request.header()).header() == request.header()
    proven = resume_request(request.id, "ab" * 32, request.epoch, request.received)
    assert parse_resume(proven.header()).proof == proven.proof
