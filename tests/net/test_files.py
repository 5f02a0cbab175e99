"""Files that somebody names as configuration or secrets: what is opened, and what is refused without waiting."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tunnel.net.files import (
    ANY,
    LENIENT,
    OWNED,
    PRIVATE,
    STRICT,
    check_regular,
    exposure_warning,
    is_utf16,
    open_regular,
    read_regular,
    text_of,
    without_mark,
    write_whole,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_bytes(b"content")
    return path


def error(path: Path | str, *, guard: str = "any", limit: int = 100) -> tuple[int | None, object]:
    """Number and file name of what a refusal is."""
    with pytest.raises(OSError) as caught:
        read_regular(str(path), limit, guard=guard)
    return caught.value.errno, caught.value.filename


def test_a_refusal_names_the_file_as_the_systems_own_do(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert error(tmp_path / "pipe") == (errno.EINVAL, str(tmp_path / "pipe"))
    assert error(tmp_path) == (errno.EISDIR, str(tmp_path))
    assert error(file, limit=6) == (errno.EFBIG, str(file))
    file.chmod(0o622)
    assert error(file, guard=STRICT) == (errno.EPERM, str(file))
    with pytest.raises(OSError) as caught:
        check_regular(str(file), guard=STRICT)
    assert caught.value.errno == errno.EPERM


def test_a_pipe_that_takes_the_files_place_at_the_last_moment_is_seen(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = os.open
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda path, flags: genuine(str(tmp_path / "pipe"), flags))
        assert error(file) == (errno.EINVAL, str(file))
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_of_no_known_kind_is_refused_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.stat(file)
    odd = os.stat_result((0o110600, *genuine[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: odd)
        with pytest.raises(OSError) as caught:
            open_regular(str(file))
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (
        errno.EINVAL,
        "it is not a regular file",
        str(file),
    )


def test_no_descriptor_is_left_behind(file: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        check_regular(str(file), guard=STRICT)
        refusal(file, limit=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_endless_file_is_read_up_to_the_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_bytes(b"x" * 1000)
    sizes: list[int] = []
    genuine = open

    def counting(*arguments: Any) -> Any:
        opened = genuine(*arguments)
        read = opened.read

        class Counted:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                opened.close()

            def read(self, size: int = -1) -> bytes:
                data: bytes = read(size)
                sizes.append(len(data))
                return data

        return Counted()

    monkeypatch.setattr("builtins.open", counting)
    refusal(file, limit=10)
    assert sizes == [11]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("grüße".encode(), "grüße"),
        (b"\xef\xbb\xbf" + "grüße".encode(), "grüße"),
        ("grüße".encode() + b"\xef\xbb\xbf", "grüße\ufeff"),
        ("\ufeffgrüße".encode("utf-16-le"), "grüße"),
        ("\ufeffgrüße".encode("utf-16-be"), "grüße"),
        ("\ufeff1".encode("utf-16-le"), "1"),
    ],
)
def test_text_may_begin_with_the_marks_that_editors_write(data: bytes, text: str) -> None:
    assert text_of(data) == text


def test_a_mark_of_utf16_alone_is_not_enough() -> None:
    for mark in (b"\xff\xfe", b"\xfe\xff"):
        assert not is_utf16(mark) and is_utf16(mark + b"a")
    assert not is_utf16(b"abc")


def test_bytes_that_are_no_text_are_reported_or_marked() -> None:
    with pytest.raises(UnicodeDecodeError):
        text_of(b"\xff")
    assert text_of(b"a\xff", "replace") == "a\ufffd"
    assert without_mark(b"\xef\xbb\xbfa\xff") == b"a\xff"


def refusal(path: Path | str, *, guard: str = "any", limit: int = 100) -> str:
    with pytest.raises(OSError) as caught:
        read_regular(str(path), limit, guard=guard)
    return str(caught.value.strerror)


def test_a_file_is_read_whole_or_not_at_all(file: Path) -> None:
    assert read_regular(str(file), 7)[0] == b"content"
    assert refusal(file, limit=6) == "it is longer than 6 bytes"


def test_a_link_is_followed_to_its_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    assert read_regular(str(tmp_path / "link"), 100, guard=STRICT)[0] == b"content"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path, short_folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_folder / "socket"))
        assert refusal(short_folder / "socket") == "it is a socket, not a regular file"
    assert refusal(tmp_path / "pipe") == "it is a pipe, not a regular file"
    assert refusal("/dev/zero") == "it is a device, not a regular file"
    assert refusal(tmp_path) == "Is a directory"
    assert refusal(tmp_path / "none") == "No such file or directory"


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o622, 0o666, 0o664])
def test_what_others_can_write_is_refused_where_it_matters(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert refusal(file, guard=STRICT) == f"its mode is {mode:04o}, so other users may write to it: chmod 600"
    assert read_regular(str(file), 100)[0] == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused_if_its_owner_matters(file: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(file, nobody, -1)
    with pytest.raises(PermissionError) as caught:
        check_regular(str(file), guard=OWNED)
    assert (caught.value.strerror, caught.value.filename) == ("it belongs to another user", str(file))
    for guard in (ANY, STRICT, LENIENT):
        check_regular(str(file), guard=guard)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_group_of_the_owners_own_is_nobody_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    user = next((each for each in pwd.getpwall() if each.pw_uid and _own_group(each.pw_name)), None)
    if user is None:
        pytest.skip("no user has a group of his own")
    group = grp.getgrnam(user.pw_name).gr_gid
    os.chown(file, user.pw_uid, group)
    file.chmod(0o664)
    monkeypatch.setattr(os, "geteuid", lambda: user.pw_uid)
    check_regular(str(file), guard=LENIENT)
    assert "other users may write" in refusal(file, guard=STRICT)
    os.chown(file, user.pw_uid, 0)
    assert "other users may write" in refusal(file, guard=LENIENT)
    os.chown(file, user.pw_uid, group)
    file.chmod(0o666)
    assert "other users may write" in refusal(file, guard=LENIENT)


def _own_group(name: str) -> bool:
    import grp

    try:
        return not set(grp.getgrnam(name).gr_mem) - {name}
    except KeyError:
        return False


@pytest.mark.parametrize(
    ("mode", "can"),
    [
        *((0o600, None), (0o400, None), (0o711, None), (0o640, "read"), (0o604, "read"), (0o620, "change")),
        *((0o666, "change"), (0o602, "change"), (0o615, "read"), (0o651, "read")),
    ],
)
def test_a_secret_that_others_can_read_or_change_causes_a_warning(file: Path, mode: int, can: str | None) -> None:
    file.chmod(mode)
    expected = [] if can is None else [f"other users can {can} the key in {file}: chmod 600 it"]
    assert exposure_warning(str(file), check_regular(str(file)), "the key in ") == expected


def test_the_file_itself_is_named_where_nothing_is_said_of_it(file: Path) -> None:
    file.chmod(0o644)
    assert exposure_warning(str(file), check_regular(str(file))) == [f"other users can read {file}: chmod 600 it"]


def test_the_group_of_a_file_that_is_somebody_elses_causes_no_warning(file: Path) -> None:
    file.chmod(0o664)
    info = os.stat(file)
    others = os.stat_result((*info[:4], os.geteuid() + 1, *info[5:]))
    assert exposure_warning("x", others) == ["other users can read x: chmod 600 it"]
    for mode in (0o100660, 0o100661):
        assert exposure_warning("x", os.stat_result((mode, *others[1:]))) == []


@pytest.mark.parametrize("mode", [0o600, 0o711, 0o755, 0o644])
def test_others_who_may_only_read_or_run_a_file_are_no_writers(file: Path, mode: int) -> None:
    file.chmod(mode)
    for guard in (STRICT, LENIENT, OWNED):
        check_regular(str(file), guard=guard)


def test_root_and_the_user_are_owners_like_any_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.stat(file).st_uid
    check_regular(str(file), guard=OWNED)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1000)
    if owner == 0:
        check_regular(str(file), guard=OWNED)
    else:
        assert refusal(file, guard=OWNED) == "it belongs to another user"


def test_roots_group_is_not_roots_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems put administrators into it."""
    info = os.stat(file)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((0o100620, *info[1:4], 0, 0, *info[6:])))
    assert "other users may write" in refusal(file, guard=LENIENT)


def test_a_group_without_a_name_is_not_the_owners_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    info = os.stat(file)
    file.chmod(0o620)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result((0o100620, *info[1:4], 1000, 1000, *info[6:])))
    assert "other users may write" in refusal(file, guard=LENIENT)


def test_a_private_file_is_read_by_its_owner_only(file: Path) -> None:
    file.chmod(0o640)
    assert refusal(file, guard=PRIVATE) == "its mode is 0640, so other users may read it: chmod 600"
    file.chmod(0o600)
    check_regular(str(file), guard=PRIVATE)


def test_a_file_is_put_into_its_place_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    write_whole(str(path), b"after\r\n", 0o600)
    assert path.read_bytes() == b"after\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_happens_to_lie_beside_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    beside = tmp_path / f"file.{os.getpid()}.00000000"
    beside.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        write_whole(str(tmp_path / "file"), b"data", 0o600)
    assert beside.read_bytes() == b"somebody else's" and not (tmp_path / "file").exists()


def test_a_file_that_cannot_be_put_into_its_place_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    place.mkdir()
    with pytest.raises(OSError):
        write_whole(str(place), b"data", 0o600)
    assert list(tmp_path.iterdir()) == [place]
