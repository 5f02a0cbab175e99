"""The client's handshake without sockets: what it asks, and what it makes of every kind of answer."""

from __future__ import annotations

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


def test_every_key_is_another() -> None:
    assert len({new_key() for _ in range(100)}) == 100


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
    with pytest.raises(UsageError, match="is no name for an HTTP header"):
        check_header(name, "value")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b", "a\x7fb", "ä"])
def test_a_header_with_a_value_that_no_header_may_have_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="the value of the header X-Name has characters that no header may have"):
        check_header("X-Name", value)


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
        (b"HTTP/1.1 200 OK\r\nX: y", "it hung up in the middle of its answer"),
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


def test_chunks_whose_lines_end_with_lf_alone_are_read() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 407 Who\nTransfer-Encoding: chunked\n\n4\nbody\n3;x\n or\n0\n\n")
    assert parser.done and parser.head is not None and parser.head.body == b"body or"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 407 Who\r\n", 407),
        (b"HTTP/1.1 407 Who\r\nA: b\r\nC: ", 407),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n", 403),
        (b"HTTP/1.1 407", None),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", None),
        (b"HTTP/1.1 100 Continue\r\n", None),
        (b"", None),
    ],
)
def test_of_a_refusal_that_breaks_off_the_status_is_kept(data: bytes, status: int | None) -> None:
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
def test_of_an_endless_body_no_more_than_the_limit_is_kept(field: str) -> None:
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
        ("200 OK", 76, f"{URL} answered, but not as a WebSocket server: it answered 200, as to a browser"),
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


def test_a_redirect_without_a_place_is_a_status_like_others() -> None:
    assert str(refusal(answer("302 Found"), URL)) == f"{URL} answered 302: Found"


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


def test_of_plain_text_the_first_line_is_shown() -> None:
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


def test_html_is_not_shown() -> None:
    response = answer("403 Forbidden", "Content-Type: text/html", body=b"<html><h1>No</h1></html>")
    assert message_of(response) == "Forbidden"


def test_what_a_server_says_cannot_reach_the_terminal_as_control_characters() -> None:
    body = json.dumps({"message": "a\x1b[2Jb\r\nwstunnel-py: all is well" + "x" * 10000}).encode()
    line = str(refusal(answer("502 \x1b[31mred", "Content-Type: application/json", body=body), URL))
    assert line.isprintable()
    assert len(line) < 600
