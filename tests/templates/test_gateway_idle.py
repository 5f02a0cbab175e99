"""Sessions in which nobody types, through gateways that end idle connections: ssh does not notice.

Either our pings come before the limit and keep the connection, or the session is resumed at the next input.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process
from tests.templates.conftest import Sandbox, client
from tests.templates.gateways import GATEWAYS, Certificates, Gateway

# Where each has its limit for a tunnel without traffic; Debian's Caddy has none.
LIMITS: dict[str, Mapping[str, str]] = {
    "nginx": {"proxy_read_timeout 1h": "proxy_read_timeout {}s", "proxy_send_timeout 1h": "proxy_send_timeout {}s"},
    "haproxy": {"timeout tunnel 1h": "timeout tunnel {}s"},
    "caddy": {},
}
STEP = 60.0  # seconds for what is typed to be answered, an outage included
RELOADS = 6  # in the long form


@dataclass
class Session:
    """An ssh session through a gateway of its own, whose program answers each line."""

    kind: str
    gateway: Gateway
    process: Process
    said: int = 0

    def say(self, word: str) -> None:
        self.process.feed(f"{word}\n".encode())
        self.process.wait_for_line(f"got-{word}\n", STEP)


def open_session(
    bed: Bed, folder: Path, certificates: Certificates, kind: str, sandbox: Sandbox, limit: int, *options: str
) -> Session:
    folder.mkdir(parents=True)
    changes = {old: new.format(limit) for old, new in LIMITS[kind].items()}
    gateway = GATEWAYS[kind](bed, folder, certificates, {"8081-one": sandbox.address}, changes=changes)
    config = sandbox.sshd.write_client_config(folder / "ssh_config", (*client(gateway, *options), "%h"))
    program = "while read -r word; do echo got-$word; done"
    session = Session(kind, gateway, bed.start("ssh", "-F", str(config), "one", program, stdin=subprocess.PIPE))
    session.say("first")
    return session


def finish(session: Session, words: list[str]) -> None:
    session.process.end_input()
    assert session.process.wait(STEP) == 0
    assert session.process.out.read_text() == "".join(f"got-{word}\n" for word in words)


def resumed(sandbox: Sandbox) -> int:
    return sandbox.bridge.process.log().count(" resumed ")


def test_an_idle_session_outlives_the_limit_of_its_gateway(
    bed: Bed, short_folder: Path, certificates: Certificates, sandboxes: list[Sandbox]
) -> None:
    """The limit is 5 s. Pings of the client come sooner, or the connection is ended again and again."""
    pinged, quiet = sandboxes[:2]
    before = resumed(pinged), resumed(quiet)
    sessions = [
        open_session(bed, short_folder / kind / sandbox.id, certificates, kind, sandbox, 5, *options)
        for kind in GATEWAYS
        if LIMITS[kind]
        for sandbox, options in ((pinged, ("--ping-interval", "0.5")), (quiet, ()))
    ]
    time.sleep(12)  # nobody types
    for session in sessions:
        session.say("second")
        finish(session, ["first", "second"])
        assert session.process.err.read_text() == ""
    assert resumed(pinged) == before[0]
    assert resumed(quiet) >= before[1] + len(sessions) // 2


@pytest.mark.full
@pytest.mark.timeout(4200)
@pytest.mark.parametrize("limit", [60, 100])
def test_sessions_survive_an_idle_hour_behind_each_gateway(
    bed: Bed, short_folder: Path, certificates: Certificates, sandboxes: list[Sandbox], limit: int
) -> None:
    """With the limits met in the field, our own default pings, and a reload now and then."""
    before = resumed(sandboxes[0])
    sessions = [open_session(bed, short_folder / kind, certificates, kind, sandboxes[0], limit) for kind in GATEWAYS]
    for _ in range(RELOADS):
        time.sleep(3600 / RELOADS)
        for session in sessions:
            session.gateway.reload()
    assert resumed(sandboxes[0]) <= before + RELOADS  # those of Debian's Caddy, which ends tunnels when it is reloaded
    for session in sessions:
        session.say("second")
        finish(session, ["first", "second"])
