"""The process that restarts in place: its pid, its arguments, and its service manager."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import zipapp
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process, descendants, program, ticks
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, PROGRAMS
from tests.restart.installed import Installed
from tests.restart.restarting import refused, restart, wait_for_lines
from tests.server.clients import LIMIT, assert_echo, open_tunnel
from tests.server.test_systemd import Manager, activate


def serve(bed: Bed, target: Target, *words: str) -> tuple[Process, str]:
    """Start ``words`` as a bridge to the target; return it and its URL."""
    process = bed.start(*words, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target.port}")
    return process, process.wait_for_line(r"ready on (wss?://[^\s,]+)")[1]


def assert_restarts(process: Process, url: str) -> None:
    """A tunnel lives through a restart, and another one can be opened."""
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)
        restart(process)
        assert_echo(tunnel)
        with open_tunnel(url) as another:
            assert_echo(another)


def test_process_1_of_a_container_restarts(bed: Bed, echo_target: Target) -> None:
    unshare = (program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
    outer, url = serve(bed, echo_target, *unshare, *OURS)
    (pid,) = descendants(outer.pid)
    with open_tunnel(url) as tunnel:
        for count in (1, 2):
            os.kill(pid, signal.SIGUSR2)
            wait_for_lines(outer, "restarted", count)
            assert_echo(tunnel)
        assert descendants(outer.pid) == [pid], "a zombie, or a trial that lives on"
        os.kill(pid, signal.SIGTERM)
        outer.wait_for_line("info draining")
    assert outer.wait(LIMIT) == 0


def test_it_is_the_same_process_with_the_same_words(bed: Bed, echo_target: Target) -> None:
    old = os.umask(0o027)
    try:
        process, url = serve(bed, echo_target, *OURS)
    finally:
        os.umask(old)
    own = Path(f"/proc/{process.pid}")

    def facts() -> dict[str, object]:
        umask = re.search(r"^Umask:.*$", (own / "status").read_text(), re.MULTILINE)
        limits = (own / "limits").read_text()
        return {
            "words": (own / "cmdline").read_bytes().split(b"\0")[1:],
            "folder": (own / "cwd").readlink(),
            "umask": umask and umask[0],
            "limits": limits,
            "signals": re.findall(r"^Sig(?:Blk|Ign|Cgt):.*$", (own / "status").read_text(), re.MULTILINE),
            "environment": sorted((own / "environ").read_bytes().split(b"\0")),
        }

    before = facts()
    assert_restarts(process, url)
    after = facts()
    # Nothing removes from /proc what the process has removed from its environment.
    after["environment"] = [each for each in facts()["environment"] if not each.startswith(b"_WSTUNNEL_PY_RESTART=")]  # type: ignore[attr-defined]
    assert after == before


@pytest.mark.parametrize("kind", ["command", "relative script", "single file", "uvloop"])
def test_it_restarts_however_it_was_started(bed: Bed, installed: Installed, echo_target: Target, kind: str) -> None:
    if kind == "command":
        process, url = serve(bed, echo_target, str(PROGRAMS / "wstunnel-py"))
    elif kind == "relative script":
        shutil.copytree(installed.folder, bed.folder / "relative")
        process, url = serve(bed, echo_target, sys.executable, "relative/wstunnel-py")
    elif kind == "single file":
        # Without the package beside it, so that all of it comes from the file.
        file = bed.folder / "wstunnel-py.pyz"
        installed.script.unlink()
        zipapp.create_archive(installed.folder, file, main="tunnel.cli.main:main")
        process, url = serve(bed, echo_target, sys.executable, "-P", "-E", "wstunnel-py.pyz")
    else:
        words = ("--target", f"127.0.0.1:{echo_target.port}", "--uvloop")
        process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", *words)
        url = process.wait_for_line(r"ready on (\S+) ")[1]
    assert_restarts(process, url)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0


def test_the_manager_hears_of_restarts(bed: Bed, installed: Installed, short_folder: Path, echo_target: Target) -> None:
    manager = Manager(f"{short_folder}/notify")
    try:
        process = bed.start(
            *(sys.executable, str(installed.script), "serve", "--listen", "127.0.0.1:0"),
            env={"NOTIFY_SOCKET": manager.name, "PYTHONPATH": ""},
        )
        assert manager.hear() == "READY=1"
        process.send_signal(signal.SIGUSR2)
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.hear())
        assert manager.hear() == "READY=1"
        wait_for_lines(process, "restarted", 1)
        installed.change("run.py", "def run(", "def run[")
        assert "SyntaxError" in refused(process)
        assert manager.hear().startswith("RELOADING=1")
        assert manager.hear() == "READY=1"
    finally:
        manager.close()


def test_sockets_of_systemd_and_files_of_sockets_are_kept(bed: Bed, echo_target: Target, short_folder: Path) -> None:
    theirs, ours = short_folder / "theirs", short_folder / "ours"
    target = ("--target", f"127.0.0.1:{echo_target.port}")
    process = activate(bed, f"tcp,{theirs}", "--listen", f"unix:{ours}", *target)
    port = process.wait_for_line(r"activated (\d+)")[1]
    process.wait_for_line("ready on")
    restart(process)
    restart(process)
    with open_tunnel(f"ws://127.0.0.1:{port}") as tunnel:
        assert_echo(tunnel)
    for path in (theirs, ours):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT)
        sock.connect(str(path))
        with sock, open_tunnel("ws://bridge.test/", sock=sock) as tunnel:
            assert_echo(tunnel)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    assert theirs.is_socket() and not ours.exists()


def test_the_file_with_the_number_of_the_process_stays(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "bridge.pid"
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--pidfile", str(path))
    process.wait_for_line("ready on")
    for _ in ticks(LIMIT):
        if path.exists():
            break
    inode = path.stat().st_ino
    assert path.read_text() == f"{process.pid}\n"
    restart(process)
    assert (path.read_text(), path.stat().st_ino) == (f"{process.pid}\n", inode)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    assert list(tmp_path.glob("bridge*")) == []


def test_a_file_that_cannot_be_written_any_more_ends_nothing(bed: Bed, echo_target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    options = ("--target", f"127.0.0.1:{echo_target.port}", "--pidfile", str(folder / "bridge.pid"))
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", *options)
    url = process.wait_for_line(r"ready on (\S+) ")[1]
    with open_tunnel(url) as tunnel:
        assert_echo(tunnel)
        shutil.rmtree(folder)
        restart(process)
        process.wait_for_line(
            f"wstunnel-py: warning: --pidfile: cannot use {folder}/bridge.pid: No such file or directory"
        )
        assert_echo(tunnel)


def test_files_that_cannot_be_removed_any_more_do_not_spoil_the_end(
    bed: Bed, installed: Installed, tmp_path: Path
) -> None:
    """As on a disk that has become read-only."""
    pidfile, sock = tmp_path / "bridge.pid", tmp_path / "s"
    text = "    fill_standard_descriptors()\n"
    refuse = f"    def unlink(path): raise OSError(30, 'Read-only file system', path)\n{text}    os.unlink = unlink\n"
    installed.change("run.py", text, refuse)
    words = ("serve", "--listen", f"unix:{sock}", "--pidfile", str(pidfile))
    process = bed.start(sys.executable, str(installed.script), *words, env={"PYTHONPATH": ""})
    for _ in ticks(LIMIT):
        if pidfile.exists():
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0, process.log()
    process.wait_for_line("warning")
    assert f'message="--pidfile: cannot remove {pidfile}: Read-only file system"' in process.log()


def test_signals_are_handled_once_the_pidfile_exists(bed: Bed, installed: Installed, tmp_path: Path) -> None:
    """The bridge gets SIGTERM in the very moment in which the file is there, and ends in good order."""
    block = "    try:\n        yield\n"
    installed.change("server/pidfile.py", block, f"    os.kill(os.getpid(), 15)\n{block}")
    words = ("serve", "--listen", "127.0.0.1:0", "--drain", "0", "--pidfile", str(tmp_path / "bridge.pid"))
    process = bed.start(sys.executable, str(installed.script), *words, env={"PYTHONPATH": ""})
    assert process.wait(LIMIT) == 0, process.log()


def test_the_file_of_another_process_is_left_alone(bed: Bed, tmp_path: Path) -> None:
    path = tmp_path / "bridge.pid"
    path.write_text("4000000\n")  # of a process that was killed
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--pidfile", str(path))
    for _ in ticks(LIMIT):
        if path.read_text() == f"{process.pid}\n":
            break
    path.write_text("1\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    assert path.read_text() == "1\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none/bridge.pid", "No such file or directory"), (".", "it is not a regular file")],
)
def test_a_file_that_cannot_be_written_stops_the_start(bed: Bed, tmp_path: Path, name: str, reason: str) -> None:
    finished = bed.run(*OURS, "serve", "--listen", "127.0.0.1:0", "--pidfile", str(tmp_path / name))
    assert finished.status == 2
    assert finished.stderr.splitlines()[-1] == f"wstunnel-py: --pidfile: cannot use {tmp_path / name}: {reason}"


def test_restarts_are_in_the_log_file(bed: Bed, echo_target: Target, tmp_path: Path) -> None:
    log, old = tmp_path / "log", tmp_path / "old"
    options = ("--log-format", "json", "--log-file", str(log), "--target", f"127.0.0.1:{echo_target.port}")
    process = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", *options)
    wait_for_events(log, ["ready"])
    process.send_signal(signal.SIGUSR2)
    wait_for_events(log, ["ready", "restart", "restarted"])
    log.rename(old)
    log.mkdir()  # what the new version could not write to
    process.send_signal(signal.SIGUSR2)
    wait_for_events(old, ["ready", "restart", "restarted", "restart-failed"])
    reason = json.loads(old.read_text().splitlines()[-1])["reason"]
    assert reason == f"the new version failed: --log-file: cannot use {log}: Is a directory"
    assert process.log() == ""


def test_files_that_were_open_at_the_start_are_open_for_the_trial(
    bed: Bed, echo_target: Target, tmp_path: Path
) -> None:
    """Options name them, as they do in a script that opens its files before it gives up its rights."""
    tokens, log = tmp_path / "tokens", tmp_path / "log"
    tokens.write_text("a-token-of-32-characters-at-least\n")
    tokens.chmod(0o600)
    opened = ("/bin/sh", "-c", f'exec "$@" 7<{tokens} 8>>{log}', "sh")
    options = ("--token-file", "/dev/fd/7", "--log-file", "/dev/fd/8", "--log-format", "json")
    target = ("--target", f"127.0.0.1:{echo_target.port}")
    process = bed.start(*opened, *OURS, "serve", "--listen", "127.0.0.1:0", *target, *options)
    wait_for_events(log, ["ready"])
    process.send_signal(signal.SIGUSR2)
    wait_for_events(log, ["ready", "restart", "restarted"])
    process.send_signal(signal.SIGUSR2)
    wait_for_events(log, ["ready", "restart", "restarted", "restart", "restarted"])


def wait_for_events(log: Path, expected: list[str]) -> None:
    events: list[str] = []
    for _ in ticks(LIMIT):
        if log.exists():
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            events = [line["event"] for line in lines if line["event"] not in ("note", "warning")]
            if events == expected:
                return
    raise AssertionError(f"{events} are not {expected}")
