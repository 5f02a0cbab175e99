"""New versions that do not work: the old one continues as if nothing had happened, and says why in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Process
from tests.bed.targets import Target
from tests.restart.installed import Installed
from tests.restart.restarting import refused, restart
from tests.server.clients import assert_echo, open_tunnel

# What is wrong with a new version: a module, what is replaced in it, by what, and what the log says of it.
SYNTAX = ("server/bridge.py", "class Bridge:", "class Bridge", "internal error: SyntaxError: expected ':'")
FORMAT = ("restart/state.py", "FORMAT = 1", "FORMAT = 7", "has format 1, and this version reads 7 only")
OPTIONS = ("server/settings.py", "    token_file: tuple", "    tokens_file: tuple", "there is no option --token-file")
RESTORING = (
    "protocol/capture.py",
    "stream, PLAIN, tree)\n    stream._sink",
    "stream, PLAIN, {})\n    stream._sink",
    "KeyError",
)
SILENT = ("run.py", "    fill_standard_descriptors()\n", "    os._exit(3)\n", "it printed nothing")
TALKATIVE = (
    "run.py",
    "    fill_standard_descriptors()\n",
    "    os.write(2, b'x' * 300_000 + b'\\nwhy\\n'); os._exit(3)\n",
    "why",
)


def descriptors_of(process: Process) -> set[str]:
    return {f"{fd.name} {fd.readlink()}" for fd in Path(f"/proc/{process.pid}/fd").iterdir()}


def children_of(process: Process) -> str:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()


def test_a_broken_new_version_changes_nothing(bed: Bed, installed: Installed, echo_target: Target) -> None:
    """One after the other, with a tunnel open all the time; then one that works."""
    tokens = installed.folder / "tokens"
    tokens.write_text("a-token-of-32-characters-at-least\n")
    tokens.chmod(0o600)
    process, url = installed.serve(bed, echo_target.port, "--token-file", str(tokens))
    headers = {"Authorization": "Bearer a-token-of-32-characters-at-least"}
    with open_tunnel(url, headers=headers) as tunnel:
        assert_echo(tunnel)
        before = descriptors_of(process)

        def check(reason: str) -> None:
            assert re.fullmatch(f"the new version failed: .*{re.escape(reason)}.*", refused(process))
            assert_echo(tunnel)
            assert descriptors_of(process) == before
            assert children_of(process) == ""

        for module, text, instead, reason in (SYNTAX, FORMAT, OPTIONS, RESTORING, SILENT, TALKATIVE):
            original = (installed.folder / "tunnel" / module).read_text()
            installed.change(module, text, instead)
            check(reason)
            (installed.folder / "tunnel" / module).write_text(original)
        tokens.rename(installed.folder / "elsewhere")
        check(f"--token-file: cannot use {tokens}: No such file or directory")
        (installed.folder / "elsewhere").rename(tokens)
        installed.change("_version.py", "0.1.0", "0.2.0")
        assert "version=0.2.0" in restart(process)
        assert_echo(tunnel)
        with open_tunnel(url, headers=headers) as another:
            assert_echo(another)


@pytest.mark.parametrize(
    ("limit", "hang", "reason"),
    [
        ("START_LIMIT", ("run.py", "    fill_standard_descriptors()\n"), "was not ready within 0.5 s"),
        (
            "RESTORE_LIMIT",
            ("run.py", "    trees, handed = arrived.load()\n"),
            "did not restore the state within 0.5 s",
        ),
    ],
)
def test_a_new_version_that_hangs_changes_nothing(
    bed: Bed, installed: Installed, echo_target: Target, limit: str, hang: tuple[str, str], reason: str
) -> None:
    before = {"START_LIMIT": "30.0", "RESTORE_LIMIT": "10.0"}[limit]
    installed.change("restart/trial.py", f"{limit} = {before}", f"{limit} = 0.5")  # in the old version
    process, url = installed.serve(bed, echo_target.port)
    with open_tunnel(url) as tunnel:
        module, text = hang
        installed.change(module, text, f"{text}    time.sleep(60)\n")
        assert refused(process) == f"the new version {reason}: it printed nothing"
        assert_echo(tunnel)
        assert children_of(process) == ""
        with open_tunnel(url) as another:
            assert_echo(another)


@pytest.mark.parametrize(
    "moment", ["    fill_standard_descriptors()\n", "    arrived.succeed()\n"], ids=["starting", "restoring"]
)
def test_a_new_version_that_is_killed_changes_nothing(
    bed: Bed, installed: Installed, echo_target: Target, moment: str
) -> None:
    """As for a lack of memory: the line says by what, as there is no output that would."""
    process, url = installed.serve(bed, echo_target.port)
    with open_tunnel(url) as tunnel:
        installed.change("run.py", moment, f"    os.kill(os.getpid(), 9)\n{moment}")
        assert refused(process) == "the new version was killed by SIGKILL: it printed nothing"
        assert_echo(tunnel)
        assert children_of(process) == ""


@pytest.mark.parametrize(
    ("module", "text", "instead", "reason"),
    [
        (
            "restart/state.py",
            "os.memfd_create(",
            "os.no_such_call(",
            "this system has no memory files (memfd_create)",
        ),
        (
            "restart/state.py",
            "    start = _MAGIC",
            "    raise OSError(28, 'No space left on device')\n    start = _MAGIC",
            "the state cannot be written: No space left on device",
        ),
        (
            "restart/execution.py",
            "os.execve(words[0], words",
            "os.execve('/nowhere', words",
            f"{sys.executable} cannot be executed: No such file or directory",
        ),
    ],
    ids=["no memfd", "no space", "no interpreter"],
)
def test_an_old_version_that_cannot_goes_on(
    bed: Bed, installed: Installed, echo_target: Target, module: str, text: str, instead: str, reason: str
) -> None:
    installed.change(module, text, instead)
    process, url = installed.serve(bed, echo_target.port)
    with open_tunnel(url) as tunnel:
        assert refused(process) == reason
        assert_echo(tunnel)
        with open_tunnel(url) as another:
            assert_echo(another)
