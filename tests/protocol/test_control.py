"""The control lines of Wire 2: what is understood, what is ignored, what is a violation."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import (
    COUNT_LIMIT,
    LINE_LIMIT,
    MESSAGE_LIMIT,
    WINDOW_LIMIT,
    Ack,
    AckRequest,
    ControlReader,
    End,
    Fin,
    SessionError,
    SessionOffer,
    error_line,
    parse_control,
    parse_resume,
    resume_request,
    session_failure,
)
from tunnel.protocol.frames import TEXT, Payload

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
        *(b"ack %d" % COUNT_LIMIT, b"fin %d" % COUNT_LIMIT),
        *(b"session", b"session id=1 key=2 window=3 retain=4"),
        f"session key={KEY} window=1 retain=1".encode(),
        f"session id={ID} window=1 retain=1".encode(),
        f"session id={ID} key={KEY} retain=1".encode(),
        f"session id={ID} key={KEY} window=1".encode(),
        f"session id={ID.upper()} key={KEY} window=1 retain=1".encode(),
        f"session id={ID}0 key={KEY} window=1 retain=1".encode(),
        f"session id={ID} key={KEY[1:]} window=1 retain=1".encode(),
        f"session id={ID}=0 key={KEY} window=1 retain=1".encode(),
        f"session id={ID} key={KEY} window=1\tretain=1".encode(),
    ],
)
def test_a_known_line_that_is_malformed_is_a_violation(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_control(line)
    assert str(caught.value) == f"the peer sent a malformed {line.partition(b' ')[0].decode()} line"


def test_a_count_has_63_bits() -> None:
    line = parse_control(b"ack %d" % (COUNT_LIMIT - 1))
    assert isinstance(line, Ack) and line.count == (1 << 63) - 1


def test_a_session_has_a_window_of_one_byte_at_least() -> None:
    with pytest.raises(RemoteProtocolError, match=r"^the peer offered a session without a window$"):
        parse_control(f"session id={ID} key={KEY} window=0 retain=1".encode())
    offer = parse_control(f"session id={ID} key={KEY} window=1 retain=0".encode())
    assert isinstance(offer, SessionOffer) and (offer.window, offer.retain) == (1, 0)


def test_a_window_that_is_too_large_is_named_with_the_limit() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_control(SessionOffer(ID, KEY, WINDOW_LIMIT + 1, 1).line().encode())
    assert str(caught.value) == (
        f"the peer offered a session with a window of {WINDOW_LIMIT + 1} bytes: above {WINDOW_LIMIT}"
    )


def test_a_session_line_may_have_fields_that_are_not_known_yet() -> None:
    offer = parse_control(f"session new=1 id={ID} key={KEY} window=5 retain=6 other".encode())
    assert isinstance(offer, SessionOffer) and (offer.id, offer.window, offer.retain) == (ID, 5, 6)


def test_what_a_peer_says_in_an_error_is_fit_for_a_terminal() -> None:
    error = parse_control(b"error so\x1bm e\x07 text")
    assert isinstance(error, SessionError)
    assert error.code.isprintable() and error.text.isprintable() and error.text.endswith("text")


def test_the_text_of_an_error_may_have_any_number_of_words_or_none() -> None:
    several, none = parse_control(b"error full try it  again"), parse_control(b"error full")
    assert isinstance(several, SessionError) and (several.code, several.text) == ("full", "try it again")
    assert isinstance(none, SessionError) and (none.code, none.text) == ("full", "")


def test_an_error_line_is_one_short_line_of_ascii() -> None:
    line = error_line("protocol", "zu späť\nforged " + "x" * 500)
    assert line.isascii() and "\n" not in line and len(line) <= LINE_LIMIT


def test_what_is_not_ascii_in_an_error_line_is_marked() -> None:
    assert error_line("protocol", "zu sp\u00e4t") == "error protocol zu sp?t"
    assert error_line("x", "y" * 1000) == f"error x {'y' * 1000}"[:LINE_LIMIT]


@pytest.mark.parametrize(
    ("code", "text", "kind", "said"),
    [
        ("shutdown", "", "going-away", "the session is over: the bridge is stopping"),
        ("shutdown", "be back soon", "going-away", "the session is over: the bridge is stopping: be back soon"),
        ("target-lost", "reset", "target-lost", "the target behind the bridge broke the connection: reset"),
        ("no-tail", "for 900 s", "time-limit", "the tunnel is over: a time limit passed at the peer: for 900 s"),
        ("undelivered", "", "undelivered", "the target behind the bridge did not accept everything that was sent"),
        ("policy", "", "session-error", "the session is over: the bridge ended it (policy)"),
        ("policy", "too much", "session-error", "the session is over: the bridge ended it (policy): too much"),
    ],
)
def test_an_error_line_becomes_one_line_for_the_user(code: str, text: str, kind: str, said: str) -> None:
    failure = session_failure(SessionError(code, text), "the bridge")
    assert (failure.code, str(failure)) == (kind, said)


# ---- lines that come in pieces


def take(reader: ControlReader, *pieces: tuple[bytes, bool, bool]) -> list[bytes | None]:
    """What the reader makes of pieces of messages: data, whether it ends the message, and whether its frame."""
    return [reader.take(Payload(TEXT, data, final), ends_frame=ends_frame) for data, final, ends_frame in pieces]


def test_a_line_is_whole_with_the_end_of_its_message_and_the_next_begins_anew() -> None:
    reader = ControlReader()
    assert take(reader, (b"ac", False, False), (b"k ", False, True), (b"1", True, True)) == [None, None, b"ack 1"]
    assert reader.frames == 2
    assert take(reader, (b"ping", True, True)) == [b"ping"]
    assert reader.frames == 1


def test_frames_of_a_line_are_counted_but_not_the_empty_ones_in_its_middle() -> None:
    reader = ControlReader()
    take(reader, (b"p", False, True), (b"", False, True), (b"", False, True), (b"ing", False, True), (b"", True, True))
    assert reader.frames == 3  # the empty ones in the middle are paid for when they come


def test_a_line_has_a_limit_however_it_comes() -> None:
    for step in (1, 100, MESSAGE_LIMIT):
        reader = ControlReader()
        taken = [reader.take(Payload(TEXT, b"x" * step, False), ends_frame=True) for _ in range(MESSAGE_LIMIT // step)]
        assert set(taken) == {None}
        with pytest.raises(RemoteProtocolError, match=r"^the peer sent a control line that is too long$"):
            reader.take(Payload(TEXT, b"x" * step, True), ends_frame=True)


# ---- the request to resume


def test_a_resume_request_proves_the_key_over_all_that_it_says() -> None:
    request = resume_request(ID, KEY, 7, 1000)
    assert (request.id, request.epoch, request.received) == (ID, 7, 1000)
    expected = hmac.new(bytes.fromhex(KEY), f"{ID} 7 1000".encode(), hashlib.sha256).hexdigest()
    assert request.proof == expected
    parsed = parse_resume(request.header())
    assert (parsed.id, parsed.epoch, parsed.received, parsed.proof) == (ID, 7, 1000, expected)


@pytest.mark.parametrize(
    "value",
    [
        *("", "id=1", f"id={ID}, epoch=1, received=2", f"id={ID}, epoch=1, received=2, proof=00"),
        f"epoch=1, received=2, proof={KEY}, x=y",
        f"id={ID}, epoch=1, received=2, x=y",
        f"id={ID}, epoch=1, received=2, proof={KEY}, x=y",
        f"id={ID}, epoch=1, received=2, proof={KEY}, id={ID}",
        f"id={ID}, id={ID}, received=2, proof={KEY}",
        f"id={ID[1:]}, epoch=1, received=2, proof={KEY}",
        f"id={ID}=, epoch=1, received=2, proof={KEY}",
    ],
)
def test_a_malformed_resume_header_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^the Wstunnel-Resume header is malformed$"):
        parse_resume(value)


@pytest.mark.parametrize(
    "value",
    [
        f"id={ID}, epoch=x, received=2, proof={KEY}",
        f"id={ID}, epoch=1, received=-2, proof={KEY}",
        f"id={ID}, x=1, received=2, proof={KEY}",
        f"id={ID}, epoch=1, x=2, proof={KEY}",
        f"id={ID}, epoch=1, received={COUNT_LIMIT}, proof={KEY}",
    ],
)
def test_a_resume_with_a_count_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^the peer sent a malformed resume line$"):
        parse_resume(value)


def test_the_fields_of_a_resume_may_stand_in_any_order_with_any_spaces() -> None:
    parsed = parse_resume(f"proof={KEY} ,received=2,  epoch=1,id={ID}")
    assert (parsed.id, parsed.epoch, parsed.received, parsed.proof) == (ID, 1, 2, KEY)
