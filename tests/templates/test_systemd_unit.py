"""The units for plain hosts: systemd takes them, finds little exposed, and the bridge runs under their restrictions.

No systemd runs where the tests do. What it does to a service before it starts is done here with the same means:
sockets are passed, and what the unit forbids is forbidden by the kernel.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.server.clients import LIMIT, assert_echo, open_tunnel
from tests.server.test_systemd import ACTIVATE, Manager
from tunnel.server.settings import DEFAULT_LISTEN, BridgeSettings

UNITS = Path(__file__).parents[2] / "templates" / "systemd"
PROGRAM = "/opt/wstunnel-py/bin/wstunnel-py"
OURS = Path(sys.executable).parent / "wstunnel-py"
MOST_EXPOSURE = 15  # in tenths; a service without any restriction has 96
TOKEN = "a-token-of-the-test"

# MemoryDenyWriteExecute= and SystemCallFilter=, as systemd sets them, for the program that takes this one's place.
CONFINE = """
import ctypes, errno, json, os, sys
import pyseccomp
allowed = json.loads(sys.argv[1])
rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
for name in allowed:
    try:
        rules.add_rule(pyseccomp.ALLOW, name)
    except (OSError, ValueError, RuntimeError):
        pass  # another architecture's
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) and ctypes.get_errno() != errno.EINVAL:  # before Linux 6.3
    sys.exit("MDWE: " + os.strerror(ctypes.get_errno()))
rules.load()
os.execv(sys.argv[2], sys.argv[2:])
"""


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values in the order of the file."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, in which the program is where it is on this machine."""
    folder = tmp_path / "units"
    shutil.copytree(UNITS, folder)
    service = folder / "wstunnel-py.service"
    text = service.read_text()
    assert f"ExecStart={PROGRAM} serve " in text
    service.write_text(text.replace(PROGRAM, str(OURS)))
    return folder


def test_systemd_has_nothing_to_say_against_the_units(bed: Bed, units: Path) -> None:
    names = [str(units / f"wstunnel-py.{kind}") for kind in ("service", "socket")]
    finished = bed.check("systemd-analyze", "verify", "--man=no", *names)
    assert (finished.text, finished.stderr) == ("", "")


def test_what_systemd_would_object_to_is_seen(bed: Bed, units: Path) -> None:
    with (units / "wstunnel-py.service").open("a") as service:
        service.write("[Service]\nProtectSystems=strict\n")
    finished = bed.run("systemd-analyze", "verify", "--man=no", str(units / "wstunnel-py.service"))
    assert re.search(r"Unknown key.* 'ProtectSystems'", finished.stderr)


def test_systemd_finds_little_exposed(bed: Bed, units: Path) -> None:
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}")
    finished = bed.run(*command, str(units / "wstunnel-py.service"))
    assert finished.status == 0, finished.text


def test_it_is_given_more_time_to_stop_than_tunnels_have_to_end() -> None:
    service = unit("wstunnel-py.service")
    (command,), (stop,), (descriptors,) = service["ExecStart"], service["TimeoutStopSec"], service["LimitNOFILE"]
    assert "--drain" not in command and float(stop) > BridgeSettings().drain
    assert "--max-tunnels" not in command and int(descriptors) > 2 * BridgeSettings().max_tunnels


def test_the_socket_listens_where_the_other_templates_do() -> None:
    assert unit("wstunnel-py.socket")["ListenStream"] == [DEFAULT_LISTEN.rpartition(":")[2]]


def allowed_calls(bed: Bed, filters: list[str]) -> list[str]:
    """The system calls that ``SystemCallFilter=`` lines allow, by name."""

    def members(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        lines = bed.check("systemd-analyze", "--no-pager", "syscall-filter", name).text.splitlines()[1:]
        words = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        return set().union(*map(members, words))

    allowed: set[str] = members("@default")
    for line in filters:
        for word in line.lstrip("~").split():
            allowed = allowed - members(word) if line.startswith("~") else allowed | members(word)
    return sorted(allowed)


def test_the_bridge_runs_under_the_restrictions(
    bed: Bed, echo_target: Target, short_folder: Path, tmp_path: Path
) -> None:
    service = unit("wstunnel-py.service")
    assert service["MemoryDenyWriteExecute"] == ["yes"]
    calls = allowed_calls(bed, service["SystemCallFilter"])
    assert "epoll_wait" in calls and "mount" not in calls and "setrlimit" not in calls
    # LoadCredential= puts the file where the service alone can read it.
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    command = service["ExecStart"][0].replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    words = shlex.split(command.replace("127.0.0.1:22", f"127.0.0.1:{echo_target.port}"))
    assert words[0] == PROGRAM
    drop = ("setpriv", "--no-new-privs", *(("--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()))
    manager = Manager(f"{short_folder}/notify")
    try:
        process = bed.start(
            *(sys.executable, "-c", ACTIVATE, ",tcp", shutil.which("setpriv") or "", *drop[1:]),
            *(sys.executable, "-c", CONFINE, json.dumps(calls), str(OURS), *words[1:]),
            env={"NOTIFY_SOCKET": manager.name},
        )
        port = process.wait_for_line(r"activated (\d+)")[1]
        line = process.wait_for_line(r"bridge ready on (ws://127\.0\.0\.1:(\d+)) → .* \(auth: (\S+),")
        assert (line[2], line[3]) == (port, "token")
        assert manager.hear() == "READY=1"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE) and re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
        with open_tunnel(line[1], headers={"Authorization": f"Bearer {TOKEN}"}) as tunnel:
            assert_echo(tunnel)
        assert "warning" not in process.log()
        assert service["ExecReload"] == ["/bin/kill -USR2 $MAINPID"]
        with open_tunnel(line[1], headers={"Authorization": f"Bearer {TOKEN}"}) as tunnel:
            process.send_signal(signal.SIGUSR2)
            assert manager.hear().startswith("RELOADING=1")
            assert manager.hear() == "READY=1"
            assert_echo(tunnel)
        process.wait_for_line(" restarted ")
        assert "restart-failed" not in process.log()
        process.send_signal(signal.SIGTERM)
        assert manager.hear() == "STOPPING=1"
        assert process.wait(LIMIT) == 0
    finally:
        manager.close()
