"""`tunnel.Sandbox` with the real service: every call, as a program uses it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

import tunnel
from tests.bed.processes import Bed, ticks
from tests.pty.beds import Output, Service, alive, start_service
from tests.pty.raw import eventually
from tunnel import PtySize, Sandbox

CAT = ("/bin/cat",)
SLEEP = ("/bin/sleep", "60")


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


# ---- create


def test_the_shell_is_an_interactive_login_bash(sandbox: Sandbox) -> None:
    output = Output()
    with sandbox.pty.create(on_data=output) as terminal:
        terminal.send_stdin(b"shopt -q login_shell && echo login-$TERM-$LANG; stty size; exit\n")
        assert terminal.wait().exit_code == 0
    assert b"login-xterm-256color-C.UTF-8" in output.data
    assert b"24 80" in output.data


def test_every_option_of_create_arrives(sandbox: Sandbox, tmp_path: Path) -> None:
    terminal = sandbox.pty.create(
        cols=132,
        rows=50,
        envs={"MY_VAR": "hello"},
        cwd=str(tmp_path),
        user="root",
        timeout=30,
        command=sh("stty size; echo $MY_VAR $PWD; id -un"),
    )
    assert b"".join(terminal).split() == [b"50", b"132", b"hello", bytes(tmp_path), b"root"]
    assert terminal.wait().exit_code == 0


def test_a_size_can_be_given_as_one(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=7, cols=9), command=sh("stty size"))
    assert b"".join(terminal) == b"7 9\r\n"


@pytest.mark.parametrize(
    ("script", "code", "signal"), [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", -1, 9)]
)
def test_wait_returns_how_the_terminal_ended(sandbox: Sandbox, script: str, code: int, signal: int | None) -> None:
    result = sandbox.pty.create(command=sh(script)).wait()
    assert (result.exit_code, result.signal) == (code, signal)
    assert (result.error is None) == (code == 0)


def test_the_time_of_a_terminal_ends_it(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(command=SLEEP, timeout=0.5)
    with pytest.raises(tunnel.TerminalError) as caught:
        terminal.wait()
    assert (caught.value.connect_code, caught.value.exit_code) == ("deadline_exceeded", 75)
    assert any(not alive(terminal.pid) for _ in ticks(10))


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"cwd": "/nonexistent"}, "invalid_argument", "cwd '/nonexistent' does not exist"),
        ({"user": "nobody-knows"}, "unauthenticated", "invalid username: 'nobody-knows'"),
    ],
)
def test_create_refuses_unknown_users_and_folders(
    sandbox: Sandbox, options: dict[str, str], code: str, words: str
) -> None:
    with pytest.raises(tunnel.TerminalError, match=words) as caught:
        sandbox.pty.create(command=CAT, **options)  # type: ignore[arg-type]
    assert caught.value.connect_code == code


def test_an_unknown_command_ends_with_127(sandbox: Sandbox) -> None:
    assert sandbox.pty.create(command=("/nonexistent",)).wait().exit_code == 127


@pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 0), (100_000, 80), (24, -1)])
def test_a_size_that_no_terminal_has_is_refused_before_anything_is_sent(sandbox: Sandbox, rows: int, cols: int) -> None:
    with pytest.raises(tunnel.UsageError, match="not a whole number from 1 to 65535"):
        sandbox.pty.create(rows=rows, cols=cols)
    with pytest.raises(tunnel.UsageError, match="not a whole number from 1 to 65535"):
        sandbox.pty.resize(1, rows=rows, cols=cols)


# ---- input and output


def test_iteration_yields_bytes_as_they_are(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(command=sh("stty -echo; printf 'gr\\303'; read _; printf '\\274n \\377'"))
    output = iter(terminal)
    assert next(output) == b"gr\xc3"  # the character was split, and the client does not join it
    terminal.send_stdin(b"\n")
    assert b"".join(output) == b"\xbcn \xff"


def test_iteration_goes_on_after_a_break(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(command=sh("echo one; read _; echo two"))
    seen = b""
    for data in terminal:
        seen += data
        if b"one" in seen:
            break
    terminal.send_input(b"\n")
    rest = b"".join(terminal)
    assert b"two" in rest
    assert terminal.wait().exit_code == 0


def test_wait_takes_a_callback_of_its_own(sandbox: Sandbox) -> None:
    output = Output()
    assert sandbox.pty.create(command=sh("echo hi")).wait(output).exit_code == 0
    assert output.data == b"hi\r\n"


def test_large_input_arrives_once_and_in_order(sandbox: Sandbox) -> None:
    data = b"".join(b"%07d\n" % n for n in range(12_500))  # 100 kB, four calls
    with sandbox.pty.create(command=sh("stty raw -echo; echo ready; head -c 100000 | sha256sum")) as terminal:
        output = iter(terminal)
        seen = b""
        while b"ready" not in seen:
            seen += next(output)
        terminal.send_stdin(data)
        rest = b"".join(output)
    assert hashlib.sha256(data).hexdigest().encode() in rest


def test_resize_reaches_the_program(sandbox: Sandbox) -> None:
    output = Output()
    with sandbox.pty.create(
        command=sh("trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"), on_data=output
    ) as terminal:
        output.wait_for(b"ready")
        terminal.resize(cols=120, rows=40)
        output.wait_for(b"40 120")
        sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=100))
        output.wait_for(b"30 100")
        assert terminal.kill()


# --- Disconnect, connect, kill, list


def test_a_terminal_outlives_its_connection(sandbox: Sandbox) -> None:
    first, second = Output(), Output()
    terminal = sandbox.pty.create(command=CAT, on_data=first)
    terminal.send_stdin(b"hello\n")
    first.wait_for(b"hello\r\nhello\r\n")
    terminal.disconnect()
    with pytest.raises(tunnel.UsageError, match="is disconnected: connect to it again"):
        terminal.wait()
    again = sandbox.pty.connect(terminal.pid, on_data=second)
    again.send_stdin(b"world\n")
    second.wait_for(b"world\r\nworld\r\n")
    again.send_stdin(b"\x04")
    assert again.wait().exit_code == 0
    assert b"world" not in first.data
    assert b"hello" not in second.data


def test_connect_replays_from_an_offset(sandbox: Sandbox) -> None:
    output = Output()
    terminal = sandbox.pty.create(command=sh("stty -echo; echo one; read _; echo two; read _"), on_data=output)
    output.wait_for(b"one\r\n")
    terminal.disconnect()
    assert terminal.offset == 5
    sandbox.pty.send_stdin(terminal.pid, b"\n\n")
    assert b"".join(sandbox.pty.connect(terminal.pid, replay_from=terminal.offset)) == b"two\r\n"
    assert b"".join(sandbox.pty.connect(terminal.pid, replay_from=0)) == b"one\r\ntwo\r\n"


def test_two_connections_see_the_same(service: Service, sandbox: Sandbox) -> None:
    mine, theirs = Output(), Output()
    with sandbox.pty.create(command=CAT, on_data=mine) as terminal, Sandbox(service.url) as other:
        with other.pty.connect(terminal.pid, on_data=theirs) as guest:
            guest.send_stdin(b"shared\n")
            mine.wait_for(b"shared\r\nshared\r\n")
            theirs.wait_for(b"shared\r\nshared\r\n")
            assert guest.kill()
            assert (terminal.wait().signal, guest.wait().signal) == (9, 9)
        assert mine.data == theirs.data


def test_kill_ends_all_that_runs_in_it(sandbox: Sandbox, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! >> {pids}; setsid -w sleep 61 & echo $$ >> {pids}; echo ready; wait"
    output = Output()
    terminal = sandbox.pty.create(command=sh(script), on_data=output)
    output.wait_for(b"ready")
    assert terminal.kill()
    assert terminal.wait().signal == 9
    assert eventually(lambda: not any(map(alive, map(int, pids.read_text().split()))))
    assert not terminal.kill()
    assert not sandbox.pty.kill(terminal.pid)


def test_list_returns_running_processes(sandbox: Sandbox, tmp_path: Path) -> None:
    with sandbox.pty.create(command=SLEEP, cwd=str(tmp_path), envs={"A": "b"}) as terminal:
        (found,) = [each for each in sandbox.pty.list() if each.pid == terminal.pid]
        assert (found.cmd, found.args, found.cwd) == ("/bin/sleep", ("60",), str(tmp_path))
        assert found.envs is not None and found.envs["A"] == "b"
        terminal.kill()
    assert terminal.pid not in [each.pid for each in sandbox.pty.list()]


def test_an_unknown_pid_is_an_error(sandbox: Sandbox) -> None:
    pid = 2**31 - 1
    assert sandbox.pty.kill(pid) is False
    for call in (
        lambda: sandbox.pty.connect(pid),
        lambda: sandbox.pty.send_stdin(pid, b"x"),
        lambda: sandbox.pty.resize(pid, cols=80, rows=24),
    ):
        with pytest.raises(tunnel.TerminalError, match=f"there is no process {pid}") as caught:
            call()
        assert (caught.value.connect_code, caught.value.exit_code) == ("not_found", 69)


# ---- threads


def test_a_callback_may_use_the_terminal(sandbox: Sandbox) -> None:
    done = threading.Event()

    def answer(data: bytes) -> None:
        if b"name?" in data:
            terminal.send_stdin(b"box\n")
        if b"hi box" in data:
            terminal.disconnect()
            done.set()

    terminal = sandbox.pty.create(command=sh("read _; echo name?; read n; echo hi $n; sleep 60"), on_data=answer)
    terminal.send_stdin(b"\n")  # not before the callback can know the terminal
    assert done.wait(20)
    assert sandbox.pty.kill(terminal.pid)


def test_what_a_callback_raises_comes_out_of_wait(sandbox: Sandbox) -> None:
    def broken(_: bytes) -> None:
        raise ZeroDivisionError("in the callback")

    terminal = sandbox.pty.create(command=sh("echo hi; sleep 60"), on_data=broken)
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        terminal.wait()
    assert terminal.kill()


def test_the_output_has_one_reader(sandbox: Sandbox) -> None:
    with sandbox.pty.create(command=CAT, on_data=Output()) as terminal:
        with pytest.raises(tunnel.UsageError, match="already goes to on_data"):
            next(iter(terminal))
        with pytest.raises(tunnel.UsageError, match="already goes to on_data"):
            terminal.wait(Output())
        assert terminal.kill()


def test_disconnect_ends_an_iteration_in_another_thread(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(command=SLEEP)
    ended = threading.Event()

    def read() -> None:
        assert list(terminal) == []
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        terminal.disconnect()
        assert ended.wait(10)
    finally:
        thread.join(20)
        assert sandbox.pty.kill(terminal.pid)


def test_closing_the_sandbox_leaves_no_thread_and_no_connection(service: Service) -> None:
    # What tests before this one have left may go away meanwhile.
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with Sandbox(service.url) as sandbox:
        terminals = [sandbox.pty.create(command=CAT, on_data=Output()) for _ in range(5)]
        pulled = [sandbox.pty.create(command=CAT) for _ in range(5)]
        sandbox.pty.list()
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files
    with Sandbox(service.url) as sandbox:
        assert all(sandbox.pty.kill(terminal.pid) for terminal in terminals + pulled)


def test_thirty_terminals_at_once_keep_their_output_apart(sandbox: Sandbox) -> None:
    outputs = [Output() for _ in range(30)]
    terminals = [sandbox.pty.create(command=CAT, on_data=output) for output in outputs]
    for n, terminal in enumerate(terminals):
        terminal.send_stdin(b"%d\n\x04" % n)
    assert [terminal.wait().exit_code for terminal in terminals] == [0] * 30
    assert [output.data for output in outputs] == [b"%d\r\n%d\r\n" % (n, n) for n in range(30)]


# --- Services that are down or refuse us


def test_a_service_that_refuses_the_connection_is_a_dial_error() -> None:
    with Sandbox("http://127.0.0.1:1") as sandbox:
        began = time.monotonic()
        for call in (sandbox.pty.create, sandbox.pty.list, lambda: sandbox.pty.kill(1)):
            with pytest.raises(tunnel.DialError, match=r"127.0.0.1:1 refused the connection"):
                call()
        assert time.monotonic() - began < 10


def test_calls_without_a_valid_token_are_refused(bed: Bed, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct-horse\n")
    token.chmod(0o600)
    url = start_service(bed, "--pty-token-file", str(token)).url
    with Sandbox(url, token="correct-horse") as sandbox:
        assert sandbox.pty.create(command=sh("exit 3")).wait().exit_code == 3
    for wrong in (None, "battery-staple"):
        with Sandbox(url, token=wrong) as sandbox:
            for call in (lambda: sandbox.pty.create(command=CAT), sandbox.pty.list):
                with pytest.raises(tunnel.TunnelError) as caught:
                    call()
                assert caught.value.exit_code == 77
                assert "battery-staple" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("http://127.0.0.1:49983/", "http://127.0.0.1:49983"),
        ("https://gateway.test/box/", "https://gateway.test/box"),
        ("abc123", "https://49983-abc123.e2b.app"),
        ("49983-abc123.e2b.app", "https://49983-abc123.e2b.app"),
    ],
)
def test_a_sandbox_is_named_by_url_host_or_id(place: str, url: str) -> None:
    with Sandbox(place) as sandbox:
        assert str(sandbox.pty._client.endpoint) == url


@pytest.mark.parametrize("place", ["ws://box.test", "box/../x", "http://user:secret@box.test", "a b", ""])
def test_what_names_no_sandbox_is_refused_without_its_secrets(place: str) -> None:
    with pytest.raises(tunnel.UsageError) as caught:
        Sandbox(place)
    assert "secret" not in str(caught.value)


def test_terminals_that_end_while_nobody_looks_are_still_reported(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(command=sh("echo bye; exit 4"))
    for _ in ticks(10):
        if terminal.pid not in [each.pid for each in sandbox.pty.list()]:
            break
    late = sandbox.pty.connect(terminal.pid, replay_from=0)
    assert b"".join(late) == b"bye\r\n"
    assert (late.wait().exit_code, terminal.wait().exit_code) == (4, 4)
