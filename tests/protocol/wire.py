"""What a peer writes to a stream and reads from it, as messages."""

from __future__ import annotations

from tunnel.protocol.byte_stream import ByteStream
from tunnel.protocol.frames import BINARY, PING, PONG, TEXT, Close, FrameParser, Payload, Ping, frame_header

KEY = bytes(4)  # masking with it changes nothing


def frame(opcode: int, payload: bytes = b"", *, masked: bool = True, final: bool = True) -> bytes:
    return frame_header(opcode, len(payload), KEY if masked else None, final) + payload


def hear(stream: ByteStream, data: bytes, now: float = 0.0) -> None:
    """Let the stream read ``data`` from the wire, in one turn."""
    stream.wire_space()[: len(data)] = data
    assert stream.wire_received(len(data), now) == len(data)


def say(stream: ByteStream, data: bytes, now: float = 0.0) -> None:
    """Let the stream read ``data`` from its source, in as many turns as its space makes of them."""
    while data:
        space = stream.source_space()
        n = min(len(space), len(data))
        space[:n] = data[:n]
        stream.source_received(n, now)
        data = data[n:]


def sent(stream: ByteStream, now: float = 0.0) -> bytes:
    """Everything that goes to the wire now."""
    data = b""
    while stream.wants_wire_write:
        output = b"".join(stream.wire_output())
        assert output
        stream.wire_sent(len(output), now)
        data += output
    return data


def deliver(stream: ByteStream, now: float = 0.0) -> bytes:
    """Everything that waits for the sink."""
    data = b"".join(stream.sink_output())
    if data:
        stream.sink_sent(len(data), now)
    return data


def messages(data: bytes, *, masked: bool) -> list[object]:
    """What frames say: text as str, data as bytes, ("ping", data), ("pong", data), ("close", code, reason)."""
    found: list[object] = []
    message = b""
    for event in FrameParser(masked=masked).feed(memoryview(bytearray(data))):
        if isinstance(event, Payload):
            message += event.data
            if event.final:
                found.append(message.decode() if event.opcode == TEXT else message)
                message = b""
        elif isinstance(event, Close):
            found.append(("close", event.code, event.reason))
        else:
            found.append(("ping" if isinstance(event, Ping) else "pong", event.data))
    return found


__all__ = ["BINARY", "KEY", "PING", "PONG", "TEXT", "deliver", "frame", "hear", "messages", "say", "sent"]
