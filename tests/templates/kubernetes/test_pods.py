"""The pods at work: ssh through gateway and bridge into a sandbox, and what happens when pods end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed, Finished, Process, descendants, ticks
from tests.templates.kubernetes.overlays import OVERLAYS, Overlay, container, render
from tests.templates.kubernetes.pods import DOMAIN, Pod, prepare
from tests.templates.machine import Machine

TOKEN = b"a-token-of-the-test"
pytestmark = pytest.mark.timeout(300)  # each test makes a machine


@dataclass
class Cluster:
    """One sandbox and one gateway, which run; ``keys`` is a folder with what a user has."""

    machine: Machine
    bed: Bed
    overlay: Overlay
    keys: Path
    url: str
    bridge: Process
    sandbox: Pod

    def client(self, *options: str) -> str:
        """The ProxyCommand, on the machine."""
        words = ("/usr/local/bin/wstunnel-py connect", f"--token-file {self.keys}/token", f"--ca-file {self.keys}/ca")
        return " ".join((*words, f"--url {self.url}", *options, "-- %h"))

    def ssh(self, command: str, *options: str, host: str = "sandbox-0", client: str = "") -> str:
        settings = (
            f"-i {self.keys}/user -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o LogLevel=ERROR "
            f"-o StrictHostKeyChecking=yes -o HostKeyAlias=sandbox -o UserKnownHostsFile={self.keys}/known_hosts"
        )
        proxy = f"-o ProxyCommand='{client or self.client()}'"
        return f"ssh -F none {settings} {proxy} {' '.join(options)} user@{host} '{command}'"

    def run(self, script: str) -> Finished:
        return self.bed.run(*self.machine.command(script))


@pytest.fixture(params=OVERLAYS)
def cluster(request: pytest.FixtureRequest, bed: Bed) -> Iterator[Cluster]:
    overlay = render(bed, request.param)
    machine = Machine(bed)
    prepare(machine)
    keys = bed.folder / "keys"
    keys.mkdir()
    for name in ("host", "user"):
        bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name))
    (keys / "known_hosts").write_text(f"sandbox {(keys / 'host.pub').read_text()}")
    (keys / "token").write_bytes(TOKEN)
    (keys / "token").chmod(0o600)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(keys / "ca"))
    certificate = authority.issue_cert(f"*.{DOMAIN}")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    secrets = {
        "sandbox-ssh": {
            "authorized_keys": (keys / "user.pub").read_bytes(),
            "ssh_host_ed25519_key": (keys / "host").read_bytes(),
        },
        "bridge-tokens": {"tokens": TOKEN},
        "sandboxes-tls": {"tls.crt": chain, "tls.key": certificate.private_key_pem.bytes()},
    }
    sandbox = Pod(machine, overlay, overlay.sandbox, secrets)
    processes = {each["name"]: sandbox.start(each) for each in overlay.sandbox["containers"]}
    processes["bridge"].wait_for_line(r'"event": ?"ready"')
    gateway = Pod(machine, overlay, overlay.gateway, secrets).start(container(overlay.gateway, "nginx"))
    with_tls = "listen-tls.conf" in overlay.config("gateway-nginx")
    port = 8443 if with_tls else 8080
    for _ in ticks(60, 0.1):
        if f":{port}" in machine.do("ss -Hltn").text:
            break
        assert gateway.status is None, gateway.log()
    url = f"{'wss' if with_tls else 'ws'}://{{port}}-{{host}}.{DOMAIN}:{port}"
    yield Cluster(machine, bed, overlay, keys, url, processes["bridge"], sandbox)


def test_ssh_reaches_the_sandbox_through_the_gateway(cluster: Cluster) -> None:
    finished = cluster.run(cluster.ssh("id -un; tty; touch ~/kept /tmp/made; touch /etc/not 2>&1", "-tt"))
    assert finished.status == 1, finished.stderr
    user, terminal, refused = finished.text.split("\r\n")[:3]
    assert user == "user" and terminal.startswith("/dev/pts/")
    assert "Read-only file system" in refused
    assert cluster.machine.do("stat -c %U /home/user/kept /tmp/made").text == "user\nuser\n"

    finished = cluster.run(cluster.ssh("true", host="sandbox-7"))
    assert finished.status == 255
    assert "502" in finished.stderr
    assert "sandbox-7 does not answer: no such sandbox, or it is not running" in finished.stderr

    no_sandbox = cluster.client("--port 9999")
    finished = cluster.run(cluster.ssh("true", client=no_sandbox))
    assert "404" in finished.stderr and "there is no sandbox behind this name" in finished.stderr

    (cluster.keys / "token").write_text("another-token")
    finished = cluster.run(cluster.ssh("true"))
    assert finished.status == 255 and "401" in finished.stderr
    (cluster.keys / "token").write_bytes(TOKEN)

    finished = cluster.run(cluster.ssh("true", "-o PubkeyAuthentication=no"))
    assert finished.stderr.strip().endswith("Permission denied (publickey).")


def test_a_session_that_runs_when_its_pod_is_to_end_is_let_finish(cluster: Cluster) -> None:
    session = cluster.machine.start(cluster.ssh("echo begun; cat; echo done"), "root", stdin=True)
    session.wait_for_line("begun")
    hooks = [cluster.sandbox.start_hook(each) for each in cluster.overlay.sandbox["containers"] if "lifecycle" in each]
    (bridge,) = [pid for pid in (cluster.bridge.pid, *descendants(cluster.bridge.pid)) if is_bridge(pid)]
    cluster.machine.do(f"kill -{signal.SIGTERM} {bridge}")
    cluster.bridge.wait_for_line(r'"event": ?"draining"')
    session.feed(b"more\n")
    session.wait_for_line("more")
    assert cluster.bridge.status is None
    assert all(hook.status is None for hook in hooks), "the sandbox waits for its tunnels"
    session.end_input()
    assert session.wait(30) == 0, session.log()
    assert session.out.read_text() == "begun\nmore\ndone\n"
    assert cluster.bridge.wait(30) == 0, cluster.bridge.log()
    for hook in hooks:
        assert hook.wait(30) == 0
    finished = cluster.run(cluster.ssh("true"))
    assert "502" in finished.stderr and "sandbox-0 does not answer" in finished.stderr


def is_bridge(pid: int) -> bool:
    return b"wstunnel-py\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
