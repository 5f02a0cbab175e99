"""Both ways: a request that our client would write is one that our bridge takes, and its answer one for our client."""

from __future__ import annotations

from tests.fuzz.targets.upgrade_answer import KEY
from tunnel.errors import UsageError
from tunnel.protocol.control import SUBPROTOCOL
from tunnel.protocol.upgrade import ResponseParser, check_header, check_upgrade, upgrade_request
from tunnel.server.access import Origins, Tokens
from tunnel.server.handshake import Rules, Upgrade
from tunnel.server.http import Head

TOKENS = (
    b"Authorization", b"Bearer ", b"Cookie", b"Origin", b"X-Forwarded-For", b"\t", b" ", b"\n", b"\r", b"\0", b"\x7f",
    b"Host", b"Upgrade", b"Sec-WebSocket-Key", b"Content-Length", b"Transfer-Encoding", b"Wstunnel-Resume", b"Expect",
)  # fmt: skip


def target(data: bytes) -> None:
    """``data`` is the fields that a user adds, a name and a value in turn, each on a line."""
    words = data[:2000].decode("latin-1").split("\n")
    fields = list(zip(words[::2], words[1::2], strict=False))[:20]
    headers = []
    for name, value in fields:
        try:
            check_header(name, value)
        except UsageError as exc:
            assert str(exc).isprintable()
        else:
            headers.append((name, value))
    request = upgrade_request("/path", "bridge.test:8081", KEY, ["binary", SUBPROTOCOL], headers)
    upgrade = Upgrade(Head(request, b""))
    Rules(None, Tokens([]), Origins(["*"])).admit(upgrade)
    assert upgrade.offers_resume
    sent = [value.strip(" \t") for name, value in headers if name.lower() == "authorization"]
    assert upgrade.authorization == sent
    for resumable in (False, True):
        parser = ResponseParser()
        parser.feed(upgrade.accept(resumable=resumable, received=7 if resumable else None))
        assert parser.head is not None and parser.done and parser.rest == b""
        selected = check_upgrade(parser.head, url="ws://host/", key=KEY, subprotocols=["binary", SUBPROTOCOL])
        assert selected == (SUBPROTOCOL if resumable else "binary")
        assert parser.head.get("wstunnel-received") == ("7" if resumable else None)
        upgrade = Upgrade(Head(request, b""))
        upgrade.check()
