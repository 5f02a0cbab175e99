"""Under systemd: socket activation, and notifications about the service's state."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target
from tests.bed.tunnels import OURS
from tests.server.clients import LIMIT, assert_echo, open_tunnel

# Does what systemd does before it starts a service: opens sockets, moves them to descriptors from 3 on, and sets their
# number and the pid in the environment.
ACTIVATE = """
import fcntl, os, socket, sys
pid, *kinds = sys.argv[1].split(",")
made = []
for kind in kinds:
    if kind == "tcp":
        made.append(socket.create_server(("127.0.0.1", 0)))
        print("activated", made[-1].getsockname()[1], flush=True)
    elif kind == "udp":
        made.append(socket.socket(type=socket.SOCK_DGRAM))
    elif kind == "file":
        made.append(open(os.devnull))
    else:
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(kind)
        made[-1].listen()
high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in made]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place)
os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_PID=pid or str(os.getpid()), LISTEN_FDNAMES="bridge")
os.execv(sys.argv[2], sys.argv[2:])
"""


def activate(bed: Bed, kinds: str, *options: str, pid: str = "") -> Process:
    return bed.start(sys.executable, "-c", ACTIVATE, f"{pid},{kinds}", *OURS, "serve", *options)


class Manager:
    """A service manager's socket for notifications."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(LIMIT)
        self._socket.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)

    def hear(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Manager]:
    manager = Manager(f"{short_folder}/notify" if request.param == "path" else f"@{short_folder}/notify")
    yield manager
    manager.close()


def test_sockets_that_systemd_passes_are_served(bed: Bed, echo_target: Target, short_folder: Path) -> None:
    path = short_folder / "bridge"
    process = activate(bed, f"tcp,{path}", "--target", f"127.0.0.1:{echo_target.port}")
    port = process.wait_for_line(r"activated (\d+)")[1]
    process.wait_for_line(rf"ready on ws://127\.0\.0\.1:{port}, unix:{path} →")
    with open_tunnel(f"ws://127.0.0.1:{port}") as tunnel:
        assert_echo(tunnel)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT)
    sock.connect(str(path))
    with sock, open_tunnel("ws://bridge.test/", sock=sock) as tunnel:
        assert_echo(tunnel)
    process.end(LIMIT)
    assert process.status == 0
    assert path.is_socket(), "the socket belongs to systemd, which keeps it for the next start"


def test_what_is_listened_on_beside_them_is_asked_for(bed: Bed, echo_target: Target) -> None:
    process = activate(bed, "tcp", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{echo_target.port}")
    line = process.wait_for_line(r"ready on (ws://127\.0\.0\.1:\d+), (ws://127\.0\.0\.1:\d+) →")
    for url in (line[1], line[2]):
        with open_tunnel(url) as tunnel:
            assert_echo(tunnel)


def test_sockets_meant_for_another_process_are_none_of_ours(bed: Bed) -> None:
    process = activate(bed, "tcp", "--listen", "127.0.0.1:0", pid="1")
    assert "," not in process.wait_for_line(r"ready on (.*) →")[1]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("udp", "descriptor 3 is not a listening stream socket; set Accept=no in the socket unit"),
        ("file", "descriptor 3 is not a socket: Socket operation on non-socket"),
    ],
)
def test_a_socket_that_does_not_listen_stops_the_start(bed: Bed, kind: str, problem: str) -> None:
    process = activate(bed, kind)
    assert process.wait(LIMIT) == 2
    assert process.log() == f"wstunnel-py: LISTEN_FDS: {problem}\n"


def test_the_manager_hears_of_readiness_reloads_and_the_end(bed: Bed, manager: Manager) -> None:
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": manager.name})
    assert manager.hear() == "READY=1"
    process.send_signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.hear())
    assert manager.hear() == "READY=1"
    process.send_signal(signal.SIGTERM)
    assert manager.hear() == "STOPPING=1"
    assert process.wait(LIMIT) == 0


def test_a_manager_that_has_gone_is_logged_and_the_bridge_goes_on(bed: Bed, short_folder: Path) -> None:
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", env={"NOTIFY_SOCKET": f"{short_folder}/none"})
    process.wait_for_line('notify-failed state=READY reason="No such file or directory"')
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
