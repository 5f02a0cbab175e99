"""The images of templates/docker, built and run for real, and scripts/sandbox, which does both."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.built import folder_of_run
from tests.bed.processes import Bed, Process, free_port, program, ticks
from tests.bed.targets import checksum
from tests.bed.tunnels import OURS
from tests.pty.typist import Typist
from tests.templates.containers import BASE, NAME, ROOT, SETTINGS, Containers
from tests.templates.gateways import DOMAIN, Certificates

TARGETS = {"openssh": (), "embedded": ("--embedded",)}
LIMIT = 60.0  # seconds for anything that takes no build
ONE = f"{NAME}-1"
RUN = (*SETTINGS["SANDBOX_RUN_ARGS"].split(), "--network", "host")
SAY = "echo before; read word; echo $word"
TOLD = re.compile(r"wstunnel-py: (connection lost, trying again|connected again)")

pytestmark = [
    pytest.mark.timeout(1500),  # the images are built when the first test asks for them
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, runc and network namespaces want root"),
]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The images, built once."""
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder, Bed(Path(folder)) as bed:
        containers = Containers(bed, Path(folder))
        try:
            containers.make_base(folder_of_run(tmp_path_factory.getbasetemp()))
            for options in TARGETS.values():
                built = containers.sandbox("build", *options)
                assert built.status == 0, built.stderr + built.text
            yield containers
        finally:
            containers.remove()


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest, containers: Containers) -> str:
    """Three sandboxes of either image behind a gateway, up."""
    name: str = request.param
    up = containers.sandbox("up", *TARGETS[name])
    assert up.status == 0, up.stderr
    assert "scripts/sandbox ssh 1" in up.text
    return name


@pytest.fixture
def one(containers: Containers, target: str) -> Iterator[str]:
    """The first sandbox, which the test may break: it is started again afterwards."""
    yield target
    if not containers.inspect(ONE)["State"]["Running"]:
        containers.podman("start", ONE)
    wait_until_up(containers)


# ---- what people do


def test_ssh_runs_commands_as_a_user_who_is_not_root(containers: Containers, target: str) -> None:
    for number in "123":
        finished = containers.sandbox("ssh", number, "echo ok; id -un; pwd; exit 7")
        assert (finished.status, finished.text) == (7, "ok\nuser\n/home/user\n")


def test_files_go_there_and_back_by_scp_and_sftp(bed: Bed, containers: Containers, target: str) -> None:
    near, back, by_sftp = (bed.folder / name for name in ("near", "back", "by-sftp"))
    near.write_bytes(secrets.token_bytes(10_000_000))
    config = ("-F", str(containers.state / "ssh_config"), "-q")
    bed.check("scp", *config, str(near), "2:far")
    bed.check("scp", *config, "2:far", str(back))
    commands = f"put {near} by-sftp\nget by-sftp {by_sftp}\nrm by-sftp\nrm far\n"
    bed.check("sftp", *config, "-b", "-", "2", stdin=commands.encode())
    assert checksum(back.read_bytes()) == checksum(by_sftp.read_bytes()) == checksum(near.read_bytes())


def test_a_terminal_has_its_size_and_control_c(containers: Containers, target: str) -> None:
    with Typist(*containers.ssh("-tt", "1"), rows=31, cols=99) as typist:
        typist.type("stty size; tty\n")
        typist.output.wait_for_match(rb"31 99\r\n/dev/pts/\d+")
        typist.type("sh -c 'echo begun; exec sleep 100'\n")  # begun: the keys are for sh, and no longer for bash
        typist.output.wait_for_line(b"begun")
        typist.type("\x03")
        typist.see("^C")  # with which the terminal has dropped what was typed before
        typist.type("echo st'il'l $((40 + 2)); exit 3\n")
        typist.see("still 42")
        assert typist.wait() == 3


def test_the_sandbox_is_healthy_as_long_as_its_bridge_is(containers: Containers, target: str) -> None:
    command = containers.podman("image", "inspect", f"{NAME}:{target}", "--format", '{{join .HealthCheck.Test " "}}')
    assert command == "CMD healthy\n"
    assert '"status": "ok"' in containers.podman("exec", ONE, "healthy")
    bridge = containers.process(ONE, "wstunnel-py serve")
    os.kill(bridge, signal.SIGSTOP)
    try:
        unhealthy = containers.bed.run(*containers.engine, "exec", ONE, "healthy", env=containers.environment)
        assert unhealthy.status == 1
    finally:
        os.kill(bridge, signal.SIGCONT)


# ---- secure by default


def test_only_keys_log_in_and_not_as_root(containers: Containers, target: str) -> None:
    for option in ("PubkeyAuthentication=no", "User=root"):
        refused = containers.bed.run(*containers.ssh("-o", option, "1", "true"))
        assert refused.status == 255
        assert "Permission denied (publickey)" in refused.stderr


def test_every_sandbox_makes_its_own_host_key(containers: Containers, target: str) -> None:
    containers.bed.check(*containers.ssh("1", "true"))
    known = [line.split() for line in (containers.state / "known_hosts").read_text().splitlines()]
    assert len({key for _, _, key in known}) == 3
    assert {kind for _, kind, _ in known} == {"ssh-ed25519"}
    image = ("--user", "root", "--entrypoint", "find", f"{NAME}:{target}")
    assert containers.podman("run", "--rm", *RUN, *image, "/", "-xdev", "-name", "ssh_host_*key*") == ""


@pytest.mark.parametrize("file", ["private", "text", "folder"])
def test_a_file_without_public_keys_is_refused_in_one_line(containers: Containers, target: str, file: str) -> None:
    """Docker makes a folder of a file that is missing."""
    path = containers.bed.folder / f"{target}-{file}"
    if file == "folder":
        path.mkdir()
    else:
        path.write_text("hello\n" if file == "text" else (containers.state / "user_key").read_text())
    mount = ("-e", "WSTUNNEL_PY_SERVE_LISTEN=127.0.0.1:0", "-v", f"{path}:/run/secrets/authorized_keys:ro")
    command = (*containers.engine, "run", "--rm", *RUN, *mount, f"{NAME}:{target}")
    started = containers.bed.run(*command, env=containers.environment)
    assert started.status == 2
    *warnings, line = started.stderr.splitlines()
    assert line.count("/run/secrets/authorized_keys") == 1
    assert not warnings or target == "embedded"


@pytest.mark.parametrize("target", ["openssh"], indirect=True)
def test_other_accounts_cannot_read_the_stored_keys(containers: Containers, target: str) -> None:
    stored = containers.podman("exec", ONE, "stat", "-c", "%a %U %G", "/etc/ssh/authorized_keys/user")
    assert stored == "640 root user\n"


def test_the_bridge_is_not_root_s(containers: Containers, target: str) -> None:
    status = Path(f"/proc/{containers.process(ONE, 'wstunnel-py serve')}/status").read_text()
    assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)


def test_a_sandbox_that_nobody_could_log_in_at_does_not_start(containers: Containers, target: str) -> None:
    port = ("-e", "WSTUNNEL_PY_SERVE_LISTEN=127.0.0.1:0")
    command = (*containers.engine, "run", "--rm", *RUN, *port, f"{NAME}:{target}")
    started = containers.bed.run(*command, env=containers.environment)
    assert started.status == 2
    assert started.stderr.splitlines()[-1].count("authorized_keys") == 1


# ---- what survives


def open_session(containers: Containers) -> Process:
    """An ssh session at sandbox 1 that waits for a word."""
    session = containers.bed.start(*containers.ssh("1", SAY), stdin=subprocess.PIPE)
    session.wait_for_line("before")
    return session


def assert_goes_on(session: Process) -> None:
    session.feed(b"after\n")
    assert session.wait(LIMIT) == 0, session.log()
    assert session.out.read_text() == "before\nafter\n"
    # A restart may take so long that the user is told of it.
    told = [line for line in session.err.read_text().splitlines() if not TOLD.match(line)]
    assert told == []


def test_a_session_outlives_a_restart_of_the_gateway(containers: Containers, target: str) -> None:
    session = open_session(containers)
    containers.podman("restart", "-t", "1", f"{NAME}-gateway")
    assert_goes_on(session)


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.full)])
def test_a_session_outlives_a_pause_of_the_sandbox(containers: Containers, target: str, seconds: int) -> None:
    session = open_session(containers)
    containers.signal(ONE, signal.SIGSTOP)
    session.feed(b"af")
    time.sleep(seconds)
    assert session.status is None
    containers.signal(ONE, signal.SIGCONT)
    session.feed(b"ter\n")
    assert session.wait(LIMIT) == 0, session.log()
    assert session.out.read_text() == "before\nafter\n"


def test_a_session_outlives_a_bridge_that_is_stopped_while_the_gateway_restarts(
    containers: Containers, target: str
) -> None:
    session = open_session(containers)
    bridge = containers.process(ONE, "wstunnel-py serve")
    os.kill(bridge, signal.SIGSTOP)
    containers.podman("restart", "-t", "1", f"{NAME}-gateway")
    os.kill(bridge, signal.SIGCONT)
    assert_goes_on(session)
    assert "resumed" in containers.logs(ONE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_bridge_ends_its_sessions_in_a_line_and_the_container(
    containers: Containers, one: str, number: signal.Signals
) -> None:
    """So that whoever runs the container starts it again; with the same host key, as its files are still there."""
    session = open_session(containers)
    os.kill(containers.process(ONE, "wstunnel-py serve"), number)
    wait_for_end(containers)
    containers.podman("start", ONE)
    wait_until_up(containers)
    assert session.wait(60) == 255
    lines = [line for line in session.err.read_text().splitlines() if "connection lost, trying" not in line]
    ours = "the bridge is stopping" if number == signal.SIGTERM else "the bridge was restarted"
    assert lines[0].startswith("wstunnel-py: ") and ours in lines[0]
    assert not any("wstunnel-py" in line for line in lines[1:])  # but ssh's own


@pytest.mark.parametrize("target", ["openssh"], indirect=True)
def test_the_end_of_sshd_ends_the_container(containers: Containers, one: str) -> None:
    os.kill(containers.process(ONE, "sshd"), signal.SIGKILL)
    assert wait_for_end(containers) != 0


def test_stopping_the_container_ends_sessions_with_a_message(containers: Containers, one: str) -> None:
    session = open_session(containers)
    containers.podman("stop", "-t", "30", ONE)
    assert containers.inspect(ONE)["State"]["ExitCode"] == 0
    assert session.wait(LIMIT) == 255
    assert "wstunnel-py: the session is over: the bridge is stopping" in session.err.read_text()


# ---- terminals


def test_terminals_are_the_user_s(bed: Bed, containers: Containers, target: str) -> None:
    token, port = bed.folder / "token", free_port()
    token.write_text("s3cret\n")
    token.chmod(0o600)
    os.chown(token, 1000, 1000)
    files = {"pty_token": token, "authorized_keys": containers.state / "authorized_keys"}
    mounts = [word for name, path in files.items() for word in ("-v", f"{path}:/run/secrets/{name}:ro")]
    variables = ("-e", "WSTUNNEL_PY_SERVE_LISTEN=127.0.0.1:0", "-e", f"SANDBOX_SSHD_PORT={free_port()}")
    options = ("--pty", f"127.0.0.1:{port}", "--pty-token-file", "/run/secrets/pty_token")
    hardened = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges") if target == "embedded" else ()
    words = ("run", "--rm", *RUN, *hardened, *mounts, *variables, f"{NAME}:{target}", *options)
    box = bed.start(*containers.engine, *words, env=containers.environment)
    box.wait_for_line("terminals ready")
    shell = ("shell", f"http://127.0.0.1:{port}", "--token-file", str(token))
    finished = bed.run(*OURS, *shell, "--", "/bin/sh", "-c", "tty; id -un; pwd")
    assert finished.status == 0
    assert re.search(rb"/dev/pts/\d+\r\nuser\r\n/home/user\r\n", finished.stdout)


# ---- the script


@pytest.mark.parametrize(
    ("words", "status"), [((), 2), (("start",), 2), (("up", "--fast"), 2), (("ssh",), 2), (("ssh", "1"), 69)]
)
def test_a_wrong_call_gets_one_line(bed: Bed, words: tuple[str, ...], status: int) -> None:
    environment = {"SANDBOX_STATE": str(bed.folder / "none"), "SANDBOX_ENGINE": "podman"}
    finished = bed.run(str(ROOT / "scripts/sandbox"), *words, env=environment)
    assert finished.status == status
    assert finished.stderr.startswith("sandbox: ") and finished.stderr.count("\n") == 1


@pytest.fixture
def namespace(containers: Containers) -> Iterator[tuple[str, ...]]:
    """A network namespace, as what leads into it, since networks and published ports would be the machine's."""
    name = f"sandbox-{os.getpid()}"
    containers.bed.check("ip", "netns", "add", name)
    try:
        # Not by `ip netns exec`, which mounts another /sys, in which runc finds no cgroups.
        inside = (program("nsenter"), f"--net=/run/netns/{name}")
        containers.bed.check(*inside, "ip", "link", "set", "lo", "up")
        yield inside
    finally:
        containers.bed.check("ip", "netns", "delete", name)


def test_the_sandboxes_of_the_compose_file_are_found_by_name(
    containers: Containers, namespace: tuple[str, ...], certificates: Certificates, bed: Bed
) -> None:
    """Their addresses come from the DNS of the containers' networks, in the zone that the gateway asks for."""
    folder = bed.folder / "compose"
    shutil.copytree(ROOT / "templates/docker", folder)
    shutil.copy(certificates.chain, folder / "fullchain.pem")
    shutil.copy(certificates.key, folder / "privkey.pem")
    bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    url = f"wss://{{port}}-{{host}}.{DOMAIN}:8443"
    client = (*OURS, "connect", "--url", url, "--ca-file", str(certificates.ca_file))
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes")
    ssh = ("ssh", "-i", str(folder / "key"), *(word for option in options for word in ("-o", option)))
    ssh += ("-o", f"ProxyCommand={shlex.join(client)} %h", "-o", "User=user")
    containers.compose(folder, "up", "--detach", "--no-build", around=namespace)
    try:
        for name in ("one", "two", "three"):
            for _ in ticks(LIMIT, 0.5):
                finished = bed.run(*namespace, *ssh, name, "hostname; timeout 10 getent ahostsv4 one.sandbox.internal")
                if finished.status != 255:
                    break
            assert finished.text.splitlines()[0] == name, finished.stderr
            assert ("one.sandbox.internal" in finished.text) == (name == "one")
        unknown = bed.run(*namespace, *client, "four")
        assert (unknown.status, unknown.stderr.count("there is no such sandbox")) == (69, 1)
    finally:
        containers.compose(folder, "down", "--timeout", "1", around=namespace)


def test_sandboxes_on_networks_of_their_own_do_not_see_each_other_and_leave_nothing(
    containers: Containers, namespace: tuple[str, ...]
) -> None:
    """The way it runs on a normal machine. It comes last: the images are gone afterwards."""
    up = containers.sandbox("up", network="", around=namespace)
    assert up.status == 0, up.stderr
    reach = "timeout 5 bash -c '</dev/tcp/{}/8081' && echo reached"
    routes = (containers.state / "sandboxes.map").read_text()
    own, other, _ = re.findall(r"[\d.]+(?=:8081;)", routes)
    for address, expected in ((own, "reached\n"), (other, "")):
        found = containers.sandbox("ssh", "1", reach.format(address), network="", around=namespace)
        assert found.text == expected, found.stderr
    assert containers.sandbox("ssh", "2", "hostname", network="", around=namespace).text == "sandbox-2\n"
    down = containers.sandbox("down", network="", around=namespace)
    assert (down.status, down.text, down.stderr) == (0, "", "")
    assert containers.podman("ps", "--all", "--quiet") == ""
    assert containers.podman("images", "--all", "--format", "{{.Repository}}:{{.Tag}}").split() == [BASE]
    assert containers.podman("volume", "ls", "--quiet") == ""
    assert containers.podman("network", "ls", "--format", "{{.Name}}").split() == ["podman"]
    assert not containers.state.exists()


def wait_for_end(containers: Containers) -> int:
    """Wait until sandbox 1 has ended; return its exit status."""
    for _ in ticks(60, 0.2):
        state = containers.inspect(ONE)["State"]
        if not state["Running"]:
            return int(state["ExitCode"])
    raise AssertionError("the container goes on")


def wait_until_up(containers: Containers) -> None:
    """Wait until ssh leads into sandbox 1; its host key is still the one that is known."""
    for _ in ticks(LIMIT, 0.5):
        finished = containers.bed.run(*containers.ssh("1", "true"))
        if finished.status == 0:
            return
    raise AssertionError(finished.stderr)
