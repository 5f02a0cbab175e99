"""The bridge on Windows: it serves clients of this machine, and reports what it cannot do there."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target, checksum
from tests.bed.tunnels import OURS
from tests.bed.windows import Windows
from tests.pty.typist import Typist

LIMIT = 100.0


@pytest.fixture(scope="module")
def bridge(shared_bed: Bed, windows: Windows, echo_target: Target) -> Process:
    process = windows.start(shared_bed, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}")
    process.wait_for_line("ready on", LIMIT)
    return process


def url_of(bridge: Process) -> str:
    return bridge.wait_for_line(r"ready on (ws://[^\s,]+)")[1]


@pytest.mark.parametrize("options", [(), ("--no-resume",)])
def test_it_serves_both_kinds_of_tunnels(bed: Bed, bridge: Process, options: tuple[str, ...]) -> None:
    data = os.urandom(3_000_001)
    done = bed.run(*OURS, "connect", *options, url_of(bridge), stdin=data)
    assert (done.status, checksum(done.stdout), done.stderr) == (0, checksum(data), "")


def test_it_has_as_many_tunnels_as_windows_select_can_watch(bridge: Process) -> None:
    bridge.wait_for_line(
        r"512 sockets \(the limit of Windows' select\) are too few for --max-tunnels 1000: the limit is 117 tunnels"
    )


# Option, and what is said of it. All are tried by one process, as each takes a while to start.
REFUSED = {
    "--pty=127.0.0.1:0": "--pty: terminals need a POSIX system, which Windows is not",
    "--target=embedded": "--target: the embedded SSH server needs a POSIX system, which Windows is not",
    "--target=unix:socket": "--target: this platform has no Unix sockets",
    "--listen=unix:socket": "cannot listen on unix:socket: this platform has no Unix sockets",
    "--uvloop": "--uvloop: uvloop needs a POSIX system, which Windows is not",
}


def test_what_needs_posix_says_so_in_one_line(bed: Bed, windows: Windows) -> None:
    program = "import sys\nfrom tunnel.cli.main import main\nfor word in sys.argv[1:]: print(main(['serve', word]))"
    done = windows.python(bed, program, *REFUSED)
    assert done.stderr.splitlines() == [f"wstunnel-py: {line}" for line in REFUSED.values()]
    assert done.text.split() == ["2", "2", "2", "69", "2"]


# Without a console, so the process that is to be interrupted does that itself.
INTERRUPTED = """
import signal, sys, threading, time
from tunnel.cli.main import main
number, sys.argv[1:] = getattr(signal, sys.argv[1]), sys.argv[2:]
before = signal.getsignal(number)
def interrupt():
    sys.stdin.readline()
    while signal.getsignal(number) == before:
        time.sleep(0.01)
    signal.raise_signal(number)
threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main())
"""


def interrupted(bed: Bed, windows: Windows, name: str, *words: str) -> tuple[int, str]:
    """Start a command, interrupt it when it is ready, and return its exit status and what it has written."""
    process = bed.start(str(windows.script), "-c", INTERRUPTED, name, *words, stdin=subprocess.PIPE)
    process.wait_for_line("ready on|forwarding", LIMIT)
    process.feed(b"now\n")
    return process.wait(LIMIT), process.log()


def test_ctrl_c_ends_the_bridge_in_good_order(bed: Bed, windows: Windows) -> None:
    status, log = interrupted(bed, windows, "SIGINT", "serve", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1")
    assert status == 0 and "draining" in log


def test_a_console_shows_its_messages_and_passes_on_ctrl_c(windows: Windows, echo_target: Target) -> None:
    target = f"127.0.0.1:{echo_target.port}"
    with Typist(*windows.command("serve", "--listen", "127.0.0.1:0", "--target", target), cols=200) as typist:
        # The code page of the console has no arrow.
        typist.output.wait_for_match(rb"ready on ws://127\.0\.0\.1:\d+ -> 127\.0\.0\.1")
        typist.see("the limit is 117 tunnels")
        typist.type("\x03")
        assert typist.wait() == 0
        assert b"draining" in typist.output.data


def test_ctrl_break_ends_the_client_in_good_order(bed: Bed, windows: Windows) -> None:
    status, log = interrupted(bed, windows, "SIGBREAK", "forward", "ws://127.0.0.1:1")
    assert status == 128 + 21 and log.count("\n") == 1  # the line that it is ready
