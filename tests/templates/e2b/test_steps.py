"""The steps of the template, carried out on a machine.

Tests cannot reach E2B's cloud. So the steps that the SDK would send there run on a throw-away machine that was
given what E2B gives every base: a `user` without password who may use sudo, and an sshd that permits empty passwords.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.processes import Bed, Finished
from tests.bed.tunnels import OURS
from tests.templates.e2b.programs import carry_out
from tests.templates.machine import Machine

pytestmark = pytest.mark.timeout(600)  # the first test to ask for the machine makes it


@pytest.fixture(scope="module")
def machine(template: dict[str, Any], folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which all steps of the template were carried out."""
    with Bed(tmp_path_factory.mktemp("machine")) as bed:
        machine = Machine(bed)
        carry_out(machine, template, folder)
        yield machine


@pytest.fixture(scope="module")
def started(machine: Machine, template: dict[str, Any]) -> Machine:
    """The same, after its start command was run as E2B runs it: as `user`."""
    process = machine.start(template["startCmd"], "user")
    process.wait_for_line(r"bridge ready on ws://0\.0\.0\.0:8081 → 127\.0\.0\.1:2222")
    return machine


def ssh(machine: Machine, folder: Path, login: str, *options: str) -> Finished:
    """ssh from the network of the machine, with nothing of the user's own, through our client and its bridge."""
    client = " ".join((*OURS, "connect", "ws://127.0.0.1:8081"))
    settings = {
        "ProxyCommand": client,
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "BatchMode": "yes",
        "IdentityAgent": "none",
        "LogLevel": "ERROR",
    }
    words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return machine.run_from_its_network("ssh", "-F", "none", *words, *options, f"{login}@sandbox", "id -un")


def test_the_key_logs_in(started: Machine, folder: Path) -> None:
    finished = ssh(started, folder, "user", "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes")
    assert (finished.status, finished.text) == (0, "user\n"), finished.stderr


@pytest.mark.parametrize("login", ["user", "root"])
def test_nothing_but_the_key_logs_in(started: Machine, folder: Path, login: str) -> None:
    finished = ssh(started, folder, login, "-o", "PreferredAuthentications=none,password,keyboard-interactive")
    assert (finished.status, finished.stderr) == (255, f"{login}@sandbox: Permission denied (publickey).\n")


def test_root_does_not_get_in_with_the_key(started: Machine, folder: Path) -> None:
    started.do("cp /etc/ssh/authorized_keys.d/user /etc/ssh/authorized_keys.d/root")
    finished = ssh(started, folder, "root", "-i", str(folder / "key"), "-o", "IdentitiesOnly=yes")
    assert (finished.status, finished.stderr) == (255, "root@sandbox: Permission denied (publickey).\n")


def test_the_bridge_runs_without_root_and_sshd_on_loopback_only(started: Machine) -> None:
    user = int(started.do("id -u user").text)
    (bridge,) = started.running("/opt/wstunnel-py/wstunnel-py")
    status = Path(f"/proc/{bridge}/status").read_text()
    assert re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)[1].split() == [str(user)] * 4  # type: ignore[index]
    listening = started.do("ss -Hltn").text
    assert re.findall(r"\S+:2222", listening) == ["127.0.0.1:2222"]


def test_sshd_says_so_itself(machine: Machine) -> None:
    said = machine.do("install -d /run/sshd && /usr/sbin/sshd -T -f /etc/ssh/sshd_config").text.splitlines()
    for rule in (
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitemptypasswords no",
        "authenticationmethods publickey",
        "clientaliveinterval 0",
    ):
        assert rule in said


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (
            "PermitEmptyPasswords yes\\nPasswordAuthentication yes\\nAuthenticationMethods any",
            "sshd accepts logins without a key: see sshd_config",
        ),
        ("AuthenticationMethods publickey password", "sshd accepts more than keys: (publickey,password)."),
    ],
    ids=["empty passwords", "passwords"],
)
def test_the_bridge_does_not_open_before_an_sshd_that_takes_more_than_keys(
    machine: Machine, bed: Bed, rules: str, line: str
) -> None:
    machine.do("cp -a /etc/ssh/sshd_config /etc/ssh/saved")
    try:
        machine.do(f"printf '{rules}\\n' > /etc/ssh/new; sed 1d /etc/ssh/saved >> /etc/ssh/new")
        machine.do("mv /etc/ssh/new /etc/ssh/sshd_config; mv /etc/ssh/sshd_config.d/00-keys-only.conf /etc/ssh/aside")
        finished = bed.run(*machine.command("/opt/wstunnel-py/start.sh 8082 2223", "user"))
    finally:
        machine.do("mv /etc/ssh/saved /etc/ssh/sshd_config; mv /etc/ssh/aside /etc/ssh/sshd_config.d/00-keys-only.conf")
    assert (finished.status, finished.stderr) == (1, f"start.sh: {line}\n")
    listening = machine.do("ss -Hltn").text
    assert "8082" not in listening and "2223" not in listening


def test_an_sshd_that_does_not_start_is_reported(machine: Machine, bed: Bed) -> None:
    machine.do("cp -a /etc/ssh/sshd_config /etc/ssh/saved; echo 'NoSuchOption yes' >> /etc/ssh/sshd_config")
    try:
        finished = bed.run(*machine.command("/opt/wstunnel-py/start.sh 8082 2223", "user"))
    finally:
        machine.do("mv /etc/ssh/saved /etc/ssh/sshd_config")
    line = "start.sh: sshd does not start: /etc/ssh/sshd_config: line "
    assert (finished.status, finished.stderr.startswith(line), finished.stderr.count("\n")) == (1, True, 1)
