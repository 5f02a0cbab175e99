"""What the client's resumable stream makes of a connection that breaks when the session has just begun."""

from __future__ import annotations

from tunnel.protocol.control import SessionOffer
from tunnel.protocol.frames import TEXT, frame_header
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

OFFER = SessionOffer("0" * 32, "1" * 64, 1 << 20, 60)
NO_FRAMES = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"


def test_what_is_no_frame_behind_the_session_line_breaks_the_connection_only() -> None:
    line = OFFER.line().encode("ascii")
    data = frame_header(TEXT, len(line), None) + line + NO_FRAMES
    stream = ResumableStream(client=True, buffers=ReadBuffers(), now=0.0)
    stream.wire_space()[: len(data)] = data
    stream.wire_received(len(data), 0.0)
    assert stream.offer is not None and stream.offer.id == OFFER.id
    assert not stream.over and stream.failure is None
    assert stream.wire_is_over and stream.connection.violation is not None


def test_what_is_no_frame_before_the_session_line_is_a_violation() -> None:
    stream = ResumableStream(client=True, buffers=ReadBuffers(), now=0.0)
    stream.wire_space()[: len(NO_FRAMES)] = NO_FRAMES
    stream.wire_received(len(NO_FRAMES), 0.0)
    assert stream.over and stream.failure is not None
