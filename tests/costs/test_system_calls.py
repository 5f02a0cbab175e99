"""How often a transfer enters the kernel, and how many bytes are copied there and back, at both ends.

One end is looked at at a time. strace slows it so much that the other one never keeps it waiting, so the counts vary
little. What does vary only adds to them: whoever is above the bound is counted again, and the least counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, program
from tests.bed.tunnels import CLIENTS, OURS
from tests.costs.bounds import SLACK, TRANSFERS, Transfer
from tests.costs.target import start_target

MEGABYTES = 32
SIZE = MEGABYTES * 10**6
RUNS = 5  # at most
KINDS = ("ours", "ours-plain")
DIRECTIONS = ("down", "up")
ENDS = ("client", "bridge")
UPGRADED = "HTTP/1.1 101 "
CALL = re.compile(r"\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed>).*?(?:= (-?\d+|\?).*)?$")
COPYING = {"read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg"}

Counted = dict[tuple[str, str, str], Transfer]


def counted(lines: Iterable[str]) -> Transfer:
    """Return what the lines of strace's log say that `SIZE` bytes took."""
    calls = copied = 0
    for line in lines:
        match = CALL.match(line)
        if match is None:
            assert "+++" in line or "---" in line, line
            continue
        unfinished = line.rstrip().endswith("<unfinished ...>")
        calls += not unfinished
        if match[1] in COPYING and match[2] and not unfinished:
            copied += max(0, int(match[2]))
    return Transfer(calls / MEGABYTES, copied / SIZE)


def tunnels(log: Path) -> Iterator[list[str]]:
    """Yield the lines about each tunnel, from its upgrade to the next one's."""
    lines: list[str] | None = None
    for line in log.read_text(errors="replace").splitlines():
        if UPGRADED in line and ("sendto(" in line or "sendmsg(" in line or "recvfrom(" in line):
            if lines is not None:
                yield lines
            lines = []
        elif lines is not None:
            lines.append(line)
    if lines is not None:
        yield lines


def strace(log: Path) -> tuple[str, ...]:
    return (program("strace"), "-f", "-qq", "-s", "32", "-e", "signal=none", "-o", str(log))


def transfer(bed: Bed, client: tuple[str, ...], direction: str) -> None:
    """Move `SIZE` bytes between pipes, as ssh has them."""
    order, moved = ("source", SIZE) if direction == "down" else ("sink", 1)
    script = f'{{ echo {order} {SIZE}; [ {order} = source ] || head -c {SIZE} /dev/zero; }} | "$@" | wc -c'
    answer = bed.check("sh", "-c", script, "sh", *client)
    assert int(answer.text) == 1 + moved  # the greeting, and the bytes or the word that they have come


def measure(bed: Bed, folder: Path, end: str) -> Counted:
    """Run every kind of transfer once, through one bridge, and count what it takes one end."""
    target = start_target(bed)
    listening = ("--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target}", "--drain", "0")
    logs = [folder / "bridge.strace"]
    bridge = bed.start(*(strace(logs[0]) if end == "bridge" else ()), *OURS, "serve", *listening)
    url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)", 60)[1]
    cases = [(kind, direction) for kind in KINDS for direction in DIRECTIONS]
    if end == "client":
        logs = [folder / f"{kind}-{direction}.strace" for kind, direction in cases]
    for number, (kind, direction) in enumerate(cases):
        traced = strace(logs[number]) if end == "client" else ()
        transfer(bed, (*traced, *CLIENTS[kind], url), direction)
    bridge.end(30)
    found = [counted(lines) for log in logs for lines in tunnels(log)]
    return {(*case, end): its for case, its in zip(cases, found, strict=True)}


def is_allowed(found: Transfer, allowed: Transfer) -> bool:
    return found.calls <= SLACK * allowed.calls and found.copied <= 1.05 * allowed.copied


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """The least that each end took."""
    best: Counted = {}
    for end in ENDS:
        for _ in range(RUNS):
            folder = tmp_path_factory.mktemp("strace")
            with Bed(folder) as bed:
                counts = measure(bed, folder, end)
            for case, found in counts.items():
                before = best.get(case, found)
                best[case] = Transfer(min(before.calls, found.calls), min(before.copied, found.copied))
            if all(is_allowed(best[case], TRANSFERS[case]) for case in counts):
                break
    return best


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_transfer_enters_the_kernel_and_copies_no_more_than_allowed(
    kind: str, direction: str, end: str, costs: Counted
) -> None:
    found, allowed = costs[kind, direction, end], TRANSFERS[kind, direction, end]
    print(f"counted: {found.calls:.2f} system calls per MB, {found.copied:.3f} bytes copied per byte", file=sys.stderr)
    assert is_allowed(found, allowed), allowed
