"""The scene: somebody types at an ssh session, and the connection is cut while the far end prints."""

from __future__ import annotations

import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.tunnels import Bridge, start_bridge
from tests.faults.link import Link
from tests.pty.beds import Output
from tests.pty.typist import Typist

COLUMNS, ROWS = 72, 10
LASTS = 3.0  # seconds for which nobody gets through
CONNECTED, CUT = "connected", "connection cut"
COUNT = "for n in $(seq 24); do printf '%s ' $n; sleep 0.3; done; echo"


@dataclass(frozen=True)
class Recording:
    """What a terminal showed, and what happened to the network meanwhile: each with its time in seconds."""

    output: list[tuple[float, bytes]]
    network: list[tuple[float, str]]
    lasted: float


class _Output(Output):
    """Knows when each piece was printed."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[float, bytes]] = []

    def __call__(self, data: bytes) -> None:
        self.pieces.append((time.monotonic(), data))
        super().__call__(data)


class _Person(Typist):
    """Types as people do, and reads the answer before the next line."""

    def __init__(self, *argv: str) -> None:
        super().__init__(*argv, rows=ROWS, cols=COLUMNS)
        self.output = self.printed = _Output()
        self._chance = random.Random(1)

    def enter(self, line: str) -> None:
        for character in line:
            self.type(character)
            time.sleep(self._chance.uniform(0.02, 0.08))
        time.sleep(0.4)
        self.type("\r")


def record(folder: Path) -> Recording:
    """Play the scene with servers in ``folder``. Raises AssertionError if the session does not outlive the cut."""
    with Bed(folder) as bed:
        sshd = Sshd(bed, folder / "sshd")
        bridge = start_bridge(bed, "ours", sshd.port)
        shell = "RemoteCommand env PS1='sandbox$ ' bash --norc --noprofile -i"
        sshd.write_client_config(folder / "config", (), "RequestTTY yes", shell)
        with Link(int(bridge.url.rpartition(":")[2])) as link:
            path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
            words = ("-C", str(folder), path, "PS1=laptop$ ", "TERM=xterm", f"URL={link.url}")
            began = time.monotonic()
            with _Person("env", *words, "bash", "--norc", "--noprofile", "-i") as person:
                network = _play(person, link, bridge)
                ended = time.monotonic()
                person.type("exit\r")
                person.wait()
    return Recording(
        [(at - began, data) for at, data in person.printed.pieces if at < ended],
        [(at - began, state) for at, state in network],
        ended - began,
    )


def _play(person: _Person, link: Link, bridge: Bridge) -> list[tuple[float, str]]:
    """Return what happened to the network, with the clock's times."""
    person.see("laptop$ ")
    time.sleep(0.5)
    person.enter('ssh -F config -o ProxyCommand="wstunnel-py $URL" sandbox')
    person.see("sandbox$ ")
    person.enter("echo $$")
    person.output.wait_for_match(rb"[\r\n]\d+\r\n")
    person.enter(COUNT)
    person.see(" 7 ")
    link.refuse_new()
    link.break_all("rst")
    cut_at = time.monotonic()
    time.sleep(LASTS)
    link.accept_new()
    bridge.process.wait_for_line(r"\bresumed\b")
    resumed_at = time.monotonic()
    person.see(" ".join(map(str, range(1, 25))) + " \r\n")
    time.sleep(1)
    person.enter("echo $$")
    person.output.wait_for_match(rb"(?s)[\r\n](\d+)\r\n.*[\r\n]\1\r\n")  # it is the same shell
    time.sleep(0.7)
    person.enter("exit")
    person.output.wait_for_match(rb"(?s)laptop\$ .*laptop\$ ")
    time.sleep(0.1)
    return [(cut_at, CUT), (resumed_at, f"session resumed {resumed_at - cut_at:.1f} s after the cut")]
