"""The bridge's own image, and the single file in a container that has nothing but Python."""

from __future__ import annotations

import os
import re
import shlex
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.bed.built import Built, folder_of_run
from tests.bed.processes import Bed, Process, free_port
from tests.bed.sshd import Sshd
from tests.bed.tunnels import OURS
from tests.templates.containers import BASE, ROOT, SETTINGS, Containers

IMAGE = "localhost/wstunnel-py:test"
LARGEST = 80_000_000  # bytes
LIMIT = 60.0  # seconds for a container to start or to stop
RUN = ("run", "--rm", "--interactive", *SETTINGS["SANDBOX_RUN_ARGS"].split(), "--network", "host")
# As Kubernetes' strictest standard has it.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

pytestmark = [
    pytest.mark.timeout(1500),  # the images are made when the first test asks for them
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and runc want root"),
]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    with tempfile.TemporaryDirectory(prefix="bridge-") as folder, Bed(Path(folder)) as bed:
        containers = Containers(bed, Path(folder))
        try:
            containers.make_base(folder_of_run(tmp_path_factory.getbasetemp()))
            yield containers
        finally:
            containers.remove()


@pytest.fixture(scope="module")
def image(containers: Containers) -> str:
    containers.build(IMAGE, "templates/docker/bridge/Dockerfile")
    return IMAGE


def through(bed: Bed, sshd: Sshd, *client: str) -> None:
    """Run a command by ssh, with ``client`` as the ProxyCommand."""
    config = sshd.write_client_config(bed.folder / "ssh_config", client)
    finished = bed.run("ssh", "-F", str(config), "box", "echo through; exit 7")
    assert (finished.status, finished.text) == (7, "through\n"), finished.stderr


def test_python_alone_is_enough_for_both_ends(bed: Bed, containers: Containers, built: Built, sshd: Sshd) -> None:
    python = (*containers.engine, *RUN, "-v", f"{built.archive}:/wstunnel-py.pyz:ro", BASE, "python3")
    bare = bed.run(*python, "-c", "import pip", env=containers.environment)
    assert "No module named 'pip'" in bare.stderr
    serve = ("serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{sshd.port}")
    bridge = bed.start(*python, "/wstunnel-py.pyz", *serve, env=containers.environment)
    url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)", LIMIT)[1]
    client = ("env", *(f"{name}={value}" for name, value in containers.environment.items()), *python)
    through(bed, sshd, *client, "/wstunnel-py.pyz", "connect", url)
    through(bed, sshd, *OURS, "connect", url)


@pytest.fixture
def bridge(bed: Bed, containers: Containers, image: str, sshd: Sshd) -> Iterator[tuple[Process, int]]:
    """The image at work on a port, confined, in a container called ``bridge``."""
    port = free_port()
    options = ("--name", "bridge", *CONFINED, "-e", f"WSTUNNEL_PY_SERVE_LISTEN=127.0.0.1:{port}")
    target = ("--target", f"127.0.0.1:{sshd.port}")
    process = bed.start(*containers.engine, *RUN, *options, image, *target, env=containers.environment)
    process.wait_for_line("bridge ready", LIMIT)
    yield process, port
    if process.status is None:
        containers.podman("rm", "-f", "-t", "0", "bridge")


def test_the_image_is_small_and_has_no_shell_and_no_root(containers: Containers, image: str) -> None:
    size, user = containers.podman("image", "inspect", image, "--format", "{{.Size}} {{.Config.User}}").split()
    assert int(size) < LARGEST
    assert user == "65532:65532"
    folder = Path(containers.podman("image", "mount", image).strip())
    try:
        programs = {path.name for path in (folder / "usr/bin").iterdir()}
        assert all(re.fullmatch(r"python3(\.\d+)?", name) for name in programs), programs
        assert not list(folder.rglob("*/site-packages/pip*"))
        assert [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o6000] == []
        assert list(folder.glob("opt/wstunnel-py/lib/*/site-packages/websockets/speedups*.so"))
    finally:
        containers.podman("image", "unmount", image)


def test_ssh_works_through_the_confined_bridge(bed: Bed, bridge: tuple[Process, int], sshd: Sshd) -> None:
    through(bed, sshd, *OURS, "connect", f"ws://127.0.0.1:{bridge[1]}")


def test_it_is_healthy_as_long_as_it_takes_tunnels(containers: Containers, bridge: tuple[Process, int]) -> None:
    test = containers.podman("image", "inspect", IMAGE, "--format", '{{join .HealthCheck.Test " "}}')
    assert test == "CMD healthy\n"
    assert '"status": "ok"' in containers.podman("exec", "bridge", "healthy")
    pid = containers.inspect("bridge")["State"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        unhealthy = containers.bed.run(*containers.engine, "exec", "bridge", "healthy", env=containers.environment)
        assert unhealthy.status == 1
    finally:
        os.kill(pid, signal.SIGCONT)


def test_it_is_healthy_behind_tls_too(bed: Bed, containers: Containers, image: str) -> None:
    chain, port = bed.folder / "chain.pem", free_port()
    trustme.CA().issue_cert("bridge.example.com").private_key_and_cert_chain_pem.write_to_path(str(chain))
    chain.chmod(0o600)
    os.chown(chain, 65532, 65532)
    options = (
        "--name",
        "tls",
        "-v",
        f"{chain}:/run/secrets/tls:ro",
        "-e",
        f"WSTUNNEL_PY_SERVE_LISTEN=127.0.0.1:{port}",
    )
    command = (*containers.engine, *RUN, *options, image, "--tls-cert", "/run/secrets/tls")
    process = bed.start(*command, env=containers.environment)
    process.wait_for_line("bridge ready on wss://", LIMIT)
    try:
        assert '"status": "ok"' in containers.podman("exec", "tls", "healthy")
    finally:
        containers.podman("rm", "-f", "-t", "0", "tls")


def test_the_command_of_the_kubernetes_page_makes_it_reload(bed: Bed, containers: Containers, image: str) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (command,) = re.findall(r"kubectl exec sandbox-0 --container bridge -- (python3 .*?)  +#", page)
    tokens = bed.folder / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    os.chown(tokens, 65532, 65532)
    options = ("--name", "reload", "-v", f"{tokens}:/run/secrets/tokens:ro")
    serve = ("--listen", "127.0.0.1:0", "--token-file", "/run/secrets/tokens")
    words = (*containers.engine, *RUN, *CONFINED, *options, image, *serve)
    process = bed.start(*words, env=containers.environment)
    process.wait_for_line("bridge ready", LIMIT)
    try:
        containers.podman("exec", "reload", *shlex.split(command))
        process.wait_for_line("reloaded what=tokens", LIMIT)
    finally:
        containers.podman("rm", "-f", "-t", "0", "reload")


def test_the_bridge_image_stops_on_sigterm(containers: Containers, bridge: tuple[Process, int]) -> None:
    process, port = bridge
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=20) as answer:
        assert answer.status == 200
    containers.podman("stop", "-t", "30", "bridge")
    assert process.wait(LIMIT) == 0, process.log()


def test_what_it_does_not_have_it_says(bed: Bed, containers: Containers, image: str) -> None:
    command = (*containers.engine, *RUN, image, "--target", "embedded")
    finished = bed.run(*command, env=containers.environment)
    assert finished.status == 2
    assert "asyncssh is not installed" in finished.stderr and finished.stderr.count("\n") == 1
