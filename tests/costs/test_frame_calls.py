"""How often a frame of a bulk transfer enters the kernel, at both ends, in lock step: no more often than it must.

`test_system_calls` counts what whole programs do. There, one call more per frame is less than the noise.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.costs.bounds import FRAME_CALLS
from tests.net.test_splice_source import KINDS, readable
from tunnel.client.stdio import StandardInput, StandardOutput
from tunnel.net import splice_source
from tunnel.net.channel import Channel
from tunnel.net.pump import Pump
from tunnel.net.splice import Splice
from tunnel.net.splice_source import SourceSplice
from tunnel.protocol.byte_stream import ByteStream
from tunnel.protocol.outbox import LEAST_PASSED
from tunnel.protocol.plain_stream import PlainStream
from tunnel.protocol.read_buffers import ReadBuffers
from tunnel.protocol.resumable_stream import ResumableStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has splice(2)")

WARM_UP, FRAMES = 4, 32
PIECE = bytes(LEAST_PASSED)  # a frame's payload, which fits into a socket at once
NAMES = {"ours": "resumable", "ours-plain": "plain"}


def stream(kind: str, *, client: bool) -> ByteStream:
    made = KINDS[NAMES[kind]](client, ReadBuffers())
    if isinstance(made, ResumableStream):
        made.session.sender.message_size.limit = len(PIECE)
    elif isinstance(made, PlainStream):
        made.max_message = len(PIECE)
    return made


class Tunnel:
    """Both ends of a tunnel, between ``target`` and a user's pipes; ``calls`` counts each end's calls of the system."""

    def __init__(self, kind: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = {"client": 0, "bridge": 0}
        self.target, source = (stack.enter_context(each) for each in socket.socketpair())
        near, far = (stack.enter_context(each) for each in socket.socketpair())
        inner, self.user = os.pipe()
        self.reader, outer = os.pipe()
        for fd in (inner, self.user, self.reader, outer):
            stack.callback(os.close, fd)
        end = Channel(source)
        self.bridge = Pump(Channel(near), end, end, stream(kind, client=False))
        self.client = Pump(Channel(far), StandardInput(inner), StandardOutput(outer), stream(kind, client=True))
        self._tee = splice_source._TEE
        self._end = ""
        monkeypatch.setattr(splice_source, "_TEE", self._tee_counted)
        for _ in range(2):
            self.answer()

    def _tee_counted(self, *arguments: int) -> int:
        assert self._tee is not None
        self.calls[self._end] += 1  # the profiler does not see it
        return int(self._tee(*arguments))

    def do(self, end: str, act: Callable[[], object]) -> None:
        """Do something at one end, and count its calls."""

        def note(frame: object, event: str, called: object) -> None:
            self.calls[end] += event == "c_call" and enters_kernel(called)

        self._end = end
        sys.setprofile(note)
        try:
            act()
        finally:
            sys.setprofile(None)

    def answer(self) -> None:
        """Let both ends read, and write, what is there besides payload, such as acks."""
        for end, pump in (("client", self.client), ("bridge", self.bridge)):
            if pump.wants_wire_write:
                self.do(end, pump.write_wire)
            while readable(pump.wire.fileno()):
                self.do(end, pump.read_wire)

    def download(self) -> None:
        self.target.sendall(PIECE)
        assert self.bridge.splice is not None
        self.do("bridge", self.bridge.splice.read_source)
        assert not self.bridge.wants_wire_write
        self.do("client", Splice(self.client).read_wire)
        assert len(os.read(self.reader, 2 * len(PIECE))) == len(PIECE)
        self.answer()

    def upload(self) -> None:
        os.write(self.user, PIECE)
        self.do("client", self.client.read_source)
        self.do("bridge", self.bridge.read_wire)
        assert len(self.target.recv(2 * len(PIECE), socket.MSG_WAITALL | socket.MSG_DONTWAIT)) == len(PIECE)
        self.answer()


def enters_kernel(called: object) -> bool:
    """Whether a function in C is one of the system."""
    if isinstance(getattr(called, "__self__", None), socket.socket):
        return getattr(called, "__name__", "") != "fileno"
    return getattr(called, "__module__", "") in ("posix", "fcntl")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("kind", NAMES)
def test_a_frame_enters_the_kernel_as_often_as_it_must(
    kind: str, direction: str, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = Tunnel(kind, stack, monkeypatch)
    move = tunnel.download if direction == "down" else tunnel.upload
    if direction == "down":
        tunnel.bridge.splice = SourceSplice(tunnel.bridge)
        stack.callback(tunnel.bridge.splice.close)
    for number in range(WARM_UP + FRAMES):
        if number == WARM_UP:
            tunnel.calls = dict.fromkeys(tunnel.calls, 0)
        move()
    found = {end: calls / FRAMES for end, calls in tunnel.calls.items()}
    print(f"counted: {found}", file=sys.stderr)
    for end, calls in found.items():
        assert calls <= FRAME_CALLS[kind, direction, end], end
