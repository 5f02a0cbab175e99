"""The embedded SSH server with OpenSSH's client, beyond what tests/interop tests with every route."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from asyncssh.kex import get_kex_algs

import tunnel
from tests.bed.processes import Bed, Process, descendants, free_port, ticks
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS, Route, assert_sessions_answer
from tests.bed.web import PAGE, serve_page
from tests.faults.link import Link
from tests.pty.typist import Typist
from tests.server.clients import port_of
from tests.ssh.conftest import StartEmbedded

LIMIT = 30.0  # seconds for any single wait
SESSIONS = 100
SCRIPT = "echo ready; read word; echo got $word"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(*pids: int) -> None:
    for _ in ticks(LIMIT):
        if not any(map(is_alive, pids)):
            return
    raise AssertionError([pid for pid in pids if is_alive(pid)])


def connections(route: Route) -> list[int]:
    """The processes behind the bridge, except the listener."""
    return descendants(route.bridge.process.pid)[1:]


def wait_until_idle(route: Route) -> None:
    for _ in ticks(LIMIT):
        if not connections(route):
            return
    raise AssertionError(connections(route))


def reported_pid(session: Process) -> int:
    """The pid that a remote command prints first."""
    return int(session.wait_for_line(r"pid=(\d+)")[1])


# ---- sessions


def test_a_login_finds_its_home_and_its_environment(bed: Bed, shared_embedded: Route) -> None:
    options = ("-o", "SetEnv=FAVOURITE=blue LC_ALL=C.UTF-8")
    script = 'pwd; echo "$HOME $USER $LOGNAME $SHELL"; echo "$FAVOURITE $LC_ALL"; echo "$SSH_CONNECTION"; env'
    lines = bed.check(*shared_embedded.ssh(*options, "box", script)).text.splitlines()
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert lines[0] == home and lines[1].split()[0] == home
    assert lines[2] == "blue C.UTF-8"
    assert re.fullmatch(r"127\.0\.0\.1 \d+ 127\.0\.0\.1 22", lines[3])
    assert not [line for line in lines if line.startswith(("WSTUNNEL_PY_", "SSH_TTY="))]


def test_an_interactive_shell_resizes_and_ends_while_jobs_go_on(shared_embedded: Route) -> None:
    with Typist(*shared_embedded.ssh("-t", "box", "exec sh"), rows=31, cols=97) as typist:
        typist.type("stty size; tty; echo TERM=$TERM; test $SSH_TTY = $(tty) && echo same\n")
        typist.see("31 97")
        typist.see("/dev/pts/")
        typist.see("TERM=xterm")
        typist.see("same")
        typist.resize(12, 34)
        typist.type('until [ "$(stty size)" = 12\\ 34 ]; do sleep 0.1; done; stty size\n')
        typist.see("12 34")
        typist.type("sleep 100 & sh -c 'echo be''gun; exec sleep 99'\n")
        typist.see("begun")  # printed by sh, which reads the keys now: bash may lose one while it starts a command
        typist.type("\x03")
        typist.see("^C")
        typist.type("echo $((40 + 2)); exit 5\n")
        typist.see("42")
        assert typist.wait() == 5


def test_a_session_without_a_command_runs_a_login_shell(bed: Bed, shared_embedded: Route) -> None:
    session = bed.start(*shared_embedded.ssh("-tt", "box"), stdin=subprocess.PIPE)
    session.feed(b"shopt login_shell; exit 4\n")
    assert session.wait(LIMIT) == 4
    assert re.search(r"login_shell\s+on", session.log())


def test_terminal_modes_of_the_client_are_set(shared_embedded: Route) -> None:
    with Typist(
        "sh", "-c", f"stty intr ^B -ixon; exec {' '.join(shared_embedded.ssh('-t', 'box', 'stty -a'))}"
    ) as typist:
        typist.see("intr = ^B")
        typist.see("-ixon")
        assert typist.wait() == 0


def test_a_shell_that_does_not_exist_is_not_run(bed: Bed, shared_embedded: Route) -> None:
    finished = bed.run(*shared_embedded.ssh("box", "no-such-command-at-all"))
    assert finished.status == 127 and "not found" in finished.stderr
    finished = bed.run(*shared_embedded.ssh("-s", "box", "no-such-subsystem"))
    assert finished.status != 0


def test_what_no_process_can_be_given_is_reported(shared_embedded: Route, sshd: Sshd) -> None:
    async def work() -> None:
        async with tunnel.ssh.connect(shared_embedded.bridge.url, host_key_alias="bed", **sshd.asyncssh) as connection:
            for command, env in (("echo \0", {}), ("echo", {"NAME": "a\0b"})):
                finished = await connection.run(command, env=env)
                assert finished.exit_status == 126 and "cannot start" in str(finished.stderr)
            finished = await connection.run("ulimit -n; echo still here", env={"": "x", "A=B": "y"})
            limit, last = str(finished.stdout).splitlines()
            assert int(limit) == resource.getrlimit(resource.RLIMIT_NOFILE)[0] and last == "still here"

    asyncio.run(work())


def test_keepalives_of_the_client_are_answered(bed: Bed, shared_embedded: Route) -> None:
    options = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=5")  # some, for a machine that is busy
    assert bed.check(*shared_embedded.ssh(*options, "box", "sleep 8; echo done")).text == "done\n"


def test_a_forwarded_agent_is_there_while_the_session_is(bed: Bed, shared_embedded: Route, sshd: Sshd) -> None:
    agent = bed.folder / "agent"
    bed.start("ssh-agent", "-D", "-a", str(agent))
    for _ in ticks(LIMIT):
        if agent.exists():
            break
    env = {"SSH_AUTH_SOCK": str(agent)}
    bed.check("ssh-add", "-q", str(sshd.folder / "user"), env=env)
    ssh = shared_embedded.ssh("-A", "-o", f"IdentityAgent={agent}", "box", "echo $SSH_AUTH_SOCK; ssh-add -L")
    path, key = bed.check(*ssh, env=env).text.splitlines()
    assert key.split()[1] == (sshd.folder / "user.pub").read_text().split()[1]
    wait_until_idle(shared_embedded)
    assert not Path(path).exists() and not Path(path).parent.exists()
    assert bed.check(*shared_embedded.ssh("box", "echo ${SSH_AUTH_SOCK-none}"), env=env).text == "none\n"


def test_agent_forwarding_can_be_switched_off(bed: Bed, embedded: StartEmbedded, sshd: Sshd) -> None:
    agent = bed.folder / "agent"
    bed.start("ssh-agent", "-D", "-a", str(agent))
    for _ in ticks(LIMIT):
        if agent.exists():
            break
    ssh = embedded("--no-agent-forwarding").ssh("-A", "-o", f"IdentityAgent={agent}", "box", "env")
    assert "SSH_AUTH_SOCK" not in bed.check(*ssh, env={"SSH_AUTH_SOCK": str(agent)}).text


def test_key_exchanges_for_the_time_of_quantum_computers_are_offered(
    bed: Bed, shared_embedded: Route, sshd: Sshd
) -> None:
    """The algorithms of asyncssh with the installed libraries; dropbear needs the plain one to be first."""
    wanted = [name.decode() for name in get_kex_algs() if name.startswith((b"mlkem768x25519", b"sntrup761"))]
    log = bed.run(*shared_embedded.ssh("-vv", "-o", "LogLevel=DEBUG2", "box", "true")).stderr
    offered = re.search(r"peer server KEXINIT proposal\r?\n.*KEX algorithms: (\S+)", log)
    assert offered is not None, log
    names = offered[1].split(",")
    assert names[0] == "curve25519-sha256" and set(wanted) <= set(names)

    async def log_in(name: str) -> str:
        options = {**sshd.asyncssh, "kex_algs": [name], "host_key_alias": "bed"}
        async with tunnel.ssh.connect(shared_embedded.bridge.url, **options) as connection:
            return str((await connection.run("echo in")).stdout)

    for name in wanted:
        assert asyncio.run(log_in(name)) == "in\n"


def test_unix_sockets_are_forwarded_both_ways(bed: Bed, shared_embedded: Route, short_folder: Path) -> None:
    with serve_page() as web:
        near, far, back = (str(short_folder / name) for name in ("near", "far", "back"))
        forwards = ("-R", f"{far}:127.0.0.1:{web.port}", "-L", f"{near}:{far}", "-R", f"{back}:{near}")
        session = bed.start(*shared_embedded.ssh("-N", *forwards, "box"))
        for _ in ticks(LIMIT):
            if all(map(os.path.exists, (near, far, back))):
                break
        for path in (near, back):
            page = bed.check("curl", "-sS", "--max-time", "20", "--unix-socket", path, "http://localhost/").stdout
            assert page == PAGE
        session.send_signal(signal.SIGTERM)
        session.wait(LIMIT)


def listeners(port: int) -> list[str]:
    """Return the local addresses, in the kernel's notation, of sockets that listen on ``port``."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]


def test_a_remote_port_listens_on_loopback_only_and_ends_with_the_session(bed: Bed, shared_embedded: Route) -> None:
    port = free_port()
    forward = ("-o", "ExitOnForwardFailure=yes", "-R", f"0.0.0.0:{port}:127.0.0.1:1")
    session = bed.start(*shared_embedded.ssh(*forward, "box", "echo up; cat"), stdin=subprocess.PIPE)
    session.wait_for_line("up")
    assert listeners(port) == ["0100007F"]
    session.end_input()
    assert session.wait(LIMIT) == 0
    for _ in ticks(LIMIT):
        if not listeners(port):
            break
    assert listeners(port) == []


def test_a_port_that_nobody_serves_is_refused_and_the_session_goes_on(bed: Bed, shared_embedded: Route) -> None:
    port = free_port()
    finished = bed.run(*shared_embedded.ssh("-W", f"127.0.0.1:{port}", "box"))
    assert (finished.status, finished.stderr) == (255, "stdio forwarding failed\n")
    assert bed.check(*shared_embedded.ssh("box", "echo still here")).text == "still here\n"


# ---- files


def test_sftp_does_what_people_do_in_it(bed: Bed, shared_embedded: Route, tmp_path: Path) -> None:
    (tmp_path / "near").write_bytes(os.urandom(300_000))
    commands = f"""\
        mkdir {tmp_path}/far
        cd {tmp_path}/far
        put -p {tmp_path}/near one
        rename one two
        symlink two three
        chmod 640 two
        df
        ls -l
        get three {tmp_path}/back
        rm three
        """
    finished = bed.check("sftp", "-F", str(shared_embedded.config), "-b", "-", "box", stdin=commands.encode())
    assert re.search(r"-rw-r-----.* two", finished.text)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "near").read_bytes()
    assert sorted(path.name for path in (tmp_path / "far").iterdir()) == ["two"]
    (tmp_path / "back").write_bytes((tmp_path / "near").read_bytes()[:100_000])
    resume = f"reget {tmp_path}/far/two {tmp_path}/back\n"
    bed.check("sftp", "-F", str(shared_embedded.config), "-b", "-", "box", stdin=resume.encode())
    assert (tmp_path / "back").read_bytes() == (tmp_path / "near").read_bytes()


def test_relative_paths_start_at_home(bed: Bed, shared_embedded: Route) -> None:
    shown = bed.check("sftp", "-F", str(shared_embedded.config), "-b", "-", "box", stdin=b"pwd\n").text
    home = bed.check(*shared_embedded.ssh("box", "cd; pwd")).text.strip()
    assert f"Remote working directory: {home}" in shown


def test_a_fifo_holds_nothing_up(bed: Bed, shared_embedded: Route, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("whole")
    commands = f"-get {tmp_path}/fifo {tmp_path}/never\nget {tmp_path}/file {tmp_path}/copy\n"
    bed.check("sftp", "-F", str(shared_embedded.config), "-b", "-", "box", stdin=commands.encode())
    assert (tmp_path / "copy").read_text() == "whole"


def test_legacy_scp_knows_patterns_and_says_what_is_missing(bed: Bed, shared_embedded: Route, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    for name in ("a.txt", "b.txt", "c.dat"):
        (tmp_path / "far" / name).write_text(name)
    scp = ("scp", "-O", "-q", "-F", str(shared_embedded.config))
    bed.check(*scp, f"box:{tmp_path}/far/*.txt", str(tmp_path / "near"))
    assert sorted(path.name for path in (tmp_path / "near").iterdir()) == ["a.txt", "b.txt"]
    finished = bed.run(*scp, f"box:{tmp_path}/far/missing", str(tmp_path / "near"))
    assert finished.status == 1 and "No such file" in finished.stderr


def test_the_real_scp_can_be_run_on_the_far_side(bed: Bed, shared_embedded: Route, tmp_path: Path) -> None:
    (tmp_path / "from").write_text("copied there")
    bed.check(*shared_embedded.ssh("box", f"scp {tmp_path}/from {tmp_path}/to"))
    assert (tmp_path / "to").read_text() == "copied there"


# --- Many connections, and how they end


@pytest.mark.timeout(400)
def test_a_hundred_sessions_at_once_and_nothing_is_left_of_them(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded("--resume-for", "0")
    assert_sessions_answer(bed, route, SESSIONS, 90)
    wait_until_idle(route)


def test_a_killed_client_leaves_nothing(bed: Bed, embedded: StartEmbedded) -> None:
    """With a terminal the kernel signals every program on it; without one the command is signalled."""
    route = embedded("--resume-for", "0")
    for terminal in ("-tt", "-T"):
        session = bed.start(*route.ssh(terminal, "box", "echo pid=$$; exec sleep 600"), stdin=subprocess.PIPE)
        pid = reported_pid(session)
        os.killpg(session.pid, signal.SIGKILL)  # ssh and our client behind it
        wait_until_gone(pid)
    wait_until_idle(route)


def test_a_client_that_does_not_come_back_leaves_nothing(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded("--resume-for", "1")
    session = bed.start(*route.ssh("-tt", "box", "echo pid=$$; exec sleep 600"), stdin=subprocess.PIPE)
    pid = reported_pid(session)
    os.killpg(session.pid, signal.SIGKILL)
    wait_until_gone(pid)
    wait_until_idle(route)


def test_what_was_put_into_the_background_outlives_its_session(bed: Bed, embedded: StartEmbedded) -> None:
    """As VS Code's server does, which must survive until the window reconnects."""
    route = embedded("--resume-for", "0")
    script = "nohup sleep 600 >/dev/null 2>&1 </dev/null & echo pid=$!; cat"
    session = bed.start(*route.ssh("box", script), stdin=subprocess.PIPE)
    pid = reported_pid(session)
    os.killpg(session.pid, signal.SIGKILL)
    wait_until_gone(*(each for each in connections(route) if each != pid))
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_bridge_that_is_killed_takes_everything_with_it(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded()
    session = bed.start(*route.ssh("-tt", "box", "echo pid=$$; exec sleep 600"), stdin=subprocess.PIPE)
    pid = reported_pid(session)
    processes = descendants(route.bridge.process.pid)
    assert pid in processes and len(processes) >= 3
    route.bridge.process.send_signal(signal.SIGKILL)
    wait_until_gone(*processes)


def test_a_bridge_that_stops_lets_sessions_end_first(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded("--drain", "20")
    session = bed.start(*route.ssh("box", SCRIPT), stdin=subprocess.PIPE)
    session.wait_for_line("ready")
    processes = descendants(route.bridge.process.pid)
    route.bridge.process.send_signal(signal.SIGTERM)
    route.bridge.process.wait_for_line("draining")
    session.feed(b"it\n")
    assert session.wait(LIMIT) == 0 and session.out.read_text() == "ready\ngot it\n"
    assert route.bridge.process.wait(LIMIT) == 0
    wait_until_gone(*processes)


def test_the_server_comes_back_when_its_process_was_killed(bed: Bed, embedded: StartEmbedded) -> None:
    route = embedded()
    session = bed.start(*route.ssh("box", SCRIPT), stdin=subprocess.PIPE)
    session.wait_for_line("ready")
    os.kill(descendants(route.bridge.process.pid)[0], signal.SIGKILL)
    assert bed.check(*route.ssh("box", "echo a new one")).text == "a new one\n"
    session.feed(b"it\n")
    assert session.wait(LIMIT) == 0 and session.out.read_text() == "ready\ngot it\n"
    route.bridge.process.wait_for_line("ssh-restarted")


def test_an_outage_is_survived(bed: Bed, embedded: StartEmbedded, sshd: Sshd) -> None:
    route = embedded()
    with Link(port_of(route.bridge.url)) as link:
        config = sshd.write_client_config(bed.folder / "ssh_config", (*OURS, "connect", link.url))
        session = bed.start(*Route(config, route.bridge).ssh("box", SCRIPT), stdin=subprocess.PIPE)
        session.wait_for_line("ready")
        assert link.break_all("rst") == 1
        session.feed(b"it\n")
        assert session.wait(LIMIT) == 0 and session.out.read_text() == "ready\ngot it\n"
    route.bridge.process.wait_for_line(" resumed ")
