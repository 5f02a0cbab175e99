"""With everything hidden that Windows or macOS lacks, the modules that run there still import and tunnel."""

from __future__ import annotations

import os
import re
import sys

import pytest

from tests.bed.built import ROOT
from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.bed.tunnels import OURS, start_bridge

HIDE = """
import _socket, asyncio, click, fcntl, os, select, signal, socket, ssl, subprocess, sys
def hide(place, *names):
    for name in names:
        if hasattr(place, name):
            delattr(place, name)
platform = sys.argv.pop(1)
for place in (socket, _socket):
    hide(place, "TCP_USER_TIMEOUT", "TCP_WINDOW_CLAMP", "TCP_QUICKACK", "SO_PEERCRED", "SO_BINDTODEVICE", "AF_NETLINK")
hide(os, "splice", "memfd_create", "eventfd", "pipe2", "pidfd_open", "posix_fadvise", "sched_getaffinity", "setresuid")
hide(select, "epoll")
hide(fcntl, "F_SETPIPE_SZ", "F_GETPIPE_SZ")
hide(signal, "pidfd_send_signal", "SIGRTMIN", "SIGRTMAX")
if platform == "win32":
    for name in ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"):
        sys.modules[name] = None
    hide(os, "chown", "fork", "geteuid", "getuid", "getgid", "getgroups", "killpg", "readv", "writev", "pread")
    hide(os, "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_DIRECTORY", "WNOHANG", "setsid", "sysconf")
    hide(select, "poll")
    hide(signal, "SIGHUP", "SIGPIPE", "SIGQUIT", "SIGCHLD", "SIGWINCH", "SIGUSR1", "SIGXFSZ", "SIGTSTP", "SIGKILL")
    hide(signal, "pthread_sigmask", "valid_signals")
sys.platform = platform
"""
RUN = f"""{HIDE}
from tunnel.cli.main import main
sys.exit(main())
"""
MANY_FILES = f"""{HIDE}
import resource, tunnel
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
files = [open(os.devnull) for _ in range(1100)]
with tunnel.open_socket(sys.argv[1], config=os.devnull) as sock:
    sock.sendall(b"x" * 1_000_000)
    sock.shutdown(socket.SHUT_WR)
    print(len(b"".join(iter(lambda: sock.recv(65536), b""))))
"""
# All is imported once before, so that other packages are those of this platform.
IMPORT = f"""
import importlib, pkgutil, sys
import tunnel
names = [module.name for module in pkgutil.walk_packages(tunnel.__path__, "tunnel.")]
for name in names:
    importlib.import_module(name)
for name in ["tunnel", *names]:
    del sys.modules[name]
{HIDE}
for name in names:
    if not (name + ".").startswith(tuple(sys.argv[1:])):
        try:
            importlib.import_module(name)
        except Exception as exc:
            print(f"{{name}}: {{exc!r}}")
"""
IMPORT_TESTS = f"""
import importlib, sys
names = sys.argv[2:]
for name in names:
    importlib.import_module(name)
for name in [*sys.modules]:
    if name.partition(".")[0] in ("tests", "tunnel"):
        del sys.modules[name]
{HIDE}
for name in names:
    try:
        importlib.import_module(name)
    except Exception as exc:
        print(f"{{name}}: {{exc!r}}")
"""
# What serves terminals and an SSH server of its own, looks after children or restarts in place: on POSIX systems only.
POSIX = (
    "tunnel.children.", "tunnel.restart.course.", "tunnel.restart.trial.", "tunnel.pty.server.", "tunnel.pty.web.",
    "tunnel.ssh.server.", "tunnel.ssh.embedded.", "tunnel.ssh.logins.", "tunnel.ssh.server_process.",
)  # fmt: skip


@pytest.mark.parametrize(("platform", "skipped"), [("win32", POSIX), ("darwin", ())])
def test_every_module_imports_without_what_the_platform_lacks(
    bed: Bed, platform: str, skipped: tuple[str, ...]
) -> None:
    done = bed.check(sys.executable, "-c", IMPORT, platform, *skipped)
    assert done.text == ""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_test_that_workflows_run_there_imports_without_what_the_platform_lacks(bed: Bed, platform: str) -> None:
    (array,) = re.findall(r"(?ms)^ANYWHERE=\(.*?^\)", (ROOT / "scripts" / "test").read_text())
    listed = bed.check("bash", "-c", f'{array}\nprintf "%s\\n" "${{ANYWHERE[@]}}"').text.split()
    files = {ROOT / "tests" / "conftest.py"}
    for path in (ROOT / name for name in listed):
        files.update(path.glob("test_*.py") if path.is_dir() else [path])
    files.update(path.with_name("conftest.py") for path in list(files) if path.with_name("conftest.py").exists())
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(files)]
    assert len(names) > 20
    assert bed.check(sys.executable, "-c", IMPORT_TESTS, platform, *names).text == ""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
@pytest.mark.parametrize("options", [(), ("--no-resume",)], ids=["resumable", "plain"])
def test_a_client_without_what_the_platform_lacks_carries_every_byte(
    bed: Bed, echo_target: Target, platform: str, options: tuple[str, ...]
) -> None:
    data = os.urandom(2_000_001)
    url = start_bridge(bed, "ours", echo_target.port).url
    done = bed.run(sys.executable, "-c", RUN, platform, "connect", *options, url, stdin=data)
    assert (done.status, done.stdout, done.stderr) == (0, data, "")


def test_a_program_on_macos_may_have_more_files_open_than_select_takes(bed: Bed, echo_target: Target) -> None:
    url = start_bridge(bed, "ours", echo_target.port).url
    assert bed.check(sys.executable, "-c", MANY_FILES, "darwin", url).text == "1000000\n"


def test_a_bridge_on_macos_needs_nothing_of_linux(bed: Bed, echo_target: Target) -> None:
    target = f"127.0.0.1:{echo_target.port}"
    bridge = bed.start(sys.executable, "-c", RUN, "darwin", "serve", "--listen", "127.0.0.1:0", "--target", target)
    url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
    data = os.urandom(2_000_001)
    done = bed.run(*OURS, "connect", url, stdin=data)
    assert (done.status, done.stdout, done.stderr) == (0, data, "")
    bridge.end()
    assert "error" not in bridge.log()
