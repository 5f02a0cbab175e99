"""CPython for Windows under wine, which runs the package as it stands in this repository.

scripts/test puts Python and the packages for it into ``.windows``. Wine's prefix is made anew for every run. That takes
some seconds and 700 MB, so all workers of a run share it, and the last of them removes it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bed.processes import Bed, Finished, Process

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".windows" / "python" / "python.exe"
WINE = Path("/usr/lib/wine")  # Debian's wine64 has no command on the PATH
LIMIT = 100.0  # seconds for one command: wine starts slowly on a busy machine
# Wine asks to download .NET and a browser, unless it is told that it has neither.
ENVIRONMENT = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
# Python cannot use a regular file as a standard stream under wine 8, but tests and ssh have such; so a pipe to cat.
SCRIPT = """\
#!/bin/bash
export {environment}
run() {{ exec {wine} {python} "$@"; }}
if [ -f /dev/fd/1 ]; then
    {{ run "$@" 2>&1 >&3 | cat >&2; exit "${{PIPESTATUS[0]}}"; }} 3>&1 | cat
    exit "${{PIPESTATUS[0]}}"
fi
[ ! -f /dev/fd/2 ] || exec 2> >(exec cat >&2)
run "$@"
"""


class Windows:
    """Python for Windows with a prefix below ``folder``; ``script`` runs it, with its words as they are.

    Several processes may use the same folder at once.
    """

    def __init__(self, folder: Path) -> None:
        for path in (WINE / "wine64", PYTHON):
            assert path.exists(), f"{path} is missing: scripts/test installs it"
        self.folder = folder
        self._users = open(folder.with_suffix(".users"), "w")  # noqa: SIM115  # until we are closed
        self._environment = {**ENVIRONMENT, "WINEPREFIX": str(folder / "prefix")}
        # Wine's services start with its first program and end with its last one, so one is there for all the time. It
        # ends with us, too: at the end of its input.
        with self._alone():
            fcntl.flock(self._users, fcntl.LOCK_SH)
            folder.mkdir(exist_ok=True)
            self.script = self.script_for(PYTHON, folder)
            self._holder = subprocess.Popen(
                [WINE / "wine64", PYTHON, "-c", "import sys; print('ready', flush=True); sys.stdin.read()"],
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._holder.stdout is not None
            assert self._holder.stdout.readline().strip() == b"ready", "wine cannot run Python"

    def script_for(self, python: Path, folder: Path) -> Path:
        """Write a script into ``folder`` that runs the Python at a path of this machine, and return its path."""
        script = folder / "python.sh"
        environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in self._environment.items())
        script.write_text(SCRIPT.format(environment=environment, wine=WINE / "wine64", python=shlex.quote(str(python))))
        script.chmod(0o755)
        return script

    def command(self, *words: str) -> tuple[str, ...]:
        """Return the command line of ``wstunnel-py`` on Windows."""
        return (str(self.script), "-m", "tunnel", *words)

    def run(self, bed: Bed, *words: str, env: Mapping[str, str] | None = None) -> Finished:
        return bed.run(*self.command(*words), env=env, seconds=LIMIT)

    def start(self, bed: Bed, *words: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a command of ``wstunnel-py``; its standard input is a pipe."""
        return bed.start(*self.command(*words), stdin=subprocess.PIPE, env=env)

    def pipe(self, bed: Bed, data: bytes, *words: str) -> Finished:
        """Run a command of ``wstunnel-py`` with ``data`` as its input, from a pipe."""
        source = bed.folder / "piped"
        source.write_bytes(data)
        return bed.run("sh", "-c", 'cat "$0" | "$@"', str(source), *self.command(*words), seconds=LIMIT)

    def python(self, bed: Bed, program: str, *words: str) -> Finished:
        """Run a Python program on Windows, from its text."""
        return bed.run(str(self.script), "-c", program, *words, seconds=LIMIT)

    def close(self) -> None:
        self._holder.communicate()
        with self._alone(), self._users:
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another worker uses it
            self._wine("wineserver64", "-k")
            self._wine("wineserver64", "-w")
            shutil.rmtree(self.folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process make or remove the prefix meanwhile."""
        with open(self.folder.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _wine(self, program: str, *words: str) -> None:
        subprocess.run(
            [WINE / program, *words], env={**os.environ, **self._environment}, check=False, timeout=LIMIT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def dos(path: Path) -> str:
    """Return a path of this machine as Windows' programs know it."""
    return f"Z:{path}".replace("/", "\\")
