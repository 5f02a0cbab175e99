"""A client whose machine has no descriptors or memory left: it prints one line, and the bridge need not wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, Bridge, start_bridge
from tests.faults.seen import LIMIT, assert_one_line, wait_for_output, wait_for_tunnels

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
