"""When a service is killed, no child stays, whichever user it runs as."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.bed.processes import Bed, Process, descendants
from tests.bed.sshd import Sshd
from tests.bed.tunnels import start_embedded
from tests.pty.beds import Service, alive, start_service
from tests.pty.raw import Raw, eventually

DEAF = "trap '' HUP TERM INT; echo ready; exec sleep 600"
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")


@pytest.fixture(params=["setpriv", "Python"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """PATH with setpriv, and without it."""
    for name in ("sh", "sleep", "cat", "mkdir", "dirname"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    return os.environ["PATH"] if request.param == "setpriv" else str(tmp_path)


class OtherPath(Bed):
    """A bed whose programs have another PATH; ``bed`` ends them."""

    def __init__(self, bed: Bed, path: str) -> None:
        self._bed, self._path = bed, path

    def start(self, *argv: str, stdin: Path | int | None = None, env: Mapping[str, str] | None = None) -> Process:
        return self._bed.start(*argv, stdin=stdin, env={**(env or {}), "PATH": self._path})


def kill(service: Service) -> None:
    service.process.send_signal(signal.SIGKILL)
    service.process.wait(10)


def ends(*pids: int) -> bool:
    return eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("user", ["", pytest.param("nobody", marks=root)])
def test_programs_on_terminals_and_pipes_end(bed: Bed, path: str, user: str) -> None:
    service = start_service(OtherPath(bed, path), *(["--pty-user", user] if user else []))
    with Raw(service.url) as raw:
        streams = [raw.terminal("/bin/sh", "-c", DEAF, cwd="/"), raw.pipes("/bin/sh", "-c", DEAF, cwd="/")]
        for stream in streams:
            stream.wait_for(b"ready")
        kill(service)
        assert ends(*(stream.pid for stream in streams))


@contextlib.contextmanager
def slow_reader(service: Service, file: Path) -> Iterator[socket.socket]:
    """A client that requests a file and does not read it."""
    place = urlsplit(service.url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((place.hostname, place.port))
        sock.sendall(f"GET /files?path={file} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        yield sock


def test_helpers_for_files_end(bed: Bed, path: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.truncate(100 << 20)
    service = start_service(OtherPath(bed, path))
    with slow_reader(service, file):
        assert eventually(lambda: descendants(service.process.pid))
        helpers = descendants(service.process.pid)
        kill(service)
        assert ends(*helpers)


def test_the_process_of_the_embedded_ssh_server_ends_even_when_it_hangs(bed: Bed, sshd: Sshd) -> None:
    """It is stopped; otherwise it would end when its control socket is closed."""
    bridge = start_embedded(bed, sshd)
    (listener,) = descendants(bridge.process.pid)
    os.kill(listener, signal.SIGSTOP)
    bridge.process.send_signal(signal.SIGKILL)
    assert ends(listener)


@pytest.mark.parametrize("forks", [False, True])
def test_a_child_whose_parent_has_ended_before_it_could_ask_does_not_run(tmp_path: Path, forks: bool) -> None:
    """A process that is not a child runs the code that children run between fork and exec."""
    mark = tmp_path / "ran"
    script = (
        "import os, subprocess, sys\n"
        "from tunnel.children.parent_death import RUN, tied\n"
        f"words, ask = tied(RUN, ['/usr/bin/touch', {str(mark)!r}], forks={forks})\n"
        "if os.fork():\n    os.wait()\n    sys.exit()\n"
        "sys.exit(subprocess.Popen(words, preexec_fn=ask).wait())\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
    assert not mark.exists()


def test_children_end_with_the_service_and_not_with_another_thread_of_it() -> None:
    """For the kernel, the parent is the thread that started the child."""
    script = (
        "import threading\nfrom tunnel.children.child import start\n"
        "child = start(['/bin/sleep', '0.5'])\n"
        "threading.Thread(target=lambda: None).start()\n"
        "print(child.reap())\n"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=20).stdout
    assert output == b"0\n"
