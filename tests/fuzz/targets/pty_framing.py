"""The terminal service's envelopes and errors: however they are cut they are the same, or a ConnectError."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz import cutting
from tunnel.pty.protocol.framing import (
    ConnectError,
    Decoder,
    decode,
    envelope,
    error_object,
    parse_end_of_stream,
    parse_error,
)

LIMIT = 300  # bytes of a message
TOKENS = (
    b"\0\0\0\0\0",
    b"\2\0\0\0\2{}",
    b"\1\0\0\0\0",
    b"\0\0\0\1\x2d",
    b'{"error":{"code":"not_found"}}',
    b"\xff" * 5,
)


def target(data: bytes) -> None:
    chance, stream = cutting.split(data)
    whole = outcome([stream])
    assert outcome(cutting.pieces(stream, chance)) == whole
    error = parse_error(400 + chance.randrange(200), stream)
    assert error_object(error)["code"] == error.code
    try:
        parse_end_of_stream(stream)
    except ConnectError as exc:
        assert exc.code == "invalid_argument"
    try:
        decode(stream)
    except ConnectError as exc:
        assert len(exc.message) <= 200


def outcome(chunks: Iterable[bytes]) -> list[object]:
    """Return the envelopes that come before an error, and the error."""
    decoder = Decoder(LIMIT)
    found: list[object] = []
    try:
        for chunk in chunks:
            for each in decoder.feed(chunk):
                assert len(each.data) <= LIMIT
                assert Decoder(LIMIT).feed(envelope(each.data, last=each.last)) == [each]
                found.append(each)
        decoder.finish()
    except ConnectError as exc:
        # A call that ends in an error gives nothing, so how many come before it depends on the cuts.
        return [exc.code]
    return found
