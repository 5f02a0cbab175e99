"""Quoted words are read as intended by ssh, by the shells that run a ProxyCommand, and by rsync."""

from __future__ import annotations

import shlex
import shutil

import pytest

from tests.bed.processes import Bed
from tunnel.errors import UsageError
from tunnel.ssh.quoting import quoted, quoted_for_rsync, quoted_for_shell, quoted_value

WORDS = [
    "plain", "", "with space", "it's", '"quoted"', '"', "'", "\\", "a\\", "\\\\x\\'", "$HOME", "$(id)", "`id`", "50%",
    "%h %%", "=x", "#x", "~", "a;b&c|d<e>f", "*?[a]", "größer", "!x", "{a,b}", "-x", "''",
]  # fmt: skip
SHELLS = [name for name in ("sh", "bash", "dash", "zsh", "ksh") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_proxy_command_starts_its_program_with_these_words(bed: Bed, shell: str) -> None:
    """By a real ssh, which runs it by the user's shell; it then finds that no SSH server is behind it."""
    script = bed.folder / "words"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\n')
    script.chmod(0o755)
    command = " ".join(map(quoted_for_shell, [str(script), *WORDS]))
    path = shutil.which(shell)
    assert path is not None
    ssh = bed.run("ssh", "-T", "-F", "none", "-o", f"ProxyCommand {command}", "box", env={"SHELL": path})
    assert ssh.stderr.splitlines()[: len(WORDS)] == WORDS


@pytest.mark.parametrize("word", [word for word in WORDS if word])
def test_ssh_takes_a_value_as_it_is(bed: Bed, word: str) -> None:
    path = f"/x/{word}"
    printed = bed.check("ssh", "-F", "none", "-G", "-o", f"IdentityFile {quoted_value(path)}", "box").text
    assert f"identityfile {path.replace('%', '%%')}" in printed.splitlines()


def test_what_no_quotes_make_safe_is_refused() -> None:
    for word in ("a\nb", "a\0b", "\x1b"):
        for quote in (quoted, quoted_value, quoted_for_shell):
            with pytest.raises(UsageError, match="control characters are not allowed"):
                quote(word)
    with pytest.raises(UsageError, match="which takes"):
        quoted_value("/k/${HOME}")


def test_rsync_reads_doubled_quotes() -> None:
    assert [quoted_for_rsync(word) for word in ("a", "a b", "it's", "")] == ["a", "'a b'", "'it''s'", "''"]


def test_on_windows_a_program_reads_its_command_line_by_itself() -> None:
    path = r"C:\Program Files\100% $mine\wstunnel-py.exe"
    assert quoted_for_shell(path, platform="win32") == '"C:/Program Files/100%% $mine/wstunnel-py.exe"'
    assert quoted_value(path, platform="win32") == '"C:/Program Files/100%% $mine/wstunnel-py.exe"'


def test_a_plain_word_stays_as_it_is() -> None:
    for word in ("/usr/bin/wstunnel-py", "--url", "wss://8081-box.test:1/a,b?c=d"):
        assert shlex.split(quoted_for_shell(word)) == [word]
    assert quoted_for_shell("--token-file") == quoted_value("--token-file") == "--token-file"
