"""A stranger's request at the bridge: it is refused or accepted, and no answer quotes the value of a header."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz import cutting
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.control import parse_resume
from tunnel.server.access import Origins, Tokens
from tunnel.server.handshake import Rules, Upgrade, health_answer, is_health_check
from tunnel.server.http import HEAD_LIMIT, Head, Refusal, read_head

SECRET = b"s3cr3t-of-the-client"
TOKENS = (
    SECRET, b"GET / HTTP/1.1\r\n", b"GET /healthz HTTP/1.0\r\n", b"Host: bridge.test\r\n", b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n", b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Protocol: binary, v1.resume.wstunnel-py\r\n", b"Sec-WebSocket-Protocol: v1.resume.wstunnel-py\r\n",
    b"Sec-WebSocket-Protocol: v1.speed.wstunnel-py\r\n", b"Authorization: Bearer ", b"Origin: ", b"Wstunnel-Resume: ",
    b"\r", b"\n", b"\r\n\r\n", b": ", b"\t", b"\xff", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip

_folder = tempfile.TemporaryDirectory(prefix="fuzz-")
_token_file = Path(_folder.name) / "token"
_token_file.touch(mode=0o600)
_token_file.write_text("the-token-of-the-bridge\n")
_RULES = (
    Rules(None, Tokens([]), Origins([])),
    Rules("/tunnel", Tokens([str(_token_file)]), Origins(["https://example.org"])),
)


class Pieces:
    """A connection on which a request comes in pieces, and then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def receive_into(self, space: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        n = min(len(piece), len(space))
        space[:n] = piece[:n]
        if n < len(piece):
            self._pieces.insert(0, piece[n:])
        return n


def target(data: bytes) -> None:
    chance, request = cutting.split(data)
    whole = outcome([request], 0)
    assert outcome([request], 0) == whole
    for number in range(len(_RULES)):
        answer = outcome(list(cutting.pieces(request, chance)), number)
        if number == 0:
            assert answer[0] == whole[0]
        first, _, fields = request.partition(b"\n")
        if SECRET in fields and SECRET[4:] not in first:
            said = repr(answer).encode()
            assert SECRET not in said and SECRET[4:] not in said, "a header's value is quoted"


def outcome(pieces: list[bytes], rules: int) -> tuple[object, ...]:
    """Return the status, and the text for the client or the log."""
    try:
        head = run(read_head(Pieces(pieces)))  # type: ignore[arg-type]
        if is_health_check(head):
            return 200, health_answer(head, tunnels=0, detached=0, draining=False).partition(b"\r\n\r\n")[2]
        return accept(head, _RULES[rules])
    except Refusal as refusal:
        text, _, body = refusal.answer().partition(b"\r\n\r\n")
        assert text.isascii() and body and 400 <= refusal.status < 600
        assert b"\r" not in text.replace(b"\r\n", b"") and b"\n" not in text.replace(b"\r\n", b"")
        return refusal.status.value, refusal.code, refusal.message, body, *refusal.headers.items()
    except ConnectionError as exc:
        return 0, str(exc)


def accept(head: Head, rules: Rules) -> tuple[object, ...]:
    assert len(head.data) <= HEAD_LIMIT
    upgrade = Upgrade(head)
    rules.admit(upgrade)
    for value in upgrade.resume:
        try:
            parse_resume(value)
        except RemoteProtocolError as exc:
            return 400, str(exc)
    answer = upgrade.accept(resumable=upgrade.offers_resume, received=7 if upgrade.resume else None)
    assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\r\n\r\n")
    return 101, upgrade.offers_resume


def run(coroutine: Any) -> Head:
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        head: Head = exc.value
        return head
    raise AssertionError("it waits")
