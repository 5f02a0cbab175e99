"""A client whose machine has no descriptors or memory left: it prints one line, and the bridge need not wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.conftest import StartBridge
from tests.faults.link import Link
from tests.faults.seen import LIMIT, assert_one_line, wait_for_output, wait_for_tunnels
from tests.server.clients import port_of

# Once the connection is lost, the first two attempts find no thread, or cannot open the module for their proof.
NOTHING_TO_DIAL_AGAIN = """
import builtins, errno, os, sys, _thread
left = [2]
start, load = _thread.start_new_thread, builtins.__import__
def start_or_fail(function, *arguments):
    if sys.argv[1] == "thread" and function.__qualname__ == "Redial._run" and left[0]:
        left[0] -= 1
        raise RuntimeError("can't start new thread")
    return start(function, *arguments)
def load_or_fail(name, *arguments):
    if sys.argv[1] == "module" and name == "hmac" and left[0]:
        left[0] -= 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return load(name, *arguments)
_thread.start_new_thread, builtins.__import__ = start_or_fail, load_or_fail
from tunnel.cli.main import main
status = main(sys.argv[2:])
sys.exit(status or left[0])
"""
OUT_OF_MEMORY = """
import sys
from tunnel.protocol.masked_replay import MaskedReplay
extend = MaskedReplay.extend
def fail(self, n):
    if self.end:
        raise MemoryError
    extend(self, n)
MaskedReplay.extend = fail
from tunnel.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("descriptors", [5, 6, 7])
@pytest.mark.parametrize("options", [(), ("--no-resume",)], ids=["resumable", "plain"])
def test_without_descriptors_a_tunnel_is_not_begun_or_goes_well(
    bed: Bed, echo_bridge: Bridge, options: tuple[str, ...], descriptors: int
) -> None:
    """With so few, Python starts, but may not open all modules and sockets."""
    shell = ("sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh")
    finished = bed.run(*shell, *OURS, "connect", *options, echo_bridge.url, stdin=b"hello")
    if finished.status:
        assert (finished.status, finished.stdout) == (75, b"")
        assert finished.stderr.startswith("wstunnel-py: this machine cannot open a tunnel now: Too many open files")
        assert finished.stderr.count("\n") == 1
    else:
        assert (finished.stdout, finished.stderr) == (b"hello", "")


def test_a_client_without_memory_says_so_and_leaves_no_session(bed: Bed) -> None:
    with Target(echo) as target:
        bridge = start_bridge(bed, "ours", target.port)
        client = bed.start(sys.executable, "-c", OUT_OF_MEMORY, "connect", bridge.url, stdin=subprocess.PIPE)
        client.feed(b"first")
        wait_for_output(client, 5)
        client.feed(b"second")
        assert client.wait(LIMIT) == 75
        assert_one_line(client, "the tunnel is over: this machine is out of memory")
        wait_for_tunnels(bridge, 0)


@pytest.mark.parametrize("lacking", ["thread", "module"])
def test_a_session_waits_until_its_client_can_dial_again(bed: Bed, start: StartBridge, lacking: str) -> None:
    with Link(port_of(start().url)) as link:
        client = bed.start(
            *(sys.executable, "-c", NOTHING_TO_DIAL_AGAIN, lacking, "connect", link.url), stdin=subprocess.PIPE
        )
        client.feed(b"first")
        wait_for_output(client, 5)
        link.break_all("rst")
        client.feed(b"second")
        wait_for_output(client, 11)
        client.end_input()
        assert client.wait(LIMIT) == 0
        assert (client.out.read_bytes(), client.err.read_text()) == (b"firstsecond", "")
