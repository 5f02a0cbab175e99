"""config-ssh --write, --diff and --remove on real files: they keep the rest of the file, byte for byte."""

from __future__ import annotations

import errno
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bed.processes import Bed, Finished
from tests.bed.tunnels import OURS
from tunnel.errors import TunnelError
from tunnel.ssh.config_file import BYTE_ORDER_MARK, apply, include_line, plan_remove, plan_write

BLOCKS = "Host *.e2b\n    User user\n"
OWN = "wstunnel-py.conf"
Run = Callable[..., Finished]


@pytest.fixture
def ssh_config(tmp_path: Path) -> Path:
    """ssh's config file, which is not there yet."""
    return tmp_path / "ssh" / "config"


@pytest.fixture
def run(bed: Bed, ssh_config: Path) -> Run:
    return lambda *words: bed.run(*OURS, "config-ssh", "--ssh-config", str(ssh_config), *words)


def write(ssh_config: Path, blocks: str = BLOCKS) -> None:
    apply(plan_write(str(ssh_config), blocks, "a test"))


def remove(ssh_config: Path) -> None:
    apply(plan_remove(str(ssh_config)))


def line_for(ssh_config: Path) -> bytes:
    return include_line(str(ssh_config)) + b"\n"


def contents(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Everything in a folder: bytes, mode, time of the last change."""
    return {path.name: (path.read_bytes(), path.lstat().st_mode, path.lstat().st_mtime_ns) for path in folder.iterdir()}


# ---- writing


def test_missing_files_and_folders_are_created_for_the_user_alone(run: Run, ssh_config: Path) -> None:
    done = run("--write")
    own = ssh_config.parent / OWN
    assert (done.status, done.stderr) == (0, "")
    assert done.text == f"wrote {own}: *.e2b\nput the Include at the top of {ssh_config}\n"
    assert ssh_config.read_text() == f"Include {own}\n"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (ssh_config.parent, ssh_config, own)]
    assert modes == [0o700, 0o600, 0o600]


def test_a_second_write_changes_nothing(run: Run, ssh_config: Path) -> None:
    run("--write", "--user", "user")
    before = contents(ssh_config.parent)
    done = run("--user", "user", "--write")
    assert (done.status, done.text) == (0, f"nothing to change: {ssh_config.parent / OWN} and {ssh_config}\n")
    assert contents(ssh_config.parent) == before


def test_the_include_comes_before_any_block_and_takes_effect(bed: Bed, run: Run, ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_text("# mine\nHost first *.e2b\n  User me\n  Port 2222\n")
    run("--write", "--user", "user")
    assert ssh_config.read_bytes() == line_for(ssh_config) + b"# mine\nHost first *.e2b\n  User me\n  Port 2222\n"
    lines = bed.check("ssh", "-G", "-F", str(ssh_config), "abc.e2b").text.splitlines()
    assert {"user user", "port 2222", "stricthostkeychecking accept-new"} <= set(lines)
    assert "user me" in bed.check("ssh", "-G", "-F", str(ssh_config), "first").text.splitlines()


def test_hosts_that_are_no_longer_written_are_reported(run: Run, ssh_config: Path) -> None:
    run("--write", "abc", "def", "*.e2b")
    done = run("--write", "abc", "xyz")
    assert done.text == f"wrote {ssh_config.parent / OWN}: abc xyz; removed: def *.e2b\n"


def test_options_that_are_no_longer_written_are_reported(run: Run, ssh_config: Path) -> None:
    run("--write", "--user", "user", "--port", "1", "abc")
    done = run("--write", "--port", "2", "abc")
    assert done.text == f"wrote {ssh_config.parent / OWN}: abc\n"
    assert done.stderr == "wstunnel-py: no longer written: --user user; to keep it, give it again\n"
    assert run("--write", "abc", "--quiet").stderr == ""
    assert run("--write", "abc").stderr == "wstunnel-py: no longer written: --quiet; to keep it, give it again\n"


def test_the_line_in_sshs_own_folder_is_a_bare_name(monkeypatch: pytest.MonkeyPatch) -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert include_line(f"{home}/.ssh/config") == b"Include wstunnel-py.conf"
    assert include_line("/with space/config") == b'Include "/with space/wstunnel-py.conf"'
    assert include_line("/50%/config") == b"Include /50%/wstunnel-py.conf"


def test_a_home_other_than_the_accounts_causes_a_warning(bed: Bed, tmp_path: Path) -> None:
    done = bed.check(*OURS, "config-ssh", "--write", env={"HOME": str(tmp_path)})
    assert (tmp_path / ".ssh" / "config").read_text() == f"Include {tmp_path}/.ssh/{OWN}\n"
    assert done.stderr.startswith("wstunnel-py: warning: HOME is not your account's home")


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_a_folder_that_an_include_cannot_name_is_refused(bed: Bed, tmp_path: Path, name: str) -> None:
    done = bed.run(*OURS, "config-ssh", "--write", "--ssh-config", str(tmp_path / name / "config"))
    assert done.status == 2 and "an Include cannot name this file" in done.stderr
    assert not (tmp_path / name).exists()


def test_a_link_of_a_dotfiles_folder_stays_a_link(ssh_config: Path, tmp_path: Path) -> None:
    ssh_config.parent.mkdir()
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "ssh_config").write_bytes(b"Host a\n")
    ssh_config.symlink_to("../dotfiles/ssh_config")
    write(ssh_config)
    assert ssh_config.readlink() == Path("../dotfiles/ssh_config")
    assert (dotfiles / "ssh_config").read_bytes() == line_for(ssh_config) + b"Host a\n"
    assert sorted(path.name for path in ssh_config.parent.iterdir()) == ["config", OWN]
    remove(ssh_config)
    assert ssh_config.is_symlink() and (dotfiles / "ssh_config").read_bytes() == b"Host a\n"


def test_remove_restores_a_dangling_link(ssh_config: Path, tmp_path: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.symlink_to(tmp_path / "target")
    write(ssh_config)
    assert (tmp_path / "target").read_bytes() == line_for(ssh_config)
    remove(ssh_config)
    assert ssh_config.is_symlink() and not (tmp_path / "target").exists()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_write_keeps_the_mode_of_the_file(ssh_config: Path, mode: int) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_text("Host a\n")
    ssh_config.chmod(mode)
    write(ssh_config)
    assert stat.S_IMODE(ssh_config.stat().st_mode) == mode


def test_write_keeps_the_owner_of_the_file(ssh_config: Path) -> None:
    """Root can give a file to anybody, others to a group that they are in."""
    owner = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    ssh_config.parent.mkdir()
    ssh_config.write_text("Host a\n")
    os.chown(ssh_config, *owner)
    write(ssh_config)
    assert (ssh_config.stat().st_uid, ssh_config.stat().st_gid) == owner


def test_the_include_has_the_line_ends_of_the_file(ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_bytes(b"Host a\r\n  User b\r\n")
    write(ssh_config)
    assert ssh_config.read_bytes() == include_line(str(ssh_config)) + b"\r\nHost a\r\n  User b\r\n"


def test_a_byte_order_mark_stays_in_front(ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_bytes(BYTE_ORDER_MARK + b"Host a\n")
    write(ssh_config)
    assert ssh_config.read_bytes() == BYTE_ORDER_MARK + line_for(ssh_config) + b"Host a\n"


@pytest.mark.parametrize(
    "block", [b"Host foo\n", b"  match all\n", b"HOST=foo\n", b'"Host" foo\n', b"Host\tfoo\r\n", b" Host = foo\n"]
)
@pytest.mark.parametrize("again", [False, True])
def test_an_include_that_has_got_behind_a_block_is_moved_to_the_top(
    ssh_config: Path, block: bytes, again: bool
) -> None:
    ssh_config.parent.mkdir()
    line = line_for(ssh_config)
    ssh_config.write_bytes(block + line + b"  User bar\n" + line * again)
    write(ssh_config)
    ours = line if not block.endswith(b"\r\n") else line[:-1] + b"\r\n"
    assert ssh_config.read_bytes() == ours + block + b"  User bar\n"
    remove(ssh_config)
    assert ssh_config.read_bytes() == block + b"  User bar\n"


def test_an_include_that_the_user_has_moved_within_the_top_stays_there(ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    content = b"# mine\nInclude other\n" + line_for(ssh_config) + b"Hostname x\nHost a\n"
    ssh_config.write_bytes(content)
    write(ssh_config)
    assert ssh_config.read_bytes() == content


# ---- what is not ours, and what goes wrong


@pytest.mark.parametrize("content", ["", "Host mine\n", "\n# Written by wstunnel-py config-ssh --write\n"])
@pytest.mark.parametrize("action", ["--write", "--remove", "--diff"])
def test_a_file_of_somebody_elses_is_not_touched(run: Run, ssh_config: Path, content: str, action: str) -> None:
    ssh_config.parent.mkdir()
    own = ssh_config.parent / OWN
    own.write_text(content)
    ssh_config.write_bytes(line_for(ssh_config))
    before = contents(ssh_config.parent)
    done = run(action)
    line = f"cannot use {own}: it was not written by config-ssh: move it away"
    assert (done.status, done.stdout, done.stderr) == (2, b"", f"wstunnel-py: {line}\n")
    assert contents(ssh_config.parent) == before


def test_a_path_that_is_not_a_file_is_refused(run: Run, ssh_config: Path) -> None:
    def refusal() -> str:
        done = run("--write")
        assert (done.status, done.stdout) == (2, b"")
        return done.stderr.removeprefix(f"wstunnel-py: cannot use {ssh_config}: ")

    ssh_config.parent.mkdir()
    ssh_config.mkdir()
    assert refusal() == "it is not a regular file\n"
    ssh_config.rmdir()
    os.mkfifo(ssh_config)
    assert refusal() == "it is not a regular file\n"
    ssh_config.unlink()
    ssh_config.write_bytes(b"#" * 2_000_000)
    assert refusal() == "it is larger than 1048576 bytes\n"
    ssh_config.unlink()
    ssh_config.symlink_to("config")
    assert refusal() == "Too many levels of symbolic links\n"
    ssh_config.unlink()
    ssh_config.parent.rmdir()
    ssh_config.parent.write_text("a file")
    done = run("--write")
    assert done.status == 2 and done.stderr.endswith(": Not a directory\n")


def test_our_file_does_not_include_itself(bed: Bed, tmp_path: Path) -> None:
    done = bed.run(*OURS, "config-ssh", "--write", "--ssh-config", str(tmp_path / OWN))
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.endswith(": it cannot include itself\n")


@pytest.mark.parametrize("plan", ["write", "remove"])
def test_a_file_that_another_program_changes_meanwhile_is_left_to_it(ssh_config: Path, plan: str) -> None:
    if plan == "remove":
        write(ssh_config)
    else:
        ssh_config.parent.mkdir()
        ssh_config.write_text("Host a\n")
    changes = plan_write(str(ssh_config), BLOCKS, "a test") if plan == "write" else plan_remove(str(ssh_config))
    ssh_config.write_text("Host b\n")
    with pytest.raises(TunnelError, match="changed by another program in the meantime") as caught:
        apply(changes)
    assert caught.value.exit_code == 75
    assert ssh_config.read_text() == "Host b\n"
    assert {path.name for path in ssh_config.parent.iterdir()} == {"config", OWN}


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    ssh_config: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_text("Host a\n")
    write(ssh_config)
    before = contents(ssh_config.parent)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"tunnel.ssh.config_file.os.{step}", fail)
        with pytest.raises(TunnelError, match=r"cannot use .*: No space left on device"):
            write(ssh_config, "Host other\n")
    assert contents(ssh_config.parent) == before


def test_concurrent_writes_leave_one_include_and_keep_the_rest(ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_text("Host a\n")
    command = [*OURS, "config-ssh", "--write", "--ssh-config", str(ssh_config)]
    runs = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(8)]
    for run in runs:
        _, told = run.communicate(timeout=60)
        assert run.returncode == 0 or (run.returncode == 75 and b"in the meantime" in told)
    assert ssh_config.read_bytes() == line_for(ssh_config) + b"Host a\n"
    assert {path.name for path in ssh_config.parent.iterdir()} == {"config", OWN}


# ---- showing


def test_the_difference_is_shown_and_nothing_is_written(run: Run, ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.write_text("Host a")
    before = contents(ssh_config.parent)
    done = run("--diff")
    own = ssh_config.parent / OWN
    assert (done.status, done.stderr) == (1, "")
    assert done.text.startswith(f"--- /dev/null\n+++ {own}\n@@ -0,0 +1,9 @@\n+# Written by wstunnel-py")
    shown = (
        f"--- {ssh_config}\n+++ {ssh_config}\n@@ -1 +1,2 @@\n+Include {own}\n Host a\n\\ No newline at end of file\n"
    )
    assert done.text.endswith(shown)
    assert contents(ssh_config.parent) == before

    run("--write")
    assert (run("--diff").status, run("--diff").stdout) == (0, b"")
    done = run("--diff", "--remove")
    assert done.status == 1 and f"-Include {own}\n" in done.text and f"--- {own}\n+++ /dev/null\n" in done.text
    assert own.exists()
    run("--remove")
    assert (run("--diff", "--remove").status, run("--diff", "--remove").stdout) == (0, b"")


# ---- removing


def test_remove_deletes_the_files_that_write_made(run: Run, ssh_config: Path) -> None:
    run("--write")
    run("--write", "abc")
    done = run("--remove")
    own = ssh_config.parent / OWN
    assert done.text == f"deleted {ssh_config}, which contained only the Include\ndeleted {own}\n"
    assert list(ssh_config.parent.iterdir()) == []
    done = run("--remove")
    assert (done.status, done.text) == (0, f"nothing to change: {ssh_config} and {own}\n")


def test_remove_keeps_what_the_user_has_written_since(run: Run, ssh_config: Path) -> None:
    run("--write")
    with ssh_config.open("a") as file:
        file.write("Host mine\n")
    done = run("--remove")
    assert done.text.startswith(f"removed the Include from {ssh_config}\n")
    assert ssh_config.read_text() == "Host mine\n"


def test_remove_leaves_an_empty_file_that_was_empty_before(ssh_config: Path) -> None:
    ssh_config.parent.mkdir()
    ssh_config.touch()
    write(ssh_config)
    remove(ssh_config)
    assert ssh_config.read_bytes() == b""


PIECES = st.sampled_from(
    [b"Host a", b"Match all", b"  User b", b"Include x", b"Include wstunnel-py.conf ", b"# Host", b"\xff\x00", b"=",
     b"\r", b"\n", b"\n", b"\r\n", b" ", b"\t", b"\x0c", b"\x85", "\u2028".encode(), BYTE_ORDER_MARK]
)  # fmt: skip
CONTENTS = st.none() | st.binary(max_size=40) | st.lists(PIECES, max_size=20).map(b"".join)


@given(content=CONTENTS, blocks=st.lists(st.sampled_from(["Host a\n", BLOCKS]), min_size=1, max_size=3))
def test_remove_restores_the_file_byte_for_byte(content: bytes | None, blocks: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ssh_config = Path(folder) / "config"
        if content is not None:
            ssh_config.write_bytes(content)
        for text in blocks:
            write(ssh_config, text)
            mark = BYTE_ORDER_MARK if (content or b"").startswith(BYTE_ORDER_MARK) else b""
            line, end, rest = ssh_config.read_bytes().removeprefix(mark).partition(b"\n")
            assert line.removesuffix(b"\r") + end == line_for(ssh_config)
            assert mark + rest == (content or b"")
            assert (Path(folder) / OWN).read_text().endswith(text)
        remove(ssh_config)
        assert list(Path(folder).iterdir()) == ([] if content is None else [ssh_config])
        assert content is None or ssh_config.read_bytes() == content


def test_an_editor_may_end_the_lines_as_windows_does(ssh_config: Path) -> None:
    write(ssh_config)
    own = ssh_config.parent / OWN
    own.write_bytes(own.read_bytes().replace(b"\n", b"\r\n"))
    write(ssh_config)
    own.write_bytes(own.read_bytes().replace(b"\n", b"\r\n"))
    remove(ssh_config)
    assert list(ssh_config.parent.iterdir()) == []
