"""A terminal that ``shell --attach`` joins again, in tmux: no answer is typed by itself, and no mode is lost."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import Bed, ticks
from tests.bed.tunnels import OURS
from tests.pty.beds import Service, start_service
from tests.pty.replayed import ASK, QUERIES
from tests.pty.test_shell_tmux import Tmux

SCROLLBACK = 65536  # bytes


class Desk:
    """A local shell in tmux, from which a terminal in the sandbox is left and joined."""

    def __init__(self, tmux: Tmux, service: Service, bed: Bed) -> None:
        self.tmux = tmux
        self._ours = shlex.join([*OURS, "shell", service.url])
        self._count = 0
        box = "-e 'PS1=box> ' -- /bin/bash --norc --noprofile -i"
        (bed.folder / "go").write_text(f"{self._ours} --cwd {bed.folder} {box}\n")
        tmux.open("env", "PS1=home> ", "/bin/bash", "--norc", "--noprofile", "-i")
        tmux.see("^home>$")
        self.run(f". {bed.folder}/go")
        tmux.see("^box>$")
        self.run("echo pid=$$.")
        found = re.search(r"^pid=(\d+)\.$", tmux.see(r"^pid=\d+\.$"), re.MULTILINE)
        assert found
        self.pid = found[1]

    def run(self, command: str) -> None:
        self.tmux.type("-l", command)
        self.tmux.type("Enter")

    def leave(self) -> None:
        """Leave by ``~&``."""
        self.tmux.command("send-keys", "-t", "test", "Enter", "~", "&")
        self.tmux.see("the terminal keeps running")
        self.tmux.see(r"^home>$")

    def join(self, pattern: str) -> None:
        self.run(f"clear; {self._ours} --attach {self.pid}")
        self.tmux.see(pattern)
        for _ in ticks(1.0):
            pass  # what the terminal answers would come now

    def is_clean(self) -> None:
        """See that the shell in the sandbox has been given nothing."""
        self._count += 1
        self.run(f"echo clean-$((40 + {self._count}))")
        screen = self.tmux.see(f"^clean-{40 + self._count}$")
        assert f"box> echo clean-$((40 + {self._count}))\n" in screen
        assert "not found" not in screen and "syntax error" not in screen


@pytest.fixture
def desk(bed: Bed, service: Service, short_folder: Path) -> Iterator[Desk]:
    tmux = Tmux(bed, short_folder, {"PYTHONPATH": os.environ["PYTHONPATH"]})
    try:
        yield Desk(tmux, service, bed)
    finally:
        tmux.close()


@pytest.fixture
def short_desk(bed: Bed, short_folder: Path) -> Iterator[Desk]:
    """A desk whose service keeps little output."""
    tmux = Tmux(bed, short_folder, {"PYTHONPATH": os.environ["PYTHONPATH"]})
    try:
        yield Desk(tmux, start_service(bed, "--pty-scrollback", str(SCROLLBACK)), bed)
    finally:
        tmux.close()


def test_after_vim_nothing_is_typed(desk: Desk) -> None:
    desk.run("vim -u NONE -N")
    desk.tmux.see("^~$")
    desk.tmux.type(":q", "Enter")
    desk.tmux.see(r"^box>$")
    desk.leave()
    desk.join(r"^box>$")
    desk.is_clean()


def test_no_query_of_any_kind_is_answered(desk: Desk, bed: Bed) -> None:
    (bed.folder / "ask.py").write_text(ASK)
    (bed.folder / "queries").write_bytes(b"\r\n".join(QUERIES))
    desk.run(f"{sys.executable} ask.py queries")
    desk.tmux.see("^answers True$")
    desk.leave()
    desk.join("^answers True$")
    desk.is_clean()


def test_vim_continues_in_the_terminal_that_is_joined_again(desk: Desk, bed: Bed) -> None:
    text = bed.folder / "text"
    text.write_text("".join(f"line {n}\n" for n in range(1, 101)))
    desk.run("vim -u NONE -N text")
    desk.tmux.see("^line 1$")
    kill_client(desk)
    desk.join(r"\Aline 1$")
    desk.tmux.type("Down", "Down", "Down", "dd", ":wq", "Enter")
    desk.tmux.see(r"^box>$")
    assert "line 4\n" not in text.read_text() and "line 5\n" in text.read_text()
    desk.is_clean()


def test_the_local_terminal_is_restored_after_leaving_a_full_screen_program(desk: Desk) -> None:
    desk.run(r"printf '\e[?1049h\e[H\e[?1002;1006h\e[?1h\e=full\r\n'; cat")
    desk.tmux.see("^full$")
    names = ("alternate_on", "mouse_button_flag", "keypad_cursor_flag", "keypad_flag")
    state = ",".join(f"#{{{name}}}" for name in names)
    assert desk.tmux.command("display", "-p", "-t", "test", state).strip() == "1,1,1,1"
    desk.leave()
    assert desk.tmux.command("display", "-p", "-t", "test", state).strip() == "0,0,0,0"
    desk.run("echo home-$((40+2))")
    assert "full\n" not in desk.tmux.see("^home-42$")
    desk.join("^full$")
    assert desk.tmux.command("display", "-p", "-t", "test", state).strip() == "1,1,1,1"


def test_a_full_screen_program_comes_back_although_its_beginning_is_lost(short_desk: Desk, bed: Bed) -> None:
    desk = short_desk
    (bed.folder / "text").write_text("".join(f"line {n}\n" for n in range(1, 20001)))
    desk.run("LESS= less text")
    desk.tmux.see("^line 1$")
    for _ in range(40):
        desk.tmux.type(*["Space"] * 20)
    desk.tmux.see(r"\Aline 18401$")  # behind 800 pages of 23 lines
    desk.tmux.type("Up")  # its last output is one line
    before = desk.tmux.see(r"\Aline 18400\n(?:line \d+\n){22}:\s*\Z")
    assert len(re.findall(r"^line \d+$", before, re.MULTILINE)) == 23
    kill_client(desk)
    desk.join(re.escape(before.splitlines()[5]))
    for _ in ticks(30, 0.1):
        if desk.tmux.screen() == before:
            break
    assert desk.tmux.screen() == before
    assert desk.tmux.command("display", "-p", "-t", "test", "#{alternate_on}").strip() == "1"
    desk.tmux.type("q")
    desk.tmux.see(r"^box>$")


def test_modes_that_the_scrollback_has_lost_are_restored(short_desk: Desk) -> None:
    desk = short_desk
    flood = r"head -c 300000 /dev/zero | tr '\0' '\n'"
    desk.run(
        rf"printf '\e[?1h\e=\e[?1002h\e[?1006h\e[?25l\e[4h\e[2;10r\e]2;my title\a\e[32m'; {flood}; echo here; cat -v"
    )
    desk.tmux.see("^here$")
    kill_client(desk)
    desk.join("^here$")
    names = ("keypad_cursor_flag", "keypad_flag", "mouse_button_flag", "mouse_sgr_flag", "insert_flag")
    state = desk.tmux.command("display", "-p", "-t", "test", ",".join(f"#{{{name}}}" for name in names))
    assert state.strip() == "1,1,1,1,1"
    more = "#{cursor_flag},#{scroll_region_upper},#{scroll_region_lower},#{pane_title}"
    assert desk.tmux.command("display", "-p", "-t", "test", more).strip() == "0,1,9,my title"
    assert "\x1b[32mhere" in desk.tmux.command("capture-pane", "-p", "-e", "-t", "test")


def kill_client(desk: Desk) -> None:
    """End the client, whatever runs in the terminal, and leave its screen."""
    (client,) = desk.tmux.command("list-panes", "-F", "#{pane_pid}").split()
    children = Path(f"/proc/{client}/task/{client}/children").read_text().split()
    for child in children:
        os.kill(int(child), 9)
    desk.tmux.see("Killed")
    desk.run(r"stty sane; printf '\e[?1049l\ec\e]2;home\a'")
    desk.tmux.see(r"^home>$")
