"""A throw-away machine for a template: a copy-on-write view of this one, in which its steps run for real, as root.

What they write is gone with the machine. Its programs run in a network of their own, with nothing but loopback, so
that they can have the ports that the template gives them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.bed.processes import Bed, Finished, Process, running

AS_ROOT = () if os.geteuid() == 0 else ("sudo", "-n", "--preserve-env")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # no pyenv or the like, which is not in a sandbox
_MOUNT = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/system"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/system"
mount -t proc proc "$1/system/proc"
mount --rbind /dev "$1/system/dev"
mount -t devpts -o newinstance,gid=5,mode=0620,ptmxmode=0666 devpts "$1/system/dev/pts"  # as container runtimes do
mount --bind "$1/system/dev/pts/ptmx" "$1/system/dev/ptmx"
printf '#!/bin/sh\\nexit 101\\n' > "$1/system/usr/sbin/policy-rc.d"
chmod +x "$1/system/usr/sbin/policy-rc.d"
echo mounted $$
exec sleep infinity
"""


class Machine:
    """The machine; it is there as long as ``bed`` keeps its processes."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        folder = bed.folder / "machine"
        folder.mkdir()
        self._root = folder / "system"
        mounts = bed.start(*AS_ROOT, "unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(folder))
        network = bed.start(
            *AS_ROOT, "unshare", "--net", "sh", "-c", "ip link set lo up; echo net $$; exec sleep infinity"
        )
        self._mounts = mounts.wait_for_line(r"mounted (\d+)")[1]
        self._network = network.wait_for_line(r"net (\d+)")[1]

    def command(self, script: str, user: str = "root", *, connected: bool = False) -> tuple[str, ...]:
        """Return the command that runs a shell script as ``user`` on the machine.

        ``connected``: with this machine's network instead of its own, to fetch packages.
        """
        network = () if connected else (f"--net=/proc/{self._network}/ns/net",)
        enter = ("nsenter", f"--mount=/proc/{self._mounts}/ns/mnt", *network, "chroot", str(self._root))
        home = "/root" if user == "root" else f"/home/{user}"
        variables = (f"PATH={PATH}", f"HOME={home}", f"USER={user}", "PYTHONPATH=")
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
        return (*AS_ROOT, *enter, "env", *variables, *become, "bash", "-c", f"cd ~ && {script}")

    def do(self, script: str, user: str = "root", *, connected: bool = False) -> Finished:
        """Run a shell script to its end, which must be a success."""
        return self._bed.check(*self.command(script, user, connected=connected), seconds=300)

    def copy(self, source: Path, target: str, owner: str, mode: str) -> None:
        """Copy a file of this machine's onto it; a target that ends in / is a folder, as in a Dockerfile."""
        path = target + source.name if target.endswith("/") else target
        self.write(source, path, owner, mode)

    def write(self, content: Path | bytes, path: str, owner: str, mode: str) -> None:
        script = f"install -D -o {owner} -g {owner} -m {mode} /dev/stdin {path}"
        self._bed.check(*self.command(script), stdin=content)

    def start(self, script: str, user: str, *, stdin: bool = False) -> Process:
        """Start a shell script; with ``stdin`` its input is a pipe, for `Process.feed`."""
        return self._bed.start(*self.command(script, user), stdin=subprocess.PIPE if stdin else None)

    def running(self, argument: str) -> list[int]:
        """The machine's processes that have ``argument`` on their command line; another one may have such, too."""
        return [pid for pid in running(argument) if _network_of(pid) == _network_of(int(self._network))]

    def from_its_network(self, *argv: str) -> tuple[str, ...]:
        """Return the command that runs a program of this machine's on its network."""
        return (*AS_ROOT, "nsenter", f"--net=/proc/{self._network}/ns/net", *argv)

    def run_from_its_network(self, *argv: str, env: Mapping[str, str] | None = None) -> Finished:
        return self._bed.run(*self.from_its_network(*argv), env=env)


def _network_of(pid: int) -> str | None:
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        return os.readlink(f"/proc/{pid}/ns/net")
    return None
