"""A plain stream, or websocat's: however the wire is cut, the sink and the user see the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.fuzz import cutting
from tests.fuzz.targets.frames import TOKENS as FRAMES
from tunnel.errors import RemoteProtocolError
from tunnel.protocol.frames import Close, FrameParser
from tunnel.protocol.keepalive import Keepalive
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.websocat.messages import MessageCodec, MessageOptions

TOKENS = (*FRAMES, b"\r\n", b"\0", b"\x81\x83\0\0\0\0a\r\n", b"\x01\x81\0\0\0\0\r")
BUFFERS = ReadBuffers()


def target(data: bytes) -> None:
    chance, wire = cutting.split(data)
    make = chance.choice((plain, plain, lines, zeros, first_only))
    client = chance.random() < 0.5
    whole = outcome(make(client), [wire], client=client)
    cut = outcome(make(client), cutting.pieces(wire, chance), client=client)
    if make is first_only:  # what follows its only message may have come in the same read, or is never read
        assert cut[0] == whole[0] or whole[1] != "None"
        return
    assert cut[1:] == whole[1:]
    # Of a frame with a violation in it (bytes that are no UTF-8) more or less may have been delivered before.
    assert cut[0] == whole[0] or (whole[1] != "None" and (cut[0].startswith(whole[0]) or whole[0].startswith(cut[0])))


def outcome(stream: PlainStream, chunks: Iterable[bytes], *, client: bool) -> tuple[bytes, str, int, bool, list[int]]:
    """Return what the sink got, how the stream ended, what the peer's Close said, and the codes of our Closes."""
    delivered = bytearray()
    sent = bytearray()
    for chunk in chunks:
        while chunk and stream.wants_wire_read:
            BUFFERS.wire[: len(chunk)] = chunk
            used = stream.wire_received(len(chunk), 0.0)
            assert 0 < used <= len(chunk)
            stream.settle()
            BUFFERS.wire[: len(chunk)] = bytes(len(chunk))  # as another stream would
            chunk = chunk[used:]
            output = b"".join(stream.sink_output())
            delivered += output
            stream.sink_sent(len(output), 0.0)
            assert not stream.wants_sink_write
            assert len(stream.wire_output()) <= 2, "a pong and a Close at most"
            answer = b"".join(stream.wire_output())
            sent += answer
            stream.wire_sent(len(answer), 0.0)
    stream.wire_ended()
    assert stream.sink_ended
    assert stream.failure is None or isinstance(stream.failure, RemoteProtocolError)
    events = FrameParser(masked=client).feed(memoryview(sent))
    # How many pongs there are depends on the cuts: of several pings in a turn, only the last is answered.
    closes = [event.code for event in events if isinstance(event, Close)]
    return bytes(delivered), str(stream.failure), stream.close_code, stream.close_received, closes


def plain(client: bool) -> PlainStream:
    return PlainStream(client=client, buffers=BUFFERS, keepalive=Keepalive(0.0))


def with_options(change: Callable[[MessageOptions], None]) -> Callable[[bool], PlainStream]:
    options = MessageOptions()
    options.text = True
    change(options)
    return lambda client: PlainStream(
        client=client, buffers=BUFFERS, keepalive=Keepalive(0.0), codec=MessageCodec(options)
    )  # fmt: skip


def _lines(options: MessageOptions) -> None:
    options.lines = True


def _zeros(options: MessageOptions) -> None:
    options.lines = True
    options.terminator = b"\0"


def _first_only(options: MessageOptions) -> None:
    options.receives = 1


lines, zeros, first_only = map(with_options, (_lines, _zeros, _first_only))
