"""Ansible through our tunnel: its ssh connection plugin, with our ssh_config, in every way that it moves files."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, ticks
from tests.bed.targets import checksum
from tests.bed.tunnels import PROGRAMS, Route

# One host name for each way of moving files; all of them lead to the same server.
INVENTORY = """\
by-sftp  ansible_ssh_transfer_method=sftp  ansible_pipelining=false
by-scp   ansible_ssh_transfer_method=scp   ansible_pipelining=true
by-pipe  ansible_ssh_transfer_method=piped ansible_pipelining=false
"""
pytestmark = pytest.mark.timeout(300)  # each start of Ansible takes seconds
PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "command": "sh -c 'echo out; echo err >&2; exit 7'",
                "register": "told",
                "failed_when": "[told.rc, told.stdout, told.stderr] != [7, 'out', 'err']",
            },
            {"copy": {"src": "{{ sample }}", "dest": "{{ far }}/{{ inventory_hostname }}", "mode": "0751"}},
            {
                "fetch": {
                    "src": "{{ far }}/{{ inventory_hostname }}",
                    "dest": "{{ near }}/{{ inventory_hostname }}",
                    "flat": True,
                }
            },
            {"meta": "reset_connection"},  # ends the master that ControlPersist has left
        ],
    }
]


@dataclass(frozen=True)
class Ansible:
    """Ansible with an environment in which it writes to ``folder`` only, on either side."""

    bed: Bed
    folder: Path
    sockets: Path

    def run(self, program: str, *arguments: str, **variables: object) -> Finished:
        environment = {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_INVENTORY": str(self.folder / "inventory"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "local"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_REMOTE_TMP": str(self.folder / "remote"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.sockets),
            "ANSIBLE_SSH_TIMEOUT": "20",
        }
        extra = json.dumps(variables)
        words = ("--extra-vars", extra, *arguments)
        return self.bed.check(str(PROGRAMS / program), *words, env=environment, seconds=250)


@pytest.fixture
def ansible(bed: Bed, server: Route, tmp_path: Path, short_folder: Path) -> Iterator[Ansible]:
    folder = tmp_path / "ansible"
    folder.mkdir()
    (folder / "ansible.cfg").touch()
    (folder / "inventory").write_text(f"{INVENTORY}[all:vars]\nansible_ssh_common_args=-F {server.config}\n")
    yield Ansible(bed, folder, short_folder)
    for socket in short_folder.iterdir():  # of masters that a failed test has left
        bed.run(*server.ssh("-o", f"ControlPath={socket}", "-O", "exit", "box"))


@pytest.mark.parametrize("server", ["embedded_route"], indirect=True)  # each start of Ansible takes seconds
def test_ansible_pings_without_keeping_the_connection(ansible: Ansible) -> None:
    finished = ansible.run(
        "ansible", "by-sftp", "-m", "ping", "--ssh-extra-args=-o ControlMaster=no -o ControlPath=none"
    )
    assert '"ping": "pong"' in finished.text


def test_ansible_runs_commands_and_moves_files_over_connections_that_persist(
    ansible: Ansible, server: Route, samples: list[Path], tmp_path: Path
) -> None:
    playbook, sample = ansible.folder / "play.json", ansible.folder / "sample"
    playbook.write_text(json.dumps(PLAYBOOK))
    sample.write_bytes(samples[-1].read_bytes()[:3_000_000])
    for side in ("far", "near"):
        (tmp_path / side).mkdir()
    ansible.run("ansible-playbook", str(playbook), sample=str(sample), far=f"{tmp_path}/far", near=f"{tmp_path}/near")
    for side in ("far", "near"):
        copies = sorted((tmp_path / side).iterdir())
        assert [copy.name for copy in copies] == ["by-pipe", "by-scp", "by-sftp"]
        assert {checksum(copy.read_bytes()) for copy in copies} == {checksum(sample.read_bytes())}
    assert {stat.S_IMODE(copy.stat().st_mode) for copy in (tmp_path / "far").iterdir()} == {0o751}
    for _ in ticks(60):  # the masters are told to end, and nobody waits for that
        if not list(ansible.sockets.iterdir()):
            break
    assert list(ansible.sockets.iterdir()) == []
    assert list((ansible.folder / "remote").iterdir()) == []
