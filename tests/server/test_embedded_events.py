"""What the bridge does when the process of the embedded SSH server misbehaves or ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tunnel.children.child import Child, start
from tunnel.errors import DialError, UsageError
from tunnel.net.address import Client
from tunnel.restart.state import Handed
from tunnel.ssh.embedded import EmbeddedTarget
from tunnel.ssh.server.messages import LINE_LIMIT, Events, decode

CLIENT = Client("192.0.2.1:5000", "192.0.2.1")
READY = b'{"event": "ready", "user": "me", "host_key": "SHA256:x", "keys": 2}\n'
# Writes its input to the pipe of events, and ends with its control socket.
STUB = """\
import os, socket, sys
with os.fdopen(int(sys.argv[1]), "wb") as events:
    events.write(sys.stdin.buffer.read())
    events.flush()
    control = socket.socket(fileno=int(sys.argv[2]))
    while control.recv(4096):
        pass
"""
ODD = (
    b"\n", b"not json\n", b"[]\n", b"{}\n", b'{"event": 5}\n', b'{"event": "login", "id": []}\n', b"\xff\xfe\n",
    b'{"event": "login", "id": 1.5}\n', b'{"event": "login", "id": 1, "client": "x", "level": 3, "name": {}}\n',
    b'{"event": "gone", "id": 999}\n', b'{"event": "refused", "id": 1, "user": null, "reason": ["\\u0007"]}\n',
    b'{"event": "unheard-of", "id": 1}\n', b"[" * 5000 + b"\n", b'{"event": "failed"}\n', b"x" * 70_000 + b"\n",
)  # fmt: skip


class Stub(EmbeddedTarget):
    """A target whose process sends the given events at each start; None: it cannot be started."""

    def __init__(self, *said: bytes | None) -> None:
        super().__init__(None, None)
        self.said = list(said)
        self.starts = 0
        self.children: list[Child] = []

    def _spawn(self, control: int, events: int) -> Child:
        self.starts += 1
        said = self.said.pop(0)
        if said is None:
            raise OSError(11, "Resource temporarily unavailable")
        argv = [sys.executable, "-c", STUB, str(events), str(control)]
        with tempfile.TemporaryFile() as file:
            file.write(said)
            file.seek(0)
            self.children.append(start(argv, stdin=file.fileno(), pass_fds=(control, events)))
        return self.children[-1]


async def kill_server(target: Stub) -> None:
    """Kill the latest process."""
    target.children[-1].signal(signal.SIGKILL)
    await target.children[-1].wait()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_events_that_make_no_sense_are_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tunnel.server")

    async def work() -> None:
        target = Stub(b"".join(ODD[:-2]) + READY + b"".join(ODD))
        await target.start()
        assert target.greeting.startswith("log in as me (2 keys")
        for _ in range(3):
            (await target.dial(5, CLIENT)).close()
            await asyncio.sleep(0.05)
        assert target.starts == 1
        await target.close()

    asyncio.run(work())
    assert "invalid event" in caplog.text
    assert "Traceback" not in caplog.text and not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_process_that_ends_is_started_once_for_all_who_wait() -> None:
    async def work() -> None:
        before = open_descriptors()
        target = Stub(READY, READY)
        await target.start()
        await kill_server(target)
        sockets = await asyncio.gather(*(target.dial(10, CLIENT) for _ in range(20)))
        assert target.starts == 2
        for sock in sockets:
            sock.close()
        await target.close()
        assert open_descriptors() == before

    asyncio.run(work())


@pytest.mark.parametrize("said", [None, b"", b'{"event": "failed", "message": "no key"}\n', b'{"event": "failed"}\n'])
def test_a_process_that_cannot_be_started_again_is_not_tried_for_each_client(said: bytes | None) -> None:
    async def work() -> None:
        before = open_descriptors()
        target = Stub(READY, said, READY)
        await target.start()
        await kill_server(target)
        for _ in range(5):
            # A stub without events keeps running, and the dial times out.
            with pytest.raises(DialError):
                await target.dial(0.5 if said == b"" else 5, CLIENT)
        assert target.starts == 2
        assert len(target._logins) == target._logins.processes == 0
        if said != b"":
            await asyncio.sleep(2.1)
            (await target.dial(10, CLIENT)).close()
            assert target.starts == 3
        else:
            await kill_server(target)
            with pytest.raises(DialError):
                await target.dial(5, CLIENT)
        await target.close()
        assert open_descriptors() == before

    asyncio.run(work())


def test_a_bridge_that_was_restarted_starts_even_if_its_server_cannot() -> None:
    async def work() -> None:
        before = open_descriptors()
        target = Stub(None, READY)
        target.restore({"servers": [], "last_id": 5}, Handed([], on_trial=False))
        await target.start()
        with pytest.raises(DialError):
            await target.dial(5, CLIENT)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if target.starts == 1 and target._restart is None:
                break
        (await target.dial(10, CLIENT)).close()
        assert target.starts == 2
        await target.close()
        assert open_descriptors() == before

    asyncio.run(work())


def test_a_process_that_cannot_start_at_all_is_reported() -> None:
    for said, reason in (
        (b'{"event": "failed"}\n', "cannot start"),
        (b'{"event": "failed", "message": "no key"}\n', "no key"),
    ):
        with pytest.raises(UsageError, match=reason):
            asyncio.run(Stub(said).start())


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "\x1b" * 5000, "\U0001f600" * 5000, "\udc80" * 5000])
def test_an_event_is_one_line_however_long_its_texts_are(text: str) -> None:
    for event in event_lines(text):
        assert len(event) <= LINE_LIMIT and event.endswith(b"\n") and event.count(b"\n") == 1
        told = decode(event)
        assert told["event"] == "refused" and told["id"] == 7
        assert told["user"] and told["reason"] and text.startswith(told["reason"])


def event_lines(text: str) -> list[bytes]:
    reading, writing = os.pipe()
    Events(writing).tell("refused", id=7, user=text, reason=text)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        return list(file)
