"""Processes of the service: their environment, how they end, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from tests.pty.beds import Service, alive
from tests.pty.raw import Raw, envelope, eventually, input_message

KILLED = {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"}


def sh(script: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", script


def zombies_of(pid: int) -> list[str]:
    stats = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            stats += [(entry / "stat").read_text()] if entry.name.isdigit() else []
    return [stat for stat in stats if stat.rpartition(")")[2].split()[:2] == ["Z", str(pid)]]


def test_a_terminal_has_its_size_before_its_command_runs(raw: Raw) -> None:
    stream = raw.terminal("/bin/stty", "size", cols=132, rows=43).finish()
    assert stream.output == b"43 132\r\n"
    assert stream.ended == {"exited": True, "status": "exit status 0"}


def test_a_terminal_is_the_controlling_one_and_edits_utf8(raw: Raw) -> None:
    stream = raw.terminal(*sh("echo to-tty >/dev/tty; tty; stty -a")).finish()
    assert b"to-tty\r\n/dev/pts/" in stream.output
    assert b" iutf8" in stream.output


def test_a_terminal_of_unknown_size_is_80_by_24(raw: Raw) -> None:
    assert raw.terminal("/bin/stty", "size", cols=0, rows=0).finish().output == b"24 80\r\n"


def test_a_resize_reaches_the_foreground_program(raw: Raw) -> None:
    stream = raw.terminal(*sh("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"))
    stream.wait_for(b"ready")
    reply = raw.call("Update", {"process": {"pid": stream.pid}, "pty": {"size": {"cols": 100, "rows": 30}}})
    assert (reply.status, reply.json) == (200, {})
    stream.wait_for(b"30 100")


def test_pipes_are_told_apart(raw: Raw) -> None:
    stream = raw.pipes(*sh("echo out; echo err >&2; exit 3")).finish()
    assert {kind: bytes(data) for kind, data in stream.kinds.items()} == {"stdout": b"out\n", "stderr": b"err\n"}
    assert stream.ended == {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"}


def test_input_on_pipes_ends_where_it_is_closed(raw: Raw) -> None:
    stream = raw.pipes("/bin/cat")
    assert raw.send(stream.pid, b"one ", "stdin").json == {}
    assert raw.send(stream.pid, b"two", "stdin").json == {}
    assert raw.call("CloseStdin", {"process": {"pid": stream.pid}}).json == {}
    assert stream.finish().output == b"one two"
    assert stream.ended == {"exited": True, "status": "exit status 0"}


def test_a_process_without_input_reads_the_end_at_once(raw: Raw) -> None:
    stream = raw.pipes("/bin/cat", stdin=False).finish()
    assert stream.ended == {"exited": True, "status": "exit status 0"}


def test_input_in_a_stream_arrives_in_order(raw: Raw) -> None:
    stream = raw.pipes("/bin/cat")
    messages = [{"start": {"process": {"pid": stream.pid}}}, {"keepalive": {}}]
    pieces = [b"%d " % number for number in range(1000)]
    messages += [{"data": {"input": input_message(0, piece, "stdin")["input"]}} for piece in pieces]
    answer = raw.request(
        "POST", "/process.Process/StreamInput", map(envelope, messages), {"Content-Type": "application/connect+json"}
    )
    assert (answer.status, answer.body) == (200, envelope({}) + b"\x02\0\0\0\x02{}")
    raw.call("CloseStdin", {"process": {"pid": stream.pid}})
    assert stream.finish().output == b"".join(pieces)


def test_more_input_than_a_pipe_holds_waits_and_arrives_whole(raw: Raw) -> None:
    stream = raw.pipes(*sh("read go; cat | md5sum"))
    data = bytes(range(256)) * 2048
    raw.send(stream.pid, b"go\n" + data, "stdin")
    raw.call("CloseStdin", {"process": {"pid": stream.pid}})
    assert stream.finish().output.split()[0].decode() == md5(data).hexdigest()


def test_input_that_is_sent_again_with_its_key_is_taken_once(raw: Raw) -> None:
    stream = raw.pipes("/bin/cat")
    for key, data in (("a" * 32, b"1"), ("a" * 32, b"1"), ("b" * 32, b"2"), ("a" * 32, b"1")):
        assert raw.send(stream.pid, data, "stdin", {"Wstunnel-Input": key}).status == 200
    raw.call("CloseStdin", {"process": {"pid": stream.pid}})
    assert stream.finish().output == b"12"


def test_the_environment_is_the_users_with_what_the_client_gives(raw: Raw) -> None:
    stream = raw.pipes("/usr/bin/env", envs={"GIVEN": "a b=c", "LANG": "C.UTF-8"}).finish()
    found = dict(line.split("=", 1) for line in stream.output.decode().splitlines())
    user = pwd.getpwuid(os.geteuid())
    assert found["GIVEN"] == "a b=c"
    assert (found["HOME"], found["USER"], found["LOGNAME"]) == (user.pw_dir, user.pw_name, user.pw_name)
    assert found["PWD"] == user.pw_dir
    assert not [name for name in found if name.startswith("WSTUNNEL_PY_")]
    assert raw.terminal(*sh("echo $TERM")).finish().output == b"xterm-256color\r\n"


@pytest.mark.parametrize(
    ("cwd", "expected"), [("/tmp", "/tmp"), ("~", "~"), (None, "~"), (".", "~"), ("~/..", "~/.."), ("..", "~/..")]
)
def test_the_working_directory_starts_at_home(raw: Raw, cwd: str | None, expected: str) -> None:
    home = pwd.getpwuid(os.geteuid()).pw_dir
    fields: dict[str, Any] = {} if cwd is None else {"cwd": cwd}
    stream = raw.pipes("/bin/pwd", **fields).finish()
    assert stream.output.decode() == os.path.normpath(expected.replace("~", home)) + "\n"


def test_a_missing_command_ends_with_127(raw: Raw) -> None:
    for stream in (raw.terminal("/no/such/command"), raw.pipes("no-such-command")):
        stream.finish()
        assert stream.ended is not None
        assert stream.ended["exitCode"] == 127
        assert b"not found" in stream.output


def test_the_end_comes_behind_all_output(raw: Raw) -> None:
    for _ in range(20):
        assert raw.terminal(*sh("seq 2000")).finish().output.endswith(b"\r\n2000\r\n")


def test_a_process_in_the_background_does_not_keep_the_stream_open(raw: Raw) -> None:
    stream = raw.pipes(*sh("sleep 60 & echo $!")).finish()
    assert stream.ended == {"exited": True, "status": "exit status 0"}
    os.kill(int(stream.output), signal.SIGKILL)


def test_a_process_that_lets_go_of_its_terminal_is_followed_to_its_end(raw: Raw) -> None:
    stream = raw.terminal(*sh("exec <&- >&- 2>&-; sleep 0.3; exit 5")).finish()
    assert stream.ended is not None
    assert stream.ended["exitCode"] == 5


def test_kill_answers_when_the_process_is_gone(raw: Raw) -> None:
    stream = raw.terminal("/bin/sleep", "60")
    assert (raw.kill(stream.pid).status, alive(stream.pid)) == (200, False)
    assert not Path(f"/proc/{stream.pid}").exists()
    assert stream.finish().ended == KILLED
    assert raw.kill(stream.pid).code == "not_found"


def test_terminate_can_be_refused_by_the_process(raw: Raw) -> None:
    stubborn = raw.pipes(*sh("trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done"))
    stubborn.wait_for(b"ready")
    assert raw.kill(stubborn.pid, "SIGNAL_SIGTERM").status == 200
    stubborn.wait_for(b"no")
    assert alive(stubborn.pid)
    raw.kill(stubborn.pid)
    meek = raw.pipes("/bin/sleep", "60")
    raw.kill(meek.pid, "SIGNAL_SIGTERM")
    assert meek.finish().ended == {"exitCode": -1, "status": "signal: terminated", "error": "signal: terminated"}


def test_kill_reaches_every_process_group_of_the_session(raw: Raw) -> None:
    stream = raw.terminal("/bin/bash", "--norc", "-i")
    raw.send(stream.pid, b"sleep 61 & (trap '' HUP TERM; exec sleep 62) & sleep 63\n")
    children = f"/proc/{stream.pid}/task/{stream.pid}/children"
    assert eventually(lambda: len(Path(children).read_text().split()) == 3)
    family = [int(pid) for pid in Path(children).read_text().split()]
    raw.kill(stream.pid)
    assert eventually(lambda: not any(map(alive, family))), family


def test_an_ended_process_is_kept_for_a_late_connect(raw: Raw) -> None:
    stream = raw.pipes(*sh("echo before; exit 4"), tag="late").finish()
    assert stream.pid not in raw.pids()
    for selector in ({"pid": stream.pid}, {"tag": "late"}):
        late = raw.open("Connect", {"process": selector}).finish()
        assert (late.pid, bytes(late.output), late.ended) == (stream.pid, b"", stream.ended)
        assert raw.call("SendInput", {"process": selector, "input": {"stdin": "eA=="}}).code == "not_found"
        assert raw.call("Update", {"process": selector}).code == "not_found"
    missed = raw.connect(stream.pid, {"Wstunnel-Replay-From": "0"}).finish()
    assert (bytes(missed.output), missed.ended) == (b"before\n", stream.ended)


def test_running_processes_are_listed_with_what_they_were_started_with(raw: Raw) -> None:
    stream = raw.pipes("/bin/sleep", "60", envs={"A": "b"}, cwd="/", tag="mine")
    processes = {each["pid"]: each for each in raw.call("List", {}).json["processes"]}
    config = {"cmd": "/bin/sleep", "args": ["60"], "envs": {"A": "b"}, "cwd": "/"}
    assert processes[stream.pid] == {"pid": stream.pid, "tag": "mine", "config": config}
    raw.kill(stream.pid)
    assert stream.pid not in raw.pids()


def test_the_latest_process_has_a_tag_that_two_have(raw: Raw) -> None:
    first, second = (raw.pipes("/bin/sleep", "60", tag="twice") for _ in range(2))
    assert raw.open("Connect", {"process": {"tag": "twice"}}).pid == second.pid
    raw.kill(second.pid)
    assert raw.open("Connect", {"process": {"tag": "twice"}}).pid == first.pid
    raw.kill(first.pid)


def test_a_start_that_is_repeated_starts_nothing(raw: Raw) -> None:
    once = {"Wstunnel-Once": "tag"}
    first = raw.terminal("/bin/sh", "-c", "echo ready; exec cat", headers=once, tag="once")
    first.wait_for(b"ready")
    again = raw.terminal("/bin/sh", "-c", "stty size", headers=once, tag="once", cols=91, rows=31)
    assert again.pid == first.pid
    again.wait_for(b"ready")
    assert raw.terminal("/bin/stty", "size", headers=once, tag="another").finish().output == b"24 80\r\n"
    raw.kill(first.pid)
    assert raw.terminal("/bin/sh", headers=once, tag="once").finish().ended == first.finish().ended
    asked = raw.terminal("/bin/sh", "-c", "echo ready; read line; stty size", headers=once, tag="size")
    asked.wait_for(b"ready")
    raw.terminal("/bin/sh", headers=once, tag="size", cols=91, rows=31)
    raw.send(asked.pid, b"\n")
    asked.wait_for(b"31 91")


@pytest.mark.parametrize(("value", "fields"), [("tag", {}), ("yes", {"tag": "mine"}), ("", {"tag": "mine"})])
def test_a_start_that_wants_to_be_repeated_needs_a_tag(raw: Raw, value: str, fields: dict[str, str]) -> None:
    stream = raw.terminal("/bin/true", headers={"Wstunnel-Once": value}, **fields)
    assert stream.error is not None and stream.error["code"] == "invalid_argument"
    assert "Wstunnel-Once" in stream.error["message"]


def test_nothing_is_left_of_many_processes(raw: Raw, service: Service) -> None:
    server = service.process.pid
    raw.terminal("/bin/true").finish()
    before = len(os.listdir(f"/proc/{server}/fd"))
    threads = len(os.listdir(f"/proc/{server}/task"))
    with Raw(service.url) as own:
        for number in range(50):
            stream = own.terminal("/bin/cat") if number % 2 else own.pipes("/bin/cat")
            own.kill(stream.pid)
            stream.finish()
    assert eventually(lambda: len(os.listdir(f"/proc/{server}/fd")) <= before + 2)
    assert zombies_of(server) == []
    assert len(os.listdir(f"/proc/{server}/task")) == threads
