"""Ports carried by ssh through the tunnel: -L, -R and -D, and the very calls that VS Code Remote-SSH makes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.bed.processes import Bed, Process, free_port, wait_for_port
from tests.bed.targets import Target, checksum
from tests.bed.tunnels import Route
from tests.bed.web import PAGE, serve_page


@pytest.fixture(scope="module")
def web() -> Iterator[Target]:
    """A web server beside the sshd."""
    with serve_page() as target:
        yield target


def assert_page(bed: Bed, *curl: str) -> None:
    finished = bed.check("curl", "--silent", "--show-error", "--max-time", "20", *curl)
    assert checksum(finished.stdout) == checksum(PAGE)


def test_a_local_port_is_forwarded_to_the_far_side(bed: Bed, route: Route, web: Target) -> None:
    port = free_port()
    session = bed.start(*route.ssh("-N", "-L", f"{port}:127.0.0.1:{web.port}", "box"))
    wait_for_port(port, session)
    for _ in range(3):
        assert_page(bed, f"http://127.0.0.1:{port}/")


def test_a_remote_port_is_forwarded_back(bed: Bed, route: Route, web: Target) -> None:
    session = bed.start(*route.ssh("-N", "-o", "LogLevel=INFO", "-R", f"0:127.0.0.1:{web.port}", "box"))
    port = session.wait_for_line(r"Allocated port (\d+)")[1]
    for _ in range(3):
        assert_page(bed, f"http://127.0.0.1:{port}/")


def test_a_socks_port_reaches_any_address(bed: Bed, route: Route, web: Target) -> None:
    port = free_port()
    session = bed.start(*route.ssh("-N", "-D", str(port), "box"))
    wait_for_port(port, session)
    assert_page(bed, "--socks5-hostname", f"127.0.0.1:{port}", f"http://localhost:{web.port}/")


def test_vs_code_remote_ssh_installs_its_server_and_reaches_it(bed: Bed, route: Route, web: Target) -> None:
    """Remote-SSH feeds a script to bash, reads the server's port from its output and talks to it by SOCKS.

    It opens several of these at once, and keeps each one's standard input open as long as its window lives.
    """
    script = f"""\
        uname -rsv
        mkdir -p ~ && printf 'listeningOn==%s==\\n' {web.port}
        """
    windows: list[tuple[Process, int]] = []
    for _ in range(4):
        port = free_port()
        ssh = route.ssh("-v", "-T", "-D", str(port), "-o", "ConnectTimeout=15", "box", "bash")
        windows.append((bed.start(*ssh, stdin=subprocess.PIPE), port))
    for window, _ in windows:
        window.feed(script.encode())
    for window, port in windows:
        found = window.wait_for_line(r"listeningOn==(\d+)==")[1]
        assert_page(bed, "--socks5-hostname", f"127.0.0.1:{port}", f"http://127.0.0.1:{found}/")
    for window, _ in windows:
        window.end_input()
        assert window.wait(20) == 0
