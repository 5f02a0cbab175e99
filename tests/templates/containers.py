"""Real containers of the images of templates/docker, by scripts/sandbox and a podman whose storage is the test's own.

The base image comes from debootstrap, as no registry may be in reach; what such machines want is in `SETTINGS`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bed.processes import Bed, Finished, descendants, free_port, program
from tests.bed.tunnels import PROGRAMS

ROOT = Path(__file__).parents[2]
BASE = "localhost/debian:bookworm"
NAME = "wstunnel-py-sandbox"
BUILD_LIMIT = 500.0  # seconds
SETTINGS = {
    # Without a namespace of its own a build needs no more rights than debootstrap had.
    "SANDBOX_BUILD_ARGS": "--isolation chroot",
    # Limits that runc may set where a test runs, and no timer of systemd for the health checks.
    "SANDBOX_RUN_ARGS": "--runtime runc --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --no-healthcheck",
}


class Containers:
    """``scripts/sandbox`` with storage, files and port of its own below ``folder``, which has a short path.

    ``around`` is put before every command: what leads into another network namespace.
    """

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.bed = bed
        self.state = folder / "state"
        self.port = free_port()
        self._folder = folder
        settings = folder / "containers.conf"
        settings.write_text('[network]\nnetwork_backend = "netavark"\n')
        self.environment = {"CONTAINERS_CONF": str(settings)}
        self.engine = [
            program("podman"),
            *("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--tmpdir", str(folder / "tmp")),
            *("--network-config-dir", str(folder / "networks")),
        ]

    def make_base(self, shared: Path) -> None:
        """Make the base image: a minimal Debian, as ``debian:12-slim`` would be, and Python without any package.

        What it is made of is kept in ``shared``, a folder of all workers of this run, and made by the first of them.
        """
        archive = shared / "debian.tar"
        with open(shared / "debian.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                tree = self._folder / "debian"
                debootstrap = ("debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(tree))
                self.bed.check(program("unshare"), "--mount", *debootstrap, seconds=BUILD_LIMIT)
                unfinished = archive.with_suffix(".part")
                self.bed.check("tar", "-C", str(tree), "-cf", str(unfinished), ".", seconds=BUILD_LIMIT)
                self.bed.check("rm", "-rf", "--one-file-system", str(tree), seconds=BUILD_LIMIT)
                unfinished.rename(archive)
        self.podman("import", str(archive), BASE, seconds=BUILD_LIMIT)

    def build(self, name: str, dockerfile: str) -> None:
        """Build an image of the repository from a Dockerfile in it."""
        options = f"{SETTINGS['SANDBOX_BUILD_ARGS']} {self._pip_settings()}".split()
        command = ("build", "--format", "docker", "--build-arg", f"BASE={BASE}", *options, "-t", name)
        self.podman(*command, "-f", str(ROOT / dockerfile), str(ROOT), seconds=BUILD_LIMIT)

    def podman(self, *words: str, seconds: float = 120) -> str:
        return self.bed.check(*self.engine, *words, env=self.environment, seconds=seconds).text

    def compose(self, folder: Path, *words: str, around: Sequence[str] = ()) -> str:
        """Run podman-compose with compose.yaml in ``folder`` and the images that are there already."""
        wrapper = folder / "podman"  # which sorts out what only `run` takes
        wrapper.write_text(
            f"""#!/bin/bash
                case $1 in run | create) set -- "$1" {SETTINGS["SANDBOX_RUN_ARGS"]} "${{@:2}}" ;; esac
                exec {shlex.join(self.engine)} "$@"
            """
        )
        wrapper.chmod(0o755)
        command = (
            str(PROGRAMS / "podman-compose"),
            "--podman-path",
            str(wrapper),
            "--file",
            str(folder / "compose.yaml"),
        )
        return self.bed.check(*around, *command, *words, env=self.environment, seconds=300).text

    def logs(self, container: str) -> str:
        """What a container has written, on either output."""
        finished = self.bed.run(*self.engine, "logs", container, env=self.environment, seconds=120)
        return finished.text + finished.stderr

    def inspect(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.podman("inspect", container))[0]
        return found

    def sandbox(
        self, *words: str, network: str = "host", around: Sequence[str] = (), seconds: float = BUILD_LIMIT
    ) -> Finished:
        """Run ``scripts/sandbox`` to its end."""
        environment = {
            **self.environment,
            **SETTINGS,
            "SANDBOX_ENGINE": " ".join(self.engine),
            "SANDBOX_BASE": BASE,
            "SANDBOX_BUILD_ARGS": f"{SETTINGS['SANDBOX_BUILD_ARGS']} {self._pip_settings()}",
            "SANDBOX_NETWORK": network,
            "SANDBOX_PORT": str(self.port),
            "SANDBOX_STATE": str(self.state),
        }
        return self.bed.run(*around, str(ROOT / "scripts/sandbox"), *words, env=environment, seconds=seconds)

    def ssh(self, *words: str) -> tuple[str, ...]:
        """The command line of ssh for a sandbox that is up."""
        return ("ssh", "-F", str(self.state / "ssh_config"), "-o", "BatchMode=yes", *words)

    def processes(self, container: str) -> list[int]:
        """All processes of a container, by their numbers outside."""
        init: int = self.inspect(container)["State"]["Pid"]
        return [init, *descendants(init)]

    def process(self, container: str, word: str) -> int:
        """The process of a container that has ``word`` on its command line."""
        for pid in self.processes(container):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
            if word in line and "tini" not in line and "/bin/bash" not in line:
                return pid
        raise AssertionError(f"there is no {word} in {container}")

    def signal(self, container: str, number: signal.Signals) -> None:
        """Send a signal to all processes of a container."""
        for pid in self.processes(container):
            os.kill(pid, number)

    def remove(self) -> None:
        """Remove what is left, images too, whatever failed before."""
        environment = {**os.environ, **self.environment}
        for words in (("rm", "-fa", "-t", "0"), ("rmi", "-fa")):
            subprocess.run([*self.engine, *words], check=False, capture_output=True, env=environment)

    def _pip_settings(self) -> str:
        """What pip needs here, it needs in the build, too: another index, an authority of the network's own."""
        settings = self._folder / "pip.conf"
        lines = ["[global]", "cert = /run/ca.pem"]
        for name in ("index-url", "extra-index-url"):
            found = self.bed.run(sys.executable, "-m", "pip", "config", "get", f"global.{name}")
            if found.status == 0:
                lines.append(f"{name} = {found.text.strip()}")
        settings.write_text("\n".join([*lines, ""]))
        authorities = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
        return f"--secret id=pip,src={settings} --secret id=ca,src={authorities}"
