"""Connections to the embedded SSH server that live through restarts of the bridge in place."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

from tests.bed.processes import Bed, Process, descendants, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import Bridge, start_embedded
from tests.faults.seen import wait_for_tunnels
from tests.pty.beds import alive
from tests.pty.typist import Typist
from tests.restart.restarting import LIMIT, restart, wait_for_lines
from tests.ssh.conftest import route_to

RESTARTS = 3
MB = 1_000_000
SHELL = "while read word; do echo got $word; done; echo bye; exit 7"


def listeners(bridge: Bridge) -> list[int]:
    """The processes of the embedded server, without those of its connections."""
    return [pid for pid in children(bridge.process.pid) if b"tunnel.ssh.server.listener" in words_of(pid)]


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def words_of(pid: int) -> bytes:
    """Return the words of a process, none if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_for_one_listener(bridge: Bridge, other_than: list[int]) -> int:
    for _ in ticks(LIMIT):
        found = listeners(bridge)
        if len(found) == 1 and found[0] not in other_than:
            return found[0]
    raise AssertionError(f"listeners: {listeners(bridge)}, before: {other_than}\n{bridge.process.log()}")


def test_a_session_and_a_terminal_live_through_restarts(bed: Bed, sshd: Sshd) -> None:
    route = route_to(bed, sshd, start_embedded(bed, sshd))
    pid, before = route.bridge.process.pid, listeners(route.bridge)
    shell = bed.start(*route.ssh("box", SHELL), stdin=subprocess.PIPE)
    with Typist(*route.ssh("-tt", "box", "PS1= exec sh")) as typist:
        for n in range(RESTARTS):
            shell.feed(f"before-{n}\n".encode())
            shell.wait_for_line(f"got before-{n}")
            typist.type(f"v={n}; echo before-$v\n")
            typist.see(f"before-{n}\r\n")
            restart(route.bridge.process)
            shell.feed(f"after-{n}\n".encode())
            shell.wait_for_line(f"got after-{n}")
            typist.type("echo after-$v\n")
            typist.see(f"after-{n}\r\n")
        typist.type("exit 3\n")
        assert typist.wait() == 3
    shell.end_input()
    assert shell.wait(LIMIT) == 7
    assert shell.err.read_text() == ""
    assert route.bridge.process.pid == pid
    # The processes that had connections end with them; only the one for new connections stays.
    wait_for_one_listener(route.bridge, before)
    assert bed.check(*route.ssh("box", "echo hello")).text == "hello\n"


def test_a_copy_through_restarts_is_whole(bed: Bed, sshd: Sshd) -> None:
    route = route_to(bed, sshd, start_embedded(bed, sshd))
    size = 20 * MB
    source = bed.folder / "source"
    source.write_bytes(random.Random("embedded").randbytes(MB) * (size // MB))
    copy = ("scp", "-F", str(route.config), "-l", "30000")  # kbit/s, so that it lasts longer than the restarts
    up, down, old = (bed.folder / name for name in ("up", "down", "old"))
    copies = {
        up: bed.start(*copy, str(source), f"box:{up}"),
        down: bed.start(*copy, f"box:{source}", str(down)),
        old: bed.start(*copy, "-O", f"box:{source}", str(old)),
    }
    for n in range(RESTARTS):
        # Each stands still from here until the bridge executes its new version: the others may be slower, and that may
        # be long after the signal.
        for _ in ticks(LIMIT):
            far = [path for path in copies if path.exists() and path.stat().st_size >= size * (n + 1) // 20]
            for path in far:
                copies[path].send_signal(signal.SIGSTOP)
            if len(far) == len(copies):
                break
        route.bridge.process.send_signal(signal.SIGUSR2)
        wait_for_lines(route.bridge.process, "restart", n + 1)
        assert [each.status for each in copies.values()] == [None] * 3, "one was over before the restarts were"
        for process in copies.values():
            process.send_signal(signal.SIGCONT)
        wait_for_lines(route.bridge.process, "restarted", n + 1)
    expected = hashlib.sha256(source.read_bytes()).digest()
    for path, process in copies.items():
        assert process.wait(LIMIT) == 0
        assert process.err.read_text() == ""
        assert hashlib.sha256(path.read_bytes()).digest() == expected


def test_a_login_in_progress_survives_a_restart(bed: Bed, sshd: Sshd) -> None:
    """The client has connected, and is asked for the passphrase of its key when the bridge is restarted."""
    key, gate, ask = (bed.folder / name for name in ("key", "gate", "ask"))
    bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", str(key))
    os.mkfifo(gate)
    ask.write_text(f"#!/bin/sh\necho asked >&2; cat {gate}\n")
    ask.chmod(0o700)
    route = route_to(bed, sshd, start_embedded(bed, sshd, "--authorized-keys", str(key.with_suffix(".pub"))))
    words = route.ssh("-i", str(key), "-o", "BatchMode=no", "box", "echo in")
    client = bed.start(*words, env={"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"})
    client.wait_for_line("asked")
    restart(route.bridge.process)
    gate.write_text("passphrase\n")
    assert client.wait(LIMIT) == 0
    assert client.out.read_text() == "in\n"


def test_a_signal_that_reaches_all_processes_ends_none(bed: Bed, sshd: Sshd) -> None:
    """As by pkill -f or systemctl kill, which do not tell the bridge from the processes of its SSH server."""
    route = route_to(bed, sshd, start_embedded(bed, sshd))
    shell = bed.start(*route.ssh("box", f"echo ready; {SHELL}"), stdin=subprocess.PIPE)
    shell.wait_for_line("ready")
    for pid in descendants(route.bridge.process.pid):
        if b"tunnel.ssh.server.listener" in words_of(pid):
            os.kill(pid, signal.SIGUSR2)
    restart(route.bridge.process)
    shell.feed(b"word\n")
    shell.wait_for_line("got word")
    shell.end_input()
    assert shell.wait(LIMIT) == 7
    # What users run handles it as usual.
    assert bed.run(*route.ssh("box", "sh -c 'kill -USR2 $$'; echo $?")).text == f"{128 + signal.SIGUSR2}\n"


def test_where_no_new_process_can_start_the_old_one_stays(bed: Bed, sshd: Sshd) -> None:
    host_key = bed.folder / "host"
    host_key.write_bytes((sshd.folder / "host").read_bytes())
    host_key.chmod(0o600)
    route = route_to(bed, sshd, start_embedded(bed, sshd, "--host-key", str(host_key)))
    before = listeners(route.bridge)
    host_key.write_text("not a key\n")
    restart(route.bridge.process)
    (line,) = wait_for_lines(route.bridge.process, "ssh-warning", 1)
    assert "the process from before the restart stays in use" in line
    assert listeners(route.bridge) == before
    assert bed.check(*route.ssh("box", "echo hello")).text == "hello\n"


def test_a_stop_leaves_nothing_of_any_version(bed: Bed, sshd: Sshd) -> None:
    bridge = start_embedded(bed, sshd, "--drain", "0")
    route = route_to(bed, sshd, bridge)
    before: list[int] = []
    sessions: list[Process] = []
    for _ in range(2):
        sessions.append(bed.start(*route.ssh("box", "echo ready; sleep 60")))
        sessions[-1].wait_for_line("ready")
        before += listeners(bridge)
        restart(bridge.process)
        wait_for_tunnels(bridge, len(sessions))  # a client that is not connected is not told that the bridge stops
    family = descendants(bridge.process.pid)
    assert len(listeners(bridge)) >= 2
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(LIMIT) == 0
    for session in sessions:
        assert session.wait(LIMIT) != 0
    for _ in ticks(LIMIT):
        if not any(map(alive, family)):
            break
    assert not any(map(alive, family))
