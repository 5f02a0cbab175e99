"""Any server's answer at the client: however it is cut it is the same answer, or one error that fits into a line."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz import cutting
from tunnel.errors import DialError
from tunnel.protocol.upgrade import BODY_LIMIT, ResponseError, ResponseParser, check_upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TOKENS = (
    b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 502 Bad Gateway\r\n", b"\r\n",
    b"\r\n\r\n", b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Content-Length: ", b"Content-Length: 5\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", b"Sec-WebSocket-Protocol: binary\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Type: application/json\r\n", b'{"message": "', b"5\r\nhello\r\n0\r\n",
    b"Sec-WebSocket-Extensions: x\r\n", b"Location: http://elsewhere/\r\n", b"<title>", b"-1", b"0x10", b"1_0", b"\xb2",
)  # fmt: skip


def target(data: bytes) -> None:
    chance, answer = cutting.split(data)
    connect = chance.random() < 0.2
    whole = outcome([answer] if answer else [], connect=connect)
    assert outcome(cutting.pieces(answer, chance), connect=connect) == whole


def outcome(chunks: Iterable[bytes], *, connect: bool) -> tuple[object, ...]:
    parser = ResponseParser(connect=connect)
    rest = b""
    try:
        for chunk in chunks:
            if parser.done:
                rest += chunk
            else:
                parser.feed(chunk)
        if not parser.done:
            parser.end()
    except ResponseError as exc:
        assert str(exc).isprintable() and len(str(exc)) < 600
        return ("error",)
    head = parser.head
    assert head is not None and parser.done and len(head.body) <= BODY_LIMIT
    try:
        verdict = check_upgrade(head, url="ws://host/", key=KEY, subprotocols=["binary"])
    except DialError as exc:
        assert str(exc).isprintable() and len(str(exc)) < 600
        verdict = str(exc)
    if head.status == 101 or (connect and 200 <= head.status < 300):
        return (head.status, head.reason, head.headers, verdict, parser.rest + rest)
    return (head.status, head.reason, head.headers, verdict, head.body)
