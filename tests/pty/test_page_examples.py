"""The seven examples of E2B's documentation page on terminals, in Python with our API, in the order of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.pty.beds import Output, start_service
from tunnel import Sandbox


@pytest.fixture(scope="module")
def url(shared_bed: Bed) -> Iterator[str]:
    service = start_service(shared_bed)
    yield service.url
    service.process.end()


@pytest.fixture
def sandbox(url: str) -> Iterator[Sandbox]:
    with Sandbox(url) as sandbox:
        yield sandbox


@pytest.fixture
def shown() -> Output:
    """The standard output of the examples."""
    return Output()


def test_the_page_s_example_of_creating_a_terminal_works(sandbox: Sandbox, shown: Output, tmp_path: Path) -> None:
    terminal = sandbox.pty.create(
        cols=80,  # Terminal width in characters
        rows=24,  # Terminal height in characters
        on_data=shown,  # Called whenever terminal outputs data
        envs={"MY_VAR": "hello"},  # Optional environment variables
        cwd=str(tmp_path),  # Optional working directory
        user="root",  # Optional user to run as
    )
    assert terminal.pid > 0
    terminal.send_stdin(b"echo $MY_VAR-$(id -un)-$PWD-$TERM; tput colors\n")
    shown.wait_for(f"hello-root-{tmp_path}-xterm-256color\r\n256".encode())
    terminal.kill()


def test_the_page_s_example_of_a_terminal_without_a_time_limit_works(sandbox: Sandbox, shown: Output) -> None:
    terminal = sandbox.pty.create(
        cols=80,
        rows=24,
        on_data=shown,
        timeout=0,  # Keep the session open indefinitely
    )
    assert terminal.kill()


def test_the_page_s_example_of_input_works(sandbox: Sandbox, shown: Output) -> None:
    terminal = sandbox.pty.create(cols=80, rows=24, on_data=shown)
    # Send a command (don't forget the newline!)
    sandbox.pty.send_input(terminal.pid, b'echo "Hello from PTY"\n')
    shown.wait_for_line(b"Hello from PTY")
    terminal.kill()


def test_the_page_s_example_of_resizing_works(sandbox: Sandbox, shown: Output) -> None:
    terminal = sandbox.pty.create(cols=80, rows=24, on_data=shown)
    # Resize to new dimensions (in characters)
    sandbox.pty.resize(terminal.pid, cols=120, rows=40)
    terminal.send_stdin(b"stty size\n")
    shown.wait_for_line(b"40 120")
    terminal.kill()


def test_the_page_s_example_of_reconnecting_works(sandbox: Sandbox) -> None:
    handler_1, handler_2 = Output(), Output()
    terminal = sandbox.pty.create(cols=80, rows=24, on_data=handler_1)
    pid = terminal.pid
    sandbox.pty.send_input(pid, b"echo hello\n")
    handler_1.wait_for_line(b"hello")

    # Disconnect - PTY keeps running in the background
    terminal.disconnect()

    # Later: reconnect with a new data handler
    reconnected = sandbox.pty.connect(pid, on_data=handler_2)

    # Continue using the session
    sandbox.pty.send_input(pid, b"echo world\n")
    handler_2.wait_for_line(b"world")

    # Wait for the terminal to exit
    sandbox.pty.send_input(pid, b"exit\n")
    assert reconnected.wait().exit_code == 0
    assert b"world" not in handler_1.data


def test_the_page_s_example_of_killing_works(sandbox: Sandbox, shown: Output) -> None:
    terminal = sandbox.pty.create(cols=80, rows=24, on_data=shown)
    killed = sandbox.pty.kill(terminal.pid)
    assert killed  # True if successful
    # Or use the handle method
    assert not terminal.kill()


def test_the_page_s_example_of_waiting_works(sandbox: Sandbox, shown: Output) -> None:
    terminal = sandbox.pty.create(cols=80, rows=24, on_data=shown)
    sandbox.pty.send_input(terminal.pid, b"exit\n")
    result = terminal.wait()
    assert result.exit_code == 0
