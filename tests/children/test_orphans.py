"""A service as process 1 of a container without an init: it reaps inherited children, and only those."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, descendants
from tests.bed.sshd import Sshd
from tests.bed.tunnels import EMBEDDED_PAIR, OURS, Bridge, Route
from tests.pty.raw import Raw, eventually

FIRST = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
ORPHAN = "(sleep 0.1 &) ; (setsid sleep 0.2 >/dev/null 2>&1 &) ; "


def can_be_first() -> bool:
    try:
        return subprocess.run([*FIRST, "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_be_first(), reason="no process can be the first of a namespace here")


def zombies(process: Process) -> list[int]:
    """The zombies among the descendants of ``unshare``."""
    found = []
    for pid in descendants(process.pid):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                found.append(pid)
        except FileNotFoundError:
            continue
    return found


def first_of(process: Process) -> int:
    return descendants(process.pid)[0]


@pytest.fixture(params=[(), ("--uvloop",)], ids=["asyncio", "uvloop"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def first(bed: Bed, options: tuple[str, ...]) -> Iterator[tuple[Process, Raw]]:
    """A terminal service that is process 1."""
    process = bed.start(*FIRST, *OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0", *options)
    with Raw(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1]) as raw:
        yield process, raw
    os.kill(first_of(process), signal.SIGTERM)
    assert process.wait(20) == 0


def test_the_service_reaps_orphans_and_reports_the_right_status_of_its_own_processes(
    first: tuple[Process, Raw],
) -> None:
    process, raw = first
    assert raw.pipes("/bin/sh", "-c", "cat /proc/1/comm").finish().output.startswith(b"python")
    for status in range(1, 21):
        stream = (raw.terminal if status % 2 else raw.pipes)("/bin/sh", "-c", f"{ORPHAN} exit {status}").finish()
        assert stream.ended is not None and stream.ended["exitCode"] == status
    assert eventually(lambda: not descendants(first_of(process)))


def test_a_kill_leaves_no_zombie(first: tuple[Process, Raw]) -> None:
    process, raw = first
    stream = raw.terminal("/bin/sh", "-c", "(setsid sleep 600 &); (setsid sh -c 'sleep 600 & sleep 600' &); sleep 600")
    assert eventually(lambda: len(descendants(first_of(process))) >= 6)
    assert raw.kill(stream.pid).status == 200
    assert eventually(lambda: not descendants(first_of(process)))


def test_files_are_still_read_and_written(first: tuple[Process, Raw], tmp_path: Path) -> None:
    _, raw = first
    for number in range(20):
        body = b"%d" % number
        path = f"/files?path={tmp_path}/file"
        assert raw.request("POST", path, body, {"Content-Type": "application/octet-stream"}).status == 200
        assert raw.request("GET", path).body == body
        assert raw.request("GET", f"/files?path={tmp_path}/missing").status == 404


def test_a_bridge_with_the_embedded_ssh_server_reaps_too(bed: Bed, sshd: Sshd, options: tuple[str, ...]) -> None:
    keys = ("--authorized-keys", str(sshd.folder / "authorized_keys"), "--host-key", str(sshd.folder / "host"))
    serve = ("serve", "--listen", "127.0.0.1:0", "--target", "embedded", *keys, *options)
    process = bed.start(*FIRST, *OURS, *serve)
    bridge = Bridge(process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1], process)
    route = Route(sshd.write_client_config(bed.folder / "ssh_config", EMBEDDED_PAIR.command(bridge.url)), bridge)
    for status in (3, 4):
        script = f"(setsid sleep 1 >/dev/null 2>&1 &); nohup sleep 1 >/dev/null 2>&1 & exit {status}"
        assert bed.run(*route.ssh("box", script)).status == status
    assert eventually(lambda: len(descendants(first_of(process))) == 1), "only the listener is left"
    assert zombies(process) == []
    os.kill(first_of(process), signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_child_that_it_had_before_it_was_a_service_is_reaped_in_the_end(bed: Bed) -> None:
    """An entry point that starts a process and then executes the service."""
    script = (
        "import asyncio, os, subprocess, sys, time\nfrom tunnel.children import orphans\norphans._GRACE = 3\n"
        "subprocess.Popen(['/bin/sleep', '0.2'], start_new_session=False)._child_created = False\n"
        "slow = subprocess.Popen(['/bin/sh', '-c', 'exit 9'])\n"
        "async def main():\n"
        "    orphans.look_after_orphans()\n"
        "    await asyncio.sleep(0.2)\n"
        "    print('status', slow.wait(), flush=True)\n"
        "    left = lambda: open('/proc/self/task/1/children').read().split()\n"
        "    end = time.monotonic() + 30\n"
        "    while left() and time.monotonic() < end:\n"
        "        await asyncio.sleep(0.1)\n"
        "    print('left', left(), flush=True)\n"
        "asyncio.run(main())\n"
    )
    finished = bed.check(*FIRST, OURS[0], "-c", script)
    assert finished.text == "status 9\nleft []\n"


def test_a_service_that_was_started_with_children_ignored_knows_their_status_all_the_same(bed: Bed) -> None:
    serve = (*OURS, "serve", "--listen", "none", "--pty", "127.0.0.1:0")
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = bed.start(OURS[0], "-c", ignoring, *serve)
    with Raw(process.wait_for_line(r"(http://127\.0\.0\.1:\d+)")[1]) as raw:
        stream = raw.terminal("/bin/sh", "-c", "exit 6").finish()
        assert stream.ended is not None and stream.ended["exitCode"] == 6
