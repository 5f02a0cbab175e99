"""The other commands, the Python API, proxies and certificates: they do with a provider what `connect` does."""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tunnel
from tests.bed.edges import NameProxy
from tests.bed.processes import Bed
from tests.bed.sshd import Sshd
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS
from tests.provider.cloud import Cloud
from tests.provider.machines import PAUSED, RUNNING, Machine

PRIVATE: dict[str, Any] = {"network": {"allowPublicTraffic": False}, "autoPause": True}


@pytest.fixture
def cloud(
    bed: Bed, sshd: Sshd, cloud_tls: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    """A cloud with TLS and with sshds in its sandboxes, and the variables of its user."""
    context, ca_file = cloud_tls
    with Cloud(bed, sshd.port, context) as cloud:
        environ = {**cloud.environment(), "SSL_CERT_FILE": str(ca_file), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def machine(cloud: Cloud) -> Machine:
    machine = cloud.create(**PRIVATE)
    machine.pause()
    return machine


def calls(cloud: Cloud) -> list[str]:
    return [f"{each.method} {each.path.rpartition('/')[2]}" for each in cloud.requests]


def test_two_copies_in_a_row_make_one_call(bed: Bed, cloud: Cloud, machine: Machine, sshd: Sshd) -> None:
    config = sshd.write_client_config(bed.folder / "ssh_config", ())
    lines = [line for line in config.read_text().splitlines() if "HostName" not in line and "Port" not in line]
    config.write_text("\n".join(lines))
    source = bed.folder / "source"
    source.write_bytes(os.urandom(100_000))
    known = ("--known-hosts-file", str(bed.folder / "known_hosts"))  # ssh's `~` is the account's own, whatever HOME is
    for number in range(2):
        target = bed.folder / f"copy-{number}"
        words = ("scp", "--sandbox-timeout", "600", *known, "--", "-F", str(config), "-q")
        bed.check(*OURS, *words, str(source), f"{machine.id}.e2b:{target}")
        assert target.read_bytes() == source.read_bytes()
    ssh = (*OURS, "ssh", *known, "--", "-F", str(config), f"{machine.id}.e2b")
    assert bed.check(*ssh, "echo hello").text == "hello\n"
    assert calls(cloud) == ["POST connect"]
    assert cloud.requests[0].body == {"timeout": 600}


def test_doctor_shows_the_sandbox_as_a_hop(bed: Bed, cloud: Cloud, machine: Machine) -> None:
    report = json.loads(bed.check(*OURS, "doctor", "--json", machine.id).text)
    assert [hop["hop"] for hop in report["hops"]][:3] == ["url", "sandbox", "dns"]
    assert machine.id in report["hops"][1]["text"] and report["ok"]
    report = json.loads(bed.run(*OURS, "doctor", "--json", "i" + "0" * 19).text)
    last = report["hops"][-1]
    assert (last["hop"], last["code"], last["exit_code"]) == ("sandbox", "sandbox-unknown", 69)
    assert "wstunnel-py sandboxes" in last["advice"]


def test_doctor_reports_an_api_that_cannot_be_reached(bed: Bed, cloud: Cloud) -> None:
    machine = cloud.create(**PRIVATE)
    shown = bed.run(*OURS, "doctor", machine.id, env={"E2B_API_URL": "https://127.0.0.1:1"})
    line = "request to https://127.0.0.1:1 failed: 127.0.0.1:1 refused the connection: nothing is listening there"
    assert f"{line}; connecting anyway" in shown.text and "! sandbox" in shown.text
    assert (shown.status, "E2B_API_KEY fetches it" in shown.text) == (77, False)  # it is set


def test_forward_wakes_a_sandbox_for_each_connection(bed: Bed, cloud: Cloud, machine: Machine, sshd: Sshd) -> None:
    forward = bed.start(*OURS, "forward", machine.id)
    port = forward.wait_for_line(r"127\.0\.0\.1:(\d+)")[1]
    assert (machine.state, cloud.requests) == (PAUSED, [])
    config = sshd.write_client_config(bed.folder / "ssh_config", ())
    bed.check("ssh", "-F", str(config), "-p", port, "-o", f"Port={port}", "box", "true")
    machine.pause()
    bed.check("ssh", "-F", str(config), "-p", port, "-o", f"Port={port}", "box", "true")
    assert machine.state == RUNNING


def test_programs_reach_a_sandbox_that_is_paused(cloud: Cloud, machine: Machine) -> None:
    with tunnel.open_socket(machine.id, sandbox_timeout=120, keep_alive="never") as sock:
        assert sock.recv(4) == b"SSH-"
    assert (machine.state, cloud.requests[0].body) == (RUNNING, {"timeout": 120})
    with pytest.raises(tunnel.DialError) as caught:
        tunnel.open_socket("i" + "0" * 19)
    assert (caught.value.code, caught.value.exit_code) == ("sandbox-unknown", 69)
    with pytest.raises(tunnel.DialError):
        tunnel.open_socket(machine.id, provider="none", connect_timeout=5.0)


def test_calls_go_through_the_proxy_that_tunnels_go_through(
    bed: Bed, cloud: Cloud, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = cloud.url.rpartition(":")[2]
    with NameProxy("cloud.localhost") as names:
        environ = {"E2B_API_URL": f"https://api.cloud.localhost:{port}", "https_proxy": names.url}
        words = (*OURS, "connect", "-v", machine.id)
        finished = bed.run(*words, stdin=b"", env=environ)
        assert "proxy: " in finished.stderr and f"api.cloud.localhost:{port} gives access" in finished.stderr
        finished = bed.run(*words, env={**environ, "https_proxy": "http://127.0.0.1:1"})
        assert finished.status == 69 and "proxy http://127.0.0.1:1" in finished.stderr
        assert len(cloud.asked("connect")) == 1
        monkeypatch.setenv("XDG_CACHE_HOME", str(bed.folder))
        bed.run(*OURS, "sandboxes", "--proxy", names.url, env={**environ, "https_proxy": "http://127.0.0.1:1"})
        assert len(cloud.asked("GET")) == 1


def test_the_certificate_of_an_api_is_checked_always(
    bed: Bed, cloud: Cloud, machine: Machine, cloud_tls: tuple[ssl.SSLContext, Path]
) -> None:
    none = {"SSL_CERT_FILE": "/dev/null"}
    finished = bed.run(*OURS, "connect", "--insecure", machine.id, stdin=b"", env=none)
    assert f"request to {cloud.url} failed: the certificate of 127.0.0.1 is not trusted" in finished.stderr
    assert cloud.requests == []
    ca_file = str(cloud_tls[1])
    assert bed.run(*OURS, "sandboxes", env=none).status == 69
    assert machine.id in bed.check(*OURS, "sandboxes", "--ca-file", ca_file, env=none).text
    bed.check(*OURS, "doctor", "--ca-file", ca_file, machine.id, env=none)


def test_without_a_provider_nothing_of_it_is_imported(bed: Bed) -> None:
    source = """if True:
        import sys
        from tunnel.cli.main import main
        main()
        print(*(name for name in sys.modules if 'provider' in name or 'sandbox' in name), file=sys.stderr)
    """
    with Target(echo) as target:
        bridge = bed.start(*OURS, "serve", "--listen", "127.0.0.1:0", "--target", f"127.0.0.1:{target.port}")
        url = bridge.wait_for_line(r"ready on (ws://[^\s,]+)")[1]
        finished = bed.run(sys.executable, "-c", source, url, stdin=b"hello")
    assert (finished.stdout, finished.stderr) == (b"hello", "\n")
