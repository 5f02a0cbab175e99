"""The frame parser: however its bytes are cut, and however few frames a turn may have, the events are the same."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz import cutting
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import Close, FrameParser, Payload

TOKENS = (
    b"\x82\x80\0\0\0\0", b"\x82\x00", b"\x82\x7e\x00\x7e", b"\x82\xff\0\0\0\0\0\1\0\0", b"\x01\x02\xc3", b"\x00\x00",
    b"\x88\x02\x03\xe8", b"\x88\x82\0\0\0\0\x03\xe8", b"\x89\x00", b"\x8a\x80\1\2\3\4", b"\x80\x01\xa9",
)  # fmt: skip


def target(data: bytes) -> None:
    chance, wire = cutting.split(data)
    masked = chance.random() < 0.5
    whole = events([wire], -1, masked=masked)
    assert events(cutting.pieces(wire, chance), -1, masked=masked) == whole
    assert events(cutting.pieces(wire, chance), chance.randint(1, 5), masked=masked) == whole
    assert events([wire], chance.randint(1, 70), masked=masked) == whole


def events(chunks: Iterable[bytes], limit: int, *, masked: bool) -> list[object]:
    """Return what came, with the payload of each message joined, and the violation that ended it."""
    parser = FrameParser(masked=masked)
    found: list[object] = []
    message = bytearray()
    size = got = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            while chunk and not parser.closed:
                for event in parser.feed(memoryview(chunk), limit):
                    if isinstance(event, Payload):
                        got += len(event.data)
                        message += event.data
                        if event.final:
                            found.append((event.opcode, bytes(message)))
                            message.clear()
                    elif isinstance(event, Close):
                        found.append(("close", event.code, event.reason))
                    else:
                        assert len(event.data) <= 125
                        found.append((type(event).__name__, event.data))
                assert 0 < parser.used <= len(chunk), "a turn must get on"
                chunk = chunk[parser.used :]
    except RemoteProtocolError as exc:
        return [*found, "violation", exc.close_code, str(exc)]
    assert got <= size
    return [*found, bytes(message)]
