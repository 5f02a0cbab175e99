"""The user's home: HOME, the account's, or none, and the error where one is needed."""

from __future__ import annotations

import os
import pwd
import sys

import pytest

from tunnel.errors import UsageError
from tunnel.net.home import base_folder, expand_home, home_folder, wanted_home

ACCOUNT = pwd.getpwuid(os.getuid()).pw_dir


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("value", [None, "", "relative/home"])
def test_a_relative_home_is_ignored_in_favour_of_the_accounts(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", value)
    assert home_folder() == ACCOUNT
    assert expand_home("~/c/d") == f"{ACCOUNT}/c/d"


def test_windows_has_its_own_way_to_tell_and_no_numbers_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/a/b")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os.path, "expanduser", {"~": "/users/me"}.__getitem__)
    assert home_folder() == wanted_home("x") == "/users/me"
    monkeypatch.setattr(os.path, "expanduser", {"~": "~"}.__getitem__)
    monkeypatch.delattr(os, "getuid")
    monkeypatch.delenv("USERPROFILE", raising=False)
    assert home_folder() is None
    with pytest.raises(UsageError) as caught:
        wanted_home("~/key")
    assert caught.value.problem == "~/key: there is no home folder: USERPROFILE is not set"


def test_home_takes_precedence_over_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/a/b")
    assert home_folder() == wanted_home("x") == "/a/b"


@pytest.mark.parametrize(("value", "why"), [(None, "HOME is not set"), ("here", "HOME=here is not an absolute path")])
@pytest.mark.usefixtures("no_account")
def test_without_a_home_it_is_said_what_it_is_needed_for_and_why_there_is_none(
    monkeypatch: pytest.MonkeyPatch, value: str | None, why: str
) -> None:
    if value is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", value)
    assert home_folder() is None
    for find in (wanted_home, expand_home):
        with pytest.raises(UsageError) as caught:
            find("~/key", setting="key_file")
        assert caught.value.problem == f"~/key: there is no home folder: {why}, and user {os.getuid()} has no account"
        assert (caught.value.setting, caught.value.origin) == ("key_file", None)
    with pytest.raises(UsageError) as caught:
        expand_home("~", origin="KEY_FILE")
    assert (caught.value.setting, caught.value.origin) == (None, "KEY_FILE")
    with pytest.raises(UsageError) as caught:
        wanted_home("~", origin="KEY_FILE")
    assert caught.value.origin == "KEY_FILE"


def test_an_account_whose_home_is_no_absolute_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    entry = pwd.struct_passwd(("me", "x", 1, 1, "", "home", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert home_folder() is None


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("plain", "plain"),
        ("/a/~", "/a/~"),
        ("", ""),
        ("~", "/a/b"),
        ("~/", "/a/b/"),
        ("~/c/d", "/a/b/c/d"),
        ("~root", "/root"),
        ("~root/x", "/root/x"),
    ],
)
def test_a_tilde_stands_for_a_home_as_in_shells(monkeypatch: pytest.MonkeyPatch, path: str, expanded: str) -> None:
    monkeypatch.setenv("HOME", "/a/b")
    assert expand_home(path) == expanded


def test_the_home_of_nobody_is_named_with_what_to_write_for_a_file() -> None:
    with pytest.raises(UsageError) as caught:
        expand_home("~no-such-user/x", setting="key_file", origin="--key")
    assert caught.value.problem == (
        "~no-such-user/x: there is no user no-such-user with a home; for a file with that name write ./~no-such-user/x"
    )
    assert (caught.value.setting, caught.value.origin) == ("key_file", "--key")


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_a_folder_of_the_xdg_specification_has_a_default_in_the_home(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.setenv("HOME", "/a/b")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_STATE_HOME", value)
    assert base_folder("XDG_STATE_HOME", ".local", "state") == "/a/b/.local/state"


def test_a_folder_of_the_xdg_specification_is_what_its_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert base_folder("XDG_STATE_HOME", ".local") == "/state"


@pytest.mark.usefixtures("no_account")
def test_without_a_home_there_is_no_such_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert base_folder("XDG_STATE_HOME", ".local") is None
