"""The client's config file: it is read, or refused with one line."""

from __future__ import annotations

from tunnel.client.config import parse_config
from tunnel.errors import UsageError

TOKENS = (
    b"[hosts.", b'[hosts."*.e2b"]\n', b"url = ", b'"wss://{host}/"', b"token-file = ", b"headers = { a = ",
    b"[[hosts]]", b"ping-interval = ", b"1e400", b"nan", b"inf", b"-0", b"true", b"[]", b"{}", b"1979-05-27", b'"""',
    b"\\u0000", b"= ", b"retain = ", b"port = ", b"quiet = ", b"proxy = ", b"0x", b"9" * 25, b'"\\ud800"',
)  # fmt: skip


def target(data: bytes) -> None:
    try:
        config = parse_config(data, "/home/user/config.toml")
    except UsageError as exc:
        assert exc.exit_code == 2 and str(exc).isprintable()
        return
    for host in ("build", "abc.e2b", "", "*", "x" * 300, *config.hosts):
        config.lookup(host)
