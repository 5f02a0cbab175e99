"""The terminal service under load and over time: many terminals, much output, a stuck reader, no leaks."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tunnel
from tests.bed.processes import Bed, descendants, ticks
from tests.pty.beds import LIMIT, Output, Service, start_service
from tunnel.pty.server.broadcast import PATIENCE

FULL = pytest.mark.full
MIB = 1 << 20


@pytest.fixture
def service(bed: Bed) -> Service:
    return start_service(bed)


@pytest.fixture
def sandbox(service: Service) -> Iterator[tunnel.Sandbox]:
    with tunnel.Sandbox(service.url) as sandbox:
        yield sandbox


def memory(service: Service) -> int:
    """The resident memory of the service, in bytes."""
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def descriptors(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


def threads(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/task"))


# ---- much output


@pytest.mark.parametrize("size", [20 * MIB, pytest.param(100 * MIB, marks=[FULL, pytest.mark.timeout(600)])])
def test_much_output_arrives_whole_and_the_service_does_not_grow(
    service: Service, sandbox: tunnel.Sandbox, size: int
) -> None:
    lines = size // 64
    command = ["python3", "-c", f"for i in range({lines}): print(f'{{i:063}}')"]
    before = memory(service)
    most = before
    count, rest, expected = 0, b"", 0
    with sandbox.pty.create(command=command, timeout=0) as terminal:
        for data in terminal:
            *whole, rest = (rest + data).split(b"\r\n")
            for line in whole:
                assert line == b"%063d" % expected
                expected += 1
            count += len(data)
            if count % 50 == 0:
                most = max(most, memory(service))
        assert terminal.wait().exit_code == 0
    assert expected == lines and rest == b""
    assert max(most, memory(service)) - before < 32 * MIB


# ---- many terminals


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=[FULL, pytest.mark.timeout(600)])])
def test_many_terminals_at_once_each_keep_their_own(service: Service, count: int) -> None:
    async def use(sandbox: tunnel.AsyncSandbox, number: int) -> None:
        async with await sandbox.pty.create(command=["/bin/sh"], timeout=0) as terminal:
            await terminal.send_stdin(b"read word; echo got-$word-%d; exit %d\n" % (number, number % 100))
            await terminal.send_stdin(b"word%d\n" % number)
            output = b""
            async for data in terminal:
                output += data
            assert b"got-word%d-%d\r\n" % (number, number) in output
            result = await terminal.wait()
            assert result.exit_code == number % 100

    async def work() -> None:
        async with tunnel.AsyncSandbox(service.url) as sandbox, asyncio.timeout(300):
            await asyncio.gather(*(use(sandbox, number) for number in range(count)))

    asyncio.run(work())


# --- A reader that is stuck


class StuckReader:
    """A subscriber that sends its request and then reads nothing, with a small receive buffer."""

    def __init__(self, service: Service, pid: int) -> None:
        place = urlsplit(service.url)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.settimeout(LIMIT)
        self.sock.connect((place.hostname, place.port))
        message = json.dumps({"process": {"pid": pid}}).encode()
        body = b"\0" + struct.pack(">I", len(message)) + message
        head = (
            f"POST /process.Process/Connect HTTP/1.1\r\nHost: {place.netloc}\r\nConnect-Protocol-Version: 1\r\n"
            f"Content-Type: application/connect+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.sock.sendall(head.encode() + body)

    def read_to_end(self) -> list[dict[str, object]]:
        """Read the rest of the stream and return its messages, the last of which ends the stream."""
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            chunk = self.sock.recv(1 << 18)
            assert chunk, "the stream broke off"
            data += chunk
        body, rest = b"", data.partition(b"\r\n\r\n")[2]
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        messages = []
        while body:
            length = struct.unpack(">I", body[1:5])[0]
            messages.append(json.loads(body[5 : 5 + length]))
            body = body[5 + length :]
        return messages


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=[FULL, pytest.mark.timeout(300)])])
def test_a_reader_that_is_stuck_delays_nobody_and_is_told_what_it_missed(
    service: Service, sandbox: tunnel.Sandbox, seconds: float
) -> None:
    """Each line has a timestamp: its age on arrival shows whether the other reader had to wait."""
    program = (
        "import sys, time\nsys.stdin.readline()\n"
        f"end, left = time.time() + {seconds}, {int(seconds * 20)}\n"
        "while time.time() < end or left >= 0:\n"
        "    print(time.time(), 'x' * 20000, flush=True)\n    time.sleep(0.02)\n    left -= 1\n"
    )
    written: list[float] = []
    late: list[float] = []
    with sandbox.pty.create(command=["python3", "-c", program], timeout=0) as terminal:
        stuck = StuckReader(service, terminal.pid)
        with stuck.sock:
            terminal.send_stdin(b"go\n")
            rest = b""
            for data in terminal:
                *lines, rest = (rest + data).split(b"\r\n")
                new = [float(line.split()[0]) for line in lines if line.count(b"x") == 20000]
                written += new
                late += [time.time() - each for each in new]
            assert terminal.wait().exit_code == 0
            assert len(late) > seconds * 20
            # A busy machine may take longer, but not as long as a reader that is stuck could hold the program up.
            assert written[-1] - written[0] < seconds + PATIENCE / 2
            # The first lines may have waited until the service noticed that a reader is stuck.
            settled = sorted(late[len(late) // 4 :])
            assert settled[len(settled) // 2] < 0.1, "half of the lines were held up"
            messages = stuck.read_to_end()
    error = messages[-1].get("error")
    if error is not None:
        assert isinstance(error, dict)
        assert error["code"] == "resource_exhausted" and "too slow" in error["message"]
    else:
        data = b"".join(base64.b64decode(m["event"]["data"]["pty"]) for m in messages if "data" in m.get("event", {}))  # type: ignore[index,operator]
        assert data.count(b"x" * 20000) == len(late)


def test_two_readers_of_one_terminal_see_the_same(sandbox: tunnel.Sandbox) -> None:
    outputs = [Output(), Output()]
    terminal = sandbox.pty.create(command=["/bin/sh"], on_data=outputs[0], timeout=0)
    other = sandbox.pty.connect(terminal.pid, on_data=outputs[1], timeout=0)
    terminal.send_stdin(b"echo one-$((40+2))\n")
    other.send_stdin(b"echo two-$((40+2)); exit 3\n")
    for output in outputs:
        output.wait_for(b"one-42\r\n")
        output.wait_for(b"two-42\r\n")
    assert terminal.wait().exit_code == other.wait().exit_code == 3


# ---- over time


@pytest.mark.parametrize("cycles", [100, pytest.param(2000, marks=[FULL, pytest.mark.timeout(900)])])
def test_terminals_that_come_and_go_leave_nothing(service: Service, sandbox: tunnel.Sandbox, cycles: int) -> None:
    def cycle() -> None:
        terminal = sandbox.pty.create(command=["/bin/sh", "-c", "sleep 300 & sleep 300"], timeout=0)
        assert terminal.kill()
        assert terminal.wait().exit_code == -1

    for _ in range(30):  # allocated once and kept
        cycle()
    start = (descriptors(service), threads(service), threading.active_count())
    before = memory(service)
    for _ in range(cycles):
        cycle()
    for _ in ticks(LIMIT):
        if descriptors(service) <= start[0] and not descendants(service.process.pid):
            break
    assert descendants(service.process.pid) == []
    assert descriptors(service) <= start[0] and threads(service) <= start[1]
    assert threading.active_count() <= start[2]
    # The ends of up to 1,000 terminals are kept for two minutes.
    assert memory(service) - before < 16 * MIB
    assert sandbox.pty.list() == []
