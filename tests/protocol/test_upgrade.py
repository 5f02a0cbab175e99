"""The client's handshake without sockets: its request, and how it reads every kind of answer."""

from __future__ import annotations

import base64
import json

import pytest
import wsproto
from hypothesis import given
from hypothesis import strategies as st
from websockets.server import ServerProtocol
from wsproto.events import AcceptConnection, Request

from tunnel.errors import DialError, UpgradeRefused, UsageError
from tunnel.protocol.upgrade import (
    BODY_LIMIT,
    HEAD_LIMIT,
    MAX_INTERIM,
    NoFinalResponse,
    Response,
    ResponseError,
    ResponseParser,
    check_header,
    check_upgrade,
    message_of,
    new_key,
    refusal,
    upgrade_request,
)

URL = "wss://bridge.test"
# The example of RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def read(data: bytes, *, connect: bool = False) -> ResponseParser:
    """What the parser makes of a connection that brings ``data`` and then ends."""
    parser = ResponseParser(connect=connect)
    parser.feed(data)
    if not parser.done:
        parser.end()
    return parser


def answer(status: str, *fields: str, body: bytes = b"") -> Response:
    response = read("\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode() + body).head
    assert response is not None
    return response


def switching(*fields: str) -> Response:
    return answer("101 Switching Protocols", *fields)


GOOD = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}")


# ---- the request


def test_the_request_has_the_lines_of_the_standard_and_then_the_users_own() -> None:
    request = upgrade_request("/a?b", "h.test:81", KEY, ("binary", "other"), [("X-One", "1"), ("X-Two", "2")])
    assert request.decode() == (
        "GET /a?b HTTP/1.1\r\n"
        "Host: h.test:81\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: binary, other\r\n"
        "X-One: 1\r\n"
        "X-Two: 2\r\n"
        "\r\n"
    )


def test_a_request_without_subprotocols_has_no_such_line() -> None:
    assert b"Sec-WebSocket-Protocol" not in upgrade_request("/", "h", KEY, (), [])


def test_every_key_is_another_of_16_bytes_in_base64() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16


def test_a_request_that_is_not_ascii_is_never_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        upgrade_request("/\u00e4", "h", KEY, (), [])


def test_websockets_accepts_our_request_and_we_its_answer() -> None:
    key = new_key()
    server = ServerProtocol(select_subprotocol=lambda _, offered: offered[0])
    server.receive_data(upgrade_request("/x", "h.test", key, ("binary",), []))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    response = read(b"".join(server.data_to_send())).head
    assert response is not None
    assert check_upgrade(response, url=URL, key=key, subprotocols=("binary",)) == "binary"


def test_wsproto_accepts_our_request_and_we_its_answer() -> None:
    key = new_key()
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(upgrade_request("/x", "h.test", key, ("binary",), []))
    (request,) = server.events()
    assert isinstance(request, Request)
    response = read(server.send(AcceptConnection(subprotocol="binary"))).head
    assert response is not None
    assert check_upgrade(response, url=URL, key=key, subprotocols=("binary",)) == "binary"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "X\r\nY", "ä", "(x)"])
def test_a_header_with_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid name for an HTTP header"):
        check_header(name, "value")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b", "a\x7fb", "ä"])
def test_a_header_with_a_value_that_no_header_may_have_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="the value of the header X-Name has characters that a header cannot have"):
        check_header("X-Name", value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Authorization Be", "'Authorization Be'"),
        ("Authorization Bearer 1234", "'Authorization Be\u2026'"),
        ("", "''"),
    ],
)
def test_only_the_beginning_of_a_long_invalid_name_is_shown(name: str, shown: str) -> None:
    """Who forgot the colon has put the secret there."""
    with pytest.raises(UsageError) as caught:
        check_header(name, "value")
    assert str(caught.value) == f"{shown} is not a valid name for an HTTP header"


@pytest.mark.parametrize("value", ["", "plain words", "a\tb", "~!#:;,=()", "\t"])
def test_a_header_may_have_any_visible_ascii_spaces_and_tabs(value: str) -> None:
    check_header("X-Name", value)
    check_header("a!#$%&'*+-.^_`|~0Z", value)


@pytest.mark.parametrize(
    "name", ["Host", "upgrade", "Connection", "Content-Length", "Transfer-Encoding", "Sec-WebSocket-Key"]
)
def test_the_handshakes_own_headers_cannot_be_set(name: str) -> None:
    with pytest.raises(UsageError, match=f"the header {name} belongs to the handshake"):
        check_header(name, "x")


# ---- reading an answer

SAMPLES = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x82\x00tail",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Gone\r\n\r\nbody",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nbodyand what follows it",
    b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n3\r\n or\r\n0\r\n\r\n",
    b"HTTP/1.0 403\r\n\r\nuntil the end",
)


@given(st.sampled_from(SAMPLES), st.data())
def test_any_chunking_of_an_answer_gives_the_same(sample: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sample) - 1))))
    parser = ResponseParser()
    rest = b""
    for start, end in zip([0, *cuts], [*cuts, len(sample)], strict=True):
        if parser.done:
            rest += sample[start:end]  # what a socket would still hold
        else:
            parser.feed(sample[start:end])
    if not parser.done:
        parser.end()
    whole = read(sample)
    assert parser.head is not None and whole.head is not None
    assert (parser.head.status, parser.head.headers, parser.head.body) == (
        whole.head.status,
        whole.head.headers,
        whole.head.body,
    )
    assert parser.rest + rest == whole.rest or whole.head.status != 101


def test_what_follows_the_101_is_handed_back() -> None:
    assert read(SAMPLES[0]).rest == b"\x82\x00tail"


def test_interim_answers_are_skipped() -> None:
    response = read(SAMPLES[1]).head
    assert response is not None
    assert (response.status, response.body) == (404, b"body")


def test_bodies_end_where_length_chunks_or_the_connection_say() -> None:
    bodies = [parser.head.body for sample in SAMPLES[2:] if (parser := read(sample)).head is not None]
    assert bodies == [b"body", b"body or", b"until the end"]


def test_an_answer_to_connect_has_no_body_when_it_is_2xx() -> None:
    parser = ResponseParser(connect=True)
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
    assert (parser.done, parser.rest) == (True, b"early")


def test_an_answer_that_is_not_http_is_known_by_its_first_bytes() -> None:
    with pytest.raises(ResponseError, match=r"it began with 'SSH-2\.0-OpenSSH"):
        ResponseParser().feed(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"HTTP/1.1 xyz\r\n\r\n", "it began with 'HTTP/1.1 xyz'"),
        (b"HTTP/2 200 OK\r\n\r\n", "it began with 'HTTP/2 200 OK'"),
        (b"HTTP/1.1 410 Gone\r\nWstunnel-Error : x\r\n\r\n", "it has the malformed header line 'Wstunnel-Error : x'"),
        (b"HTTP/1.1 410 Gone\r\nWstunnel-Error:\r\n x\r\n\r\n", "it has the malformed header line ' x'"),
        (
            b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept\r\n\r\n",
            "it has the malformed header line 'Sec-WebSocket-Accept'",
        ),
        (b"HTTP/1.1 200 OK\r\nX: y", "it closed the connection in the middle of its answer"),
    ],
)
def test_a_malformed_answer_is_named(data: bytes, said: str) -> None:
    with pytest.raises(ResponseError) as caught:
        read(data)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b"HTTP/1.1 407 Who\nA: b\nC: d\n\n", (("a", "b"), ("c", "d"))),
        (b"HTTP/1.1 407 Who\r\nA: b\n\r\n", (("a", "b"),)),
        (b"HTTP/1.1 407 Who\r\nA: b\r\n \t c\r\n\td\r\nE: f\r\n\r\n", (("a", "b c d"), ("e", "f"))),
        (b"HTTP/1.1 407 Who\r\n folded: onto nothing\r\nA: b\r\n\r\n", (("a", "b"),)),
        (b"HTTP/1.1 407 Who\r\nA : b\r\n\r\n", (("a", "b"),)),
        (b"HTTP/1.1 407 Who\r\nno colon\r\n and more\r\nA: b\r\n\r\n", (("a", "b"),)),
        (b"HTTP/1.1 407 Who\r\nX(A): c\r\nX A: c\r\n: c\r\nX\xe4: c\r\nA: b\r\n\r\n", (("a", "b"),)),
        (b"HTTP/1.1  407\tWho\r\nA: b\r\n\r\n", (("a", "b"),)),
        (b"HTTP/1.2 407 Who\r\nA: b\rc\r\n\r\n", (("a", "b c"),)),
    ],
)
def test_an_answer_that_is_spelled_oddly_is_read_as_curl_does(head: bytes, fields: tuple[tuple[str, str], ...]) -> None:
    for size in (1, len(head) + 5):
        parser = ResponseParser()
        data = head + b"body"
        for at in range(0, len(data), size):
            parser.feed(data[at : at + size])
        parser.end()
        assert parser.head is not None
        assert (parser.head.status, parser.head.reason, parser.head.headers) == (407, "Who", fields)
        assert parser.head.body == b"body"


def test_only_spaces_and_tabs_are_taken_off_an_answers_parts() -> None:
    """Neither what Python takes for white space, as the no-break space of Latin-1, nor any letter."""
    lines = "HTTP/1.1 400 XOX\xa0", "Server:\t \xa0XOX\xa0 ", "Other\xa0: not a field", "XSpaced \t: XOX"
    response = read("\r\n".join((*lines, "", "")).encode("latin-1")).head
    assert response is not None and response.reason == "XOX\xa0"
    assert response.headers == (("server", "\xa0XOX\xa0"), ("xspaced", "XOX"))
    for size in (b"5X", b"5\x0b"):
        refused = read(b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n").head
        assert refused is not None and refused.body == b""


def test_chunks_whose_lines_end_with_lf_alone_are_read() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who\nTransfer-Encoding: chunked\n\n4\nbody\n3;x\n or\n0\n\n")
    assert parser.done and parser.head is not None and parser.head.body == b"body or"


def test_what_of_a_body_in_chunks_has_not_come_whole_is_kept_as_far_as_it_came() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who\r\nTransfer-Encoding: chunked\r\n\r\n4 \t\r\nbody\r\nA\r\n and")
    assert not bool(parser.done)
    parser.end()
    assert bool(parser.done)
    assert parser.head is not None and parser.head.body == b"body and"


@pytest.mark.parametrize("begun", [b"H", b"HTTP", b"HTTP/1.", b"HTTP/1.1 4"])
def test_a_first_line_that_is_not_whole_yet_is_waited_for(begun: bytes) -> None:
    parser = ResponseParser()
    parser.feed(begun)
    assert parser.head is None and not parser.done
    with pytest.raises(ResponseError, match=r"^it closed the connection in the middle of its answer$"):
        parser.end()


@pytest.mark.parametrize("begun", [b"h", b"HTTP/2", b"<html>"])
def test_what_cannot_become_a_first_line_is_known_at_once(begun: bytes) -> None:
    with pytest.raises(ResponseError, match=r"^it began with "):
        ResponseParser().feed(begun)


def test_a_connection_that_ends_before_anything_came_has_nothing_to_say() -> None:
    with pytest.raises(ResponseError, match=r"^$"):
        ResponseParser().end()


def test_an_error_shows_24_characters_of_an_invalid_answer() -> None:
    with pytest.raises(ResponseError) as caught:
        ResponseParser().feed(b"0123456789" * 10)
    assert str(caught.value) == "it began with '012345678901234567890123'"


def test_an_error_shows_60_characters_of_an_invalid_first_line() -> None:
    with pytest.raises(ResponseError) as caught:
        ResponseParser().feed(b"HTTP/1.1 " + b"x" * 100 + b"\r\n\r\n")
    assert str(caught.value) == f"it began with 'HTTP/1.1 {'x' * 51}'"


def test_a_status_without_a_reason_is_a_status() -> None:
    for line in (b"HTTP/1.1 407", b"HTTP/1.1 407 ", b"HTTP/1.0\t407\t"):
        response = read(line + b"\r\n\r\n").head
        assert response is not None and (response.status, response.reason) == (407, "")


def test_interim_answers_have_a_limit() -> None:
    parser = ResponseParser()
    for _ in range(MAX_INTERIM):
        parser.feed(b"HTTP/1.1 199 Wait\r\n\r\n")
    assert parser.head is None
    with pytest.raises(NoFinalResponse, match=f"^it sent {MAX_INTERIM} interim responses and no final one$"):
        parser.feed(b"HTTP/1.1 102 Processing\r\n\r\n")


@pytest.mark.parametrize("status", [200, 299])
def test_only_2xx_opens_a_tunnel_through_a_proxy(status: int) -> None:
    parser = ResponseParser(connect=True)
    parser.feed(f"HTTP/1.1 {status} Fine\r\n\r\nrest".encode())
    assert parser.done and parser.rest == b"rest"
    for other in ("300 Choices", "407 Who"):
        refused = ResponseParser(connect=True)
        refused.feed(f"HTTP/1.1 {other}\r\nContent-Length: 4\r\n\r\nbody".encode())
        assert refused.done and refused.rest == b""
        assert refused.head is not None and refused.head.body == b"body"


def test_an_answer_200_to_an_upgrade_opens_nothing() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
    assert parser.done and parser.rest == b"" and parser.head is not None and parser.head.body == b"body"


@pytest.mark.parametrize("field", ["Content-Length: 3", "X: y"])
def test_a_body_ends_where_its_length_says_or_is_looked_at_to_the_limit_only(field: str) -> None:
    parser = ResponseParser()
    parser.feed(f"HTTP/1.1 502 Bad Gateway\r\n{field}\r\n\r\nab".encode())
    assert not bool(parser.done)
    parser.feed(b"c" * (BODY_LIMIT - 3))
    assert parser.done is (field != "X: y")
    parser.feed(b"d")
    assert bool(parser.done)
    assert parser.head is not None
    assert parser.head.body == (b"abc" if field != "X: y" else b"ab" + b"c" * (BODY_LIMIT - 3) + b"d")


def test_an_answer_without_a_body_has_an_empty_one() -> None:
    assert switching(*GOOD).body == b"" == answer("204 No Content").body


@pytest.mark.parametrize("line", ["HTTP/1.10 200 OK", "HTTP/1. 200 OK", "XTTP/1.1 200 OK"])
def test_a_version_is_one_digit(line: str) -> None:
    with pytest.raises(ResponseError):
        read(f"{line}\r\n\r\n".encode())


def test_an_error_shows_60_characters_of_a_malformed_header_line() -> None:
    with pytest.raises(ResponseError) as caught:
        read(b"HTTP/1.1 410 Gone\r\nWstunnel-Error : " + b"x" * 100 + b"\r\n\r\n")
    assert str(caught.value) == f"it has the malformed header line 'Wstunnel-Error : {'x' * 43}'"


def test_a_chunk_that_never_begins_is_given_up_at_twice_the_limit() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who\r\nTransfer-Encoding: chunked\r\n\r\n" + b"x" * (2 * BODY_LIMIT - 1))
    assert not parser.done
    parser.feed(b"x")
    assert parser.done


def test_a_chunked_body_of_just_the_limit_is_done() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % BODY_LIMIT)
    parser.feed(b"x" * BODY_LIMIT)
    assert parser.done and parser.head is not None and len(parser.head.body) == BODY_LIMIT


def test_a_head_may_be_as_long_as_the_limit() -> None:
    filler = b"X: " + b"y" * (HEAD_LIMIT - len(b"HTTP/1.1 200 OK\r\nX: \r"))
    response = read(b"HTTP/1.1 200 OK\r\n" + filler + b"\r\n\r\n").head
    assert response is not None and response.status == 200
    with pytest.raises(ResponseError, match="its head is longer"):
        read(b"HTTP/1.1 200 OK\r\n" + filler + b"y\r\n\r\n")


@pytest.mark.parametrize("size", [HEAD_LIMIT, HEAD_LIMIT + 1])
def test_a_head_without_an_end_is_given_up_beyond_the_limit(size: int) -> None:
    parser = ResponseParser()
    data = b"HTTP/1.1 200 OK\r\n" + b"X" * HEAD_LIMIT
    if size == HEAD_LIMIT:
        parser.feed(data[:size])
        assert parser.head is None
    else:
        with pytest.raises(ResponseError, match="its head is longer"):
            parser.feed(data[:size])


def test_the_fields_of_a_refusal_that_breaks_off_are_kept_but_not_its_last_line() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who are you\r\nA: b\r\n\tc\r\nD: e")
    assert parser.salvage()
    assert parser.head is not None
    assert (parser.head.status, parser.head.reason) == (407, "Who are you")
    assert parser.head.headers == (("a", "b c"),)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 407 Who\r\n", 407),
        (b"HTTP/1.1 300 W", 300),
        (b"HTTP/1.1 403 F", 403),
        (b"HTTP/1.1 299 F", None),
        (b"HTTP/1.1 4033 F", None),
        (b"HTTP/1.1 407\r\n", 407),
        (b"HTTP/1.1 407 Who\r\nWstunnel-Error : x\r\n", None),
        (b"HTTP/1.1 407 Who\r\n\x0bWstunnel-Error: x\r\n", None),
        (b"HTTP/1.1 407 Who\r\nA: b\r\nC: ", 407),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n", 403),
        (b"HTTP/1.1 407", None),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n", None),
        (b"", None),
    ],
)
def test_the_status_of_a_refusal_that_breaks_off_is_kept(data: bytes, status: int | None) -> None:
    parser = ResponseParser()
    parser.feed(data)
    assert parser.salvage() == (status is not None)
    assert (parser.head.status if parser.head else None) == status


def test_an_endless_head_is_given_up() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(ResponseError, match=f"its head is longer than {HEAD_LIMIT} bytes"):
        for _ in range(HEAD_LIMIT):
            parser.feed(b"X-Filler: y\r\n")


@pytest.mark.parametrize("field", ["Content-Length: 999999999", "Transfer-Encoding: chunked", "X: until the end"])
def test_an_endless_body_is_kept_up_to_the_limit(field: str) -> None:
    parser = ResponseParser()
    parser.feed(f"HTTP/1.1 502 Bad Gateway\r\n{field}\r\n\r\n".encode())
    for _ in range(1000):
        if parser.done:
            break
        parser.feed(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
    assert parser.done
    assert parser.head is not None
    assert len(parser.head.body) <= BODY_LIMIT


# ---- the check of RFC 6455, section 4.1


def test_the_example_of_the_standard_is_accepted() -> None:
    assert check_upgrade(switching(*GOOD), url=URL, key=KEY, subprotocols=("binary",)) is None


def test_tokens_are_compared_in_any_case_and_among_others() -> None:
    fields = ("Upgrade: WebSocket", "Connection: keep-alive, UPGRADE", GOOD[2], "Sec-WebSocket-Protocol: binary")
    assert check_upgrade(switching(*fields), url=URL, key=KEY, subprotocols=("binary",)) == "binary"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (GOOD[1:], "its 101 does not upgrade to websocket"),
        ((GOOD[0], GOOD[2]), "its 101 does not upgrade to websocket"),
        (("Upgrade: h2c", *GOOD[1:]), "its 101 does not upgrade to websocket"),
        (GOOD[:2], "its Sec-WebSocket-Accept does not match our key"),
        ((*GOOD[:2], f"Sec-WebSocket-Accept: {ACCEPT.lower()}"), "its Sec-WebSocket-Accept does not match our key"),
        ((*GOOD, GOOD[2]), "its Sec-WebSocket-Accept does not match our key"),
        ((*GOOD, "Sec-WebSocket-Protocol: chat"), "it selected 'chat', which was not offered"),
        ((*GOOD, "Sec-WebSocket-Extensions: permessage-deflate"), "it uses an extension that was not offered"),
    ],
)
def test_a_101_that_breaks_the_standard_is_no_websocket(fields: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DialError) as caught:
        check_upgrade(switching(*fields), url=URL, key=KEY, subprotocols=("binary",))
    assert str(caught.value) == f"{URL} answered, but not as a WebSocket server: {reason}"


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        ("200 OK", 76, f"{URL} answered, but not as a WebSocket server: it answered 200 like a normal web page"),
        ("400 Bad Request", 76, f"{URL} answered 400: Bad Request"),
        ("401 Unauthorized", 77, f"{URL} answered 401: Unauthorized"),
        ("403 Forbidden", 77, f"{URL} answered 403: Forbidden"),
        ("404 Not Found", 69, f"{URL} answered 404: Not Found"),
        ("426 Upgrade Required", 76, f"{URL} answered 426: Upgrade Required"),
        ("429 Too Many Requests", 75, f"{URL} answered 429: Too Many Requests"),
        ("502 Bad Gateway", 69, f"{URL} answered 502: Bad Gateway"),
        ("503 Service Unavailable", 75, f"{URL} answered 503: Service Unavailable"),
        ("504 Gateway Timeout", 75, f"{URL} answered 504: Gateway Timeout"),
        ("599 ", 76, f"{URL} answered 599: no reason given"),
    ],
)
def test_every_status_has_its_exit_code_and_line(status: str, code: int, line: str) -> None:
    with pytest.raises(UpgradeRefused) as caught:
        check_upgrade(answer(status), url=URL, key=KEY, subprotocols=())
    assert (caught.value.exit_code, str(caught.value), caught.value.status) == (code, line, int(status[:3]))


def test_a_redirect_is_printed_and_not_followed() -> None:
    error = refusal(answer("302 Found", "Location: https://login.test/?next=x"), URL)
    assert str(error) == f"{URL} answered 302 and points to https://login.test/?next=x; redirects are not followed"
    assert error.exit_code == 76


@pytest.mark.parametrize("status", [300, 399])
def test_every_3xx_with_a_place_is_a_redirect(status: int) -> None:
    error = refusal(answer(f"{status} X", "Location: /y"), URL)
    assert (error.code, error.status, dict(error.headers)) == ("redirect", status, {"location": "/y"})


@pytest.mark.parametrize("status", [200, 299])
def test_every_2xx_is_no_websocket(status: int) -> None:
    error = refusal(answer(f"{status} X", "X: y"), URL)
    assert (error.code, error.status, dict(error.headers)) == ("not-websocket", status, {"x": "y"})
    assert str(error).endswith(f"it answered {status} like a normal web page")


@pytest.mark.parametrize("status", [100, 199, 400, 499, 500])
def test_other_statuses_are_neither(status: int) -> None:
    error = refusal(Response(status, "Why", (("location", "/y"),)), URL)
    assert (error.code, error.status, error.headers) == ("http-status", status, (("location", "/y"),))
    assert str(error) == f"{URL} answered {status}: Why"


@pytest.mark.parametrize("status", [409, 425])
def test_what_is_starting_is_to_be_tried_later_but_a_bridges_own_409_is_not(status: int) -> None:
    assert refusal(answer(f"{status} X"), URL).code == "not-ready"
    assert refusal(answer(f"{status} X", "Wstunnel-Error: session-gone"), URL).code == "http-status"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((401, "unauthorized"), (403, "forbidden"), (404, "not-found"), (410, "not-found"), (502, "bad-gateway")),
        *((408, "overloaded"), (429, "overloaded"), (503, "overloaded"), (504, "overloaded")),
    ],
)
def test_statuses_have_the_code_of_their_meaning(status: int, code: str) -> None:
    assert refusal(answer(f"{status} X"), URL).code == code


@pytest.mark.parametrize("status", [300, 302])
def test_a_redirect_without_a_place_is_a_status_like_others(status: int) -> None:
    assert str(refusal(answer(f"{status} Found"), URL)) == f"{URL} answered {status}: Found"


# ---- what a refusal says


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"sandboxId": "x", "message": "The sandbox was not found", "code": 502}, "The sandbox was not found"),
        ({"error": {"code": 7, "message": "No capacity"}}, "No capacity"),
        ({"error": "target-refused", "message": "nothing listens on port 22"}, "nothing listens on port 22"),
        ({"error": "denied"}, "denied"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"message": {"message": {"message": {"message": "too deep"}}}}, "Bad Gateway"),
        ({"message": 7}, "Bad Gateway"),
        ({"other": "x"}, "Bad Gateway"),
        ([1, 2], "Bad Gateway"),
    ],
)
def test_the_message_is_found_in_a_json_body(body: object, said: str) -> None:
    for kind in ("application/json; charset=utf-8", "application/problem+json"):
        response = answer("502 Bad Gateway", f"Content-Type: {kind}", body=json.dumps(body).encode())
        assert message_of(response) == said


def test_json_is_recognised_without_its_content_type() -> None:
    assert message_of(answer("502 Bad Gateway", body=b' {"message": "gone"}')) == "gone"


@pytest.mark.parametrize("body", [b"{", b"[" * 60000, b"{" * 60000, b"\xff\xfe", b""])
def test_a_body_that_is_no_json_falls_back_to_the_reason(body: bytes) -> None:
    assert message_of(answer("502 Bad Gateway", "Content-Type: application/json", body=body)) == "Bad Gateway"


def test_the_first_line_of_a_text_body_is_shown() -> None:
    response = answer("403 Forbidden", "Content-Type: text/plain", body=b"  only from the office\nmore\n")
    assert message_of(response) == "only from the office"


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("400 No required SSL certificate was sent", "No required SSL certificate was sent"),
        (
            "400 No required SSL certificate was sent, and\x1b[2J more",
            "No required SSL certificate was sent, and [2J more",
        ),
        ("400", "Bad Request"),
        ("400 a &lt;b&gt;", "Bad Request"),
        ("Sorry", "Bad Request"),
    ],
)
def test_a_title_that_begins_with_the_status_is_what_the_server_says(title: str, shown: str) -> None:
    body = f"<html>\r\n<head><title>{title}</title></head></html>".encode()
    response = answer("400 Bad Request", "Content-Type: text/html", body=body)
    assert message_of(response) == shown


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("<title>400 one</title><title>400 two</title>", "one"),
        ("<title> 400 spaces </title>", "spaces"),
        ("<title>400 open", "open"),
        ("<title>500 another</title>", "Bad Request"),
        ("<title>400 a < b</title>", "Bad Request"),
        ("400 no title", "Bad Request"),
    ],
)
def test_only_the_first_title_of_a_page_is_shown_without_the_status(page: str, shown: str) -> None:
    response = answer("400 Bad Request", "Content-Type: TEXT/HTML ; charset=x", body=page.encode())
    assert message_of(response) == shown


def test_a_message_is_cut_at_300_characters() -> None:
    response = answer("403 Forbidden", "Content-Type: text/plain", body=b"x" * 1000)
    assert message_of(response) == "x" * 299 + "\u2026"


def test_the_fields_of_one_name_are_one_list() -> None:
    response = answer("101 Yes", "A: b", "C: d", "a: e, F")
    assert response.get("a") == "b, e, F" and response.get("c") == "d" and response.get("x") is None
    assert response.has_token("a", "f") and response.has_token("a", "e") and not response.has_token("a", "b, e")
    assert not response.has_token("x", "f")


def test_html_is_not_shown() -> None:
    response = answer("403 Forbidden", "Content-Type: text/html", body=b"<html><h1>No</h1></html>")
    assert message_of(response) == "Forbidden"


def test_what_a_server_says_cannot_reach_the_terminal_as_control_characters() -> None:
    body = json.dumps({"message": "a\x1b[2Jb\r\nwstunnel-py: all is well" + "x" * 10000}).encode()
    line = str(refusal(answer("502 \x1b[31mred", "Content-Type: application/json", body=body), URL))
    assert line.isprintable()
    assert len(line) < 600
