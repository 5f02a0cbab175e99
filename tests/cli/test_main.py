"""The command as a user types it: its arguments, one line for each failure, exit codes, help and verbose output."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pty
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunnel
from tests.bed.processes import Bed, Finished
from tests.bed.targets import Target, echo
from tests.bed.tunnels import OURS, start_bridge
from tests.client.conftest import answer, wait_for_end
from tunnel._version import __version__
from tunnel.cli.group import COMMANDS
from tunnel.cli.main import RESERVED, main
from tunnel.client.options import OPTIONS

NOWHERE = "ws://127.0.0.1:1/"
REFUSED = "wstunnel-py: 127.0.0.1:1 refused the connection: nothing is listening there"


def nowhere_line(host: str = NOWHERE, *, options: bool = False) -> str:
    """The line about `NOWHERE` for a user who has called it ``host``, with or without ``options``."""
    return f"{REFUSED}; for details: wstunnel-py doctor {host}{', with the same options' * options}\n"


def run(bed: Bed, *words: str, **environ: str) -> Finished:
    return bed.run(*OURS, *words, env=environ)


@pytest.fixture
def bridge(bed: Bed) -> Iterator[str]:
    """The URL of a bridge to an echo target."""
    with Target(echo) as target:
        yield start_bridge(bed, "ours", target.port).url


# ---- commands


def test_a_python_that_is_too_old_gets_one_line(bed: Bed) -> None:
    """As that of Ubuntu 22.04, in a checkout. The version is a pretence, so what is read before is looked at."""
    assert tunnel.__file__ is not None
    for name in ("__init__.py", "__main__.py"):
        tree = ast.parse(Path(tunnel.__file__).with_name(name).read_text(), feature_version=(3, 7))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert not any(isinstance(node.returns, ast.Subscript | ast.BinOp) for node in functions)
    version = "sys.version_info = (3, 10, 4, 'final', 0)"
    pretend = f"import runpy, sys; {version}; runpy.run_module('tunnel', run_name='__main__')"
    finished = bed.run(sys.executable, "-c", pretend)
    said = "wstunnel-py: needs Python 3.11 or later; this is Python 3.10\n"
    assert (finished.status, finished.text, finished.stderr) == (2, "", said)


def test_without_a_word_it_says_what_it_is_for(bed: Bed) -> None:
    finished = run(bed)
    assert (finished.status, finished.stdout) == (2, b"")
    assert "ProxyCommand='wstunnel-py %h'" in finished.stderr


@pytest.mark.parametrize("words", ["", "box", "connect", *sorted(COMMANDS), "pty ps", "keys token", "certs show"])
@pytest.mark.parametrize("option", ["-V", "--version", "-h", "--help"])
def test_every_command_shows_its_version_and_its_options(
    words: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), option]) == 0
    told = capsys.readouterr().out
    if option in ("-V", "--version"):
        assert told == f"wstunnel-py {__version__}\n"
    else:
        assert told.startswith(f"Usage: wstunnel-py {words.removeprefix('box')}".rstrip())
        assert "-h, --help" in told


@pytest.mark.parametrize("group", ["keys", "certs", "pty"])
def test_a_group_of_commands_alone_shows_its_help(bed: Bed, group: str) -> None:
    finished = run(bed, group)
    assert (finished.status, finished.stdout) == (2, b"")
    assert finished.stderr == run(bed, group, "--help").text


@pytest.mark.parametrize(
    ("words", "line"),
    [("completion", "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish; "
      "see wstunnel-py completion --help"),
     ("help nonsense", "there is no command nonsense; see wstunnel-py --help"),
     ("certs shwo x", "there is no command shwo; did you mean show?; see wstunnel-py certs --help"),
     ("certs renew", "missing argument 'FILE…'; see wstunnel-py certs renew --help"),
     ("serve --zzz", "there is no option --zzz; see wstunnel-py serve --help"),
     ("serve --token abc", "there is no option --token; did you mean --token-file?; see wstunnel-py serve --help"),
     ("certs ca --dayz 3 x", "there is no option --dayz; did you mean --days?; see wstunnel-py certs ca --help"),
     ("serve -z", "there is no option -z; see wstunnel-py serve --help")],
)  # fmt: skip
def test_a_mistake_that_click_finds_is_one_line_with_the_next_step(bed: Bed, words: str, line: str) -> None:
    finished = run(bed, *words.split())
    assert (finished.status, finished.stdout, finished.stderr) == (2, b"", f"wstunnel-py: {line}\n")


@pytest.mark.parametrize(
    "words",
    [
        "--target 127.0.0.1:22 serve",
        "--token-file token serve",
        "box serve",
        "-v serve",
        "--url ws://127.0.0.1:1 serve",
    ],
)
def test_a_command_behind_options_or_a_host_must_come_first(bed: Bed, words: str) -> None:
    finished = run(bed, *words.split())
    line = "put the command first: wstunnel-py serve [OPTIONS]…"
    assert (finished.status, finished.stdout, finished.stderr) == (2, b"", f"wstunnel-py: {line}\n")


def test_a_value_or_a_host_behind_dashes_may_be_called_like_a_command(bed: Bed) -> None:
    assert run(bed, "--url", NOWHERE, "--", "serve").stderr.startswith(REFUSED)
    finished = run(bed, "--token-file", "serve", NOWHERE)  # in which folder is the question that follows
    assert re.fullmatch("wstunnel-py: --token-file: cannot use /.*/serve: No such file or directory\n", finished.stderr)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("sever", "serve"), ("verson", "--version"), ("version", "--version"), ("conect", "connect"), ("Shel", "shell"),
     ("docotr", "doctor"), ("config-shh", "config-ssh"), ("tpy", "pty"), ("shh", "ssh"), ("sfpt", "sftp"),
     ("scpp", "scp"), ("rsnyc", "rsync"), ("opne", "open"), ("sandobxes", "sandboxes"),
     ("config_ssh", "config-ssh"), ("ssh-config", "config-ssh"), ("ssh_config", "config-ssh"), ("SSH", "ssh")],
)  # fmt: skip
def test_a_word_that_is_nearly_a_command_is_not_dialled(bed: Bed, word: str, meant: str) -> None:
    finished = run(bed, word, "--listen", "127.0.0.1:0", WSTUNNEL_PY_URL=NOWHERE)
    line = f"there is no command {word}; did you mean {meant}? "
    line += f"(for a host with that name: wstunnel-py connect -- {word})"
    assert (finished.status, finished.stdout, finished.stderr) == (2, b"", f"wstunnel-py: {line}\n")


@pytest.mark.parametrize(
    "words",
    [["connect", "--", "sever"], ["connect", "sever"], ["--", "sever"], ["sever1"], ["sever.e2b"], ["i7x0serve"],
     ["test"], ["box"], ["prod"], ["build"], ["web"], ["dev"], ["sandbox"], ["sandbox1"], ["Sandbox-2"]],
)  # fmt: skip
def test_a_host_that_is_like_no_command_is_dialled(bed: Bed, words: list[str]) -> None:
    assert run(bed, *words, WSTUNNEL_PY_URL=NOWHERE).stderr.startswith(REFUSED)


@pytest.mark.parametrize("name", ["sever", '"*ver"'])
def test_a_host_of_the_config_file_may_be_like_a_command(bed: Bed, tmp_path: Path, name: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts.{name}]\nurl = "{NOWHERE}"\n')
    assert run(bed, "sever", "--config", str(config)).stderr == nowhere_line("sever", options=True)
    assert run(bed, "sever", WSTUNNEL_PY_CONFIG=str(config)).stderr == nowhere_line("sever")
    assert run(bed, "serv", "--config", str(config)).status == 2


@pytest.mark.parametrize("words", [["connect", "--help"], ["box", "-v", "--help"], ["help", "connect"]])
def test_help_shows_every_option_with_its_variable(bed: Bed, words: list[str]) -> None:
    finished = run(bed, *words)
    assert (finished.status, finished.stderr) == (0, "")
    for option in OPTIONS:
        assert (f"--{option.name} " in finished.text) == (not option.hidden)
        assert bool(re.search(rf"{option.variable}\b", finished.text)) == (not option.hidden)


def test_help_of_the_program_fits_on_a_screen_and_names_the_help_of_a_command(bed: Bed) -> None:
    text = run(bed, "--help").text
    assert len(text.splitlines()) <= 40
    assert "wstunnel-py COMMAND --help" in text


def test_help_lists_only_commands_that_exist(bed: Bed) -> None:
    text = run(bed, "--help").text.partition("Commands:")[2].partition("Options:")[0]
    offered = {line.split()[0] for line in text.splitlines() if re.match(r"  \w", line)}
    assert offered == set(COMMANDS)
    assert offered | {"help"} == RESERVED


def test_a_host_with_the_name_of_a_command_can_be_reached(bed: Bed) -> None:
    finished = run(bed, "connect", "--", "serve", WSTUNNEL_PY_URL=NOWHERE)
    assert (finished.status, finished.stderr) == (69, nowhere_line("serve"))


def test_the_short_form_is_the_long_one(bed: Bed) -> None:
    for words in (["box"], ["connect", "box"], ["connect", "--", "box"], ["--", "box"]):
        finished = run(bed, *words, WSTUNNEL_PY_URL=NOWHERE)
        assert (finished.status, finished.stdout, finished.stderr) == (69, b"", nowhere_line(words[-1]))


def test_exactly_one_host_is_required(bed: Bed) -> None:
    usage = "usage: wstunnel-py connect [OPTIONS] [--] HOST\n"
    assert run(bed, "connect").stderr == f"wstunnel-py: HOST is missing; {usage}"
    assert run(bed, "box", "22").stderr == f"wstunnel-py: unexpected '22'; {usage}"


def test_public_names_are_imported_when_they_are_used() -> None:
    for name in tunnel.__all__:
        assert getattr(tunnel, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tunnel.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert importlib.import_module("tunnel").TunnelError.__module__ == "tunnel.errors"


# ---- failures

SANDBOX = json.dumps({"sandboxId": "x", "message": "The sandbox was not found", "code": 502}).encode()


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["https://box.test/"], 2, "https://box.test/: a tunnel's URL must begin with wss://, not https://"),
        (["--port", "x", "box"], 2, "--port: 'x' is not a port number from 1 to 65535"),
        (["--config", "/nonexistent", "box"], 2, "/nonexistent: there is no such file"),
        (["--log-file", "/nonexistent/log", "box"], 2,
         "--log-file: cannot use /nonexistent/log: No such file or directory"),
        (["--ca-file", "/nonexistent", "box"], 2, "--ca-file: cannot use /nonexistent: No such file or directory"),
        ([NOWHERE], 69, nowhere_line().removeprefix("wstunnel-py: ").rstrip()),
        (["--proxy", "http://127.0.0.1:1", "box"], 69,
         "cannot connect to proxy http://127.0.0.1:1: 127.0.0.1:1 refused the connection: nothing is listening there; "
         "the proxy comes from --proxy; --proxy none connects without one"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_and_an_exit_code(bed: Bed, words: list[str], status: int, line: str) -> None:
    finished = run(bed, *words)
    assert (finished.status, finished.stdout, finished.stderr) == (status, b"", f"wstunnel-py: {line}\n")


def test_an_edges_words_reach_the_user(bed: Bed) -> None:
    script = answer("HTTP/1.1 502 Bad Gateway", f"Content-Length: {len(SANDBOX)}", body=SANDBOX, then=wait_for_end)
    with Target(script) as target:
        url = f"ws://127.0.0.1:{target.port}"
        finished = run(bed, url)
    line = f"{url} answered 502: The sandbox was not found; for details: wstunnel-py doctor {url}"
    assert (finished.status, finished.stderr) == (69, f"wstunnel-py: {line}\n")


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> int:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("tunnel.client.proxycommand.run", broken)
    assert main([NOWHERE]) == 70
    assert capsys.readouterr().err == "wstunnel-py: internal error: RuntimeError: two lines (-v shows where)\n"
    assert main(["-v", NOWHERE]) == 70
    shown = capsys.readouterr().err
    assert "\nTraceback (most recent call last):\n" in shown
    assert shown.endswith("wstunnel-py: internal error: RuntimeError: two lines\n")


def test_control_c_while_dialling_ends_it_without_a_word(bed: Bed) -> None:
    with Target(wait_for_end) as target:
        process = bed.start(*OURS, "-v", f"ws://127.0.0.1:{target.port}")
        process.wait_for_line("tcp: connected")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert "Traceback" not in process.log()


def test_a_closed_standard_error_changes_nothing(bed: Bed) -> None:
    finished = bed.run("sh", "-c", 'exec "$@" 2>&-', "sh", *OURS, NOWHERE)
    assert (finished.status, finished.stdout, finished.stderr) == (69, b"", "")


# ---- what it tells


def test_on_a_terminal_it_says_that_ssh_starts_it(bed: Bed) -> None:
    terminal, ours = pty.openpty()
    try:
        process = bed.start(*OURS, NOWHERE, stdin=ours)
        assert process.wait(20) == 69
        quiet = bed.start(*OURS, "--quiet", NOWHERE, stdin=ours)
        assert quiet.wait(20) == 69
    finally:
        os.close(terminal)
        os.close(ours)
    hint = (
        "wstunnel-py: this command is a ProxyCommand for ssh: whatever you type here is sent to the server unchanged\n"
    )
    assert process.log() == hint + nowhere_line()
    assert quiet.log() == f"{REFUSED}\n"


def test_by_default_it_is_silent(bed: Bed, bridge: str) -> None:
    finished = bed.run(*OURS, bridge, stdin=b"hello")
    assert (finished.status, finished.stdout, finished.stderr) == (0, b"hello", "")


def test_each_step_is_logged_with_its_time_and_without_secrets(bed: Bed, bridge: str) -> None:
    environ = {"WSTUNNEL_PY_TOKEN": "hunter2", "WSTUNNEL_PY_HEADER": "X-Key: hunter3"}
    finished = bed.run(*OURS, "-v", "--url", bridge + "/?key=hunter4", "box", stdin=b"hello", env=environ)
    steps = re.findall(r"^wstunnel-py: \[ *\d+\.\d ms\] (\w+): .+$", finished.stderr, re.MULTILINE)
    assert steps[:6] == ["url", "url", "dns", "tcp", "upgrade", "relay"]  # the second tells what is withheld
    assert len(steps) == len(finished.stderr.splitlines())
    assert "hunter" not in finished.stderr


def test_the_log_file_is_private_and_goes_on_where_it_ended(bed: Bed, tmp_path: Path, bridge: str) -> None:
    log = tmp_path / "log"
    for url, status in ((bridge, 0), (NOWHERE, 69)):
        finished = run(bed, "--log-file", str(log), url)
        assert finished.status == status
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \d+ (\[|error: )", line) for line in lines)
    assert len({line.split()[1] for line in lines}) == 2  # two processes
    assert lines[-1].endswith("error: 127.0.0.1:1 refused the connection: nothing is listening there")


def test_a_log_file_that_cannot_be_written_is_given_up(bed: Bed) -> None:
    finished = run(bed, "--log-file", "/dev/full", NOWHERE)
    given_up = "wstunnel-py: cannot write to the log file: No space left on device; logging has stopped\n"
    assert (finished.status, finished.stderr) == (69, given_up + nowhere_line(options=True))


def test_secrets_that_are_withheld_are_reported(bed: Bed) -> None:
    finished = run(bed, "-v", NOWHERE, WSTUNNEL_PY_TOKEN="hunter2", WSTUNNEL_PY_HEADER="X-Key: hunter3")
    assert "] url: not sent to a literal URL: header, token from the environment or the config" in finished.stderr
    assert "hunter" not in finished.stderr


def test_the_config_file_can_ask_for_both(bed: Bed, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('verbose = true\nlog-file = "log"\n')
    finished = run(bed, "--config", str(config), NOWHERE)
    assert "] dns: 127.0.0.1 is 127.0.0.1\n" in finished.stderr
    assert "] dns: 127.0.0.1 is 127.0.0.1\n" in (tmp_path / "log").read_text()


def test_warnings_are_one_line_each_and_can_be_silenced(bed: Bed) -> None:
    warning = "wstunnel-py: warning: the server's certificate is not checked (--insecure)\n"
    assert run(bed, "--insecure", NOWHERE).stderr == warning + nowhere_line(options=True)
    assert run(bed, "--insecure", "-q", NOWHERE).stderr == f"{REFUSED}\n"
