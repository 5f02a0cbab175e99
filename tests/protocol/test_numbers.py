"""Numbers on the wire: what counts as one, and what only Python would accept."""

from __future__ import annotations

import pytest

from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import WINDOW_LIMIT, SessionOffer, parse_control, parse_resume
from tunnel.protocol.numbers import parse_decimal, parse_hexadecimal
from tunnel.protocol.upgrade import ResponseError, ResponseParser

ID, KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 4
NO_NUMBERS = ["", " 1", "1 ", "+1", "-1", "1_0", "1.0", "0x1", "1e3", "²", "٣", "१", "9" * 20, "9" * 5000, "nan"]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_malformed_number_is_refused(text: str) -> None:
    assert parse_decimal(text) is None


def test_numbers_have_a_longest_length() -> None:
    assert parse_decimal("007") == 7
    assert parse_decimal("9" * 19) == 10**19 - 1
    assert parse_decimal("1234", 3) is None
    assert parse_decimal("123", 3) == 123
    assert parse_hexadecimal(b"fF") == 255
    assert parse_hexadecimal(b"5") == 5
    assert parse_hexadecimal(b"f" * 16) == (1 << 64) - 1
    assert parse_hexadecimal(b"0123456789abcdef") == parse_hexadecimal(b"0123456789ABCDEF") == 0x123456789ABCDEF
    for data in (b"", b"0x1", b"-1", b"+1", b"1_0", b" 1", b"f" * 17, b"g", b"X"):
        assert parse_hexadecimal(data) is None


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("line", ["ack @", "fin @", f"session id={ID} key={KEY} window=@ retain=1"])
def test_control_lines_take_nothing_else(line: str, text: str) -> None:
    if text == "1 " and line.startswith("session"):
        return  # a space ends a field of that line
    with pytest.raises(RemoteProtocolError, match="malformed"):
        parse_control(line.replace("@", text).encode())


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_resume_takes_nothing_else(text: str) -> None:
    if text.strip() == "1":
        return  # spaces around a field of a list belong to the list (RFC 9110, section 5.6.1)
    with pytest.raises(RemoteProtocolError, match="malformed"):
        parse_resume(f"id={ID}, epoch=1, received={text}, proof={KEY}")


@pytest.mark.parametrize("text", [text for text in NO_NUMBERS if text.strip() != "1"])
def test_a_length_that_is_no_number_is_none(text: str) -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 403 No\r\nContent-Length: " + text.encode() + b"\r\n\r\nbody")
    assert not parser.done
    parser.end()
    assert parser.head is not None and parser.head.body == b"body"


def test_a_length_beyond_all_bounds_waits_for_what_is_looked_at_only() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 403 No\r\nContent-Length: 9999999999999999999\r\n\r\n" + b"x" * (1 << 16))
    assert parser.done


@pytest.mark.parametrize("size", [b"-5", b"+5", b"0x5", b"5_0", b"f" * 5000, "٣".encode()])
def test_a_chunk_whose_size_is_no_number_ends_the_body(size: bytes) -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n")
    assert parser.done and parser.head is not None and parser.head.body == b""


@pytest.mark.parametrize("status", ["²00", "+20", "-20", "1_0", "20", "2000", "٢٠٠"])
def test_a_status_is_three_digits(status: str) -> None:
    with pytest.raises(ResponseError):
        ResponseParser().feed(f"HTTP/1.1 {status} OK\r\n\r\n".encode())


def test_a_window_has_a_limit() -> None:
    offer = parse_control(SessionOffer(ID, KEY, WINDOW_LIMIT, 1).line().encode())
    assert isinstance(offer, SessionOffer) and offer.window == 64 << 20
    for window in (WINDOW_LIMIT + 1, 1 << 62):
        with pytest.raises(RemoteProtocolError, match="window"):
            parse_control(SessionOffer(ID, KEY, window, 1).line().encode())


def test_a_retention_may_be_any_number() -> None:
    offer = parse_control(SessionOffer(ID, KEY, 1, (1 << 63) - 1).line().encode())
    assert isinstance(offer, SessionOffer) and offer.retain == (1 << 63) - 1
