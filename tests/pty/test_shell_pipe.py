"""``wstunnel-py shell`` in scripts: input from pipes and files, options, settings; and ``pty ps`` and ``pty kill``."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.bed.processes import Bed, Finished, ticks
from tests.bed.tunnels import OURS, start_bridge
from tests.pty.beds import Service, alive, start_service
from tunnel import Sandbox

PLAIN = ("/bin/bash", "--norc", "--noprofile", "-i")


def shell(bed: Bed, service: Service, *words: str, stdin: bytes | Path = b"", **environ: str) -> Finished:
    return bed.run(*OURS, "shell", service.url, *words, stdin=stdin, env=environ)


# ---- input


def test_piped_input_is_typed_and_the_exit_code_comes_back(bed: Bed, service: Service) -> None:
    finished = shell(bed, service, stdin=b"echo sum-$((40 + 2))\nexit 7\n")
    assert (finished.status, finished.stderr) == (7, "")
    assert b"sum-42\r\n" in finished.stdout


@pytest.mark.parametrize("typed", [b"echo hi\n", b"", b"sleep 1\n", b"cat\nend without a line feed"])
def test_the_end_of_the_input_ends_the_shell(bed: Bed, service: Service, typed: bytes) -> None:
    assert shell(bed, service, "--", *PLAIN, stdin=typed).status == 0


def test_what_still_runs_when_the_input_ends_is_waited_for(bed: Bed, service: Service) -> None:
    finished = shell(bed, service, "--", "/bin/sh", "-c", "sleep 1.5; echo late; exit 3", stdin=b"x\n")
    assert (finished.status, b"late" in finished.stdout) == (3, True)


def test_a_file_is_read_to_its_end(bed: Bed, service: Service, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"".join(b"%06d\n" % n for n in range(60_000)))  # 420 kB, many calls
    finished = shell(bed, service, "--", "/bin/sh", "-c", "stty -echo; echo ready; exec wc -lc", stdin=text)
    assert finished.status == 0
    assert finished.stdout.split()[-2:] == [b"60000", b"420000"]


def test_control_d_is_not_typed_on_a_terminal_of_others(bed: Bed, service: Service, sandbox: Sandbox) -> None:
    with sandbox.pty.create(command=("/bin/cat",)) as terminal:
        guest = bed.start(*OURS, "shell", service.url, "--attach", str(terminal.pid), stdin=Path("/dev/null"))
        sandbox.pty.send_stdin(terminal.pid, b"seen\n")
        guest.wait_for_line("seen")
        assert alive(terminal.pid)
        terminal.kill()
        assert guest.wait(20) == 128 + 9


# --- The command, and how it ends


def test_a_command_is_run_with_its_arguments_as_they_are(bed: Bed, service: Service) -> None:
    finished = shell(bed, service, "--", "/usr/bin/printf", "%s\n", "a b", "$HOME", "--help", "~.")
    assert (finished.status, finished.stdout) == (0, b"a b\r\n$HOME\r\n--help\r\n~.\r\n")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_exit_code_is_that_of_the_command(bed: Bed, service: Service, script: str, status: int) -> None:
    assert shell(bed, service, "--", "/bin/sh", "-c", script).status == status


def test_an_unknown_command_ends_with_127(bed: Bed, service: Service) -> None:
    assert shell(bed, service, "--", "/nonexistent").status == 127


def test_options_set_folder_user_and_environment_of_the_terminal(bed: Bed, service: Service, tmp_path: Path) -> None:
    script = "echo $A-$B-$PWD-$(id -un)-$TERM; stty size"
    options = ("--cwd", str(tmp_path), "--user", "root", "-e", "A=1", "--env=B=two words", "--timeout", "30")
    finished = shell(bed, service, *options, "-e", "TERM=xterm-256color", "--", "/bin/sh", "-c", script)
    assert finished.stdout == f"1-two words-{tmp_path}-root-xterm-256color\r\n24 80\r\n".encode()


def test_the_value_of_a_variable_may_have_lines(bed: Bed, service: Service) -> None:
    value = "first=1\n\tsecond ü\n"
    words = ("-e", f"A={value}", "--", "/bin/sh", "-c", 'printf %s "$A" | base64')
    assert base64.b64decode(shell(bed, service, *words).stdout).decode() == value
    assert (
        shell(bed, service, "-e", "A\nB=c").stderr
        == "wstunnel-py: -e: the value has characters that are not printable\n"
    )


@pytest.mark.parametrize(
    ("here", "options", "there"),
    [
        ("xterm-kitty", (), "xterm-kitty"),
        ("dumb", (), "dumb"),
        ("xterm-kitty", ("-e", "TERM=vt100"), "vt100"),
        ("", (), "xterm-256color"),
        ("bad\nvalue", (), "xterm-256color"),
    ],
)
def test_the_type_of_the_terminal_is_passed_on(
    bed: Bed, service: Service, here: str, options: tuple[str, ...], there: str
) -> None:
    words = (*OURS, "shell", service.url, *options, "--", "/bin/sh", "-c", "echo $TERM")
    finished = bed.run(*words, stdin=b"", env={"TERM": here})
    assert (finished.status, finished.text) == (0, f"{there}\r\n")


def test_the_time_of_the_terminal_ends_it(bed: Bed, service: Service) -> None:
    finished = shell(bed, service, "--timeout", "0.5", "--", "/bin/sleep", "60")
    assert finished.status == 255
    assert finished.stderr.startswith("wstunnel-py: the time limit of the terminal or of the call has passed")


def test_a_closed_output_pipe_ends_the_terminal(bed: Bed, service: Service, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; while :; do echo y; sleep 0.01; done"
    command = '"$@" | head -n 3; echo "status ${PIPESTATUS[0]}"'
    words = (*OURS, "shell", service.url, "--", "/bin/sh", "-c", script)
    finished = bed.run("bash", "-c", command, "bash", *words, stdin=b"")
    assert finished.stdout == b"y\r\ny\r\ny\r\nstatus 141\n"
    pid = int((tmp_path / "pid").read_text())
    assert any(not alive(pid) for _ in ticks(20))


def test_a_signal_while_nobody_types_leaves_no_orphan(bed: Bed, service: Service, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; echo ready; sleep 60"
    process = bed.start(*OURS, "shell", service.url, "--", "/bin/sh", "-c", script, stdin=subprocess.PIPE)
    process.wait_for_line("ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    pid = int((tmp_path / "pid").read_text())
    assert any(not alive(pid) for _ in ticks(20))


# ---- where it goes


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["http://127.0.0.1:1"],
         "127.0.0.1:1 refused the connection: nothing is listening there; "
         "start the terminal service there: wstunnel-py serve --pty 127.0.0.1:1"),
        (["http://127.0.0.1"],
         "127.0.0.1:80 refused the connection: nothing is listening there; "
         "start the terminal service there: wstunnel-py serve --pty 127.0.0.1:80; "
         "the URL has no port, so 80 was tried; serve --pty usually listens on 49983"),
        (["--proxy", "http://127.0.0.1:1", "https://box.test"],
         "cannot connect to proxy http://127.0.0.1:1: 127.0.0.1:1 refused the connection: nothing is listening there; "
         "the proxy comes from --proxy; --proxy none connects without one"),
        (["ws://127.0.0.1:1"], "ws://127.0.0.1:1: a terminal service's URL must begin with http:// or https://"),
        (["--foo"], "there is no option --foo; see wstunnel-py shell --help"),
        (["--usr", "x"], "there is no option --usr; did you mean --user?; see wstunnel-py shell --help"),
        (["a", "b"], "unexpected 'b'; usage: wstunnel-py shell [OPTIONS] [HOST] [-- COMMAND [ARGUMENT]…]"),
        (["-e", "A"], "-e: write a variable as NAME=VALUE"),
        (["--attach", "x"], "--attach: 'x' is not a process ID"),
        (["--attach", "7", "--", "ls"],
         "--attach: an existing terminal cannot be given a command, --cwd, --user or --env"),
    ],
)  # fmt: skip
def test_a_failure_of_its_own_is_one_line_and_255(bed: Bed, words: list[str], line: str) -> None:
    finished = bed.run(*OURS, "shell", *words)
    assert (finished.status, finished.stdout, finished.stderr) == (255, b"", f"wstunnel-py: {line}\n")


@pytest.fixture
def guarded(bed: Bed, tmp_path: Path) -> Service:
    """A service that needs a token."""
    (tmp_path / "token").write_text("correct-horse\n")
    (tmp_path / "token").chmod(0o600)
    return start_service(bed, "--pty-token-file", str(tmp_path / "token"))


def test_the_service_and_its_token_come_from_the_environment(bed: Bed, guarded: Service) -> None:
    environ = {"WSTUNNEL_PY_PTY_URL": guarded.url, "WSTUNNEL_PY_PTY_TOKEN": "correct-horse"}
    finished = bed.run(*OURS, "shell", "--", "/bin/echo", "hi", env=environ)
    assert (finished.status, finished.stdout, finished.stderr) == (0, b"hi\r\n", "")


def test_a_literal_url_gets_no_token_that_was_meant_for_others(bed: Bed, guarded: Service, tmp_path: Path) -> None:
    finished = bed.run(*OURS, "shell", guarded.url, env={"WSTUNNEL_PY_PTY_TOKEN": "correct-horse"})
    assert finished.status == 255
    assert re.fullmatch(r"wstunnel-py: http://\S+ refused access: .+\n", finished.stderr)
    assert "correct-horse" not in finished.stderr
    option = bed.run(*OURS, "shell", "--token-file", str(tmp_path / "token"), guarded.url, "--", "/bin/true")
    assert (option.status, option.stderr) == (0, "")


def test_shell_connects_to_a_host_of_the_config_file(bed: Bed, guarded: Service, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[hosts.box]\npty-url = "{guarded.url}"\npty-token-file = "token"\npty-user = "root"\n')
    finished = bed.run(*OURS, "shell", "--config", str(config), "box", "--", "/bin/echo", "hi")
    assert (finished.status, finished.stdout, finished.stderr) == (0, b"hi\r\n", "")


def test_a_refused_host_name_is_no_matter_of_the_token(bed: Bed, guarded: Service) -> None:
    url = guarded.url.replace("127.0.0.1", "box.localhost")
    finished = bed.run(*OURS, "shell", url)
    assert finished.status == 255
    assert finished.stderr == (
        f"wstunnel-py: {url} refused access: unknown host name: "
        "start the service with --pty-host NAME, or use its IP address\n"
    )


def test_a_token_for_a_literal_url_is_not_asked_from_the_environment(bed: Bed, guarded: Service) -> None:
    for words, status in ((["shell"], 255), (["pty", "ps"], 77)):
        finished = bed.run(*OURS, *words, guarded.url)
        assert finished.stderr.endswith("; the service requires a token: --token-file FILE\n")
        assert finished.status == status


def test_tls_where_there_is_none_names_the_other_scheme(bed: Bed, service: Service) -> None:
    finished = bed.run(*OURS, "shell", service.url.replace("http:", "https:"))
    assert finished.status == 255
    assert "the server does not use TLS on that port; a URL without TLS begins with http://" in finished.stderr


def test_bridges_and_terminal_services_are_told_apart(bed: Bed, service: Service) -> None:
    bridge = start_bridge(bed, "ours", 1).url
    finished = bed.run(*OURS, "shell", bridge.replace("ws:", "http:"))
    assert finished.stderr.endswith("; that is a bridge; a terminal service usually has port 49983: serve --pty\n")
    finished = bed.run(*OURS, "connect", service.url.replace("http:", "ws:"))
    assert "; that is a terminal service; a bridge usually has port 8081" in finished.stderr


@pytest.mark.parametrize("words", [["shell"], ["pty", "ps"]])
def test_a_host_whose_terminals_nobody_has_named_is_not_guessed(bed: Bed, tmp_path: Path, words: list[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[hosts.box]\nurl = "wss://box.test/ssh"\n[hosts."*.lab"]\nurl = "wss://{port}-{host}.lab.test"\n'
    )
    for host, name in (("box", "box"), ("one.lab", "one")):
        finished = bed.run(*OURS, *words, "--config", str(config), host)
        entry = "box" if host == "box" else "*.lab"
        remedy = 'url is that of its bridge; add pty-url = "http://MACHINE:49983" beside it, or --url'
        remedy = f"{config}: hosts.{entry}: {remedy}"
        assert finished.stderr == f"wstunnel-py: the terminal service's URL is not known for {name}: {remedy}\n"
        assert finished.status == (255 if words == ["shell"] else 2)
    finished = bed.run(*OURS, *words, "box", env={"WSTUNNEL_PY_URL": "wss://{host}.test"})
    remedy = "WSTUNNEL_PY_URL is that of its bridge; set WSTUNNEL_PY_PTY_URL=http://{host}:49983, or --url"
    assert finished.stderr == f"wstunnel-py: the terminal service's URL is not known for box: {remedy}\n"
    given = bed.run(*OURS, *words, "--config", str(config), "--url", "http://127.0.0.1:1", "box")
    assert "127.0.0.1:1 refused the connection" in given.stderr


def test_a_terminal_that_is_killed_says_so_and_not_to_the_quiet(bed: Bed, service: Service) -> None:
    command = ("--", "/bin/sh", "-c", "kill -9 $$")
    finished = bed.run(*OURS, "shell", service.url, *command)
    assert (finished.status, finished.stderr) == (137, "wstunnel-py: the terminal was killed (signal: killed)\n")
    finished = bed.run(*OURS, "shell", "-q", service.url, *command)
    assert (finished.status, finished.stderr) == (137, "")


# ---- ps and kill


def test_ps_lists_and_kill_ends_what_runs(bed: Bed, service: Service, sandbox: Sandbox, tmp_path: Path) -> None:
    one = sandbox.pty.create(command=("/bin/sleep", "61"), cwd=str(tmp_path))
    two = sandbox.pty.create(command=("/bin/sh", "-c", "sleep 62; true"))
    lines = bed.check(*OURS, "pty", "ps", service.url).text.splitlines()
    assert lines[0].split() == ["PID", "FOLDER", "COMMAND"]
    assert [str(one.pid), str(tmp_path), "/bin/sleep", "61"] in [line.split() for line in lines]
    assert any(re.search(rf"^ *{two.pid} .* /bin/sh -c 'sleep 62; true'$", line) for line in lines)
    bed.check(*OURS, "pty", "kill", service.url, str(one.pid), str(two.pid))
    assert (one.wait().signal, two.wait().signal) == (9, 9)
    again = bed.run(*OURS, "pty", "kill", service.url, str(one.pid))
    assert (again.status, again.stderr) == (69, f"wstunnel-py: there is no process {one.pid}\n")


def test_kill_without_a_pid_shows_its_usage(bed: Bed, service: Service) -> None:
    finished = bed.run(*OURS, "pty", "kill", service.url)
    usage = "PID is missing; usage: wstunnel-py pty kill [OPTIONS] [HOST] PID…"
    assert (finished.status, finished.stderr) == (2, f"wstunnel-py: {usage}\n")


@pytest.mark.parametrize("words", [["shell"], ["pty", "ps"], ["pty", "kill"]])
def test_help_shows_the_options_with_their_variables(bed: Bed, words: list[str]) -> None:
    text = bed.check(*OURS, *words, "--help").text
    assert "--token-file FILE" in text
    assert "WSTUNNEL_PY_PTY_TOKEN_FILE" in re.sub(r"\s+", "", text)


def test_a_shell_that_is_over_as_soon_as_it_began_says_nothing_of_its_own(bed: Bed, guarded: Service) -> None:
    """In whatever order the input and the command end; Python would warn about a coroutine that never ran."""
    environ = {"WSTUNNEL_PY_PTY_URL": guarded.url, "WSTUNNEL_PY_PTY_TOKEN": "correct-horse"}
    for _ in range(5):
        finished = bed.run(*OURS, "shell", "--", "/bin/true", env=environ)
        assert (finished.status, finished.stdout, finished.stderr) == (0, b"", "")
