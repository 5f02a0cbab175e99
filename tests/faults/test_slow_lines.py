"""The data queued for a slow line is bounded, so that typed input does not wait behind megabytes."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import CLIENTS, OURS, start_bridge, start_embedded
from tests.faults.link import LIMIT, Link, Plan
from tests.faults.seen import wait_for_output
from tests.pty.beds import start_service
from tests.pty.raw import Raw
from tests.pty.typist import Typist

RATE = 300_000  # bytes a second
ROOM = 64 << 10  # bytes of a buffer of the test's own ends, which the kernel doubles
WAITING = 3 << 20  # bytes that may be under way: some buffers of both ends, and those of the link between them
LINE = "0123456789 " * 8


class Flood:
    """A target on loopback that sends as fast as it can to clients that send ``d``, and reads from all others."""

    def __init__(self, listener: socket.socket) -> None:
        self.moved = 0
        self.port = listener.getsockname()[1]
        self._listener = listener
        self.is_over = False

    def run(self) -> None:
        sock, _ = self._listener.accept()
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
            sock.settimeout(LIMIT)
            sends = sock.recv(1) == b"d"
            sock.settimeout(0.1)
            while not self.is_over:
                try:
                    n = sock.send(bytes(ROOM)) if sends else len(sock.recv(ROOM))
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not n:
                    return
                self.moved += n


@contextmanager
def flood() -> Iterator[Flood]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Flood(listener)
        thread = threading.Thread(target=found.run)
        thread.start()
        try:
            yield found
        finally:
            found.is_over = True
            thread.join(20)


def unread(port: int) -> int:
    """Bytes that the kernel holds for whoever is connected to ``port``: how many is up to the kernel alone."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[4].partition(":")[2], 16) for row in rows if int(row[2].partition(":")[2], 16) == port)


def start_client(bed: Bed, kind: str, url: str) -> Process:
    return bed.start(*CLIENTS[kind], url, stdin=subprocess.PIPE)


@pytest.mark.parametrize("kind", ["ours", "ours-plain"])
def test_what_waits_on_its_way_to_the_client_is_bounded(bed: Bed, kind: str) -> None:
    with flood() as target:
        port = int(start_bridge(bed, "ours", target.port).url.rpartition(":")[2])
        with Link(port, plan=Plan(rate=RATE)) as link:
            client = start_client(bed, kind, link.url)
            client.feed(b"d")
            wait_for_output(client, 1)
            most = 0
            for _ in ticks(3):
                most = max(most, target.moved - unread(target.port) - client.out.stat().st_size)
            assert client.status is None, client.log()
            assert most < WAITING
            target.is_over = True
            client.end()


@pytest.mark.parametrize("kind", ["ours", "ours-plain"])
def test_what_waits_on_its_way_to_the_target_is_bounded(bed: Bed, kind: str) -> None:
    with flood() as target:
        port = int(start_bridge(bed, "ours", target.port).url.rpartition(":")[2])
        with Link(port, plan=Plan(rate=RATE)) as link:
            source, ours = os.pipe()
            client = bed.start(*CLIENTS[kind], link.url, stdin=source)
            os.close(source)
            given = os.write(ours, b"u" * 100) - 1  # the first one is for the target to know what it is to do
            os.set_blocking(ours, False)
            try:
                for _ in ticks(LIMIT):
                    if target.moved:
                        break
                for _ in ticks(3):
                    try:
                        while True:
                            given += os.write(ours, bytes(ROOM))
                    except BlockingIOError:
                        continue
                assert client.status is None, client.log()
                assert target.moved > 0
                assert given - target.moved < WAITING + (1 << 20)  # the pipe
            finally:
                os.close(ours)
                client.end()


def test_ctrl_c_stops_a_flood_in_a_terminal_of_the_service(bed: Bed) -> None:
    service = start_service(bed)
    with (
        Link(int(service.url.rpartition(":")[2]), plan=Plan(rate=RATE)) as link,
        Raw(link.url.replace("ws://", "http://")) as raw,
    ):
        stream = raw.terminal("yes", LINE)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            stream.step()
        before = len(stream.output)
        raw.send(stream.pid, b"\x03")
        stream.finish()
        assert stream.ended is not None and stream.ended["status"] == "signal: interrupt"
        assert len(stream.output) - before < WAITING // 2


def seconds_to_a_prompt(*command: str) -> float:
    """How long it takes until Ctrl-C brings a prompt back during a flood."""
    with Typist(*command) as typist:
        typist.type("PS1='pr''ompt '; stty -echo\n")
        typist.see("prompt ")
        typist.type(f"yes {LINE}\n")
        time.sleep(8)
        seen, began = len(typist.output.data), time.monotonic()
        typist.type("\x03")
        for _ in ticks(60):
            if b"prompt " in typist.output.data[seen:]:
                break
        else:
            raise AssertionError("no prompt within a minute")
        took = time.monotonic() - began
        typist.type("exit\n")
        typist.wait()
    return took


@pytest.mark.full
def test_the_prompt_comes_back_about_as_soon_as_with_ssh_alone(
    bed: Bed, sshd: Sshd, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge, embedded, service = start_bridge(bed, "ours", sshd.port), start_embedded(bed, sshd), start_service(bed)
    config = sshd.write_client_config(bed.folder / "ssh_config", ("false",))
    took = {}

    def ssh(*options: str) -> float:
        return seconds_to_a_prompt("ssh", "-tt", *options, "-F", str(config), "bed", "sh")

    def tunnel(link: Link) -> float:
        return ssh("-o", f"ProxyCommand={' '.join(CLIENTS['ours'])} {link.url}")

    def port(url: str) -> int:
        return int(url.rpartition(":")[2])

    with Link(sshd.port, plan=Plan(rate=RATE)) as link:
        where = ("-o", "HostName=127.0.0.1", "-o", f"Port={link.port}")
        took["ssh"] = ssh("-o", "ProxyCommand=none", *where)
    for name, url in (("tunnel", bridge.url), ("embedded", embedded.url)):
        with Link(port(url), plan=Plan(rate=RATE)) as link:
            took[name] = tunnel(link)
    with Link(port(service.url), plan=Plan(rate=RATE)) as link:
        took["terminal"] = seconds_to_a_prompt(*OURS, "shell", link.url.replace("ws://", "http://"), "--", "sh")
    with capsys.disabled():
        print(f"\nseconds from Ctrl-C to a prompt at {RATE // 1000} kB/s: {took}")
    assert max(took.values()) < 3 * took["ssh"] + 3
