"""Files that somebody names as configuration or secrets: what is opened, and what is refused without waiting."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import pytest

from tunnel.net.files import ANY, LENIENT, OWNED, PRIVATE, STRICT, check_regular, exposure_warning, read_regular


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_bytes(b"content")
    return path


def refusal(path: Path | str, *, guard: str = "any", limit: int = 100) -> str:
    with pytest.raises(OSError) as caught:
        read_regular(str(path), limit, guard=guard)
    return str(caught.value.strerror)


def test_a_file_is_read_whole_or_not_at_all(file: Path) -> None:
    assert read_regular(str(file), 7)[0] == b"content"
    assert refusal(file, limit=6) == "it is longer than 6 bytes"


def test_a_link_leads_to_its_file(file: Path, tmp_path: Path) -> None:
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
    assert refusal(file, guard=STRICT) == f"its mode is {mode:04o}, so others may write to it: chmod 600"
    assert read_regular(str(file), 100)[0] == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_counts(file: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    os.chown(file, nobody, -1)
    assert refusal(file, guard=OWNED) == "it belongs to another user"
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
    assert "others may write" in refusal(file, guard=STRICT)
    os.chown(file, user.pw_uid, 0)
    assert "others may write" in refusal(file, guard=LENIENT)
    os.chown(file, user.pw_uid, group)
    file.chmod(0o666)
    assert "others may write" in refusal(file, guard=LENIENT)


def _own_group(name: str) -> bool:
    import grp

    try:
        return not set(grp.getgrnam(name).gr_mem) - {name}
    except KeyError:
        return False


@pytest.mark.parametrize(
    ("mode", "can"),
    [(0o600, None), (0o400, None), (0o640, "read"), (0o604, "read"), (0o620, "change"), (0o666, "change")],
)
def test_a_secret_that_others_can_read_or_change_is_warned_of(file: Path, mode: int, can: str | None) -> None:
    file.chmod(mode)
    expected = [] if can is None else [f"others can {can} the key in {file}: chmod 600 it"]
    assert exposure_warning(str(file), check_regular(str(file)), "the key in ") == expected


def test_a_private_file_is_read_by_its_owner_only(file: Path) -> None:
    file.chmod(0o640)
    assert refusal(file, guard=PRIVATE) == "its mode is 0640, so others may read it: chmod 600"
    file.chmod(0o600)
    check_regular(str(file), guard=PRIVATE)
