"""``wstunnel-py shell`` on a terminal: keys, signals, closed windows and outages."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.tunnels import OURS
from tests.pty.beds import Service, alive, start_service
from tests.pty.cutting import CuttingProxy
from tests.pty.typist import Typist
from tunnel import Sandbox

PROMPT = "box> "
PLAIN = ("--", "/bin/bash", "--norc", "--noprofile", "-i")


def shell(service: Service, *options: str, command: tuple[str, ...] = PLAIN) -> Typist:
    return Typist(*OURS, "shell", service.url, "-e", f"PS1={PROMPT}", *options, *command)


def remote_pid(typist: Typist) -> int:
    """The pid of the shell in the sandbox."""
    typist.see(PROMPT)
    typist.type("echo pid=$$.\r")
    typist.see("pid=")
    for _ in ticks(20):
        if found := re.search(rb"pid=(\d+)\.", typist.output.data):
            return int(found[1])
    raise AssertionError(typist.output.data)


def ends(pid: int, seconds: float = 20) -> bool:
    return any(not alive(pid) for _ in ticks(seconds))


# ---- the exit code


def test_the_exit_code_is_that_of_the_shell(service: Service) -> None:
    with shell(service, command=()) as typist:
        typist.see("$ " if os.geteuid() else "# ")
        assert typist.is_raw
        typist.type("exit 7\r")
        assert typist.wait() == 7
        assert typist.modes == typist.modes_before


def test_a_signal_in_the_sandbox_is_reported_as_shells_do(service: Service) -> None:
    with shell(service) as typist:
        typist.see(PROMPT)
        typist.type("kill -9 $$\r")
        assert typist.wait() == 128 + 9
        typist.see("\r\nwstunnel-py: the terminal was killed (signal: killed)\r\n")
        assert typist.modes == typist.modes_before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--cwd", "/nonexistent"], "cwd '/nonexistent' does not exist"),
        (["--user", "nobody-knows"], "invalid username: 'nobody-knows'"),
        (["--attach", "2147483647"], "there is no process 2147483647"),
    ],
)
def test_a_terminal_that_does_not_come_about_leaves_ours_alone(service: Service, options: list[str], line: str) -> None:
    command = () if "--attach" in options else PLAIN
    with Typist(*OURS, "shell", service.url, *options, *command) as typist:
        assert typist.wait() == 255
        assert typist.modes == typist.modes_before
        typist.output.wait_for_match(re.escape(line).encode() + rb"[^\n]*\n")
        assert typist.output.data.count(b"\n") == 1


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back_and_leaves_no_orphan(service: Service, number: signal.Signals) -> None:
    with shell(service) as typist:
        pid = remote_pid(typist)
        typist.type("sleep 1000\r")
        typist.see("sleep 1000")
        typist.send_signal(number)
        assert typist.wait() == 128 + number
        assert typist.modes == typist.modes_before
        assert ends(pid)


def test_a_window_that_is_closed_leaves_no_orphan(service: Service) -> None:
    with shell(service) as typist:
        pid = remote_pid(typist)
        typist.hang_up()
        assert typist.wait() == 128 + signal.SIGHUP
        assert ends(pid)


def test_a_client_that_is_killed_leaves_no_orphan_for_long(service: Service) -> None:
    with shell(service, "--grace", "1") as typist:
        pid = remote_pid(typist)
        typist.send_signal(signal.SIGKILL)
        assert typist.wait() == -9
        assert ends(pid)


def test_a_terminal_to_be_kept_goes_on_and_can_be_joined(service: Service) -> None:
    with shell(service, "--keep") as typist:
        pid = remote_pid(typist)
        typist.send_signal(signal.SIGTERM)
        assert typist.wait() == 128 + signal.SIGTERM
    assert alive(pid)
    with Typist(*OURS, "shell", service.url, "--attach", str(pid)) as again:
        again.see(f"pid={pid}.")  # what was shown before
        again.type("exit 8\r")
        assert again.wait() == 8


# ---- escapes


def test_tilde_dot_leaves_and_ends_the_terminal(service: Service) -> None:
    with shell(service) as typist:
        pid = remote_pid(typist)
        typist.type("\r~.")
        assert typist.wait() == 0
        assert typist.modes == typist.modes_before
        assert ends(pid)


def test_tilde_ampersand_leaves_the_terminal_running(service: Service, sandbox: Sandbox) -> None:
    with shell(service, "--grace", "1") as typist:
        pid = remote_pid(typist)
        typist.type("\r~&")
        assert typist.wait() == 0
        typist.see(f"\r\nwstunnel-py: the terminal keeps running; join it again with --attach {pid}")
    for _ in ticks(2.5):
        assert alive(pid)
    assert sandbox.pty.kill(pid)


def test_a_guest_who_leaves_ends_nothing(service: Service, sandbox: Sandbox) -> None:
    with shell(service) as host:
        pid = remote_pid(host)
        with Typist(*OURS, "shell", service.url, "--attach", str(pid)) as guest:
            guest.see(f"pid={pid}.")
            guest.type("~.")
            assert guest.wait() == 0
        host.type("echo still-$((40 + 2))\r")
        host.see("still-42")
        assert sandbox.pty.kill(pid)
        assert host.wait() == 128 + 9


def test_other_escapes_help_or_pass(service: Service) -> None:
    with shell(service) as typist:
        typist.see(PROMPT)
        typist.type("\r~?")
        typist.see("~.  leave and end the terminal\r\n")
        typist.type("~~/x; echo ~.; exit 3\r")
        typist.see("~/x")
        assert typist.wait() == 3


def test_without_an_escape_character_a_tilde_is_a_tilde(service: Service) -> None:
    with shell(service, "--escape", "none") as typist:
        typist.see(PROMPT)
        typist.type("\r~.\r")
        typist.see("~.")
        typist.type("exit 4\r")
        assert typist.wait() == 4


# --- Size, sharing, bytes


def test_the_size_of_the_window_is_that_of_the_terminal(service: Service) -> None:
    script = "stty size; trap 'stty size' WINCH; trap 'exit 3' INT; echo ready; while :; do sleep 0.05; done"
    with Typist(*OURS, "shell", service.url, "--", "/bin/sh", "-c", script, rows=33, cols=99) as typist:
        typist.see("33 99")
        typist.see("ready")
        typist.resize(44, 111)
        typist.see("44 111")
        typist.type("\x03")
        assert typist.wait() == 3


def test_two_shells_share_one_terminal(service: Service) -> None:
    with shell(service) as one:
        pid = remote_pid(one)
        with Typist(*OURS, "shell", service.url, "--attach", str(pid)) as two:
            two.see(f"pid={pid}.")
            one.type("echo from-one-$((1 + 1))\r")
            two.see("from-one-2")
            two.type("echo from-two-$((2 + 2))\r")
            one.see("from-two-4")
            two.type("exit 6\r")
            assert (one.wait(), two.wait()) == (6, 6)


def test_characters_that_are_split_on_the_way_arrive_whole(service: Service) -> None:
    script = "printf 'gr\\303'; sleep 0.3; printf '\\274n \\360\\237'; sleep 0.3; printf '\\230\\200.'"
    with shell(service, command=("--", "/bin/sh", "-c", script)) as typist:
        assert typist.wait() == 0
        typist.see("grün 😀.")


def test_keys_arrive_as_they_are_pressed(service: Service) -> None:
    script = "stty raw -echo; printf ready; head -c 7 | od -An -tx1; stty -raw"
    with shell(service, command=("--", "/bin/sh", "-c", script)) as typist:
        typist.see("ready")
        typist.type("\x03\x04\x1b[A\x00\x7f")
        typist.see("03 04 1b 5b 41 00 7f")
        assert typist.wait() == 0


# ---- outages


def test_an_outage_in_the_middle_of_it_goes_unnoticed(service: Service, tmp_path: Path) -> None:
    with CuttingProxy(service.url) as proxy:
        with Typist(*OURS, "shell", proxy.url, "-e", f"PS1={PROMPT}", *PLAIN) as typist:
            typist.see(PROMPT)
            for n in range(5):
                proxy.cut()
                typist.type(f"echo n{n}- >> {tmp_path}/typed; echo got-$(({n} + 100)).\r")
                typist.see(f"got-{n + 100}.")
            budget = iter((1000, 5000, 20_000))
            proxy.cut_streams = lambda: next(budget, None)
            proxy.cut()
            typist.type("seq 1 20000; exit 5\r")
            assert typist.wait() == 5
            typist.see("20000\r\n")
        shown = typist.output.data
        assert "".join(f"{n}\r\n" for n in range(1, 20001)).encode() in shown
        assert (tmp_path / "typed").read_text() == "".join(f"n{n}-\n" for n in range(5))
        assert b"wstunnel-py" not in shown


def test_what_is_typed_during_an_outage_arrives_after_it(service: Service, tmp_path: Path) -> None:
    with CuttingProxy(service.url) as proxy, Typist(*OURS, "shell", proxy.url, "-e", f"PS1={PROMPT}", *PLAIN) as typist:
        typist.see(PROMPT)
        proxy.away = True
        proxy.cut()
        for word in ("one", "two", "three"):
            typist.type(f"echo {word} >> {tmp_path}/typed\r")
        for _ in ticks(1.0):
            assert not (tmp_path / "typed").exists()
        proxy.away = False
        typist.type("exit 0\r")
        assert typist.wait() == 0
    assert (tmp_path / "typed").read_text().split() == ["one", "two", "three"]


def test_input_whose_answers_are_lost_is_typed_once(service: Service, tmp_path: Path) -> None:
    with CuttingProxy(service.url) as proxy, Typist(*OURS, "shell", proxy.url, "-e", f"PS1={PROMPT}", *PLAIN) as typist:
        typist.see(PROMPT)
        for n in range(5):
            proxy.lose_answers = {"SendInput": 2}
            typist.type(f"echo {n} >> {tmp_path}/typed; echo got-$(({n} + 100)).\r")
            typist.see(f"got-{n + 100}.")
        typist.type("exit 0\r")
        assert typist.wait() == 0
    assert (tmp_path / "typed").read_text().split() == ["0", "1", "2", "3", "4"]


def test_an_outage_that_lasts_ends_with_a_line(service: Service) -> None:
    with (
        CuttingProxy(service.url) as proxy,
        Typist(
            *OURS, "shell", proxy.url, "--reconnect-for", "1", "--grace", "1", "-e", f"PS1={PROMPT}", *PLAIN
        ) as typist,
    ):
        pid = remote_pid(typist)
        proxy.away = True
        proxy.cut()
        assert typist.wait() == 255
        assert typist.modes == typist.modes_before
        line = f"the terminal cannot be reached: gave up after 1 s without a connection to {proxy.url}: "
        typist.see(f"\r\nwstunnel-py: {line}")  # not behind the prompt
        typist.see("; once it can be reached again, pty ps lists what still runs, and --attach joins it\r\n")
        assert ends(pid)


def test_tilde_dot_works_during_an_outage(service: Service) -> None:
    with (
        CuttingProxy(service.url) as proxy,
        Typist(*OURS, "shell", proxy.url, "--grace", "1", "-e", f"PS1={PROMPT}", *PLAIN) as typist,
    ):
        pid = remote_pid(typist)
        proxy.away = True
        proxy.cut()
        typist.type("\r~.")
        assert typist.wait() == 0
        typist.see("the service could not be notified that this client has left")
        assert ends(pid)


def test_a_long_outage_and_its_end_are_reported(service: Service) -> None:
    with CuttingProxy(service.url) as proxy, Typist(*OURS, "shell", proxy.url, "-e", f"PS1={PROMPT}", *PLAIN) as typist:
        typist.see(PROMPT)
        proxy.away = True
        proxy.cut()
        typist.see("\r\nwstunnel-py: connection lost, trying again for 10 min (")
        typist.see("; the terminal itself is ended after 60 s (--grace)\r\n")
        proxy.away = False
        typist.see("\r\nwstunnel-py: connected again after ")
        typist.type("echo still-$((40 + 2)); exit 5\r")
        typist.see("still-42")
        assert typist.wait() == 5
        assert typist.output.data.count(b"wstunnel-py: ") == 2


def test_a_token_that_was_withdrawn_ends_the_connection_with_the_next_step(bed: Bed, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for file in (theirs, ours):
        file.write_text("open-sesame\n")
        file.chmod(0o600)
    guarded = start_service(bed, "--pty-token-file", str(theirs))
    options = ("--token-file", str(ours), "-e", f"PS1={PROMPT}")
    with CuttingProxy(guarded.url) as proxy, Typist(*OURS, "shell", proxy.url, *options, *PLAIN) as typist:
        typist.see(PROMPT)
        theirs.write_text("another-one\n")
        guarded.process.send_signal(signal.SIGHUP)
        guarded.process.wait_for_line("reload")
        proxy.cut()
        assert typist.wait() == 255
        typist.see("the connection to the terminal is over: this client may not resume it: ")
        typist.see(
            f"; it received the token in {ours} (--token-file); with valid credentials --attach can still join it"
        )
