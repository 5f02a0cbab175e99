"""How websocat's command lines are read, and the one line for what is not supported."""

from __future__ import annotations

import pytest

from tests.bed.processes import Bed
from tests.bed.tunnels import OURS
from tunnel.errors import UsageError
from tunnel.websocat.command_line import CommandLine
from tunnel.websocat.options import NEEDLESS
from tunnel.websocat.plan import Plan

URL = "ws://127.0.0.1:8081/"
PAIR = ("-", URL)


def plan(*words: str) -> Plan:
    return Plan(CommandLine(words))


@pytest.mark.parametrize(
    "words", [("-B", "10"), ("-B10",), ("-B=10",), ("--buffer-size", "10"), ("--buffer-size=10",), ("-bEB", "10")]
)
def test_a_value_stands_wherever_websocat_takes_it(words: tuple[str, ...]) -> None:
    assert plan(*words, *PAIR).messages.size == 10


def test_headers_follow_one_another_but_no_address_is_taken_for_one() -> None:
    line = CommandLine(["-H", "A: b", "C:d", "-", URL, "--header=E: f", "--server-header", "G: h", "tcp-l:a:1"])
    assert line.several("header") == ["A: b", "C:d", "E: f"]
    assert line.several("server-header") == ["G: h"]
    assert line.operands == ["-", URL, "tcp-l:a:1"]


def test_exec_args_takes_the_rest() -> None:
    line = CommandLine(["ws-l:127.0.0.1:1", "exec:prog", "--exec-args", "-b", "--", "x"])
    assert line.several("exec-args") == ["-b", "--", "x"]


@pytest.mark.parametrize(
    ("words", "sends", "receives"),
    [
        (("-u", *PAIR), None, 0),
        (("-U", *PAIR), 0, None),
        (("-u", URL, "-"), 0, None),
        (("-1", *PAIR), 1, 1),
        (("--max-messages", "3", *PAIR), 3, None),
        (("--max-messages", "3", URL, "-"), None, 3),
        (("--max-messages-rev", "3", "-1", *PAIR), 1, 1),
        (("-u", "ws-l:127.0.0.1:1", "tcp:127.0.0.1:2"), 0, None),
    ],
)
def test_forward_is_from_the_first_address_to_the_second(
    words: tuple[str, ...], sends: int | None, receives: int | None
) -> None:
    options = plan(*words).messages
    assert (options.sends, options.receives) == (sends, receives)


@pytest.mark.parametrize("option", ["-t", "-n", "-u", "-U", "-1", "--max-messages=2", "--close-status-code=4000"])
def test_what_is_about_messages_needs_a_tunnel_without_sessions(option: str) -> None:
    assert not plan(option, "-" if option == "-t" else "unix:x", URL).messages.fit_for_sessions
    assert plan("-bE", *PAIR).messages.fit_for_sessions


@pytest.mark.parametrize("name", NEEDLESS)
def test_an_option_that_changes_nothing_is_explained(name: str) -> None:
    value = ["5"] if NEEDLESS[name][0] else []
    made = plan("-b", f"--{name}", *value, *PAIR)
    assert any(note.startswith(f"--{name}: ") for note in made.notes)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (("-b", "--oneshot", *PAIR), "--oneshot has no effect: this command line does not listen"),
        (("-b", "--restrict-uri=/x", *PAIR), "--restrict-uri has no effect: this command line does not listen for a"),
        (
            ("-b", "-k", "ws-l:127.0.0.1:1", "-"),
            "--insecure has no effect: this command line does not dial a WebSocket",
        ),
        (("-b", "--exec-args", "x"), None),
        (("-b0", *PAIR), "--null-terminated has no effect without --text"),
        (("-b", "--close-reason=x", *PAIR), "--close-reason has no effect without --close-status-code"),
    ],
)
def test_an_option_without_a_use_is_reported(words: tuple[str, ...], note: str | None) -> None:
    if note is None:
        with pytest.raises(UsageError):
            plan(*words)
    else:
        assert any(text.startswith(note) for text in plan(*words).notes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "two addresses are required"),
        (("a", "b", "c"), "two addresses are required"),
        (("tcp:a:1",), "a single address must be a ws:// or wss:// URL"),
        (("-",), "a single address must be"),
        (("-s",), "-s takes one operand"),
        (("-s", "1", "2"), "-s takes one operand"),
        (("-", "-"), "neither - nor - is a WebSocket, and one must be"),
        (("ws://a", "ws://user:secret@b"), "ws: and ws:: this pair is not supported here"),
        (("ws-l:127.0.0.1:1", "tcp-l:127.0.0.1:2"), "this pair is not supported"),
        (("ws://a", "exec:x"), "this pair is not supported"),
        (("-", "ws-c:tcp:a:1"), "the address type ws-c: is not supported here"),
        (("-", "ws-u:ws-l:a:1"), "ws-u: is supported over tcp-l: and unix-l: only"),
        (("-", "word"), "'word' is not an address"),
        (("-", "https://a"), "there is no address type https:"),
        (("stdio:x", URL), "stdio: takes nothing after it"),
        (("ws-l:127.0.0.1:1", "exec:"), "exec: the command is missing"),
        (("-B",), "-B needs a value: BYTES"),
        (("-B", "0", *PAIR), "--buffer-size must be at least 1"),
        (("-B=-1", *PAIR), "'-1' is not a number"),
        (("--oneshot=1", *PAIR), "--oneshot takes no value"),
        (("--unlnik", *PAIR), "there is no option --unlnik; did you mean --unlink?"),
        (("-Z", *PAIR), "there is no option -Z"),
        (("-p", "x", *PAIR), "the option -p (--preamble) is not supported here"),
        (("--pkcs12-der=x", *PAIR), "the option --pkcs12-der is not supported here"),
        (("-uU", "ws-l:127.0.0.1:1", "tcp:a:2"), "leave nothing to transfer"),
        (("--websocket-version", "8", *PAIR), "13 is the only version"),
        (("--close-status-code", "99", *PAIR), "99 is not between 1000 and 4999"),
        (("--conncap", "0", "ws-l:127.0.0.1:1", "-"), "--conncap must be at least 1"),
        (("--restrict-uri", "ws", "ws-l:127.0.0.1:1", "-"), "'ws' is not a path that begins with /"),
        (("--ping-interval", "99999999", *PAIR), "is not a number from 0 to 86400"),
    ],
)
def test_an_impossible_command_line_is_refused_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(*words)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-b", "ws-l:8081", "tcp:127.0.0.1:22"), "ws-l:8081: '8081' is not HOST:PORT"),
        (("-b", "ws-l:127.0.0.1:0", "tcp:22"), "tcp:22: '22' is not HOST:PORT"),
        (("-b", "ws-l:127.0.0.1:0", "tcp::22"), "tcp::22: a host and a port are required"),
        (("-b", "tcp:127.0.0.1:0", URL), "tcp:127.0.0.1:0: a host and a port are required"),
        (("-b", "unix:", URL), "unix:: 'unix:' has no path"),
        (("-b", "--server-header=Upgrade: x", "ws-l:127.0.0.1:0", "-"), "the header Upgrade belongs to the handshake"),
        (("-b", "-H=Host: x", *PAIR), "the header Host belongs to the handshake"),
        (("-b", "--socks5", "nowhere", *PAIR), "--socks5"),
        (("-b", "--ping-interval", "0", *PAIR), "--ping-interval"),
        (("-b", "--basic-auth=a:b", "-", "ws://c:d@127.0.0.1:1/"), "user and password are given twice"),
        (("-b", "--basic-auth-file", "/nowhere", *PAIR), "--basic-auth-file: cannot use /nowhere: No such file"),
    ],
)
def test_what_is_wrong_with_a_value_names_the_user_s_own_word(bed: Bed, words: tuple[str, ...], said: str) -> None:
    finished = bed.run(*OURS, "websocat", *words)
    assert finished.status == 2
    assert finished.stderr.startswith("wstunnel-py: ") and finished.stderr.count("\n") == 1
    assert said in finished.stderr
