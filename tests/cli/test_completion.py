"""What bash completes, asked as bash asks it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import PROGRAMS
from tunnel.cli.group import COMMANDS

Complete = Callable[..., list[str]]

CONFIG = """\
[hosts.build]
url = "wss://build.example.com"
[hosts.Buffalo]
url = "wss://buffalo.example.com"
[hosts."*.example"]
"""


@pytest.fixture
def completions(bed: Bed, tmp_path: Path) -> Complete:
    """Return what bash offers for a command line, whose last word (which may be empty) is being typed."""
    (tmp_path / "wstunnel-py").mkdir()
    (tmp_path / "wstunnel-py" / "config.toml").write_text(CONFIG)
    env = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}

    def complete(*words: str) -> list[str]:
        line = shlex.join(words)
        script = f"""
        source <(wstunnel-py completion bash) || exit
        compopt() {{ :; }}
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
        _wstunnel_py_completion {words[0]} {shlex.quote(words[-1])} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return bed.check("bash", "-c", script, env=env).text.split()

    return complete


def test_commands_and_named_hosts_are_offered(completions: Complete) -> None:
    assert set(completions("wstunnel-py", "")) == {*COMMANDS, "build", "Buffalo"}
    assert completions("wstunnel-py", "b") == ["build", "Buffalo"]
    assert completions("wstunnel-py", "connect", "bui") == ["build"]
    assert completions("wstunnel-py", "ssh", "--token-file", "x", "bui") == ["build"]
    assert completions("wstunnel-py", "open", "bui") == ["build"]
    assert completions("wstunnel-py", "doctor", "--json", "Bu") == ["build", "Buffalo"]
    assert set(completions("wstunnel-py", "certs", "")) == {"ca", "server", "client", "renew", "show"}


def test_options_and_their_values_are_offered(completions: Complete) -> None:
    assert completions("wstunnel-py", "connect", "--ca") == ["--ca-file"]
    assert completions("wstunnel-py", "serve", "--log-format", "") == ["text", "json"]
    assert set(completions("wstunnel-py", "serve", "--resume")) == {"--resume-for", "--resume-memory"}


def test_a_config_file_that_is_wrong_spoils_nothing(completions: Complete, tmp_path: Path) -> None:
    (tmp_path / "wstunnel-py" / "config.toml").write_text("no toml")
    assert completions("wstunnel-py", "conn") == ["connect"]
