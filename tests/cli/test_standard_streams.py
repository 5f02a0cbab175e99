"""Standard streams that are closed, full, or read by nobody: every command reports that or works without them."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, ticks
from tests.bed.tunnels import OURS
from tests.pty.beds import Service, alive, start_service

LIMIT = 30.0
BRIDGE, SERVICE = "ws://127.0.0.1:1", "http://127.0.0.1:1"  # nothing is listening there
COMMANDS = {  # words → the exit code when all is well, and whether the command prints something
    ("--help",): (0, True),
    ("--version",): (0, True),
    ("serve", "--help"): (0, True),
    ("serve", "--listen", "none"): (2, False),
    ("websocat", "-b", BRIDGE, "tcp:127.0.0.1:1"): (69, False),
    ("doctor", BRIDGE): (69, True),
    ("shell", SERVICE): (255, False),
    ("pty", "ps", SERVICE): (69, False),
    ("pty", "kill", SERVICE, "1"): (69, False),
    ("config-ssh", "box"): (0, True),
    ("config-ssh", "--diff", "box"): (1, True),
    ("keys", "token"): (0, True),
    ("keys", "show", "key.pub"): (0, True),
    ("certs", "show", "pki/ca.pem"): (0, True),
    ("completion", "fish"): (0, True),
}
FULL = "wstunnel-py: cannot write to standard output: No space left on device\n"


@pytest.fixture(scope="module")
def folder(shared_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands show."""
    folder = tmp_path_factory.mktemp("shown")
    shared_bed.check(*OURS, "keys", "host", str(folder / "key"))
    shared_bed.check(*OURS, "certs", "ca", str(folder / "pki"))
    return folder


@pytest.fixture(scope="module")
def service(shared_bed: Bed) -> Iterator[Service]:
    service = start_service(shared_bed)
    yield service
    service.process.end()


def start(bed: Bed, redirection: str, *words: str) -> Process:
    """Start our program by a shell that has redirected its standard streams."""
    return bed.start("sh", "-c", f'exec "$@" {redirection}', "sh", *OURS, *words)


def run_all(bed: Bed, folder: Path, redirection: str) -> Iterator[tuple[tuple[str, ...], int, str]]:
    """Run all commands, two at a time; yield their words, exit codes and lines on standard error."""
    waiting = [tuple(str(folder / word) if "key." in word or "pki/" in word else word for word in c) for c in COMMANDS]
    for at in range(0, len(waiting), 2):
        running = [start(bed, redirection, *words) for words in waiting[at : at + 2]]
        for words, process in zip(list(COMMANDS)[at : at + 2], running, strict=True):
            yield words, process.wait(LIMIT), process.err.read_text()


# ---- every command


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>/dev/full <&-", "<&- >&- 2>&-"])
def test_a_stream_that_nobody_has_opened_or_reads_changes_no_exit_code(
    bed: Bed, folder: Path, redirection: str
) -> None:
    for words, status, errors in run_all(bed, folder, redirection):
        assert (words, status) == (words, COMMANDS[words][0]), errors
        assert errors.count("\n") <= 1


@pytest.mark.parametrize("redirection", [">/dev/full", ">/dev/full 2>/dev/full"])
def test_output_that_cannot_be_written_is_reported_in_one_line(bed: Bed, folder: Path, redirection: str) -> None:
    for words, status, errors in run_all(bed, folder, redirection):
        usual, prints = COMMANDS[words]
        assert (words, status) == (words, 74 if prints else usual), errors
        if prints:
            assert errors == (FULL if "2>" not in redirection else "")


def test_a_reader_that_has_gone_ends_a_command_without_a_word(bed: Bed, folder: Path) -> None:
    closed = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execv(sys.argv[1], sys.argv[1:])"
    for words in (("--help",), ("doctor", BRIDGE), ("keys", "token"), ("forward", "0", BRIDGE)):
        done = bed.run(sys.executable, "-c", closed, *OURS, *words)
        assert (words, done.status, done.stderr) == (words, 141, "")


def test_a_slow_reader_gets_all_of_it_from_a_pipe_that_others_have_made_non_blocking() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with subprocess.Popen([*OURS, "serve", "--help"], stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        time.sleep(1.0)
        with open(reader, "rb") as pipe:
            text = pipe.read()
        assert process.wait(LIMIT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert len(text) > 8192
    assert text.rstrip().endswith(b"--help") or b"--help" in text[-200:]


# ---- those that go on


def wait_for_socket(path: Path) -> None:
    for _ in ticks(LIMIT):
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(str(path)) == 0:
                return
    raise AssertionError(f"nothing listens at {path}")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_forward_goes_on_without(bed: Bed, short_folder: Path, redirection: str) -> None:
    path = short_folder / "port"
    process = start(bed, redirection, "forward", f"unix:{path}", BRIDGE)
    wait_for_socket(path)
    opened = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
    assert not any(name.startswith(("socket:", "anon_inode:")) for name in opened.values()), opened
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) in (143, -signal.SIGTERM)  # the latter if it had only just begun to listen
    assert "internal error" not in process.log()


def test_forward_that_cannot_say_where_it_listens_ends(bed: Bed) -> None:
    process = start(bed, ">/dev/full", "forward", "0", BRIDGE)
    assert (process.wait(LIMIT), process.log()) == (74, FULL)


@pytest.mark.parametrize("redirection", ["<&-", "<&- 2>&-"])
def test_a_shell_without_standard_input_is_at_its_end(bed: Bed, service: Service, redirection: str) -> None:
    process = start(bed, redirection, "shell", service.url, "--", "sh", "-c", "cat; echo over; exit 3")
    assert process.wait(LIMIT) == 3
    assert "over" in process.log()


def test_a_signal_to_a_shell_without_standard_input_is_not_typed(bed: Bed, service: Service, tmp_path: Path) -> None:
    typed = tmp_path / "typed"
    script = f"stty raw -echo; : >{typed}; echo pid=$$; exec cat >{typed}"
    process = start(bed, "<&-", "shell", service.url, "--", "sh", "-c", script)
    pid = int(process.wait_for_line(r"pid=(\d+)")[1])
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 143
    for _ in ticks(LIMIT):
        if not alive(pid):
            break
    assert not alive(pid)
    # Ctrl-D, which a terminal that is switched to raw mode behind it passes on as a NUL.
    assert set(typed.read_bytes()) <= {0, 4}


def test_a_shell_without_standard_output_runs_its_command(bed: Bed, service: Service) -> None:
    assert start(bed, ">&-", "shell", service.url, "--", "sh", "-c", "echo lost; exit 5").wait(LIMIT) == 5


def test_a_shell_whose_output_is_full_says_so(bed: Bed, service: Service) -> None:
    process = start(bed, ">/dev/full", "shell", service.url, "--", "echo", "lost")
    assert (process.wait(LIMIT), process.log()) == (255, FULL)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_ssh_and_shells_read_is_utf_8_in_every_locale(bed: Bed, encoding: str) -> None:
    config = bed.folder / "config.toml"
    config.write_text('[hosts."bücks"]\nurl = "ws://127.0.0.1:1"\nidentity-file = "/ключ"\n', "utf-8")
    env = {"PYTHONIOENCODING": encoding}
    lines = bed.check(*OURS, "config-ssh", "--config", str(config), "bücks", env=env).stdout.decode()
    assert "Host bücks\n" in lines and "IdentityFile /ключ\n" in lines
    folder = bed.folder / "home" / "wstunnel-py"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_bytes(config.read_bytes())
    asked = {"_WSTUNNEL_PY_COMPLETE": "bash_complete", "COMP_WORDS": "wstunnel-py connect b", "COMP_CWORD": "2"}
    found = bed.run(*OURS, env={**env, **asked, "XDG_CONFIG_HOME": str(folder.parent)})
    assert found.stdout.decode() == "plain,bücks\n"
