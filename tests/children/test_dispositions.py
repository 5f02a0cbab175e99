"""Children start with default signals, whatever their service was started with."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Bridge
from tests.pty.raw import Raw, Stream
from tests.pty.typist import Typist
from tests.ssh.conftest import route_to
from tunnel.children.child import start

# How a shell script can start a service.
IGNORING = ("sh", "-c", 'trap "" INT QUIT HUP TERM TSTP PIPE XFSZ USR1 CHLD; exec "$@"', "sh")
STATUS = ("grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
DEFAULT = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
# A loop that only Ctrl-C and Ctrl-\ can end.
LOOP = "echo loop; while :; do sleep 0.1; done"
BLOCKING = "import os, signal, sys; signal.pthread_sigmask(0, range(1, 32)); os.execvp(sys.argv[1], sys.argv[1:])"


def start_both(bed: Bed, sshd: Sshd, *prefix: str) -> tuple[Raw, Bridge]:
    """A service with terminals and an embedded SSH server, started by ``prefix``."""
    keys = ("--authorized-keys", str(sshd.folder / "authorized_keys"), "--host-key", str(sshd.folder / "host"))
    serve = (*OURS, "serve", "--listen", "127.0.0.1:0", "--target", "embedded", *keys, "--pty", "127.0.0.1:0")
    process = bed.start(*prefix, *serve)
    url = process.wait_for_line(r"bridge ready on (ws://[^\s,]+)")[1]
    return Raw(process.wait_for_line(r"terminals ready on (http://[^\s,]+)")[1]), Bridge(url, process)


def status_of(stream: Stream) -> str:
    return bytes(stream.finish().output).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "prefix", [IGNORING, (sys.executable, "-c", BLOCKING), ("nohup",)], ids=["ignored", "blocked", "nohup"]
)
def test_no_session_ignores_or_blocks_a_signal(bed: Bed, sshd: Sshd, prefix: tuple[str, ...]) -> None:
    raw, bridge = start_both(bed, sshd, *prefix)
    with raw:
        assert status_of(raw.terminal(*STATUS)) == DEFAULT
        assert status_of(raw.pipes(*STATUS)) == DEFAULT
    ssh = route_to(bed, sshd, bridge).ssh
    assert bed.check(*ssh("box", " ".join(STATUS).replace("(", "'(").replace(":", ":'", 1))).text == DEFAULT
    with Typist(*ssh("-t", "box", "grep -E '^Sig(Blk|Ign):' /proc/self/status; echo done")) as typist:
        typist.see("done")
        assert DEFAULT in typist.output.data.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("key", ["\x03", "\x1c"], ids=["ctrl-c", "ctrl-backslash"])
def test_keys_interrupt_in_a_service_that_a_script_has_started(bed: Bed, sshd: Sshd, key: str) -> None:
    raw, bridge = start_both(bed, sshd, *IGNORING)
    with raw:
        terminal = raw.terminal("sh", "-c", LOOP)
        terminal.wait_for(b"loop\r\n")
        raw.send(terminal.pid, key.encode())
        ended = terminal.finish().ended
        assert ended is not None and ended["status"].startswith("signal: ")
    with Typist(*route_to(bed, sshd, bridge).ssh("-t", "box", f"exec sh -c '{LOOP}'")) as typist:
        typist.see("loop\r\n")
        typist.type(key)
        assert typist.wait() in (130, 131, 255)  # because the signal ended the command, not the session


def test_the_service_continues_to_ignore_signals_that_were_ignored_at_its_start(bed: Bed, sshd: Sshd) -> None:
    raw, bridge = start_both(bed, sshd, "sh", "-c", 'trap "" USR1 QUIT; exec "$@"', "sh")
    with raw:
        for _ in range(20):
            bridge.process.send_signal(signal.SIGUSR1)
            bridge.process.send_signal(signal.SIGQUIT)
            assert status_of(raw.pipes(*STATUS)) == DEFAULT
    assert "Exception" not in bridge.process.log()
    bridge.process.send_signal(signal.SIGTERM)
    assert bridge.process.wait(20) == 0


def in_main_thread(work: Callable[[], object]) -> None:
    work()


def in_other_thread(work: Callable[[], object]) -> None:
    import threading

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("run", [in_main_thread, in_other_thread])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("blocked", [set(), {signal.SIGUSR2, signal.SIGTERM}], ids=["free", "blocked"])
def test_a_start_leaves_the_signals_of_this_program_as_they_are(
    run: Callable[[Callable[[], object]], None], tied: bool, blocked: set[signal.Signals]
) -> None:
    outputs = []

    def work() -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        try:
            pipe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert pipe.stdin is not None
            child = start(STATUS, stdout=pipe.stdin.fileno(), ends_with_us=tied)
            assert child.reap() == 0
            outputs.append(pipe.communicate()[0].decode())
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | blocked
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        run(work)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert outputs == [DEFAULT]
