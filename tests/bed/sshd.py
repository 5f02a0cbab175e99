"""A real sshd on a free loopback port, with throw-away keys, for the user who runs the tests; and its ssh_config."""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bed.processes import Bed, program

PRIVILEGE_SEPARATION = Path("/run/sshd")  # compiled into Debian's sshd, which only ever starts as root with it


class Sshd:
    """An sshd that takes one key. ``port`` is where it listens, ``folder`` holds its keys.

    Sessions have ``folder`` as their HOME, too, so that no shell start-up file of the user's speaks in between.
    """

    def __init__(self, bed: Bed, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        for name in ("host", "user"):
            bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
        (folder / "known_hosts").write_text("bed " + (folder / "host.pub").read_text())
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self.process, self.port = bed.start_on_free_port(
            lambda port: (program("sshd"), "-D", "-e", "-f", str(self._configure(port))), r"Server listening on"
        )

    def _configure(self, port: int) -> Path:
        config = self.folder / "sshd_config"
        config.write_text(
            f"""\
            ListenAddress 127.0.0.1:{port}
            HostKey {self.folder}/host
            PidFile none
            AuthorizedKeysFile {self.folder}/authorized_keys
            StrictModes no
            UsePAM no
            PermitRootLogin prohibit-password
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PrintMotd no
            LogLevel VERBOSE
            MaxStartups 200
            MaxSessions 100
            Subsystem sftp internal-sftp
            SetEnv HOME={self.folder}
            """
        )
        return config

    @property
    def paramiko(self) -> dict[str, Any]:
        """How `paramiko.SSHClient.connect` logs in here; the host is ``bed``."""
        return {
            "username": getpass.getuser(),
            "key_filename": str(self.folder / "user"),
            "allow_agent": False,
            "look_for_keys": False,
            "timeout": 20,
        }

    @property
    def paramiko_client(self) -> dict[str, Any]:
        """How `tunnel.ssh.paramiko_client` logs in here, whatever the user's own files say."""
        return {
            "client_keys": self.folder / "user",
            "agent": False,
            "known_hosts": self.folder / "known_hosts",
            "host_key_alias": "bed",
            "config": None,
            "login_timeout": 20,
        }

    @property
    def asyncssh(self) -> dict[str, Any]:
        """How `asyncssh.connect` logs in here; the host is ``bed``."""
        return {
            "username": getpass.getuser(),
            "client_keys": [str(self.folder / "user")],
            "known_hosts": str(self.folder / "known_hosts"),
            "config": [],
            "agent_path": None,
        }

    def write_client_config(self, path: Path, proxy_command: Sequence[str], *lines: str) -> Path:
        """Write an ssh_config with which any host name leads to this sshd.

        The way is ``proxy_command``, or TCP if that is empty; further ``lines`` go before all others.
        """
        quoted = shlex.join(proxy_command).replace("'%h'", "%h")
        way = (f"ProxyCommand {quoted}",) if proxy_command else ("HostName 127.0.0.1", f"Port {self.port}")
        more = "\n              ".join((*lines, *way))
        path.write_text(
            f"""\
            Host *
              {more}
              User {getpass.getuser()}
              IdentityFile {self.folder}/user
              IdentitiesOnly yes
              IdentityAgent none
              HostKeyAlias bed
              UserKnownHostsFile {self.folder}/known_hosts
              GlobalKnownHostsFile /dev/null
              StrictHostKeyChecking yes
              BatchMode yes
              LogLevel ERROR
            """
        )
        return path
