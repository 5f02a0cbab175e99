"""The single file's cache: it makes starts fast, nothing depends on it, and nothing that others could write is trusted.

To see whether a module comes from the cache, one is put there that speaks, whole and well-formed as the program would
write it itself.
"""

from __future__ import annotations

import marshal
import os
import re
import shutil
import socket
import stat
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from buildlib.single_file import wstunnel_py_start
from tests.bed.built import Built
from tests.bed.processes import Bed, Finished, free_port, program
from tests.single_file.conftest import BARE

NOBODY = 65534
USAGE = "wstunnel-py: HOST is missing; usage: wstunnel-py connect [OPTIONS] [--] HOST\n"
SPEAKS = "the cache speaks\n"
MODULE = "tunnel.net.standard_streams"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user and mounting want root")


class Home:
    """A user's cache below ``folder``, and the program in short runs that import what a start of it does."""

    def __init__(self, bed: Bed, alone: tuple[str, ...]) -> None:
        self._bed = bed
        self._alone = alone
        self.base = bed.folder / "cache"
        self.outer = self.base / "wstunnel-py"

    def run(self, *around: str, env: dict[str, str] | None = None, python: tuple[str, ...] = ()) -> Finished:
        command = (*around, *(python or self._alone), "connect")
        return self._bed.run(*command, env={"XDG_CACHE_HOME": str(self.base)} if env is None else env)

    def works(self, *around: str, env: dict[str, str] | None = None) -> None:
        finished = self.run(*around, env=env)
        assert (finished.status, finished.stderr) == (2, USAGE)

    @property
    def inner(self) -> Path:
        (found,) = self.outer.iterdir()
        return found

    @property
    def file(self) -> Path:
        return self.inner / f"{MODULE}.code"

    def fill(self) -> None:
        """Fill the cache, and have one of its modules speak when it is used."""
        self.works()
        shown = f"wstunnel-py.pyz/{MODULE.replace('.', '/')}.py"
        source = f"import sys; sys.stderr.write({SPEAKS!r}); raise SystemExit(3)"
        data = marshal.dumps(compile(source, shown, "exec"))
        self.file.write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)

    @property
    def speaks(self) -> bool:
        finished = self.run()
        assert finished.stderr in (SPEAKS, USAGE)
        return finished.stderr == SPEAKS


@pytest.fixture
def home(bed: Bed, alone: tuple[str, ...]) -> Home:
    return Home(bed, alone)


def test_the_second_start_compiles_nothing(bed: Bed, built: Built, home: Home) -> None:
    def imported() -> set[str]:
        finished = home.run(python=(*BARE, "-X", "importtime", str(built.archive)))
        return {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines() if "|" in line}

    first, second = imported(), imported()
    assert first >= second > {"tunnel.cli.main"}
    assert first - second >= {"zipfile"}, "which reads the sources"
    assert home.speaks is False
    home.fill()
    assert home.speaks


def test_the_cache_is_the_user_s_alone_and_named_by_what_is_in_the_archive(home: Home, built: Built) -> None:
    home.works()
    for folder in (home.outer, home.inner):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.inner.iterdir()} == {0o600}
    assert re.fullmatch(r"[0-9a-f]{64}-cpython-3\d+-\d+", home.inner.name)
    assert home.inner.name[:64].encode() in built.archive.read_bytes()


def make_foreign(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def make_link(path: Path) -> None:
    target = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(target)


def make_writable(path: Path) -> None:
    path.chmod(0o770 if path.is_dir() else 0o620)


@as_root
@pytest.mark.parametrize("spoil", [make_foreign, make_link, make_writable])
@pytest.mark.parametrize("part", ["outer", "inner", "file"])
def test_what_others_could_have_written_is_not_used(home: Home, part: str, spoil: Callable[[Path], None]) -> None:
    home.fill()
    assert home.speaks
    spoil(getattr(home, part))
    assert not home.speaks


def test_a_folder_that_others_can_look_into_is_left_alone(home: Home) -> None:
    home.outer.mkdir(parents=True)
    home.outer.chmod(0o755)
    home.works()
    assert list(home.outer.iterdir()) == []


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a bit": flip,
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"print('hello')\n",
    "no code": lambda data: zlib.crc32(b"i\1\0\0\0").to_bytes(4, "little") + b"i\1\0\0\0",
    "bad marshal": lambda data: zlib.crc32(b"?").to_bytes(4, "little") + b"?",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(home: Home, damage: str) -> None:
    home.works()
    whole = home.file.read_bytes()
    home.file.write_bytes(DAMAGES[damage](whole))
    home.works()
    assert home.file.read_bytes() == whole


def test_a_module_under_another_one_s_name_is_not_used(home: Home) -> None:
    home.works()
    shutil.copy(home.inner / "tunnel.errors.code", home.file)
    home.works()


def test_a_pipe_in_a_file_s_place_holds_up_nobody(home: Home) -> None:
    home.works()
    home.file.unlink()
    os.mkfifo(home.file, 0o600)
    home.works()


def test_many_first_starts_at_once_leave_one_whole_cache(bed: Bed, home: Home, alone: tuple[str, ...]) -> None:
    env = {"XDG_CACHE_HOME": str(home.base)}
    starts = [bed.start(*alone, "connect", env=env) for _ in range(8)]
    assert {start.wait(60) for start in starts} == {2}
    assert {path.suffix for path in home.inner.iterdir()} == {".code"}
    home.fill()
    assert home.speaks


@as_root
def test_a_full_disk_is_no_reason_to_fail_and_gets_no_half_files(bed: Bed, home: Home, alone: tuple[str, ...]) -> None:
    script = """
        mount -t tmpfs -o size=60k,mode=700 tmpfs "$1" && shift || exit
        "$@"; status=$?
        find "$XDG_CACHE_HOME" -type f ! -name '*.code'
        exit $status
    """
    home.base.mkdir()
    command = (program("unshare"), "--mount", "sh", "-c", script, "sh", str(home.base), *alone, "connect")
    finished = bed.run(*command, env={"XDG_CACHE_HOME": str(home.base)})
    assert (finished.status, finished.stderr, finished.text) == (2, USAGE, "")


@pytest.mark.parametrize(
    "env",
    [
        {"XDG_CACHE_HOME": "/proc/nothing"},
        {"XDG_CACHE_HOME": "/dev/null"},
        {"XDG_CACHE_HOME": "relative", "HOME": "/proc"},
        {"XDG_CACHE_HOME": "", "HOME": "/dev/null"},
    ],
)
def test_the_file_runs_without_a_place_for_its_cache(home: Home, env: dict[str, str]) -> None:
    home.works(env=env)


@as_root
@pytest.mark.parametrize("user", [NOBODY, 4242])  # the second has no account
@pytest.mark.parametrize("variables", [("-u", "HOME"), ("HOME=/root",), ("HOME=/nonexistent",)])
def test_a_user_without_a_home_of_their_own_can_do_without(
    bed: Bed, user: int, variables: tuple[str, ...], short_folder: Path, built: Built
) -> None:
    short_folder.chmod(0o755)
    archive = str(shutil.copy(built.archive, short_folder))
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    # Debian's Python, as that of the tests may be in a home that others cannot enter.
    command = (*become, "env", *variables, "/usr/bin/python3", "-I", "-S", archive, "connect")
    finished = bed.run(*command)
    assert (finished.status, finished.stderr) == (2, USAGE)


@as_root
def test_root_with_another_user_s_home_leaves_nothing_there(home: Home, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / ".cache").mkdir(parents=True)
    for path in (theirs, theirs / ".cache"):
        os.chown(path, NOBODY, NOBODY)
    home.works(env={"HOME": str(theirs)})
    assert list((theirs / ".cache").iterdir()) == []
    (theirs / ".cache").rmdir()
    home.works(env={"HOME": str(theirs)})
    assert list(theirs.iterdir()) == []


def test_the_home_s_cache_folder_is_made_if_need_be(home: Home, tmp_path: Path) -> None:
    home.works(env={"HOME": str(tmp_path)})
    assert stat.S_IMODE((tmp_path / ".cache").stat().st_mode) == 0o700
    assert list((tmp_path / ".cache" / "wstunnel-py").iterdir())


def test_a_home_that_is_not_there_is_not_made(home: Home, tmp_path: Path) -> None:
    home.works(env={"HOME": str(tmp_path / "nonexistent")})
    assert not (tmp_path / "nonexistent").exists()


def test_caches_of_other_versions_go_when_they_were_not_used_for_a_month(home: Home) -> None:
    home.works()
    old, young, strange = (home.outer / name for name in ("0" * 64 + "-x", "1" * 64 + "-x", "notes"))
    for folder in (old, young, strange):
        folder.mkdir(mode=0o700)
        (folder / "tunnel.code").touch()
    month = time.time() - 31 * 86400
    for folder in (old, strange):
        os.utime(folder, (month, month))
    (current,) = set(home.outer.iterdir()) - {old, young, strange}
    shutil.rmtree(current)
    home.works()
    assert not old.exists() and young.exists() and strange.exists()
    os.utime(current, (month, month))
    home.works()
    assert current.stat().st_mtime > month, "it is in use"


@as_root
def test_a_cache_on_a_disk_that_cannot_be_written_is_used_at_any_age(home: Home) -> None:
    """As in an image whose build has filled it, and which runs with a read-only root."""
    home.fill()
    long_ago = time.time() - 400 * 86400
    os.utime(home.inner, (long_ago, long_ago))
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    finished = home.run(program("unshare"), "--mount", "sh", "-c", script, "sh", str(home.base))
    assert (finished.status, finished.stderr) == (3, SPEAKS)


@as_root
def test_what_a_killed_start_leaves_does_not_stop_the_next_one_with_its_pid(home: Home) -> None:
    """In a container that is started again, the program has the same process ID every time."""
    renames = "?rename,?renameat,?renameat2"
    traced = (program("unshare"), "--pid", "--fork", program("strace"), "-qq", "-o", "/dev/null", "-e", renames)
    killed = home.run(*traced, "-e", f"inject={renames}:signal=KILL:when=2")
    assert killed.stderr == "" and len(list(home.inner.iterdir())) == 2  # the first module, and what is left
    finished = home.run(*traced)
    assert (finished.status, finished.stderr, home.file.exists()) == (2, USAGE, True)


@pytest.mark.parametrize("cached", [True, False])
def test_the_archive_may_be_replaced_while_it_runs(bed: Bed, built: Built, tmp_path: Path, cached: bool) -> None:
    """What is imported later comes from the archive that was started."""
    archive = Path(shutil.copy(built.archive, tmp_path / "replaced.pyz"))
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache") if cached else "/dev/null"}
    port = free_port()
    listen, target = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    process = bed.start(*BARE, str(archive), "serve", "--listen", listen, "--target", target, env=env)
    process.wait_for_line("bridge ready")
    archive.write_bytes(b"something else")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    process.send_signal(15)
    assert process.wait(20) == 0, process.log()


def test_windows_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", "/users/me/local")
    assert wstunnel_py_start._base_folder() == "/users/me/local"
    monkeypatch.setenv("LOCALAPPDATA", "")
    assert wstunnel_py_start._base_folder() is None


def test_an_error_s_traceback_shows_the_source(bed: Bed, built: Built) -> None:
    code = (
        "import sys, runpy; sys.argv = [sys.argv[1], 'connect', '-v', 'ws://127.0.0.1:1'];"
        "import socket; socket.socket = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([*BARE, "-c", code, str(built.archive)], capture_output=True, text=True, check=False)
    assert done.returncode == 70, done.stderr
    assert re.search(r'File "wstunnel-py\.pyz/tunnel/\S+", line \d+, in \w+\n +\S', done.stderr)
